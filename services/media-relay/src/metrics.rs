//! All instruments of the media-relay: `causeway.media.<noun>`, labels from closed lists.

use std::sync::OnceLock;

use opentelemetry::metrics::Counter;
use opentelemetry::{KeyValue, global};

use crate::shares::Full;

/// Which way ciphertext went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Client to host role.
    Upload,
    /// Host role to a relay.
    Serve,
    /// Provider's host through the relay role to a client.
    Relay,
}

impl Direction {
    const fn label(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Serve => "serve",
            Self::Relay => "relay",
        }
    }
}

/// The instruments.
#[derive(Debug)]
pub(crate) struct Metrics {
    transfers: Counter<u64>,
    bytes: Counter<u64>,
    tickets: Counter<u64>,
    refused: Counter<u64>,
    swept: Counter<u64>,
    closed: Counter<u64>,
}

/// The process's instruments.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = global::meter("causeway.media");
        Metrics {
            transfers: meter.u64_counter("causeway.media.transfers").with_unit("{transfer}").build(),
            bytes: meter.u64_counter("causeway.media.transferred").with_unit("By").build(),
            tickets: meter.u64_counter("causeway.media.tickets").with_unit("{ticket}").build(),
            refused: meter.u64_counter("causeway.media.tickets_refused").with_unit("{ticket}").build(),
            closed: meter.u64_counter("causeway.media.connections_refused").with_unit("{connection}").build(),
            swept: meter.u64_counter("causeway.media.swept").with_unit("{object}").build(),
        }
    })
}

impl Metrics {
    /// A transfer is over; `outcome` is a word of a closed list.
    pub(crate) fn transfer_ended(&self, direction: Direction, outcome: &'static str, bytes: u64) {
        let way = KeyValue::new("direction", direction.label());
        self.bytes.add(bytes, std::slice::from_ref(&way));
        self.transfers.add(1, &[way, KeyValue::new("outcome", outcome)]);
    }

    /// A ticket was issued.
    pub(crate) fn ticket_issued(&self, direction: Direction) {
        self.tickets.add(1, &[KeyValue::new("direction", direction.label())]);
    }

    /// A ticket was presented and refused; `reason` is a word of a closed list.
    pub(crate) fn ticket_refused(&self, reason: &'static str) {
        self.refused.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A connection was closed because there was no room for it.
    pub(crate) fn connection_refused(&self, full: Full) {
        let reason = match full {
            Full::Total => "total",
            Full::Share => "network",
        };
        self.closed.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// The sweep removed something; `what` is a word of a closed list.
    pub(crate) fn swept(&self, what: &'static str, count: u64) {
        self.swept.add(count, &[KeyValue::new("what", what)]);
    }
}
