//! Instruments that several crates record to, by the semantic conventions of OpenTelemetry. Made when first used, so after
//! [`start`](super::start).

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::metrics::Histogram;
use opentelemetry::{KeyValue, global};

/// Bounds of the buckets of waits, in seconds: from a look into memory to a time-out.
pub const WAITS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A store that is waited for, as `db.system.name` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store(&'static str);

impl Store {
    /// PostgreSQL.
    pub const POSTGRESQL: Self = Self("postgresql");
    /// Redis, of whatever kind.
    pub const REDIS: Self = Self("redis");
    /// SQLite.
    pub const SQLITE: Self = Self("sqlite");

    /// An operation was waited for; `operation` is a word of a closed list.
    pub fn waited(self, operation: &'static str, took: Duration, failed: bool) {
        static WAITED: OnceLock<Histogram<f64>> = OnceLock::new();
        let histogram =
            WAITED.get_or_init(|| waits("causeway.stores", "db.client.operation.duration", "Waits for a store"));
        let of = [
            KeyValue::new("db.system.name", self.0),
            KeyValue::new("db.operation.name", operation),
            KeyValue::new("error.type", "failed"),
        ];
        histogram.record(took.as_secs_f64(), if failed { &of } else { &of[..2] });
    }
}

/// A call between services was answered. `method` and `status` are names of closed lists.
pub(crate) fn call_served(method: String, status: &'static str, took: Duration) {
    static SERVED: OnceLock<Histogram<f64>> = OnceLock::new();
    let about = "Calls between services, by who answers";
    let histogram = SERVED.get_or_init(|| waits("causeway.grpc", "rpc.server.call.duration", about));
    let of = [
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", method),
        KeyValue::new("rpc.response.status_code", status),
    ];
    histogram.record(took.as_secs_f64(), &of);
}

fn waits(meter: &'static str, name: &'static str, about: &'static str) -> Histogram<f64> {
    let meter = global::meter(meter);
    let histogram = meter.f64_histogram(name).with_unit("s").with_description(about);
    histogram.with_boundaries(WAITS.to_vec()).build()
}
