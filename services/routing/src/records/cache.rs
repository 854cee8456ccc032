//! The cache and its gate.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use causeway_identity::{Address, Domain};
use moka::sync::Cache as Moka;
use tokio::time::Instant;

use super::{Found, Record};
use crate::keyed::Keyed;

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
    present: Moka<Address, Arc<Record>, Keyed>,
    absent: Moka<Address, (), Keyed>,
    changes: Vec<AtomicU64>,
    hasher: Keyed,
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
            present: Moka::builder().max_capacity(records).build_with_hasher(Keyed::default()),
            absent: Moka::builder()
                .max_capacity(ABSENT_MAX)
                .time_to_live(ABSENT_FOR)
                .build_with_hasher(Keyed::default()),
            changes: (0..GROUPS).map(|_| AtomicU64::new(0)).collect(),
            hasher: Keyed::default(),
        }
    }

    /// What is known now, if the lease holds: true for as long as this is held, so for one short decision.
    pub(crate) fn vouched(&self) -> Option<Vouched<'_>> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        gate.holds().then_some(Vouched { cache: self, _gate: gate })
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
        &self.changes[self.group_number(address)]
    }

    fn group_number(&self, address: &Address) -> usize {
        let hash = self.hasher.hash_one(address);
        usize::try_from(hash % GROUPS as u64).unwrap_or(0)
    }
}

/// What is known, and cannot change before this is dropped. No decision may wait while it holds it.
pub(crate) struct Vouched<'a> {
    cache: &'a Cache,
    _gate: RwLockReadGuard<'a, Trust>,
}

impl Vouched<'_> {
    /// The record of an address, if that is known. `memo` is of this address alone.
    pub(crate) fn find(&self, address: &Address, memo: &Memo) -> Option<Found> {
        let mut noted = memo.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(noted) = noted.as_ref()
            && self.cache.changes[noted.group].load(Ordering::Acquire) == noted.changes
        {
            return Some(Some(Arc::clone(&noted.record)));
        }
        let found = self.cache.get(address)?;
        *noted = found.as_ref().map(|record| {
            let group = self.cache.group_number(address);
            let changes = self.cache.changes[group].load(Ordering::Acquire);
            Noted { record: Arc::clone(record), group, changes }
        });
        Some(found)
    }
}

/// The record of one address as it was found last, so that it is not looked up for each message: good until something of
/// its group has changed. That nobody has an address is not noted.
#[derive(Debug, Default)]
pub(crate) struct Memo(Mutex<Option<Noted>>);

#[derive(Debug)]
struct Noted {
    record: Arc<Record>,
    group: usize,
    /// Of the group, when it was found.
    changes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::fake;

    /// Whether somebody has the address; `None`: that is not known. Also with a memo of each time before.
    fn known(cache: &Cache, address: &Address, memo: &Memo) -> Option<bool> {
        let vouched = cache.vouched()?;
        let found = vouched.find(address, &Memo::default()).map(|found| found.is_some());
        assert_eq!(vouched.find(address, memo).map(|found| found.is_some()), found);
        found
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_used_without_a_lease_or_after_it() {
        let cache = Cache::new(100);
        let (ada, memo): (Address, _) = ("ada@birdy.example".parse().unwrap(), Memo::default());
        let record: Found = Some(Arc::new(Record::parse(fake::record("ada@birdy.example", 1, &[1]), &ada).unwrap()));
        cache.begin();
        let early = cache.start(&ada);
        cache.trust_until(Instant::now() + Duration::from_secs(3));
        assert_eq!(cache.finish(&ada, &early, &record), Filed::NotNow, "it was fetched before the lease");
        let ticket = cache.start(&ada);
        assert_eq!(cache.finish(&ada, &ticket, &record), Filed::Cached);
        assert_eq!(known(&cache, &ada, &memo), Some(true));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(known(&cache, &ada, &memo), None);
        assert_eq!(cache.finish(&ada, &cache.start(&ada), &record), Filed::NotNow);
        cache.trust_until(Instant::now() + Duration::from_secs(3));
        assert_eq!(known(&cache, &ada, &memo), Some(true), "the same stream goes on");
        cache.begin();
        cache.trust_until(Instant::now() + Duration::from_secs(3));
        assert_eq!(known(&cache, &ada, &memo), None, "a new stream knows nothing");
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
        assert_eq!(known(&cache, &ada, &Memo::default()), Some(false));
    }

    #[tokio::test]
    async fn what_was_noted_is_not_used_when_it_has_changed() {
        let cache = Cache::new(100);
        let (ada, memo): (Address, _) = ("ada@birdy.example".parse().unwrap(), Memo::default());
        let record = |account| Some(Arc::new(Record::parse(fake::record(ada.as_str(), account, &[1]), &ada).unwrap()));
        cache.begin();
        cache.trust_until(Instant::now() + Duration::from_secs(30));
        for account in 1..4 {
            let found: Found = record(account);
            assert_eq!(cache.finish(&ada, &cache.start(&ada), &found), Filed::Cached);
            assert_eq!(cache.vouched().unwrap().find(&ada, &memo), Some(found));
            match account {
                1 => cache.forget(&ada),
                2 => cache.forget_provider(&"birdy.example".parse().unwrap()),
                _ => cache.begin(),
            }
            cache.trust_until(Instant::now() + Duration::from_secs(30));
            assert_eq!(cache.vouched().unwrap().find(&ada, &memo), None);
        }
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
            let vouched = decider.vouched().unwrap();
            inside.send(()).unwrap();
            released.recv().unwrap();
            vouched.find(&ada_one, &Memo::default()).is_some()
        });
        entered.recv().unwrap();
        let forgetting = std::thread::spawn(move || forgetter.forget(&ada_two));
        assert!(!forgetting.is_finished());
        release.send(()).unwrap();
        assert!(deciding.join().unwrap());
        forgetting.join().unwrap();
        assert_eq!(known(&cache, &ada, &Memo::default()), None);
    }
}
