//! What repeats are told: the outcomes of the last messages, as many as fit.

use std::collections::{HashMap, VecDeque};

use crate::message::{MessageKey, Outcome};

/// A bounded memory of outcomes; the oldest gives way.
#[derive(Debug)]
pub(super) struct Outcomes {
    known: HashMap<MessageKey, Outcome>,
    order: VecDeque<MessageKey>,
    limit: usize,
}

impl Outcomes {
    pub(super) fn new(limit: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), limit }
    }

    pub(super) fn get(&self, key: &MessageKey) -> Option<&Outcome> {
        self.known.get(key)
    }

    /// Remembers a first outcome; true if an older one is forgotten for it. A rejection is none: after repair the same
    /// id may be sent again.
    pub(super) fn remember(&mut self, key: MessageKey, outcome: Outcome) -> bool {
        if matches!(outcome, Outcome::Rejected(_)) || self.known.insert(key, outcome).is_some() {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() <= self.limit {
            return false;
        }
        if let Some(oldest) = self.order.pop_front() {
            self.known.remove(&oldest);
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use causeway_identity::{AccountId, DeviceId, MessageId};

    use super::*;
    use crate::message::Rejection;

    #[test]
    fn the_last_outcomes_are_known_and_rejections_never() {
        let key = |n: u8| MessageKey {
            account: AccountId::from_bytes([1; 16]),
            device: DeviceId::new(1).unwrap(),
            id: MessageId::from_bytes([n; 16]),
        };
        let mut outcomes = Outcomes::new(2);
        assert!(!outcomes.remember(key(1), Outcome::Stored));
        assert!(!outcomes.remember(key(2), Outcome::Delivered));
        assert!(!outcomes.remember(key(2), Outcome::Delivered));
        assert!(!outcomes.remember(key(3), Outcome::Rejected(Rejection::NotAvailable)));
        assert_eq!(outcomes.get(&key(1)), Some(&Outcome::Stored));
        assert_eq!(outcomes.get(&key(3)), None);
        assert!(outcomes.remember(key(4), Outcome::Dropped));
        assert_eq!(outcomes.get(&key(1)), None);
        assert_eq!(outcomes.get(&key(2)), Some(&Outcome::Delivered));
    }
}
