//! One rate limit: so many at once, then one in each interval, per key. Each provider's keys have a share of room of
//! their own, so that a provider whose users fill it makes nobody else wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::ProviderId;
use tokio::time::Instant;

use super::TooFast;

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
}

/// By tokio's clock, which tests can move, as time since the limiter was made.
struct Share<K> {
    /// When each key will be as good as new; each pass moves it by an interval. Keys that are as new need no entry.
    recovered: HashMap<K, Duration>,
    swept: Option<Duration>,
}

impl<K: Hash + Eq> Limiter<K> {
    pub(super) fn new(burst: u32, interval_ms: u64, share: usize) -> Self {
        let interval = Duration::from_millis(interval_ms.max(1));
        let tolerance = interval.saturating_mul(burst.saturating_sub(1));
        Self { interval, tolerance, share, start: Instant::now(), shares: Mutex::default() }
    }

    /// Counts one.
    pub(super) fn take(&self, provider: ProviderId, key: K) -> Result<(), TooFast> {
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

    /// Takes back the count of one.
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
