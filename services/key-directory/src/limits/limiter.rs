//! One rate limit: so many at once, then one in each interval, per key. Each provider's keys have a share of room of
//! their own, so that a provider whose users fill it makes nobody else wait.
//!
//! With Redis, what passes here is told to the other key-directories, and what passes there counts here, some time later
//! (`causeway_redis::counters`).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::ProviderId;
use causeway_redis::counters::{Rates, Shared};
use tokio::time::Instant;

use super::TooFast;
use super::name::{self, Named};

/// Searching a full share for states that can go takes long, so it is done at most this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// What a caller that found no room is told to wait.
pub(super) const NO_ROOM_WAIT: Duration = Duration::from_secs(60);

pub(super) struct Limiter<K> {
    interval: Duration,
    /// How far ahead of the clock a key may be and still pass.
    tolerance: Duration,
    /// Keys of one provider that are kept apart; when all are in use, its new ones are refused rather than unlimited.
    share: usize,
    start: Instant,
    /// Only of registered providers, which are few.
    shares: Mutex<HashMap<ProviderId, Share<K>>>,
    /// What other key-directories count, too. Of keys that have passed here, so that it is no more than the shares hold.
    rates: Option<Arc<Rates<(ProviderId, K)>>>,
}

/// By tokio's clock, which tests can move, as time since the limiter was made.
struct Share<K> {
    /// When each key will be as good as new; each pass moves it by an interval. Keys that are as new need no entry.
    recovered: HashMap<K, Duration>,
    swept: Option<Duration>,
}

impl<K: Hash + Eq + Clone + Named> Limiter<K> {
    pub(super) fn new(burst: u32, interval_ms: u64, share: usize) -> Self {
        let interval = Duration::from_millis(interval_ms.max(1));
        let tolerance = interval.saturating_mul(burst.saturating_sub(1));
        Self { interval, tolerance, share, start: Instant::now(), shares: Mutex::default(), rates: None }
    }

    /// Counts together with other key-directories, under a name of its own.
    pub(super) fn shared(self, kind: &'static str, burst: u32) -> Self {
        let rates = Rates::new(kind, self.interval, burst, name::of);
        Self { rates: Some(Arc::new(rates)), ..self }
    }

    /// For the task that tells the others.
    pub(super) fn to_share(&self) -> Option<Arc<dyn Shared>> {
        self.rates.clone().map(|rates| rates as _)
    }

    /// Forgets what is as good as new.
    pub(super) fn tidy(&self) {
        if let Some(rates) = &self.rates {
            rates.tidy();
        }
    }

    /// Counts one.
    pub(super) fn take(&self, provider: ProviderId, key: K) -> Result<(), TooFast> {
        self.take_here(provider, key.clone())?;
        let Some(rates) = &self.rates else { return Ok(()) };
        let both = (provider, key);
        rates.take(&both, 1).map_err(|retry_after| {
            self.give_back(provider, &both.1);
            TooFast { retry_after }
        })
    }

    /// Counts one that may be given back: other key-directories learn of it by [`Self::tell`].
    pub(super) fn reserve(&self, provider: ProviderId, key: &K) -> Result<(), TooFast> {
        self.take_here(provider, key.clone())?;
        let Some(retry_after) = self.rates.as_ref().and_then(|rates| rates.closed(&(provider, key.clone()))) else {
            return Ok(());
        };
        self.give_back(provider, key);
        Err(TooFast { retry_after })
    }

    /// What was reserved counts.
    pub(super) fn tell(&self, provider: ProviderId, key: K) {
        if let Some(rates) = &self.rates {
            // If the others have used the rest up meanwhile, they need not be told.
            let _used_up = rates.take(&(provider, key), 1);
        }
    }

    fn take_here(&self, provider: ProviderId, key: K) -> Result<(), TooFast> {
        let now = self.start.elapsed();
        let mut shares = self.shares();
        let share = shares.entry(provider).or_insert_with(|| Share { recovered: HashMap::new(), swept: None });
        if let Some(recovered) = share.recovered.get_mut(&key) {
            let ahead = recovered.saturating_sub(now);
            if ahead > self.tolerance {
                return Err(TooFast { retry_after: ahead - self.tolerance });
            }
            *recovered = now + ahead + self.interval;
            return Ok(());
        }
        if share.recovered.len() >= self.share {
            share.sweep(now);
            if share.recovered.len() >= self.share {
                return Err(TooFast { retry_after: NO_ROOM_WAIT });
            }
        }
        share.recovered.insert(key, now + self.interval);
        Ok(())
    }

    /// Takes back what was reserved.
    pub(super) fn give_back(&self, provider: ProviderId, key: &K) {
        let mut shares = self.shares();
        let Some(share) = shares.get_mut(&provider) else { return };
        let Some(recovered) = share.recovered.get_mut(key) else { return };
        *recovered = recovered.saturating_sub(self.interval);
        if *recovered <= self.start.elapsed() {
            share.recovered.remove(key);
        }
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<ProviderId, Share<K>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Share<K> {
    /// Forgets the states that are as good as new.
    fn sweep(&mut self, now: Duration) {
        if self.swept.is_none_or(|last| now >= last + SWEEP_EVERY) {
            self.swept = Some(now);
            self.recovered.retain(|_, recovered| *recovered > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_counts_elsewhere_counts_here() {
        let limiter = Limiter::new(3, 1_000, 100).shared("test", 3);
        let rates = limiter.rates.clone().unwrap();
        limiter.take(ONE, 7_u8).unwrap();
        rates.take(&(ONE, 7), 1).expect("another directory has told of one");
        limiter.reserve(ONE, &7).expect("the third");
        limiter.tell(ONE, 7);
        assert_eq!(limiter.reserve(ONE, &7), Err(TooFast { retry_after: Duration::from_secs(1) }));
        assert_eq!(limiter.take(ONE, 7), Err(TooFast { retry_after: Duration::from_secs(1) }));
        limiter.take(OTHER, 7).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        limiter.take(ONE, 7).unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        limiter.tidy();
        assert!(rates.is_empty());
    }

    const ONE: ProviderId = ProviderId::from_bytes([1; 16]);
    const OTHER: ProviderId = ProviderId::from_bytes([2; 16]);

    #[tokio::test(start_paused = true)]
    async fn some_at_once_then_one_in_each_interval() {
        let limiter = Limiter::new(3, 1_000, 100);
        for _ in 0..3 {
            limiter.take(ONE, 7).unwrap();
        }
        assert_eq!(limiter.take(ONE, 7), Err(TooFast { retry_after: Duration::from_secs(1) }));
        limiter.give_back(ONE, &7);
        limiter.take(ONE, 7).unwrap();
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(limiter.take(ONE, 7), Err(TooFast { retry_after: Duration::from_millis(1) }));
        tokio::time::advance(Duration::from_millis(1)).await;
        limiter.take(ONE, 7).unwrap();
        tokio::time::advance(Duration::from_secs(1_000)).await;
        assert_eq!((0..5).filter(|_| limiter.take(ONE, 7).is_ok()).count(), 3, "what is not used is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_share_is_full_for_its_provider_alone() {
        let limiter = Limiter::new(2, 5_000, 100);
        for key in 0..100 {
            limiter.take(ONE, key).unwrap();
        }
        assert_eq!(limiter.take(ONE, 100), Err(TooFast { retry_after: NO_ROOM_WAIT }));
        limiter.take(ONE, 99).expect("who has a state goes on");
        limiter.give_back(ONE, &0);
        limiter.take(ONE, 100).expect("what is given back makes room");
        assert_eq!(limiter.take(ONE, 101), Err(TooFast { retry_after: NO_ROOM_WAIT }));
        limiter.take(OTHER, 100).expect("another provider has its own room");
        tokio::time::advance(Duration::from_secs(11)).await;
        limiter.take(ONE, 101).expect("states that are as new make room");
        assert_eq!(limiter.shares()[&ONE].recovered.len(), 1);
    }
}
