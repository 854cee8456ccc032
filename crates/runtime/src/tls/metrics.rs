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
        Self {
            reloads: meter.u64_counter("causeway.tls.reloads").with_unit("{reload}").build(),
            failed: meter.u64_counter("causeway.tls.handshakes.failed").with_unit("{handshake}").build(),
            denied: meter.u64_counter("causeway.tls.calls.denied").with_unit("{call}").build(),
        }
    }

    /// Other files were there, and are used or not.
    pub(super) fn reloaded(&self, used: bool) {
        self.reloads.add(1, &[KeyValue::new("outcome", if used { "used" } else { "refused" })]);
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
