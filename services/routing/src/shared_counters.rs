//! What senders use up, which replicas share if there is a Redis, and under which names (docs/redis.md).

use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Domain};
use causeway_redis::Redis;
use causeway_redis::counters::{self, Rates, Shared};
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::strangers::Strangers;

/// Shares what senders have used up with the other replicas, until `stop`. Each decides by what it knows; nothing ever
/// waits for this.
pub(crate) async fn run(redis: Redis, limits: &Limits, strangers: &Strangers, stop: CancellationToken) {
    let rates: Vec<Arc<dyn Shared>> = vec![
        Arc::clone(&limits.sent.accounts) as _,
        Arc::clone(&limits.sent.providers) as _,
        Arc::clone(&strangers.refused.accounts) as _,
        Arc::clone(&strangers.refused.providers) as _,
    ];
    counters::sync(redis, rates, stop).await;
}

/// How much of one kind a sender may use up.
pub(crate) struct Rate {
    /// Its name in Redis.
    pub(crate) kind: &'static str,
    /// At once.
    pub(crate) burst: u32,
    /// So many more in each `time`; the configuration's check has refused zeros.
    pub(crate) count: u32,
    pub(crate) time: Duration,
}

impl Rate {
    pub(crate) const fn each_second(kind: &'static str, count: u32, burst: u32) -> Self {
        Self { kind, burst, count, time: Duration::from_secs(1) }
    }
}

/// What accounts and their providers have used up of one kind. What is idle is forgotten by [`SenderRates::tidy`], so that
/// the maps hold recent senders only.
#[derive(Debug)]
pub(crate) struct SenderRates {
    pub(crate) accounts: Arc<Rates<AccountId>>,
    pub(crate) providers: Arc<Rates<Domain>>,
}

impl SenderRates {
    pub(crate) fn new(each_account: &Rate, each_provider: &Rate) -> Self {
        let interval = |rate: &Rate| rate.time / rate.count.max(1);
        let accounts = Rates::new(each_account.kind, interval(each_account), each_account.burst, account);
        let providers = Rates::new(each_provider.kind, interval(each_provider), each_provider.burst, provider);
        Self { accounts: Arc::new(accounts), providers: Arc::new(providers) }
    }

    /// Forgets senders whose allowance is full again.
    pub(crate) fn tidy(&self) {
        self.accounts.tidy();
        self.providers.tidy();
    }
}

/// An account's name in Redis.
fn account(account: &AccountId) -> String {
    hex::encode(account.as_bytes())
}

/// A provider's name in Redis.
fn provider(domain: &Domain) -> String {
    domain.as_str().to_owned()
}

/// How long a sender is told to wait.
pub(crate) fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// One of this provider, for tests.
#[cfg(test)]
pub(crate) fn sender(account: u8, provider: &str) -> crate::message::Sender {
    crate::message::Sender {
        account: AccountId::from_bytes([account; 16]),
        device: causeway_identity::DeviceId::new(1).unwrap(),
        address: format!("u{account}@{provider}").parse().unwrap(),
        provider: provider.parse().unwrap(),
    }
}
