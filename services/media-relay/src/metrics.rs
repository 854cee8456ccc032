//! All instruments of the media-relay (docs/metrics.md). Labels come from closed lists only.

use std::sync::OnceLock;
use std::time::Duration;

use causeway_runtime::telemetry::instruments::WAITS;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};
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
    active: UpDownCounter<i64>,
    durations: Histogram<f64>,
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
        let counter = |name: &'static str, unit: &'static str, about: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(about).build()
        };
        let active = meter.i64_up_down_counter("causeway.media.transfers.active").with_unit("{transfer}");
        let durations = meter.f64_histogram("causeway.media.transfer.duration").with_unit("s");
        let metrics = Metrics {
            transfers: counter("causeway.media.transfers", "{transfer}", "Transfers that are over"),
            active: active.with_description("Transfers under way").build(),
            durations: durations
                .with_description("Transfers that are over")
                .with_boundaries([&WAITS[..], &[60.0, 300.0, 900.0]].concat())
                .build(),
            bytes: counter("causeway.media.transferred", "By", "Bytes of ciphertext"),
            tickets: counter("causeway.media.tickets", "{ticket}", "Tickets that were issued"),
            refused: counter("causeway.media.tickets.refused", "{ticket}", "Tickets that were presented and refused"),
            closed: counter(
                "causeway.media.connections.refused",
                "{connection}",
                "Connections for which there was no room",
            ),
            swept: counter("causeway.media.swept", "{object}", "Objects that were erased"),
        };
        // So that they are there from the beginning.
        for direction in [Direction::Upload, Direction::Serve, Direction::Relay] {
            let way = [KeyValue::new("direction", direction.label())];
            metrics.active.add(0, &way);
            metrics.bytes.add(0, &way);
        }
        for (counter, label, words) in [
            (&metrics.closed, "reason", ["total", "network"]),
            (&metrics.swept, "what", ["orphan", "expired"]),
            (&metrics.tickets, "direction", ["upload", "relay"]),
        ] {
            words.iter().for_each(|word| counter.add(0, &[KeyValue::new(label, *word)]));
        }
        metrics
    })
}

impl Metrics {
    pub(crate) fn transfer_began(&self, direction: Direction) {
        self.active.add(1, &[KeyValue::new("direction", direction.label())]);
    }

    /// A transfer is over after this time; `outcome` is a word of a closed list.
    pub(crate) fn transfer_ended(&self, direction: Direction, outcome: &'static str, bytes: u64, took: Duration) {
        let way = KeyValue::new("direction", direction.label());
        self.active.add(-1, std::slice::from_ref(&way));
        self.durations.record(took.as_secs_f64(), std::slice::from_ref(&way));
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
