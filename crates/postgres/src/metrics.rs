//! How busy the connections are, for whoever asks for metrics (docs/metrics.md).

use std::sync::{Arc, Weak};

use opentelemetry::{KeyValue, global};

use crate::pool::{PoolStatus, Shared};

/// Tells of the connections of this name from now on, as long as they are there.
pub(crate) fn observe(shared: &Arc<Shared>, name: &str) {
    let meter = global::meter("causeway.stores");
    let pool = KeyValue::new("db.client.connection.pool.name", name.to_owned());
    let status = |shared: &Weak<Shared>| shared.upgrade().map(|shared| shared.status());
    let (of_count, name) = (Arc::downgrade(shared), pool.clone());
    meter
        .u64_observable_gauge("db.client.connection.count")
        .with_unit("{connection}")
        .with_description("Connections to PostgreSQL")
        .with_callback(move |to| {
            let Some(PoolStatus { open, idle, .. }) = status(&of_count) else { return };
            let used = open.saturating_sub(idle);
            for (state, count) in [("idle", idle), ("used", used)] {
                to.observe(count as u64, &[name.clone(), KeyValue::new("db.client.connection.state", state)]);
            }
        })
        .build();
    let of_waiting = Arc::downgrade(shared);
    meter
        .u64_observable_gauge("db.client.connection.pending_requests")
        .with_unit("{request}")
        .with_description("Who waits for a connection to PostgreSQL")
        .with_callback(move |to| {
            if let Some(status) = status(&of_waiting) {
                to.observe(status.waiting as u64, std::slice::from_ref(&pool));
            }
        })
        .build();
}
