//! A bounded queue in which nobody can push out the others: when it is full, whoever has most in it loses the oldest.
//!
//! Whose an item is, is known by lane: 16 of providers, each with 16 of accounts, which a keyed hash assigns. So what is
//! dropped is found by looking at 32 numbers, however many senders there are. A provider's lane keeps at least its newest
//! sixteenth of the bound, whatever others send, and an account's lane at least its sixteenth of that; those who share a lane
//! share its part.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;

use causeway_identity::{AccountId, Domain};

use crate::keyed::Keyed;

/// Lanes of providers.
const PROVIDERS: usize = 16;
/// Lanes of accounts within each.
const ACCOUNTS: usize = 16;
/// A lane of fewer is not worth giving memory back.
const SMALL: usize = 64;

/// The lane of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner(usize);

impl Owner {
    pub(super) fn of(hasher: &Keyed, provider: &Domain, account: AccountId) -> Self {
        let lane = |hash: u64, lanes: usize| usize::try_from(hash % lanes as u64).unwrap_or(0);
        Self::at(lane(hasher.hash_one(provider), PROVIDERS), lane(hasher.hash_one(account), ACCOUNTS))
    }

    const fn at(provider: usize, account: usize) -> Self {
        Self(provider * ACCOUNTS + account)
    }

    pub(super) const fn provider(self) -> usize {
        self.0 / ACCOUNTS
    }

    /// All that there are.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..PROVIDERS * ACCOUNTS).map(Self)
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct Fair<T> {
    lanes: Vec<Lane<T>>,
    /// Items of each provider's lane.
    providers: [usize; PROVIDERS],
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<T>,
    /// So many have left it.
    gone: u64,
}

/// How far somebody has come who looks at all items, with pauses in which the queue may change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    lane: usize,
    next: u64,
}

impl<T> Fair<T> {
    pub(super) fn new() -> Self {
        let lane = || Lane { items: VecDeque::new(), gone: 0 };
        Self { lanes: Owner::all().map(|_| lane()).collect(), providers: [0; PROVIDERS] }
    }

    pub(super) fn len(&self) -> usize {
        self.providers.iter().sum()
    }

    /// Adds an item; what is given back is beyond `limit`.
    pub(super) fn push(&mut self, owner: Owner, item: T, limit: usize) -> Option<T> {
        self.lanes[owner.0].items.push_back(item);
        self.providers[owner.provider()] += 1;
        if self.len() > limit { self.take_first_if(self.heaviest(), |_| true) } else { None }
    }

    /// Takes out the oldest of a lane, if it is as wanted.
    pub(super) fn take_first_if(&mut self, owner: Owner, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let lane = &mut self.lanes[owner.0];
        if !wanted(lane.items.front()?) {
            return None;
        }
        lane.gone += 1;
        self.providers[owner.provider()] -= 1;
        let first = lane.items.pop_front();
        // Otherwise all lanes, one after the other, could grow to the size of the whole queue.
        if lane.items.capacity() > SMALL && lane.items.len() < lane.items.capacity() / 4 {
            lane.items.shrink_to(lane.items.capacity() / 2);
        }
        first
    }

    /// The next item of somebody who looks at all; `None` after the last. What comes or goes meanwhile is seen or not, and
    /// everything else once.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Option<&T> {
        while let Some(lane) = self.lanes.get(cursor.lane) {
            let number = cursor.next.max(lane.gone);
            let at = usize::try_from(number - lane.gone).unwrap_or(usize::MAX);
            if let Some(item) = lane.items.get(at) {
                cursor.next = number + 1;
                return Some(item);
            }
            *cursor = Cursor { lane: cursor.lane + 1, next: 0 };
        }
        None
    }

    /// The fullest lane of the provider who has most.
    fn heaviest(&self) -> Owner {
        let provider = (0..PROVIDERS).max_by_key(|provider| self.providers[*provider]).unwrap_or(0);
        let account = |account: &usize| self.lanes[Owner::at(provider, *account).0].items.len();
        Owner::at(provider, (0..ACCOUNTS).max_by_key(account).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(queue: &Fair<(Owner, u32)>) -> Vec<(Owner, u32)> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(|| queue.next(&mut cursor).copied()).collect()
    }

    /// Few lanes, so that some are heavy.
    fn owner() -> impl Strategy<Value = Owner> {
        (0..4_usize, prop_oneof![Just(0_usize), 0..16_usize])
            .prop_map(|(provider, account)| Owner::at(provider, account))
    }

    proptest! {
        /// Whatever is pushed by whomever: the bound holds, each lane has the newest of its own, and only who has most loses.
        #[test]
        fn only_who_has_most_loses_and_only_the_oldest(
            pushes in proptest::collection::vec((owner(), 1..40_u32), 1..60),
            limit in 1..200_usize,
        ) {
            let mut queue = Fair::new();
            let mut number = 0;
            for (owner, count) in pushes {
                for _ in 0..count {
                    number += 1;
                    let before = queue.providers;
                    let lanes: Vec<_> = queue.lanes.iter().map(|lane| lane.items.len()).collect();
                    let Some((loser, lost)) = queue.push(owner, (owner, number), limit) else { continue };
                    let with = |lane: Owner| lanes[lane.0] + usize::from(lane == owner);
                    let of = |provider: usize| before[provider] + usize::from(provider == owner.provider());
                    prop_assert_eq!(queue.len(), limit);
                    prop_assert!((0..PROVIDERS).all(|other| of(other) <= of(loser.provider())));
                    prop_assert!((0..ACCOUNTS).all(|other| with(Owner::at(loser.provider(), other)) <= with(loser)));
                    prop_assert!(of(loser.provider()) * PROVIDERS > limit, "a provider's sixteenth is its own");
                    prop_assert!(with(loser) * ACCOUNTS >= of(loser.provider()), "and an account's of that");
                    let left = all(&queue).into_iter().filter(|(owner, _)| *owner == loser).map(|(_, number)| number);
                    let left: Vec<_> = left.collect();
                    prop_assert!(left.is_sorted() && left.iter().all(|number| *number > lost));
                }
            }
            prop_assert!(queue.len() <= limit);
            prop_assert_eq!(all(&queue).len(), queue.len());
        }
    }

    #[test]
    fn who_looks_at_all_may_pause() {
        let (mut queue, a, b) = (Fair::new(), Owner::at(0, 3), Owner::at(2, 1));
        (0..6).for_each(|n| assert!(queue.push(a, (a, n), 100).is_none()));
        let mut cursor = Cursor::default();
        assert_eq!(queue.next(&mut cursor), Some(&(a, 0)));
        (0..3).for_each(|n| assert_eq!(queue.take_first_if(a, |_| true), Some((a, n))));
        assert!(queue.take_first_if(a, |(_, number)| *number == 9).is_none());
        assert!(queue.push(b, (b, 7), 100).is_none());
        let rest: Vec<_> = std::iter::from_fn(|| queue.next(&mut cursor).map(|(_, number)| *number)).collect();
        assert_eq!((rest, queue.len()), (vec![3, 4, 5, 7], 4));
        assert!(queue.next(&mut cursor).is_none());
    }

    #[test]
    fn lanes_that_were_long_give_their_memory_back() {
        let mut queue = Fair::new();
        for owner in Owner::all() {
            for n in 0..1_000 {
                queue.push(owner, n, 1_000);
            }
        }
        assert_eq!(queue.len(), 1_000);
        assert!(queue.lanes.iter().map(|lane| lane.items.capacity()).sum::<usize>() < 30_000);
    }
}
