//! How many bytes an account gets upload tickets for in a day.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use causeway_identity::AccountId;

use crate::error::RequestError;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Accounts that are counted in one day; beyond it, accounts that are new that day wait for the next.
const MAX_ACCOUNTS: usize = 1_000_000;

/// Counts per account and UTC day, in this process only: a brake, not an account book.
#[derive(Debug)]
pub(crate) struct Quota {
    per_day: u64,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    day: u64,
    used: HashMap<AccountId, u64>,
}

impl Quota {
    /// Allows each account `per_day` bytes.
    pub(crate) fn new(per_day: u64) -> Self {
        Self { per_day, window: Mutex::default() }
    }

    /// Takes `bytes` from the quota of `account`.
    ///
    /// # Errors
    /// [`RequestError::Quota`]; nothing was taken then.
    pub(crate) fn take(&self, account: AccountId, bytes: u64, now_ms: u64) -> Result<(), RequestError> {
        let day = now_ms / DAY_MS;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.day != day {
            *window = Window { day, used: HashMap::new() };
        }
        let exhausted = RequestError::Quota { retry_after: Duration::from_millis(DAY_MS - now_ms % DAY_MS) };
        if window.used.len() >= MAX_ACCOUNTS && !window.used.contains_key(&account) {
            return Err(exhausted);
        }
        let used = window.used.entry(account).or_default();
        let after = used.saturating_add(bytes);
        if after > self.per_day {
            return Err(exhausted);
        }
        *used = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_gets_its_bytes_each_day_and_no_more() {
        let (quota, ada, bo) = (Quota::new(100), AccountId::from_bytes([1; 16]), AccountId::from_bytes([2; 16]));
        assert_eq!(quota.take(ada, 60, 0), Ok(()));
        let hour = DAY_MS - 3_600_000;
        assert_eq!(quota.take(ada, 41, hour), Err(RequestError::Quota { retry_after: Duration::from_secs(3_600) }));
        assert_eq!(quota.take(ada, 40, hour), Ok(()));
        assert_eq!(quota.take(bo, 100, hour), Ok(()));
        assert_eq!(quota.take(ada, 100, DAY_MS), Ok(()));
        assert!(quota.take(ada, u64::MAX, DAY_MS).is_err());
    }
}
