//! What a session is refused for a while, so that nothing overtakes what was refused before it.

use causeway_identity::Address;
use tokio::time::Instant;

use crate::message::{AsWritten, Rejection};

/// Recipients that are remembered as full; with more, everything is refused.
const MAX_FULL: usize = 16;

/// What of a session's messages is refused: what came in before the client could know of a refusal, however late it is
/// decided, and what comes until the client has been given time.
#[derive(Debug, Default)]
pub(super) struct Closed {
    /// All of them.
    all: Option<Refusal>,
    /// Those to one recipient, whose mailbox is full; others are none the worse for it.
    full: Vec<(Address, Refusal)>,
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    /// When the last was given.
    at: Instant,
    until: Instant,
}

impl Refusal {
    fn and(self, later: Self) -> Self {
        Self { at: self.at.max(later.at), until: self.until.max(later.until) }
    }

    /// How many milliseconds a message that came in at `since` has to wait, if it has to.
    fn wait_ms(self, since: Instant, now: Instant) -> Option<u64> {
        let left = self.until.saturating_duration_since(now);
        if left.is_zero() && since > self.at {
            return None;
        }
        Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_add(1))
    }
}

impl Closed {
    /// Refuses all until then.
    pub(super) fn close(&mut self, until: Instant, now: Instant) {
        let refusal = Refusal { at: now, until };
        self.all = Some(self.all.map_or(refusal, |before| before.and(refusal)));
    }

    /// Refuses what is for this recipient until then.
    pub(super) fn close_to(&mut self, to: &AsWritten, until: Instant, now: Instant) {
        // What is no address was never a message's.
        let Ok(to) = to.0.parse::<Address>() else { return self.close(until, now) };
        let refusal = Refusal { at: now, until };
        if let Some((_, before)) = self.full.iter_mut().find(|(full, _)| *full == to) {
            *before = before.and(refusal);
            return;
        }
        if self.full.len() >= MAX_FULL {
            self.full.retain(|(_, refusal)| refusal.until > now);
        }
        if self.full.len() < MAX_FULL {
            self.full.push((to, refusal));
        } else {
            self.close(until, now);
        }
    }

    /// How a message to this recipient, which came in at `since`, is refused, if it is.
    pub(super) fn refusal(&self, to: &AsWritten, since: Instant, now: Instant) -> Option<Rejection> {
        if let Some(retry_after_ms) = self.all.and_then(|refusal| refusal.wait_ms(since, now)) {
            return Some(Rejection::RateLimited { retry_after_ms });
        }
        if self.full.is_empty() {
            return None;
        }
        // The same address may be written in several ways.
        let to = to.0.parse::<Address>().ok()?;
        let (_, refusal) = self.full.iter().find(|(full, _)| *full == to)?;
        refusal.wait_ms(since, now).map(|retry_after_ms| Rejection::Full { retry_after_ms })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn to(number: usize) -> AsWritten {
        AsWritten(format!("\u{e9}{number}@home.example"))
    }

    #[test]
    fn a_full_recipient_closes_itself_and_a_rate_closes_all() {
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_millis(10), now + Duration::from_millis(20));
        let mut closed = Closed::default();
        closed.close_to(&to(1), soon, now);
        assert_eq!(closed.refusal(&to(1), now, now), Some(Rejection::Full { retry_after_ms: 11 }));
        let elsewise = AsWritten("e\u{301}1@home.example".to_owned());
        assert_eq!(closed.refusal(&elsewise, now, now), Some(Rejection::Full { retry_after_ms: 11 }));
        assert_eq!(closed.refusal(&to(2), now, now), None);
        assert_eq!(closed.refusal(&to(1), soon, soon), None);
        closed.close(later, now);
        closed.close(soon, now);
        assert_eq!(closed.refusal(&to(2), soon, soon), Some(Rejection::RateLimited { retry_after_ms: 11 }));
        assert_eq!(closed.refusal(&to(2), later, later), None);
    }

    #[test]
    fn more_full_recipients_than_are_remembered_close_all() {
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_millis(10), now + Duration::from_millis(20));
        let mut closed = Closed::default();
        for number in 0..MAX_FULL {
            closed.close_to(&to(number), soon, now);
        }
        closed.close_to(&to(MAX_FULL), soon, now);
        assert_eq!(closed.refusal(&to(99), now, now), Some(Rejection::RateLimited { retry_after_ms: 11 }));
        // Those that are over make room.
        closed.close_to(&to(MAX_FULL), later, soon);
        assert_eq!(closed.refusal(&to(99), soon, soon), None);
        assert_eq!(closed.refusal(&to(MAX_FULL), soon, soon), Some(Rejection::Full { retry_after_ms: 11 }));
    }

    #[test]
    fn what_came_in_before_a_refusal_is_refused_however_late_it_is_decided() {
        let now = Instant::now();
        let (refused, much_later) = (now + Duration::from_millis(10), now + Duration::from_secs(60));
        let mut closed = Closed::default();
        closed.close(refused, refused);
        assert_eq!(closed.refusal(&to(1), now, much_later), Some(Rejection::RateLimited { retry_after_ms: 1 }));
        assert_eq!(closed.refusal(&to(1), much_later, much_later), None);
    }
}
