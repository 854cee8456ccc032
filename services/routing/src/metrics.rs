//! All instruments of a routing (docs/metrics.md). Labels come from closed lists only.

use std::time::Duration;

use causeway_runtime::telemetry::instruments::WAITS;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};
use opentelemetry::{KeyValue, global};

use crate::mailbox::StoreError;
use crate::message::{Class, Ending, Outcome, Rejection};
use crate::trails::Settled;

/// Instruments of a routing; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    submissions: Counter<u64>,
    outcomes: Counter<u64>,
    unanswered: Counter<u64>,
    accepted: Counter<u64>,
    settled: Counter<u64>,
    ended: Counter<u64>,
    fan_out: Histogram<u64>,
    deliveries: Counter<u64>,
    delivery_duration: Histogram<f64>,
    sessions: UpDownCounter<i64>,
    recipients: UpDownCounter<i64>,
    links: UpDownCounter<i64>,
    endings: Counter<u64>,
    moves: Counter<u64>,
    owned: UpDownCounter<i64>,
    claims: Counter<u64>,
    resets: Counter<u64>,
    commits: Histogram<f64>,
    commit_operations: Histogram<u64>,
    store_errors: Counter<u64>,
    expired: Counter<u64>,
    records_fetched: Counter<u64>,
    prekeys_low: Counter<u64>,
    webhooks: Counter<u64>,
    webhook_duration: Histogram<f64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("causeway.routing");
        let counter = |name: &'static str, unit: &'static str, about: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(about).build()
        };
        let level = |name: &'static str, unit: &'static str, about: &'static str| {
            meter.i64_up_down_counter(name).with_unit(unit).with_description(about).build()
        };
        let waits = |name: &'static str, about: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(about);
            histogram.with_boundaries(WAITS.to_vec()).build()
        };
        let sizes = |name: &'static str, unit: &'static str, about: &'static str, bounds: &[f64]| {
            let histogram = meter.u64_histogram(name).with_unit(unit).with_description(about);
            histogram.with_boundaries(bounds.to_vec()).build()
        };
        let metrics = Self {
            submissions: counter("causeway.routing.submissions", "{message}", "Messages that edges have submitted"),
            outcomes: counter("causeway.routing.outcomes", "{message}", "Messages that were answered"),
            unanswered: counter(
                "causeway.routing.unanswered",
                "{message}",
                "Messages of which nothing true could be said; their senders repeat them",
            ),
            accepted: counter(
                "causeway.routing.messages.accepted",
                "{message}",
                "Messages that were accepted: from then on each is under way until it is settled",
            ),
            settled: counter(
                "causeway.routing.messages.settled",
                "{message}",
                "Accepted messages that have reached their end, or wait in the mailbox",
            ),
            ended: counter(
                "causeway.routing.mailbox.ended",
                "{message}",
                "Copies that were in the mailbox and have reached their end",
            ),
            fan_out: sizes(
                "causeway.routing.fan_out",
                "{device}",
                "Devices that a submitted message is for",
                &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0],
            ),
            deliveries: counter("causeway.routing.deliveries", "{message}", "Messages on their way to devices"),
            delivery_duration: waits(
                "causeway.routing.delivery.duration",
                "From giving a message to a session to its device's acknowledgement",
            ),
            sessions: level("causeway.routing.sessions", "{session}", "Sessions that are attached"),
            recipients: level("causeway.routing.recipients", "{recipient}", "Addresses that have an actor in memory"),
            links: level("causeway.routing.links", "{link}", "Links from edges"),
            endings: counter("causeway.routing.endings", "{session}", "Sessions that were told to end"),
            moves: counter("causeway.routing.moves", "{session}", "Sessions that were told to attach elsewhere"),
            owned: level("causeway.routing.accounts.owned", "{account}", "Accounts that this replica owns"),
            claims: counter("causeway.routing.claims", "{account}", "Attempts to own an account"),
            resets: counter(
                "causeway.routing.resets",
                "{account}",
                "Accounts of which all that was known was given up",
            ),
            commits: waits("causeway.routing.mailbox.commit.duration", "Commits of what was to be written together"),
            commit_operations: sizes(
                "causeway.routing.mailbox.commit.operations",
                "{operation}",
                "What was written together",
                &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 4_096.0],
            ),
            store_errors: counter(
                "causeway.routing.mailbox.errors",
                "{operation}",
                "Operations that the store did not do",
            ),
            expired: counter(
                "causeway.routing.mailbox.expired",
                "{message}",
                "Copies that were erased because nobody fetched them in time",
            ),
            records_fetched: counter(
                "causeway.routing.records.fetched",
                "{record}",
                "Records of accounts that were asked for",
            ),
            prekeys_low: counter(
                "causeway.routing.prekeys.low",
                "{device}",
                "Devices that were told that they run low on one-time prekeys",
            ),
            webhooks: counter("causeway.routing.webhooks", "{request}", "Push webhooks"),
            webhook_duration: waits(
                "causeway.routing.webhook.duration",
                "Push webhooks, until the provider has answered",
            ),
        };
        // So that they are there from the beginning.
        for level in [&metrics.sessions, &metrics.recipients, &metrics.links, &metrics.owned] {
            level.add(0, &[]);
        }
        for counter in [&metrics.unanswered, &metrics.moves, &metrics.expired, &metrics.prekeys_low] {
            counter.add(0, &[]);
        }
        for (counter, label, words) in [
            (&metrics.submissions, "class", &["chat", "ephemeral", "call"][..]),
            (&metrics.accepted, "class", &["chat", "ephemeral", "call"]),
            (&metrics.ended, "end", &["acknowledged", "device-removed", "expired"]),
            (&metrics.outcomes, "outcome", &["delivered", "stored", "dropped"]),
            (&metrics.deliveries, "path", &["live", "mailbox"]),
            (&metrics.endings, "reason", &["replaced", "device-removed", "withdrawn", "overloaded"]),
            (&metrics.claims, "result", &["free", "kept", "taken", "held", "failed"]),
            (&metrics.resets, "reason", &["taken", "released", "unknown", "fenced"]),
            (&metrics.store_errors, "reason", &["busy", "closed", "failed", "unknown", "fenced"]),
            (&metrics.webhooks, "result", &["taken", "refused", "gone", "failed", "no-room"]),
        ] {
            words.iter().for_each(|word| counter.add(0, &[KeyValue::new(label, *word)]));
        }
        for class in [Class::Chat, Class::Ephemeral, Class::Call] {
            metrics.settled.add(0, &settled(class, Settled::Acknowledged));
            metrics.settled.add(0, &settled(class, Settled::Unanswered));
        }
        metrics
    }

    /// Tells from now on what `read` gives, as long as it gives something.
    pub(crate) fn observe(
        &self,
        name: &'static str,
        unit: &'static str,
        about: &'static str,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        global::meter("causeway.routing")
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(about)
            .with_callback(move |to| {
                if let Some(value) = read() {
                    to.observe(value, &[]);
                }
            })
            .build();
    }

    /// A message for so many devices has come in.
    pub(crate) fn submitted(&self, class: Class, devices: usize) {
        self.submissions.add(1, &[KeyValue::new("class", class.name())]);
        self.fan_out.record(devices as u64, &[]);
    }

    pub(crate) fn decided(&self, outcome: &Outcome) {
        self.outcomes.add(1, &[KeyValue::new("outcome", outcome.name())]);
    }

    /// Nothing true could be said about a message; its sender's session ends.
    pub(crate) fn left_unanswered(&self) {
        self.unanswered.add(1, &[]);
    }

    pub(crate) fn accepted(&self, class: Class) {
        self.accepted.add(1, &[KeyValue::new("class", class.name())]);
    }

    /// An accepted message is not under way any more.
    pub(crate) fn settled(&self, class: Class, how: Settled) {
        self.settled.add(1, &settled(class, how));
    }

    /// So many copies have left the mailbox: `acknowledged`, `device-removed`, `expired`.
    pub(crate) fn left_mailbox(&self, end: &'static str, copies: u64) {
        self.ended.add(copies, &[KeyValue::new("end", end)]);
    }

    pub(crate) fn delivering(&self, from_mailbox: bool) {
        self.deliveries.add(1, &[KeyValue::new("path", path(from_mailbox))]);
    }

    /// A device has acknowledged what it was given so long ago.
    pub(crate) fn acknowledged(&self, from_mailbox: bool, after: Duration) {
        self.delivery_duration.record(after.as_secs_f64(), &[KeyValue::new("path", path(from_mailbox))]);
    }

    pub(crate) fn session_attached(&self) {
        self.sessions.add(1, &[]);
    }

    pub(crate) fn session_detached(&self) {
        self.sessions.add(-1, &[]);
    }

    pub(crate) fn session_ended(&self, reason: Ending) {
        let name = match reason {
            Ending::Replaced => "replaced",
            Ending::DeviceRemoved => "device-removed",
            Ending::Withdrawn => "withdrawn",
            Ending::BadStanza => "bad-stanza",
            Ending::BadAck => "bad-ack",
            Ending::Overloaded => "overloaded",
        };
        self.endings.add(1, &[KeyValue::new("reason", name)]);
    }

    /// A session is to attach again.
    pub(crate) fn session_moved(&self) {
        self.moves.add(1, &[]);
    }

    /// This replica owns one account more, or one less.
    pub(crate) fn owns(&self, one_more: bool) {
        self.owned.add(if one_more { 1 } else { -1 }, &[]);
    }

    /// An account was claimed, or not: `free`, `kept`, `taken` from another, `held` by another, `failed`.
    pub(crate) fn claimed(&self, result: &'static str) {
        self.claims.add(1, &[KeyValue::new("result", result)]);
    }

    /// All that was known of an account was given up, because `reason`.
    pub(crate) fn reset(&self, reason: &'static str) {
        self.resets.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(crate) fn recipient_loaded(&self) {
        self.recipients.add(1, &[]);
    }

    pub(crate) fn recipient_left(&self) {
        self.recipients.add(-1, &[]);
    }

    pub(crate) fn link_opened(&self) {
        self.links.add(1, &[]);
    }

    pub(crate) fn link_closed(&self) {
        self.links.add(-1, &[]);
    }

    pub(crate) fn committed(&self, operations: usize, took: Duration) {
        self.commits.record(took.as_secs_f64(), &[]);
        self.commit_operations.record(operations as u64, &[]);
    }

    pub(crate) fn store_failed(&self, error: &StoreError) {
        self.store_errors.add(1, &[KeyValue::new("reason", error.reason())]);
    }

    pub(crate) fn expired(&self, copies: u64) {
        self.expired.add(copies, &[]);
        self.left_mailbox("expired", copies);
    }

    pub(crate) fn record_fetched(&self, found: &'static str) {
        self.records_fetched.add(1, &[KeyValue::new("result", found)]);
    }

    pub(crate) fn told_prekeys_low(&self) {
        self.prekeys_low.add(1, &[]);
    }

    /// A webhook was answered after this time, or there was no room for it.
    pub(crate) fn webhook_sent(&self, result: &'static str, took: Option<Duration>) {
        let result = KeyValue::new("result", result);
        self.webhooks.add(1, std::slice::from_ref(&result));
        if let Some(took) = took {
            self.webhook_duration.record(took.as_secs_f64(), &[result]);
        }
    }
}

fn settled(class: Class, how: Settled) -> [KeyValue; 2] {
    [KeyValue::new("class", class.name()), KeyValue::new("state", how.name())]
}

const fn path(from_mailbox: bool) -> &'static str {
    if from_mailbox { "mailbox" } else { "live" }
}

impl Class {
    /// As the protocol writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Ephemeral => "ephemeral",
            Self::Call => "call",
        }
    }
}

impl Outcome {
    /// For metrics and traces.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Stored => "stored",
            Self::Dropped => "dropped",
            Self::Rejected(Rejection::Devices(_)) => "rejected-devices",
            Self::Rejected(Rejection::NotAvailable) => "rejected-not-available",
            Self::Rejected(Rejection::RateLimited { .. } | Rejection::Full { .. }) => "rejected-rate-limited",
            Self::Rejected(Rejection::TooLarge) => "rejected-too-large",
        }
    }
}
