//! Room of which nobody gets more than a share, so that one who takes without end leaves the others theirs.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what is taken, in total and by taker. Cloning gives another handle.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    total: usize,
    taken: Arc<Mutex<Taken<K>>>,
}

/// A taker without anything has no entry, so the map is bounded by the total.
#[derive(Debug)]
struct Taken<K> {
    total: usize,
    by_taker: HashMap<K, usize>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All of it is taken.
    Total,
    /// The taker's share is.
    Share,
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self { total: self.total, taken: Arc::clone(&self.taken) }
    }
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// Room for `total`.
    pub(crate) fn new(total: u32) -> Self {
        Self { total: total as usize, taken: Arc::new(Mutex::new(Taken { total: 0, by_taker: HashMap::new() })) }
    }

    /// Takes one place for `taker`, who may have `share` of them.
    pub(crate) fn take(&self, taker: K, share: u32) -> Result<Place<K>, Full> {
        let mut taken = lock(&self.taken);
        if taken.by_taker.get(&taker).is_some_and(|count| *count >= share as usize) {
            return Err(Full::Share);
        }
        if taken.total >= self.total {
            return Err(Full::Total);
        }
        taken.total += 1;
        *taken.by_taker.entry(taker.clone()).or_default() += 1;
        drop(taken);
        Ok(Place { taker, taken: Arc::clone(&self.taken) })
    }
}

/// One place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash> {
    taker: K,
    taken: Arc<Mutex<Taken<K>>>,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.total = taken.total.saturating_sub(1);
        if let Some(count) = taken.by_taker.get_mut(&self.taker) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.by_taker.remove(&self.taker);
            }
        }
    }
}

fn lock<K>(taken: &Mutex<Taken<K>>) -> MutexGuard<'_, Taken<K>> {
    // Nothing between lock and unlock can panic half-way; counts stay right.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_share_leaves_the_others_theirs_and_places_come_back() {
        let shares = Shares::new(3);
        let mut ada = vec![shares.take("ada", 2).unwrap(), shares.take("ada", 2).unwrap()];
        assert_eq!(shares.take("ada", 2).unwrap_err(), Full::Share);
        let bo = shares.take("bo", 2).unwrap();
        assert_eq!(shares.take("bo", 2).unwrap_err(), Full::Total);
        ada.pop();
        let again = shares.take("bo", 2).unwrap();
        drop((ada, bo, again));
        let taken = lock(&shares.taken);
        assert!(taken.total == 0 && taken.by_taker.is_empty());
    }
}
