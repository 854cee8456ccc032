//! What a session is refused for a while, so that nothing overtakes what was refused before it.

use causeway_identity::Address;
use tokio::time::Instant;

use crate::message::{AsWritten, Rejection};

/// Recipients that are remembered as full; with more, everything is refused.
const MAX_FULL: usize = 16;

/// Until when a session's messages are refused.
#[derive(Debug, Default)]
pub(super) struct Closed {
    /// All of them.
    all: Option<Instant>,
    /// Those to one recipient, whose mailbox is full; others are none the worse for it.
    full: Vec<(Address, Instant)>,
}

impl Closed {
    /// Refuses all until then.
    pub(super) fn close(&mut self, until: Instant) {
        self.all = self.all.max(Some(until));
    }

    /// Refuses what is for this recipient until then.
    pub(super) fn close_to(&mut self, to: &AsWritten, until: Instant, now: Instant) {
        // What is no address was never a message's.
        let Ok(to) = to.0.parse::<Address>() else { return self.close(until) };
        if let Some((_, before)) = self.full.iter_mut().find(|(full, _)| *full == to) {
            *before = until.max(*before);
            return;
        }
        self.full.retain(|(_, until)| *until > now);
        if self.full.len() < MAX_FULL {
            self.full.push((to, until));
        } else {
            self.close(until);
        }
    }

    /// How a message to this recipient is refused, if it is.
    pub(super) fn refusal(&self, to: &AsWritten, now: Instant) -> Option<Rejection> {
        let left = |until: Instant| {
            let left = until.checked_duration_since(now).filter(|left| !left.is_zero())?;
            Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_add(1))
        };
        if let Some(retry_after_ms) = self.all.and_then(left) {
            return Some(Rejection::RateLimited { retry_after_ms });
        }
        if self.full.is_empty() {
            return None;
        }
        // The same address may be written in several ways.
        let to = to.0.parse::<Address>().ok()?;
        let (_, until) = self.full.iter().find(|(full, _)| *full == to)?;
        left(*until).map(|retry_after_ms| Rejection::Full { retry_after_ms })
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
        assert_eq!(closed.refusal(&to(1), now), Some(Rejection::Full { retry_after_ms: 11 }));
        let elsewise = AsWritten("e\u{301}1@home.example".to_owned());
        assert_eq!(closed.refusal(&elsewise, now), Some(Rejection::Full { retry_after_ms: 11 }));
        assert_eq!(closed.refusal(&to(2), now), None);
        assert_eq!(closed.refusal(&to(1), soon), None);
        closed.close(later);
        closed.close(soon);
        assert_eq!(closed.refusal(&to(2), soon), Some(Rejection::RateLimited { retry_after_ms: 11 }));
        assert_eq!(closed.refusal(&to(2), later), None);
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
        assert_eq!(closed.refusal(&to(99), now), Some(Rejection::RateLimited { retry_after_ms: 11 }));
        // Those that are over make room.
        closed.close_to(&to(MAX_FULL), later, soon);
        assert_eq!(closed.refusal(&to(99), soon), None);
        assert_eq!(closed.refusal(&to(MAX_FULL), soon), Some(Rejection::Full { retry_after_ms: 11 }));
    }
}
