//! Instruments of TLS between services. Labels come from closed lists only.

use opentelemetry::metrics::Counter;
use opentelemetry::{KeyValue, global};

use super::identity::Role;

/// Who noticed that a handshake failed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Client,
    Server,
}

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    reloads: Counter<u64>,
    failed: Counter<u64>,
    denied: Counter<u64>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let meter = global::meter("causeway.tls");
        let counter = |name: &'static str, unit: &'static str, about: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(about).build()
        };
        let metrics = Self {
            reloads: counter("causeway.tls.reloads", "{reload}", "Certificate files that were there anew"),
            failed: counter("causeway.tls.handshakes.failed", "{handshake}", "Handshakes between services that failed"),
            denied: counter(
                "causeway.tls.calls.denied",
                "{call}",
                "Calls that were refused because their caller's role may not make them",
            ),
        };
        // So that they are there from the beginning.
        for (counter, label, words) in [
            (&metrics.reloads, "result", &["used", "refused"][..]),
            (&metrics.failed, "side", &["client", "server"]),
            (&metrics.denied, "role", &["edge", "routing", "key-directory", "media-relay"]),
        ] {
            words.iter().for_each(|word| counter.add(0, &[KeyValue::new(label, *word)]));
        }
        metrics
    }

    /// Other files were there, and are used or not.
    pub(super) fn reloaded(&self, used: bool) {
        self.reloads.add(1, &[KeyValue::new("result", if used { "used" } else { "refused" })]);
    }

    pub(super) fn handshake_failed(&self, side: Side) {
        let side = match side {
            Side::Client => "client",
            Side::Server => "server",
        };
        self.failed.add(1, &[KeyValue::new("side", side)]);
    }

    /// A role made a call that it may not make.
    pub(crate) fn denied(&self, role: Role) {
        self.denied.add(1, &[KeyValue::new("role", role.name())]);
    }
}
