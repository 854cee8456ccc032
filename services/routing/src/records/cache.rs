//! The cache and its gate.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use causeway_identity::{Address, Domain};
use moka::sync::Cache as Moka;
use tokio::time::Instant;

use super::{Found, Record};

/// That nobody has an address is remembered for this long only: strangers choose which addresses are asked for.
const ABSENT_FOR: Duration = Duration::from_secs(1);
const ABSENT_MAX: u64 = 10_000;
/// Changes are counted per group of addresses; more groups mean fewer needless repetitions of a fetch.
const GROUPS: usize = 1_024;

/// Records, and whether they may be used.
pub(crate) struct Cache {
    /// Read while a decision is made on cached records, written while records become invalid. So whoever has the
    /// write lock knows that no decision on the records of before is under way.
    gate: RwLock<Trust>,
    present: Moka<Address, Arc<Record>>,
    absent: Moka<Address, ()>,
    changes: Vec<AtomicU64>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Trust {
    /// The lease; `None` without a stream.
    until: Option<Instant>,
    /// Counts streams.
    epoch: u64,
}

impl Trust {
    fn holds(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

/// What was known when a fetch began.
#[derive(Debug)]
pub(crate) struct Ticket {
    trusted: bool,
    epoch: u64,
    changes: u64,
}

/// What became of a fetched record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filed {
    /// It is in the cache.
    Cached,
    /// The cache may not be used.
    NotNow,
    /// The record has changed since the fetch began: what was fetched may be what was before.
    Changed,
}

impl Cache {
    pub(crate) fn new(records: u64) -> Self {
        Self {
            gate: RwLock::default(),
            present: Moka::new(records),
            absent: Moka::builder().max_capacity(ABSENT_MAX).time_to_live(ABSENT_FOR).build(),
            changes: (0..GROUPS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Runs `decision` on the records if both are known and the lease holds; gives it back otherwise.
    pub(crate) fn decide<T, D: FnOnce(&Found, &Found) -> T>(
        &self,
        first: &Address,
        second: &Address,
        decision: D,
    ) -> Result<T, D> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if !gate.holds() {
            return Err(decision);
        }
        match (self.get(first), self.get(second)) {
            (Some(first), Some(second)) => Ok(decision(&first, &second)),
            _ => Err(decision),
        }
    }

    fn get(&self, address: &Address) -> Option<Found> {
        if let Some(record) = self.present.get(address) {
            return Some(Some(record));
        }
        self.absent.get(address).map(|()| None)
    }

    /// To be called before a fetch.
    pub(crate) fn start(&self, address: &Address) -> Ticket {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        Ticket { trusted: gate.holds(), epoch: gate.epoch, changes: self.group(address).load(Ordering::Acquire) }
    }

    /// To be called with what was fetched.
    pub(crate) fn finish(&self, address: &Address, ticket: &Ticket, found: &Found) -> Filed {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if !ticket.trusted || !gate.holds() || gate.epoch != ticket.epoch {
            return Filed::NotNow;
        }
        if self.group(address).load(Ordering::Acquire) != ticket.changes {
            return Filed::Changed;
        }
        match found {
            Some(record) => {
                self.absent.invalidate(address);
                self.present.insert(address.clone(), Arc::clone(record));
            }
            None => {
                self.present.invalidate(address);
                self.absent.insert(address.clone(), ());
            }
        }
        Filed::Cached
    }

    /// Forgets a record; when this returns, no decision on it is under way.
    pub(crate) fn forget(&self, address: &Address) {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.group(address).fetch_add(1, Ordering::AcqRel);
        self.present.invalidate(address);
        self.absent.invalidate(address);
    }

    /// Forgets the records of a provider's accounts, as [`Cache::forget`] does.
    pub(crate) fn forget_provider(&self, _provider: &Domain) {
        // Providers change rarely; to forget more than asked for costs a few fetches.
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.forget_all();
    }

    /// A new stream begins: nothing of before is known, and nothing is trusted until its first lease.
    pub(crate) fn begin(&self) {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        gate.epoch += 1;
        gate.until = None;
        self.forget_all();
    }

    /// What is cached may be used until then.
    pub(crate) fn trust_until(&self, until: Instant) {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        gate.until = Some(gate.until.map_or(until, |before| before.max(until)));
    }

    fn forget_all(&self) {
        for group in &self.changes {
            group.fetch_add(1, Ordering::AcqRel);
        }
        self.present.invalidate_all();
        self.absent.invalidate_all();
    }

    fn group(&self, address: &Address) -> &AtomicU64 {
        let hash = self.hasher.hash_one(address);
        &self.changes[usize::try_from(hash % GROUPS as u64).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::fake;

    fn known(found: &Found) -> bool {
        found.is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_used_without_a_lease_or_after_it() {
        let cache = Cache::new(100);
        let ada: Address = "ada@birdy.example".parse().unwrap();
        let record: Found = Some(Arc::new(Record::parse(fake::record("ada@birdy.example", 1, &[1]), &ada).unwrap()));
        cache.begin();
        let early = cache.start(&ada);
        cache.trust_until(Instant::now() + Duration::from_secs(3));
        assert_eq!(cache.finish(&ada, &early, &record), Filed::NotNow, "it was fetched before the lease");
        let ticket = cache.start(&ada);
        assert_eq!(cache.finish(&ada, &ticket, &record), Filed::Cached);
        assert!(cache.decide(&ada, &ada, |found, _| known(found)).is_ok_and(|known| known));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(cache.decide(&ada, &ada, |found, _| known(found)).is_err());
        assert_eq!(cache.finish(&ada, &cache.start(&ada), &record), Filed::NotNow);
        cache.trust_until(Instant::now() + Duration::from_secs(3));
        assert!(cache.decide(&ada, &ada, |found, _| known(found)).is_ok(), "the same stream goes on");
        cache.begin();
        cache.trust_until(Instant::now() + Duration::from_secs(3));
        assert!(cache.decide(&ada, &ada, |found, _| known(found)).is_err(), "a new stream knows nothing");
    }

    #[tokio::test]
    async fn a_change_during_a_fetch_spoils_what_was_fetched() {
        let cache = Cache::new(100);
        let ada: Address = "ada@birdy.example".parse().unwrap();
        cache.begin();
        cache.trust_until(Instant::now() + Duration::from_secs(3));
        let ticket = cache.start(&ada);
        cache.forget(&ada);
        assert_eq!(cache.finish(&ada, &ticket, &None), Filed::Changed);
        let ticket = cache.start(&ada);
        cache.forget_provider(&"birdy.example".parse().unwrap());
        assert_eq!(cache.finish(&ada, &ticket, &None), Filed::Changed);
        let ticket = cache.start(&ada);
        assert_eq!(cache.finish(&ada, &ticket, &None), Filed::Cached);
        assert!(cache.decide(&ada, &ada, |found, _| known(found)).is_ok_and(|known| !known));
    }

    #[tokio::test]
    async fn to_forget_waits_for_decisions_under_way() {
        let cache = Arc::new(Cache::new(100));
        let ada: Address = "ada@birdy.example".parse().unwrap();
        cache.begin();
        cache.trust_until(Instant::now() + Duration::from_secs(30));
        assert_eq!(cache.finish(&ada, &cache.start(&ada), &None), Filed::Cached);
        let (inside, entered) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (decider, forgetter) = (Arc::clone(&cache), Arc::clone(&cache));
        let (ada_one, ada_two) = (ada.clone(), ada.clone());
        let deciding = std::thread::spawn(move || {
            decider
                .decide(&ada_one, &ada_one, |_, _| {
                    inside.send(()).unwrap();
                    released.recv().unwrap();
                })
                .is_ok()
        });
        entered.recv().unwrap();
        let forgetting = std::thread::spawn(move || forgetter.forget(&ada_two));
        assert!(!forgetting.is_finished());
        release.send(()).unwrap();
        assert!(deciding.join().unwrap());
        forgetting.join().unwrap();
        assert!(cache.decide(&ada, &ada, |_, _| ()).is_err());
    }
}
