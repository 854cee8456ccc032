//! What repeats are told: the outcomes of the last messages, as many as fit.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use tokio::time::Instant;

use crate::keyed::Keyed;
use crate::limits::{Budget, Charge};
use crate::message::{MessageKey, Outcome};

/// Outcomes are remembered for this long, if there is room.
const REMEMBERED_FOR: Duration = Duration::from_secs(15 * 60);

/// A bounded memory of outcomes; the oldest gives way. There is one for each message of some minutes, so that an entry is
/// small, is written behind the one before, and is found by its number.
#[derive(Debug)]
pub(super) struct Outcomes {
    order: VecDeque<Remembered>,
    /// The number of the first in `order`; those behind it have the next ones, and 0 follows the greatest.
    first: u32,
    /// Their numbers by their keys.
    numbers: HashTable<u32>,
    keys: Keyed,
    /// From when they count their seconds.
    began: Option<Instant>,
    limit: usize,
    /// Shared with the memories of other recipients.
    total: Arc<Budget>,
    /// One for each but the few that each recipient may have in any case.
    shares: Option<Charge>,
}

#[derive(Debug)]
struct Remembered {
    key: MessageKey,
    /// Seconds, rounded up: what is forgotten for its age is as old as that.
    since: u32,
    end: End,
}

/// An outcome that is none but for this message.
#[derive(Debug, Clone, Copy)]
enum End {
    Delivered,
    Stored,
    Dropped,
}

impl Outcomes {
    pub(super) fn new(limit: usize, total: Arc<Budget>) -> Self {
        Self {
            order: VecDeque::new(),
            first: 0,
            numbers: HashTable::new(),
            keys: Keyed::default(),
            began: None,
            limit,
            total,
            shares: None,
        }
    }

    pub(super) fn get(&self, key: &MessageKey) -> Option<Outcome> {
        let at = self.find(key).filter(|_| !crate::planted::is("dedup-off"))?;
        Some(match self.order.get(at)?.end {
            End::Delivered => Outcome::Delivered,
            End::Stored => Outcome::Stored,
            End::Dropped => Outcome::Dropped,
        })
    }

    /// Remembers a first outcome; true if one that may be asked for yet is forgotten for it. A rejection is none: after
    /// repair the same id may be sent again.
    pub(super) fn remember(&mut self, key: MessageKey, outcome: &Outcome, now: Instant) -> bool {
        let end = match outcome {
            Outcome::Delivered => End::Delivered,
            Outcome::Stored => End::Stored,
            Outcome::Dropped => End::Dropped,
            Outcome::Rejected(_) => return false,
        };
        if let Some(known) = self.find(&key).and_then(|at| self.order.get_mut(at)) {
            known.end = end;
            return false;
        }
        let age = now.saturating_duration_since(*self.began.get_or_insert(now));
        let old = u32::try_from(age.saturating_sub(REMEMBERED_FOR).as_secs()).unwrap_or(u32::MAX);
        while self.order.front().is_some_and(|first| first.since < old) {
            self.forget_first();
        }
        let mut forgot = false;
        while self.order.len() >= self.limit || !self.share_one_more() {
            self.forget_first();
            forgot = true;
        }
        let since = u32::try_from(age.as_secs() + 1).unwrap_or(u32::MAX);
        let number = self.first.wrapping_add(u32::try_from(self.order.len()).unwrap_or(u32::MAX));
        self.order.push_back(Remembered { key, since, end });
        if let Some(shares) = &mut self.shares
            && shares.amount() > self.order.len()
        {
            shares.shrink(shares.amount() - self.order.len());
        }
        let Self { order, first, numbers, keys, .. } = self;
        let hash =
            |number: &u32| order.get(number.wrapping_sub(*first) as usize).map_or(0, |one| keys.hash_one(one.key));
        numbers.insert_unique(keys.hash_one(key), number, hash);
        forgot
    }

    /// Where in `order` it is.
    fn find(&self, key: &MessageKey) -> Option<usize> {
        if self.order.is_empty() {
            return None;
        }
        let place = |number: &u32| number.wrapping_sub(self.first) as usize;
        let is = |number: &u32| self.order.get(place(number)).is_some_and(|one| one.key == *key);
        self.numbers.find(self.keys.hash_one(key), is).map(place)
    }

    /// Takes a share of the total for one more; false if there must be one less first.
    fn share_one_more(&mut self) -> bool {
        let beyond = (self.order.len() + 1).saturating_sub(self.shares.as_ref().map_or(0, Charge::amount));
        if beyond == 0 {
            return true;
        }
        let charged = match &mut self.shares {
            Some(shares) => shares.grow(1),
            None => {
                self.shares = self.total.charge(1);
                self.shares.is_some()
            }
        };
        charged || beyond <= IN_ANY_CASE
    }

    fn forget_first(&mut self) {
        let Some(forgotten) = self.order.pop_front() else { return };
        let number = self.first;
        if let Ok(known) = self.numbers.find_entry(self.keys.hash_one(forgotten.key), |known| *known == number) {
            known.remove();
        }
        self.first = self.first.wrapping_add(1);
        if self.order.capacity() > SMALL && self.order.len() < self.order.capacity() / 4 {
            self.order.shrink_to(self.order.capacity() / 2);
            let Self { order, first, numbers, keys, .. } = self;
            let hash =
                |number: &u32| order.get(number.wrapping_sub(*first) as usize).map_or(0, |one| keys.hash_one(one.key));
            numbers.shrink_to_fit(hash);
        }
    }
}

/// So many outcomes are remembered for each recipient, however many there are.
const IN_ANY_CASE: usize = 8;
/// A memory of fewer is not worth giving back.
const SMALL: usize = 64;

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
        assert!(!outcomes.remember(key(1), &Outcome::Stored, now));
        assert!(!outcomes.remember(key(2), &Outcome::Delivered, now));
        assert!(!outcomes.remember(key(2), &Outcome::Delivered, now));
        assert!(!outcomes.remember(key(3), &Outcome::Rejected(Rejection::NotAvailable), now));
        assert_eq!(outcomes.get(&key(1)), Some(Outcome::Stored));
        assert_eq!(outcomes.get(&key(3)), None);
        assert!(outcomes.remember(key(4), &Outcome::Dropped, now));
        assert_eq!(outcomes.get(&key(1)), None);
        assert_eq!(outcomes.get(&key(2)), Some(Outcome::Delivered));
        let later = now + REMEMBERED_FOR + Duration::from_secs(3);
        assert!(!outcomes.remember(key(5), &Outcome::Stored, later), "nobody asks for the old ones any more");
        assert_eq!((outcomes.get(&key(2)), outcomes.get(&key(4)), total.held()), (None, None, 1));
        drop(outcomes);
        assert_eq!(total.held(), 0);
    }

    #[test]
    fn a_recipient_remembers_a_few_however_many_there_are() {
        let (mut outcomes, now) = (Outcomes::new(1_000, Budget::new(0)), Instant::now());
        for n in 0..100 {
            outcomes.remember(key(n), &Outcome::Stored, now);
        }
        assert_eq!(outcomes.get(&key(99)), Some(Outcome::Stored));
        assert_eq!(outcomes.order.len(), IN_ANY_CASE);
    }
}
