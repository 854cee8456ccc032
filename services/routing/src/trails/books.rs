//! What has been accepted and is not settled: the books in which each message is to be closed.

use std::collections::HashMap;

use causeway_identity::AccountId;

use crate::message::Seq;

/// Nothing is under way for longer: a window of acknowledgement, a commit and a claim take far less, and when one of them
/// fails, so does the message.
const TOO_LONG_MS: u64 = 60_000;
/// More than can be in memory at a time. What is beyond it is not looked after.
const MAX_OPEN: usize = if cfg!(test) { 8 } else { 1 << 20 };

/// The books of a shard.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// When each was accepted, in Unix milliseconds.
    open: HashMap<(AccountId, Seq), u64>,
}

impl Books {
    pub(super) fn opened(&mut self, account: AccountId, seq: Seq, now_ms: u64) {
        if self.open.len() < MAX_OPEN {
            self.open.insert((account, seq), now_ms);
        }
    }

    pub(super) fn closed(&mut self, account: AccountId, seq: Seq) {
        self.open.remove(&(account, seq));
    }

    pub(super) fn under_way(&self) -> u64 {
        self.open.len() as u64
    }

    /// Open for too long.
    pub(super) fn unaccounted(&self, now_ms: u64) -> u64 {
        self.open.values().filter(|since_ms| since_ms.saturating_add(TOO_LONG_MS) < now_ms).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

    #[test]
    fn what_is_not_closed_in_time_is_told() {
        let mut books = Books::default();
        books.opened(ACCOUNT, Seq(1), 1_000);
        books.opened(ACCOUNT, Seq(2), 1_000);
        books.closed(ACCOUNT, Seq(1));
        books.closed(ACCOUNT, Seq(1));
        assert_eq!((books.under_way(), books.unaccounted(1_000 + TOO_LONG_MS)), (1, 0));
        assert_eq!(books.unaccounted(1_001 + TOO_LONG_MS), 1);
        books.closed(ACCOUNT, Seq(2));
        assert_eq!((books.under_way(), books.unaccounted(u64::MAX)), (0, 0));
    }

    #[test]
    fn they_are_bounded() {
        let mut books = Books::default();
        for n in 0..100 {
            books.opened(ACCOUNT, Seq(n), 0);
        }
        assert_eq!(books.under_way(), MAX_OPEN as u64);
    }
}
