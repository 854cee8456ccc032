//! What a session is refused, so that nothing overtakes what was refused before it.
//!
//! A message that is refused for a while comes again later. What its sender has under way behind it was sent before the
//! refusal was known; were any of that let in, it would overtake. By time alone the two cannot be told apart, since
//! either side may stand still for as long as it likes. So the edge counts: each message names the *generation* of its
//! session's messages to this recipient, which rises once the edge has heard of a refusal and of the end of everything
//! that was under way (docs/replicas.md, "Messages that are refused for a while").

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use causeway_identity::Address;
use tokio::time::Instant;

use crate::message::Rejection;

/// Recipients that are remembered; with more, all are closed.
const MAX_RECIPIENTS: usize = 64;

/// Recipients are remembered by a number that nobody outside can foresee: senders choose addresses, long ones too.
static NUMBERS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Up to which generation a session's messages are refused.
#[derive(Debug, Default)]
pub(super) struct Closed {
    all: Option<Refusal>,
    to: Vec<(u64, Refusal)>,
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    /// This generation and all before it.
    upto: u32,
    /// What the sender is told to wait for.
    until: Instant,
}

impl Refusal {
    fn and(self, other: Self) -> Self {
        Self { upto: self.upto.max(other.upto), until: self.until.max(other.until) }
    }

    fn of(self, generation: u32, now: Instant) -> Option<Rejection> {
        let left = self.until.saturating_duration_since(now);
        let retry_after_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        // An edge that does not count yet says 0: time has to do.
        let refused = if generation == 0 { !left.is_zero() } else { generation <= self.upto };
        refused.then_some(Rejection::RateLimited { retry_after_ms })
    }
}

impl Closed {
    /// A message of this generation was refused until then.
    pub(super) fn close(&mut self, to: &Address, generation: u32, until: Instant) {
        let (to, refusal) = (NUMBERS.hash_one(to), Refusal { upto: generation, until });
        if let Some((_, before)) = self.to.iter_mut().find(|(closed, _)| *closed == to) {
            *before = before.and(refusal);
        } else if self.to.len() < MAX_RECIPIENTS {
            self.to.push((to, refusal));
        } else {
            self.all = Some(self.all.map_or(refusal, |before| before.and(refusal)));
        }
    }

    /// How a message of this generation is refused, if it is. Asked in the order of the session's messages to the recipient.
    pub(super) fn refusal(&mut self, to: &Address, generation: u32) -> Option<Rejection> {
        if self.all.is_none() && self.to.is_empty() {
            return None;
        }
        self.refusal_at(to, generation, Instant::now())
    }

    fn refusal_at(&mut self, to: &Address, generation: u32, now: Instant) -> Option<Rejection> {
        if let Some(refused) = self.all.and_then(|refusal| refusal.of(generation, now)) {
            return Some(refused);
        }
        if self.to.is_empty() {
            return None;
        }
        let to = NUMBERS.hash_one(to);
        let index = self.to.iter().position(|(closed, _)| *closed == to)?;
        let refused = self.to[index].1.of(generation, now);
        if refused.is_none() {
            // Generations rise: nothing of an earlier one comes any more.
            self.to.swap_remove(index);
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn to(number: usize) -> Address {
        format!("bo{number}@home.example").parse().unwrap()
    }

    #[test]
    fn what_was_sent_before_a_refusal_was_known_is_refused_however_late_it_comes() {
        let now = Instant::now();
        let (until, much_later) = (now + Duration::from_millis(10), now + Duration::from_secs(60));
        let mut closed = Closed::default();
        assert_eq!(closed.refusal_at(&to(1), 1, now), None);
        closed.close(&to(1), 1, until);
        assert_eq!(closed.refusal_at(&to(1), 1, now), Some(Rejection::RateLimited { retry_after_ms: 11 }));
        assert_eq!(closed.refusal_at(&to(1), 1, much_later), Some(Rejection::RateLimited { retry_after_ms: 1 }));
        // Others are none the worse for it.
        assert_eq!(closed.refusal_at(&to(2), 1, now), None);
        // What was sent after it is let in, at once.
        assert_eq!(closed.refusal_at(&to(1), 2, now), None);
        closed.close(&to(1), 2, until);
        assert_eq!(closed.refusal_at(&to(1), 2, much_later), Some(Rejection::RateLimited { retry_after_ms: 1 }));
    }

    #[test]
    fn an_edge_that_does_not_count_is_refused_for_a_time() {
        let now = Instant::now();
        let until = now + Duration::from_millis(10);
        let mut closed = Closed::default();
        closed.close(&to(1), 0, until);
        assert!(closed.refusal_at(&to(1), 0, now).is_some());
        assert_eq!(closed.refusal_at(&to(1), 0, until), None);
    }

    #[test]
    fn more_recipients_than_are_remembered_close_all() {
        let now = Instant::now();
        let mut closed = Closed::default();
        for number in 0..MAX_RECIPIENTS {
            closed.close(&to(number), 3, now);
        }
        assert_eq!(closed.refusal_at(&to(99), 3, now), None);
        closed.close(&to(MAX_RECIPIENTS), 3, now);
        assert!(closed.refusal_at(&to(99), 3, now).is_some());
        assert_eq!(closed.refusal_at(&to(99), 4, now), None);
    }
}
