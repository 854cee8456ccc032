//! The actors of this process by address: found, started, retired.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use causeway_identity::{AccountId, Address};
use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::config::DevicePolicy;
use crate::keyed::{Keyed, KeyedMap};
use crate::mailbox::{Commit, StoreError};
use crate::recipient::actor::{Actor, Shared};
use crate::recipient::{Control, Inbox, Job};
use crate::records::Change;
use crate::session::Session;

const SHARDS: usize = 64;
/// One place in so many is only for addresses that attach.
const RESERVED_PART: usize = 10;
/// When more than half of the places are taken, who is idle for so long makes room.
const CROWDED_PATIENCE: Duration = Duration::from_secs(2);

/// All recipients in memory.
pub(crate) struct Recipients {
    shards: Vec<Mutex<KeyedMap<Address, Arc<Inbox>>>>,
    hasher: Keyed,
    count: AtomicUsize,
    limit: usize,
    /// So many of them for messages; the rest is for addresses that attach, so that no stranger keeps anybody out.
    limit_for_messages: usize,
    queue: usize,
    policy: Arc<DevicePolicy>,
    shared: OnceLock<Arc<Shared>>,
    draining: AtomicBool,
    tasks: TaskTracker,
}

/// Why a message does not get to its recipient's actor.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Too much waits there, or there are too many recipients.
    Full(Box<Job>),
    /// This routing stops.
    Draining,
}

impl Recipients {
    pub(crate) fn new(limit: usize, queue: usize, policy: DevicePolicy) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: Keyed::default(),
            count: AtomicUsize::new(0),
            limit,
            limit_for_messages: limit - (limit / RESERVED_PART).max(1).min(limit),
            queue,
            policy: Arc::new(policy),
            shared: OnceLock::new(),
            draining: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        })
    }

    /// Gives the actors what they share. To be called once, before anything else.
    pub(crate) fn equip(&self, shared: Arc<Shared>) {
        let _equipped_before = self.shared.set(shared);
    }

    pub(crate) fn policy(&self) -> &Arc<DevicePolicy> {
        &self.policy
    }

    /// Hands a message to the actor of its recipient.
    pub(crate) fn submit(self: &Arc<Self>, job: Job) -> Result<(), Refused> {
        let mut shard = self.shard(&job.submission.to);
        let inbox = self.inbox(&mut shard, &job.submission.to, self.limit_for_messages);
        let job = Box::new(job);
        let Some(inbox) = inbox else { return Err(self.refused(job)) };
        inbox.submit(job).map_err(Refused::Full)
    }

    /// Hands a session to the actor of its own address; false when there is none to be had.
    pub(crate) fn attach(self: &Arc<Self>, session: &Arc<Session>) -> bool {
        let address = &session.device.address;
        let mut shard = self.shard(address);
        let Some(inbox) = self.inbox(&mut shard, address, self.limit) else { return false };
        session.own(Arc::clone(&inbox));
        inbox.tell(Control::Attach(Arc::clone(session)))
    }

    /// Tells the actor of an address of a change, if it is in memory or should be; true if one has been told.
    pub(crate) fn tell(self: &Arc<Self>, address: &Address, change: Change, load: bool) -> bool {
        let mut shard = self.shard(address);
        let inbox =
            if load { self.inbox(&mut shard, address, self.limit_for_messages) } else { shard.get(address).cloned() };
        inbox.is_some_and(|inbox| inbox.tell(Control::Changed(change)))
    }

    /// Tells all actors that this replica has another id.
    pub(crate) fn renamed(&self) {
        self.tell_all(|| Control::Renamed);
    }

    /// Gives an account up once what is under way for it has settled; resolves when the store knows. For another
    /// replica, which wants it.
    pub(crate) fn release(&self, address: &Address, account: AccountId) -> Commit<()> {
        let shard = self.shard(address);
        if let Some(inbox) = shard.get(address) {
            let (done, released) = oneshot::channel();
            if inbox.tell(Control::Release(account, done)) {
                return released.map(|done| done.unwrap_or(Err(StoreError::Closed))).boxed();
            }
        }
        // Under the lock of the shard: an actor that comes to be now claims behind this.
        match self.shared.get() {
            Some(shared) => shared.mailbox.release(shared.lease.id(), account),
            None => futures::future::ready(Err(StoreError::Closed)).boxed(),
        }
    }

    /// Gives an account up that has been claimed for its address without an actor; an actor that came meanwhile has it.
    pub(crate) fn release_unless_used(&self, address: &Address, account: AccountId) {
        let shard = self.shard(address);
        let used = shard.get(address).is_some_and(|inbox| !inbox.is_closed());
        if let Some(shared) = self.shared.get().filter(|_| !used) {
            drop(shared.mailbox.release(shared.lease.id(), account));
        }
    }

    /// Takes an actor out if nothing has come for it meanwhile; nothing comes after that.
    pub(crate) fn retire(&self, address: &Address, nothing_came: impl FnOnce() -> bool) -> bool {
        let mut shard = self.shard(address);
        if !nothing_came() {
            return false;
        }
        if shard.remove(address).is_some() {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
        true
    }

    /// Takes out an actor that has ended in whatever way. Best effort: what is left behind is replaced when needed.
    pub(crate) fn forget(&self, address: &Address) {
        let Ok(mut shard) = self.shards[self.index(address)].try_lock() else { return };
        // A later actor of the same address is alive; its queue is open.
        if shard.get(address).is_some_and(|inbox| inbox.is_closed()) {
            shard.remove(address);
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// How long an idle actor stays.
    pub(crate) fn patience(&self, configured: Duration) -> Duration {
        let crowded = self.count.load(Ordering::Acquire) > self.limit / 2;
        if crowded { CROWDED_PATIENCE.min(configured) } else { configured }
    }

    /// No more messages: what actors have is written and every outcome told. Resolves when all have.
    pub(crate) async fn settle(&self) {
        self.draining.store(true, Ordering::Release);
        let (quiet, mut all_quiet) = mpsc::channel(1);
        self.tell_all(|| Control::Finish(quiet.clone()));
        drop(quiet);
        let _none = all_quiet.recv().await;
        if let Some(shared) = self.shared.get() {
            shared.pace.flush();
        }
    }

    /// Behind [`Recipients::settle`]: sessions are told to go elsewhere, and all actors end.
    pub(crate) async fn leave(&self) {
        self.tell_all(|| Control::Leave);
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn tell_all(&self, control: impl Fn() -> Control) {
        for shard in &self.shards {
            for inbox in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                let _is_there = inbox.tell(control());
            }
        }
    }

    fn refused(&self, job: Box<Job>) -> Refused {
        if self.draining.load(Ordering::Acquire) { Refused::Draining } else { Refused::Full(job) }
    }

    fn shard(&self, address: &Address) -> MutexGuard<'_, KeyedMap<Address, Arc<Inbox>>> {
        self.shards[self.index(address)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self, address: &Address) -> usize {
        let hash = self.hasher.hash_one(address);
        usize::try_from(hash % SHARDS as u64).unwrap_or(0)
    }

    /// The actor of an address, started if need be and if there are less than `limit`. `None`: there are too many, or no
    /// more are started.
    fn inbox(
        self: &Arc<Self>,
        shard: &mut KeyedMap<Address, Arc<Inbox>>,
        address: &Address,
        limit: usize,
    ) -> Option<Arc<Inbox>> {
        if let Some(inbox) = shard.get(address).filter(|inbox| !inbox.is_closed()) {
            return Some(Arc::clone(inbox));
        }
        // Under the lock of the shard: `drain` comes to this shard after it has set the flag.
        if self.draining.load(Ordering::Acquire) || self.count.load(Ordering::Acquire) >= limit {
            return None;
        }
        let shared = self.shared.get()?;
        let inbox = Inbox::new(self.queue);
        let actor = Actor::new(address.clone(), Arc::clone(&inbox), Arc::clone(shared), Arc::clone(self));
        self.tasks.spawn(actor);
        if shard.insert(address.clone(), Arc::clone(&inbox)).is_none() {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
        Some(inbox)
    }
}
