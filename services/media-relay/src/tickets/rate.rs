//! How many tickets an account gets.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use causeway_identity::AccountId;

/// Accounts that are remembered at one time: those that got tickets lately. When all of these did, others wait.
const MAX_ACCOUNTS: usize = 100_000;
/// How often, at most, all of them are looked through for those that have waited long enough, in milliseconds.
const SWEEP_EVERY_MS: u64 = 1_000;

/// So many tickets at once for each account, then so many a minute; in this process only.
#[derive(Debug)]
pub(super) struct Rate {
    /// One ticket takes so long to come back, in milliseconds.
    interval_ms: u64,
    /// All of them take so long.
    burst_ms: u64,
    issued: Mutex<Issued>,
}

#[derive(Debug, Default)]
struct Issued {
    /// When each account has all its tickets back, in Unix milliseconds.
    full_again_ms: HashMap<AccountId, u64>,
    next_sweep_ms: u64,
}

impl Rate {
    /// Allows `burst` at once and `per_minute` afterwards; neither is 0.
    pub(super) fn new(burst: u32, per_minute: u32) -> Self {
        let interval_ms = (60_000 / u64::from(per_minute.max(1))).max(1);
        Self { interval_ms, burst_ms: interval_ms * u64::from(burst.max(1)), issued: Mutex::default() }
    }

    /// Takes one ticket of `account`.
    ///
    /// # Errors
    /// How long to wait for one; nothing was taken then.
    pub(super) fn take(&self, account: AccountId, now_ms: u64) -> Result<(), Duration> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if issued.full_again_ms.len() >= MAX_ACCOUNTS && !issued.full_again_ms.contains_key(&account) {
            if now_ms >= issued.next_sweep_ms {
                issued.next_sweep_ms = now_ms.saturating_add(SWEEP_EVERY_MS);
                issued.full_again_ms.retain(|_, full_ms| *full_ms > now_ms);
            }
            if issued.full_again_ms.len() >= MAX_ACCOUNTS {
                return Err(Duration::from_millis(SWEEP_EVERY_MS));
            }
        }
        let full_ms = issued.full_again_ms.entry(account).or_insert(now_ms);
        // A clock that was set back must not make anybody wait for longer than an empty bucket does.
        let owed_ms = full_ms.saturating_sub(now_ms).min(self.burst_ms) + self.interval_ms;
        if owed_ms > self.burst_ms {
            return Err(Duration::from_millis(owed_ms - self.burst_ms));
        }
        *full_ms = now_ms.saturating_add(owed_ms);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_gets_its_burst_and_then_its_rate() {
        let (rate, ada, bo) = (Rate::new(3, 60), AccountId::from_bytes([1; 16]), AccountId::from_bytes([2; 16]));
        for _ in 0..3 {
            assert_eq!(rate.take(ada, 10_000), Ok(()));
        }
        assert_eq!(rate.take(ada, 10_000), Err(Duration::from_secs(1)));
        assert_eq!(rate.take(ada, 10_400), Err(Duration::from_millis(600)));
        assert_eq!(rate.take(bo, 10_400), Ok(()));
        assert_eq!(rate.take(ada, 11_000), Ok(()));
        assert_eq!(rate.take(ada, 11_000), Err(Duration::from_secs(1)));
        assert_eq!(rate.take(ada, 0), Err(Duration::from_secs(1)), "the clock was set back");
        for _ in 0..3 {
            assert_eq!(rate.take(ada, 20_000), Ok(()));
        }
    }

    #[test]
    fn the_map_stays_bounded() {
        let rate = Rate::new(1, 60);
        let account = |n: usize| AccountId::from_bytes((n as u128).to_be_bytes());
        for n in 0..MAX_ACCOUNTS {
            assert_eq!(rate.take(account(n), 0), Ok(()));
        }
        assert_eq!(rate.take(account(MAX_ACCOUNTS), 0), Err(Duration::from_secs(1)));
        assert_eq!(rate.take(account(MAX_ACCOUNTS), 1_000), Ok(()));
        assert_eq!(rate.issued.lock().unwrap().full_again_ms.len(), 1);
    }
}
