//! Which rates the replicas share, and under which names (docs/redis.md).

use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Domain};
use causeway_redis::Redis;
use causeway_redis::counters::{self, Shared};
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::strangers::Strangers;

/// Shares what senders have used up with the other replicas, until `stop`. Each decides by what it knows; nothing ever
/// waits for this.
pub(crate) async fn run(redis: Redis, limits: &Limits, strangers: &Strangers, stop: CancellationToken) {
    let rates: Vec<Arc<dyn Shared>> = vec![
        Arc::clone(&limits.accounts) as _,
        Arc::clone(&limits.providers) as _,
        Arc::clone(&strangers.accounts) as _,
        Arc::clone(&strangers.providers) as _,
    ];
    counters::sync(redis, rates, stop).await;
}

/// An account's name in Redis.
pub(crate) fn account(account: &AccountId) -> String {
    hex::encode(account.as_bytes())
}

/// A provider's name in Redis.
pub(crate) fn provider(domain: &Domain) -> String {
    domain.as_str().to_owned()
}

/// How long a sender is told to wait.
pub(crate) fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}
