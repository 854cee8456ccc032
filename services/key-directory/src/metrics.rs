//! All instruments of the key-directory (docs/metrics.md). Labels come from closed lists only.

use opentelemetry::metrics::{Counter, UpDownCounter};
use opentelemetry::{KeyValue, global};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered,
    /// The answer is a refusal, which is normal traffic.
    Refused,
    /// We could not answer.
    Failed,
}

/// Counters; cloning gives another handle.
#[derive(Clone)]
pub(crate) struct Metrics {
    calls: Counter<u64>,
    prekeys_taken: Counter<u64>,
    key_fetches: Counter<u64>,
    rate_limited: Counter<u64>,
    followers: UpDownCounter<i64>,
    followers_cut: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("causeway.key_directory");
        let counter = |name: &'static str, unit: &'static str, description: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(description).build()
        };
        let followers = meter.i64_up_down_counter("causeway.key_directory.followers").with_unit("{follower}");
        let metrics = Self {
            calls: counter("causeway.key_directory.calls", "{call}", "Calls"),
            prekeys_taken: counter("causeway.key_directory.prekeys.taken", "{key}", "Keys in claimed bundles"),
            key_fetches: counter("causeway.key_directory.key.fetches", "{request}", "Fetches of providers' token keys"),
            rate_limited: counter("causeway.key_directory.rate_limited", "{call}", "Calls that were refused by a rate"),
            followers: followers.with_description("Routings that follow changes").build(),
            followers_cut: counter(
                "causeway.key_directory.followers.cut",
                "{follower}",
                "Followers that were cut off because they fell behind",
            ),
        };
        // So that they are there from the beginning.
        metrics.followers.add(0, &[]);
        metrics.followers_cut.add(0, &[]);
        for outcome in ["kept", "failed"] {
            metrics.key_fetches.add(0, &[KeyValue::new("outcome", outcome)]);
        }
        for method in ["Claim", "Discover", "Enlist", "Publish"] {
            metrics.rate_limited.add(0, &[KeyValue::new("method", method)]);
        }
        metrics
    }

    pub(crate) fn call_ended(&self, method: &'static str, ended: Ended) {
        let outcome = match ended {
            Ended::Answered => "answered",
            Ended::Refused => "refused",
            Ended::Failed => "failed",
        };
        self.calls.add(1, &[KeyValue::new("method", method), KeyValue::new("outcome", outcome)]);
    }

    /// `false`: the device had none left of this kind.
    pub(crate) fn bundle_claimed(&self, one_time_ec: bool, one_time_kyber: bool) {
        for (kind, one_time) in [("ec", one_time_ec), ("kyber", one_time_kyber)] {
            let use_of = if one_time { "one_time" } else { "fallback" };
            self.prekeys_taken.add(1, &[KeyValue::new("kind", kind), KeyValue::new("use", use_of)]);
        }
    }

    pub(crate) fn keys_fetched(&self, succeeded: bool) {
        self.key_fetches.add(1, &[KeyValue::new("outcome", if succeeded { "kept" } else { "failed" })]);
    }

    pub(crate) fn rate_limited(&self, method: &'static str) {
        self.rate_limited.add(1, &[KeyValue::new("method", method)]);
    }

    /// Counts a follower until the guard is dropped.
    pub(crate) fn follows(&self) -> Follows {
        self.followers.add(1, &[]);
        Follows(self.followers.clone())
    }

    pub(crate) fn follower_cut(&self) {
        self.followers_cut.add(1, &[]);
    }
}

/// One follower.
pub(crate) struct Follows(UpDownCounter<i64>);

impl Drop for Follows {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}
