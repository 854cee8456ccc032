//! Rate limits of the directory, each per key, in memory: a restart forgives.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId, ProviderId};
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::config::DirectoryConfig;

/// Searching a full limiter for states that can go takes long, so it is done at most this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// What a caller that found no room is told to wait.
const NO_ROOM_WAIT: Duration = Duration::from_secs(60);

/// All limiters of the directory.
pub(crate) struct Limits {
    enlist_address: Limiter<Address>,
    enlist_provider: Limiter<ProviderId>,
    publish: Limiter<(AccountId, DeviceId)>,
    claim: Limiter<(AccountId, DeviceId, AccountId)>,
}

/// Too much; the time after which it may work again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFast {
    pub(crate) retry_after: Duration,
}

impl Limits {
    pub(crate) fn new(config: &DirectoryConfig) -> Self {
        let states = config.limiter_states;
        Self {
            enlist_address: Limiter::new(config.enlist_burst, config.enlist_interval_ms, states),
            enlist_provider: Limiter::new(config.enlist_provider_burst, config.enlist_provider_interval_ms, states),
            publish: Limiter::new(config.publish_burst, config.publish_interval_ms, states),
            claim: Limiter::new(config.claim_burst, config.claim_interval_ms, states),
        }
    }

    /// One enlistment. The address counts first, so that one user cannot use up the provider's share.
    pub(crate) fn enlist(&self, address: &Address, provider: ProviderId) -> Result<(), TooFast> {
        self.enlist_address.one(address)?;
        self.enlist_provider.one(&provider)
    }

    /// One publication of prekeys.
    pub(crate) fn publish(&self, account: AccountId, device: DeviceId) -> Result<(), TooFast> {
        self.publish.one(&(account, device))
    }

    /// One claim of `target`'s bundles by a device.
    pub(crate) fn claim(&self, from: AccountId, device: DeviceId, target: AccountId) -> Result<(), TooFast> {
        self.claim.one(&(from, device, target))
    }
}

struct Limiter<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, DashMapStateStore<K>, Uptime, NoOpMiddleware<Duration>>,
    clock: Uptime,
    /// States that are kept; when all are in use, new keys are refused rather than unlimited.
    max_states: usize,
    swept: Mutex<Option<Instant>>,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    fn new(burst: u32, interval_ms: u64, max_states: usize) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let interval = Duration::from_millis(interval_ms.max(1));
        let quota = Quota::with_period(interval).expect("the interval is not zero").allow_burst(burst);
        let clock = Uptime { start: Instant::now() };
        let limiter = RateLimiter::new(quota, DashMapStateStore::default(), clock);
        Self { limiter, clock, max_states, swept: Mutex::new(None) }
    }

    fn one(&self, key: &K) -> Result<(), TooFast> {
        if self.limiter.len() >= self.max_states {
            self.sweep();
            if self.limiter.len() >= self.max_states {
                return Err(TooFast { retry_after: NO_ROOM_WAIT });
            }
        }
        self.limiter.check_key(key).map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            TooFast { retry_after: wait.max(Duration::from_millis(1)) }
        })
    }

    /// Forgets the states that are as good as new.
    fn sweep(&self) {
        let now = Instant::now();
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|last| now >= last + SWEEP_EVERY) {
            *swept = Some(now);
            self.limiter.retain_recent();
        }
    }
}

/// Time since the limiter was made, by tokio's clock, which tests can move.
#[derive(Debug, Clone, Copy)]
struct Uptime {
    start: Instant,
}

impl Clock for Uptime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn six_claims_at_once_then_one_in_ten_minutes() {
        let limits = Limits::new(&DirectoryConfig::default());
        let ids = |n: u8| (AccountId::from_bytes([n; 16]), DeviceId::new(1).unwrap());
        let (from, device) = ids(1);
        let (target, _) = ids(2);
        for _ in 0..6 {
            limits.claim(from, device, target).unwrap();
        }
        let refused = limits.claim(from, device, target).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(600));
        assert!(limits.claim(from, DeviceId::new(2).unwrap(), target).is_ok(), "another device has its own share");
        assert!(limits.claim(from, device, ids(3).0).is_ok(), "another target has its own share");
        let mut passed = 6;
        for _ in 0..943 {
            tokio::time::advance(Duration::from_secs(60)).await;
            passed += u32::from(limits.claim(from, device, target).is_ok());
        }
        assert_eq!(passed, 100, "a hundred keys last 15.7 hours");
    }

    #[tokio::test(start_paused = true)]
    async fn enlistments_count_per_address_and_per_provider() {
        let config = DirectoryConfig {
            enlist_provider_burst: 10,
            enlist_provider_interval_ms: 60_000,
            ..DirectoryConfig::default()
        };
        let limits = Limits::new(&config);
        let provider = ProviderId::from_bytes([1; 16]);
        let address = |n: u32| format!("user{n}@birdy.example").parse().unwrap();
        for _ in 0..6 {
            limits.enlist(&address(0), provider).unwrap();
        }
        assert_eq!(limits.enlist(&address(0), provider).unwrap_err().retry_after, Duration::from_secs(20));
        for n in 1..5 {
            limits.enlist(&address(n), provider).unwrap();
        }
        assert_eq!(limits.enlist(&address(9), provider).unwrap_err().retry_after, Duration::from_secs(60));
        assert!(limits.enlist(&address(9), ProviderId::from_bytes([2; 16])).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn states_that_are_as_new_make_room() {
        let limiter: Limiter<usize> = Limiter::new(1, 5_000, 100);
        for key in 0..100 {
            limiter.one(&key).unwrap();
        }
        assert_eq!(limiter.one(&100), Err(TooFast { retry_after: NO_ROOM_WAIT }));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(limiter.one(&100).is_ok());
        assert!(limiter.limiter.len() < 10);
    }
}
