//! The store of the simulation: records, the log of changes, the register. Each directory has a way of its own to it,
//! on which requests and answers are late or get lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use causeway_identity::AccountId;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::Planted;
use crate::changes::{Change, What};
use crate::peers::{Entry, Log, LogError, Peer, Place, Read, ReplicaId};

/// Records that there are; the version of a record rises with each change.
pub(super) const ACCOUNTS: usize = 4;

/// What is on disk; cloning gives another handle.
#[derive(Clone, Default)]
pub(super) struct Store(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    versions: [u64; ACCOUNTS],
    /// The first entry that is there has number `trimmed + 1`.
    log: Vec<Entry>,
    trimmed: u64,
    register: BTreeMap<ReplicaId, Peer>,
    planted: Option<Planted>,
}

impl Store {
    pub(super) fn new(planted: Option<Planted>) -> Self {
        Self(Arc::new(Mutex::new(Disk { planted, ..Disk::default() })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    pub(super) fn version(&self, account: usize) -> u64 {
        self.disk().versions[account]
    }

    /// Commits a change of a record: its version, and the number of the entry.
    pub(super) fn change(&self, account: usize) -> (u64, u64) {
        let mut disk = self.disk();
        disk.versions[account] += 1;
        let number = disk.head().number + 1;
        let place = Place { number, tag: i64::try_from(number).unwrap() * 31 };
        disk.log.push(Entry { place, change: Some(change_of(account)) });
        (disk.versions[account], number)
    }

    pub(super) fn trim_to(&self, most: usize) {
        let mut disk = self.disk();
        let surplus = disk.log.len().saturating_sub(most.max(1));
        disk.log.drain(..surplus);
        disk.trimmed += surplus as u64;
    }
}

impl Disk {
    fn head(&self) -> Place {
        self.log.last().map_or(Place::default(), |entry| entry.place)
    }
}

pub(super) fn change_of(account: usize) -> Change {
    let address = format!("user{account}@birdy.example").parse().unwrap();
    Change::Record { address, account: AccountId::from_bytes([account as u8; 16]), what: What::Consent }
}

pub(super) fn account_of(change: &Change) -> usize {
    match change {
        Change::Record { account, .. } => account.as_bytes()[0].into(),
        other => panic!("not made here: {other:?}"),
    }
}

/// A directory's way to the store.
pub(super) struct Way {
    pub(super) store: Store,
    pub(super) random: Mutex<StdRng>,
    /// Nothing gets through before.
    pub(super) cut_until: Mutex<Instant>,
}

impl Way {
    /// Does something at the store, unless the request is lost; the answer may be lost then.
    async fn there_and_back<T>(&self, what: impl FnOnce(&mut Disk) -> T + Send) -> Result<T, LogError> {
        self.pass().await?;
        let done = what(&mut self.store.disk());
        self.pass().await?;
        Ok(done)
    }

    pub(super) async fn pass(&self) -> Result<(), LogError> {
        let delay = late(&mut self.random.lock().unwrap());
        sleep(delay).await;
        if *self.cut_until.lock().unwrap() > Instant::now() {
            // What is lost shows by silence.
            sleep(Duration::from_millis(700)).await;
            return Err(LogError("lost".to_owned()));
        }
        Ok(())
    }
}

/// Some milliseconds, and now and then a second.
pub(super) fn late(random: &mut StdRng) -> Duration {
    let most = if random.random_ratio(1, 60) { 1_500 } else { 30 };
    Duration::from_millis(random.random_range(0..=most))
}

#[async_trait]
impl Log for Way {
    async fn register(&self, id: ReplicaId, lasts: Duration) -> Result<Place, LogError> {
        self.there_and_back(|disk| {
            let head = disk.head();
            disk.register.insert(id, Peer { id, renewals: 0, lasts, confirmed: head.number });
            head
        })
        .await
    }

    async fn read(&self, after: Place, limit: usize) -> Result<Read, LogError> {
        self.there_and_back(|disk| {
            let gap_is_end = disk.planted == Some(Planted::PassesOverAGap);
            let skipped = usize::try_from(after.number.saturating_sub(disk.trimmed)).unwrap();
            let is_there = after.number == 0 || skipped > 0;
            let follows = after.number >= disk.trimmed;
            let in_place = is_there && follows;
            if !in_place && !gap_is_end {
                return Read::Gap;
            }
            Read::Entries(disk.log.iter().skip(skipped).take(limit).cloned().collect())
        })
        .await
    }

    async fn renew(&self, id: ReplicaId, _: Duration, confirmed: u64) -> Result<bool, LogError> {
        self.there_and_back(|disk| {
            let Some(peer) = disk.register.get_mut(&id) else { return false };
            peer.renewals += 1;
            peer.confirmed = peer.confirmed.max(confirmed);
            true
        })
        .await
    }

    async fn peers(&self) -> Result<Vec<Peer>, LogError> {
        self.there_and_back(|disk| disk.register.values().copied().collect()).await
    }

    async fn end(&self, peer: &Peer) -> Result<bool, LogError> {
        self.there_and_back(|disk| {
            let blind = disk.planted == Some(Planted::EndsWithoutLooking);
            let as_seen = disk.register.get(&peer.id).is_some_and(|now| blind || now.renewals == peer.renewals);
            as_seen && disk.register.remove(&peer.id).is_some()
        })
        .await
    }

    async fn leave(&self, id: ReplicaId, lasts: Duration) -> Result<(), LogError> {
        self.there_and_back(|disk| {
            if lasts.is_zero() {
                disk.register.remove(&id);
            } else if let Some(peer) = disk.register.get_mut(&id) {
                peer.renewals += 1;
                peer.lasts = lasts;
            }
        })
        .await
    }

    async fn trim(&self, _: Duration, _: u64) -> Result<(), LogError> {
        Ok(())
    }
}
