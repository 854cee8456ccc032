//! Who of several is responsible for an address: rendezvous hashing (highest random weight). Everybody who sees the same
//! names chooses the same one, and when a name comes or goes, only the addresses move that it gains or had.
//!
//! The weight of a name for an address is the first eight bytes, big-endian, of SHA-256 over `causeway rendezvous v1`, a
//! zero byte, the length of the name in bytes as eight bytes big-endian, the name, and the address in its canonical
//! form.
//!
//! To weigh every name for each message would cost 1,000 hashes at 1,000 names. [`Chosen`] remembers what was chosen: then
//! only names that have come since are weighed, and all of them again when the chosen one has gone. What is chosen is the
//! same.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

const DOMAIN: &[u8] = b"causeway rendezvous v1\0";
/// Parts of what is remembered, each with a lock of its own,
const SHARDS: usize = 64;
/// and the addresses in each half of one: 131,072 in all, some 60 bytes each.
const HALF: usize = 1_024;

/// The weight of `name` for `address`.
fn weight(name: &str, address: &str) -> u64 {
    let mut text = Vec::with_capacity(DOMAIN.len() + 8 + name.len() + address.len());
    text.extend_from_slice(DOMAIN);
    text.extend_from_slice(&(name.len() as u64).to_be_bytes());
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(address.as_bytes());
    digest(&SHA256, &text).as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The candidate whose name has the highest weight for `address`; of equal names the one with the greatest id.
pub fn choose<'a, I: Ord + Copy>(candidates: impl IntoIterator<Item = (&'a str, I)>, address: &str) -> Option<I> {
    let weighed = candidates.into_iter().map(|(name, id)| (weight(name, address), name, id));
    weighed.max().map(|(_, _, id)| id)
}

/// What was chosen for the last addresses, by all who share it. Takes no memory while there is one candidate.
#[derive(Debug)]
pub struct Chosen<I> {
    /// Random, so that nobody can make addresses fall together.
    hasher: RandomState,
    shards: Vec<Mutex<Shard<I>>>,
}

/// What was looked up last is in `young`. When that is full it becomes `old`, and what nobody has looked up since is
/// forgotten.
#[derive(Debug)]
struct Shard<I> {
    young: HashMap<u64, Found<I>>,
    old: HashMap<u64, Found<I>>,
}

impl<I> Default for Shard<I> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<I: Copy> Shard<I> {
    fn get(&mut self, digest: u64) -> Option<Found<I>> {
        if let Some(found) = self.young.get(&digest) {
            return Some(*found);
        }
        let found = *self.old.get(&digest)?;
        self.put(digest, found);
        Some(found)
    }

    fn put(&mut self, digest: u64, found: Found<I>) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, found);
    }
}

/// For one address.
#[derive(Debug, Clone, Copy)]
struct Found<I> {
    best: I,
    /// The greatest id that was there: all candidates with this or a smaller one were weighed.
    newest: I,
}

impl<I> Default for Chosen<I> {
    fn default() -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { hasher: RandomState::new(), shards }
    }
}

impl<I: Ord + Copy> Chosen<I> {
    /// As [`choose`] among those candidates that `name` gives a name for.
    ///
    /// Ids rise: whoever comes has a greater one than all before, and who has gone, or has no name any more, never comes
    /// back with the same. Callers may be a change apart; whoever is behind may get what those ahead have chosen, if that
    /// is a candidate of its own.
    pub fn choose<'a, C>(
        &self,
        candidates: &'a BTreeMap<I, C>,
        name: impl Fn(&'a C) -> Option<&'a str>,
        address: &str,
    ) -> Option<I> {
        let (&newest, last) = candidates.last_key_value()?;
        if candidates.len() == 1 {
            return name(last).map(|_| newest);
        }
        let named = |(id, candidate): (&I, &'a C)| name(candidate).map(|name| (name, *id));
        let digest = self.hasher.hash_one(address);
        let shard = self.shards.get(digest as usize % SHARDS)?;
        let known = shard.lock().unwrap_or_else(PoisonError::into_inner).get(digest);
        let best = match known {
            Some(Found { best, newest: until }) if candidates.get(&best).and_then(&name).is_some() => {
                if newest <= until {
                    return Some(best);
                }
                let since = candidates.range((Excluded(until), Unbounded)).filter_map(named);
                let before = candidates.get_key_value(&best).and_then(named);
                choose(before.into_iter().chain(since), address)?
            }
            _ => choose(candidates.iter().filter_map(named), address)?,
        };
        shard.lock().unwrap_or_else(PoisonError::into_inner).put(digest, Found { best, newest });
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn chosen<'a>(names: &'a BTreeSet<String>, address: &str) -> Option<&'a str> {
        choose(names.iter().map(|name| (name.as_str(), name.as_str())), address)
    }

    /// Other implementations of edges must agree.
    #[test]
    fn the_weight_is_what_the_text_says() {
        assert_eq!(weight("http://10.0.0.1:7451", "ada@birdy.example"), 3_884_003_856_193_999_362);
    }

    #[test]
    fn of_equal_names_the_newest_is_taken_and_of_none_none() {
        assert_eq!(choose([("a", 1), ("a", 3), ("a", 2)], "ada@birdy.example"), Some(3));
        assert_eq!(choose([] as [(&str, u8); 0], "ada@birdy.example"), None);
    }

    #[test]
    fn addresses_are_spread_evenly() {
        let names: BTreeSet<String> = (1..=3).map(|n| format!("http://routing-{n}:7451")).collect();
        let mut counts = BTreeMap::new();
        for n in 0..3_000 {
            let address = format!("user{n}@birdy.example");
            *counts.entry(chosen(&names, &address).unwrap()).or_insert(0) += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| (900..=1_100).contains(count)), "{counts:?}");
    }

    #[test]
    fn names_are_weighed_once_for_an_address_and_then_only_those_that_come() {
        let asked = std::cell::Cell::new(0);
        let name = |name: &'static str| {
            asked.set(asked.get() + 1);
            Some(name)
        };
        let mut candidates: BTreeMap<u32, &str> = BTreeMap::new();
        let chosen = Chosen::default();
        let mut look = |change: &dyn Fn(&mut BTreeMap<u32, &'static str>)| {
            change(&mut candidates);
            asked.set(0);
            let id = chosen.choose(&candidates, |candidate| name(candidate), "ada@birdy.example");
            (id, asked.get())
        };
        let all = |id: u32| ["a", "b", "c", "d", "e", "f", "g", "h"][id as usize];
        assert_eq!(look(&|_| {}), (None, 0));
        let (Some(best), 8) = look(&|to| to.extend((0..8).map(|id| (id, all(id))))) else { panic!("all are weighed") };
        assert_eq!(look(&|_| {}), (Some(best), 1), "it is still there");
        let other = (best + 1) % 7;
        assert_eq!(look(&|to| to.retain(|id, _| *id != other)), (Some(best), 1), "who goes is not missed");
        let (_, weighed) = look(&|to| to.extend([(8, "i")]));
        assert_eq!(weighed, 3, "that it is there, it, and who came");
        let (_, weighed) = look(&|to| to.retain(|id, _| *id != best && *id != 8));
        assert!(weighed >= 6, "it has gone: all are weighed");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_looked_up_stays() {
        let chosen = Chosen::default();
        let candidates = BTreeMap::from([(1, "a"), (2, "b")]);
        let asked = std::cell::Cell::new(0_u32);
        let look = |address: &str| {
            asked.set(0);
            let name = |name: &&'static str| {
                asked.set(asked.get() + 1);
                Some(*name)
            };
            chosen.choose(&candidates, name, address);
            asked.get()
        };
        for n in 0..SHARDS * HALF * 4 {
            look(&format!("user{n}@birdy.example"));
            assert!(n == 0 || n % 1_000 > 0 || look("ada@birdy.example") == 1 || n == 1_000, "{n}");
        }
        let kept = |shard: &Mutex<Shard<i32>>| {
            let shard = shard.lock().unwrap();
            shard.young.len().max(shard.old.len())
        };
        assert!(chosen.shards.iter().all(|shard| kept(shard) <= HALF));
    }

    proptest! {
        #[test]
        fn a_name_that_comes_or_goes_moves_only_its_own_addresses(
            names in prop::collection::btree_set("[a-z]{1,8}", 1..6),
            other in "[a-z]{1,8}",
            addresses in prop::collection::vec("[a-z]{1,8}@[a-z]{1,5}\\.example", 1..20),
        ) {
            let mut more = names.clone();
            let new = more.insert(other.clone());
            for address in &addresses {
                let (before, after) = (chosen(&names, address), chosen(&more, address));
                prop_assert!(before == after || new && after == Some(&other));
            }
        }

        /// Names come, also such as were there before or still are, lose their turn and go, in any order.
        #[test]
        fn what_is_remembered_is_what_would_be_chosen(
            changes in prop::collection::vec((0_u8..4, 0_usize..64, "[a-e]"), 1..40),
            addresses in prop::collection::vec("[a-z]{1,8}@[a-z]{1,5}\\.example", 1..8),
        ) {
            let remembered = Chosen::default();
            let mut candidates: BTreeMap<u64, Option<String>> = BTreeMap::new();
            for (number, (change, which, new)) in changes.into_iter().enumerate() {
                let which = candidates.keys().copied().nth(which % candidates.len().max(1));
                match (change, which) {
                    (0, Some(which)) => drop(candidates.remove(&which)),
                    (1, Some(which)) => drop(candidates.insert(which, None)),
                    _ => drop(candidates.insert(number as u64, Some(new))),
                }
                for address in &addresses {
                    let named = candidates.iter().filter_map(|(id, name)| Some((name.as_deref()?, *id)));
                    prop_assert_eq!(remembered.choose(&candidates, Option::as_deref, address), choose(named, address));
                }
            }
        }
    }
}
