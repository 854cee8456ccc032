//! How many refusals a sender may collect: an account or a provider that asks for many addresses which are not
//! available may ask for no more strangers for a while.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::{AccountId, Address, Domain};
use moka::sync::Cache;
use tokio::time::Instant;

use crate::config::RoutingConfig;
use crate::message::Sender;

/// Pairs of sender and recipient that are known to have exchanged something; the least used are forgotten.
const MAX_FAMILIAR: u64 = 200_000;

/// Refusals of senders, and whom they have reached.
#[derive(Debug)]
pub(crate) struct Strangers {
    accounts: Allowances<AccountId>,
    providers: Allowances<Domain>,
    /// The address is hashed with a secret: two of them are as good as never the same.
    familiar: Cache<(AccountId, u64), ()>,
    hasher: RandomState,
}

impl Strangers {
    pub(crate) fn new(config: &RoutingConfig) -> Self {
        Self {
            accounts: Allowances::new(config.account_refusals_per_hour, config.account_refusal_burst),
            providers: Allowances::new(config.provider_refusals_per_hour, config.provider_refusal_burst),
            familiar: Cache::new(MAX_FAMILIAR),
            hasher: RandomState::new(),
        }
    }

    /// The sender has reached this address; later messages to it are always looked at.
    pub(crate) fn reached(&self, sender: &Sender, address: &Address) {
        let pair = self.pair(sender, address);
        if self.familiar.get(&pair).is_none() {
            self.familiar.insert(pair, ());
        }
    }

    /// May the sender learn anything about this address? An error is how many milliseconds to wait.
    pub(crate) fn may_ask(&self, sender: &Sender, address: &Address) -> Result<(), u64> {
        let now = Instant::now();
        let closed = self.accounts.closed(&sender.account, now).max(self.providers.closed(&sender.provider, now));
        match closed {
            Some(_) if sender.address == *address || self.familiar.get(&self.pair(sender, address)).is_some() => Ok(()),
            Some(wait) => Err(milliseconds(wait)),
            None => Ok(()),
        }
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, sender: &Sender) {
        let now = Instant::now();
        // The account only within what its provider has: so the provider's bounds this map too.
        if self.providers.take(&sender.provider, now) {
            self.accounts.take(&sender.account, now);
        }
    }

    /// Forgets senders whose allowance is full again.
    pub(crate) fn tidy(&self) {
        let now = Instant::now();
        self.accounts.tidy(now);
        self.providers.tidy(now);
    }

    fn pair(&self, sender: &Sender, address: &Address) -> (AccountId, u64) {
        (sender.account, self.hasher.hash_one(address))
    }
}

/// So many at once, and one more in each interval; unlike a limiter's, what is left can be seen without taking of it.
#[derive(Debug)]
struct Allowances<K> {
    interval: Duration,
    burst: Duration,
    /// When the allowance of each is full again.
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Clone + Eq + Hash> Allowances<K> {
    fn new(per_hour: u32, burst: u32) -> Self {
        // The configuration's check has refused zeros.
        let interval = HOUR / per_hour.max(1);
        Self { interval, burst: interval * burst.max(1), full_at: Mutex::default() }
    }

    /// How long until there is something left, if there is nothing.
    fn closed(&self, key: &K, now: Instant) -> Option<Duration> {
        let full_at = self.full_at().get(key).copied()?;
        let missing = full_at.saturating_duration_since(now) + self.interval;
        missing.checked_sub(self.burst).filter(|wait| !wait.is_zero())
    }

    /// Takes one; false when there is none left.
    fn take(&self, key: &K, now: Instant) -> bool {
        if self.closed(key, now).is_some() {
            return false;
        }
        let mut all = self.full_at();
        let full_at = all.entry(key.clone()).or_insert(now);
        *full_at = (*full_at).max(now) + self.interval;
        true
    }

    fn tidy(&self, now: Instant) {
        let mut all = self.full_at();
        all.retain(|_, full_at| *full_at > now);
        all.shrink_to_fit();
    }

    fn full_at(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const HOUR: Duration = Duration::from_secs(60 * 60);

fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use causeway_identity::DeviceId;

    use super::*;

    fn sender(account: u8, provider: &str) -> Sender {
        Sender {
            account: AccountId::from_bytes([account; 16]),
            device: DeviceId::new(1).unwrap(),
            address: format!("u{account}@{provider}").parse().unwrap(),
            provider: provider.parse().unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_and_its_provider_may_collect_so_many_refusals() {
        let config = RoutingConfig {
            account_refusals_per_hour: 60,
            account_refusal_burst: 2,
            provider_refusals_per_hour: 3_600,
            provider_refusal_burst: 3,
            ..RoutingConfig::default()
        };
        let strangers = Strangers::new(&config);
        let (ada, bo, eve) = (sender(1, "birdy.example"), sender(2, "birdy.example"), sender(3, "other.example"));
        let (friend, stranger) = ("friend@home.example".parse().unwrap(), "stranger@home.example".parse().unwrap());
        strangers.reached(&ada, &friend);
        strangers.refused(&ada);
        assert!(strangers.may_ask(&ada, &stranger).is_ok());
        strangers.refused(&ada);
        assert_eq!(strangers.may_ask(&ada, &stranger), Err(60_001));
        assert!(strangers.may_ask(&ada, &friend).is_ok(), "it has been reached");
        assert!(strangers.may_ask(&ada, &ada.address).is_ok(), "own devices");
        assert!(strangers.may_ask(&bo, &stranger).is_ok(), "another account");
        strangers.refused(&bo);
        assert_eq!(strangers.may_ask(&bo, &stranger), Err(1_001), "the provider's are used up");
        assert!(strangers.may_ask(&eve, &stranger).is_ok(), "another provider");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(strangers.may_ask(&bo, &stranger).is_ok());
        strangers.tidy();
        assert!(strangers.may_ask(&ada, &stranger).is_err(), "tidying forgets only who is idle");
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(strangers.may_ask(&ada, &stranger).is_ok());
        strangers.refused(&ada);
        assert!(strangers.may_ask(&ada, &stranger).is_err(), "one an interval from then on");
        tokio::time::advance(Duration::from_secs(120)).await;
        strangers.tidy();
        assert!(strangers.accounts.full_at().is_empty() && strangers.providers.full_at().is_empty());
    }
}
