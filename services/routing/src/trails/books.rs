//! What has been accepted and is not settled: the books in which each message is to be closed.

use std::time::Duration;

use causeway_identity::AccountId;
use tokio::time::Instant;

use crate::keyed::KeyedMap;
use crate::message::Seq;

/// Nothing is under way for longer: a window of acknowledgement, a commit and a claim take far less, and when one of them
/// fails, so does the message.
const TOO_LONG: Duration = Duration::from_secs(60);
/// More than can be in memory at a time. What is beyond it is not looked after.
const MAX_OPEN: usize = if cfg!(test) { 8 } else { 1 << 20 };

/// The books of a shard.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// When each was accepted, by a clock that nobody sets: were it the time of day, a jump would hide what is lost, or raise
    /// an alarm for nothing.
    open: KeyedMap<(AccountId, Seq), Instant>,
}

impl Books {
    pub(super) fn opened(&mut self, account: AccountId, seq: Seq, now: Instant) {
        if self.open.len() < MAX_OPEN {
            self.open.insert((account, seq), now);
        }
    }

    pub(super) fn closed(&mut self, account: AccountId, seq: Seq) {
        self.open.remove(&(account, seq));
    }

    pub(super) fn under_way(&self) -> u64 {
        self.open.len() as u64
    }

    /// Open for too long.
    pub(super) fn unaccounted(&self, now: Instant) -> u64 {
        self.open.values().filter(|since| now.saturating_duration_since(**since) > TOO_LONG).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

    #[test]
    fn what_is_not_closed_in_time_is_told() {
        let (mut books, now) = (Books::default(), Instant::now());
        books.opened(ACCOUNT, Seq(1), now);
        books.opened(ACCOUNT, Seq(2), now);
        books.closed(ACCOUNT, Seq(1));
        books.closed(ACCOUNT, Seq(1));
        assert_eq!((books.under_way(), books.unaccounted(now + TOO_LONG)), (1, 0));
        let later = now + TOO_LONG + Duration::from_millis(1);
        assert_eq!(books.unaccounted(later), 1);
        books.closed(ACCOUNT, Seq(2));
        assert_eq!((books.under_way(), books.unaccounted(later)), (0, 0));
    }

    #[test]
    fn they_are_bounded() {
        let mut books = Books::default();
        for n in 0..100 {
            books.opened(ACCOUNT, Seq(n), Instant::now());
        }
        assert_eq!(books.under_way(), MAX_OPEN as u64);
    }
}
