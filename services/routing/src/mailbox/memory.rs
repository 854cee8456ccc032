//! A mailbox in memory that several processes of a simulation share, each with a handle of its own. What is queued takes
//! effect a little later; what a process had queued when it was killed is lost, or not, and nobody is told.

mod store;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId};
use causeway_runtime::clock::SharedClock;
use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::RoutingConfig;
use crate::mailbox::{
    Chain, Claimed, Commit, Depth, DeviceUsage, Mailbox, Page, PageRequest, Put, PutOutcome, Replica, ReplicaId,
    StoreError, Usage,
};
use crate::message::{MessageKey, Seq};

use store::Store;

/// What becomes of an operation that writes, instead of what should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFault {
    /// It does not happen, and is told so.
    Failed,
    /// It happens, and nobody can say so.
    UnknownDone,
    /// It does not happen, and nobody can say so.
    UnknownLost,
}

/// One process's handle on a mailbox in memory. Clones are the same process; for another process, and for the next life
/// of one that was killed, there is [`MemoryMailbox::another`].
#[derive(Clone)]
pub struct MemoryMailbox {
    store: Arc<Mutex<Store>>,
    clock: SharedClock,
    process: Arc<Process>,
}

/// What queued operations do when their turn comes.
type Op = Box<dyn FnOnce(&mut Store, u64, Option<MemoryFault>) + Send>;

struct Process {
    queue: mpsc::Sender<(Op, bool)>,
    /// Until the first operation starts the worker.
    queued: Mutex<Option<mpsc::Receiver<(Op, bool)>>>,
    dead: AtomicBool,
    held: watch::Sender<bool>,
    delay_us: AtomicU64,
    faults: Mutex<VecDeque<MemoryFault>>,
}

/// Operations that may be queued by one process.
const QUEUE: usize = 65_536;
/// Operations that take effect together.
const BATCH: usize = 4_096;

impl MemoryMailbox {
    /// A mailbox with nothing in it, with the bounds of `config`; leases are counted by `clock`, which is the store's.
    /// `seed` decides what goes wrong while it is faulty.
    pub fn new(config: &RoutingConfig, clock: SharedClock, seed: u64) -> Self {
        let store = Arc::new(Mutex::new(Store::new(config.mailbox_bounds(), seed)));
        Self { store, clock, process: Process::new() }
    }

    /// A handle for another process, or for the next life of one that was killed.
    pub fn another(&self) -> Self {
        Self { store: Arc::clone(&self.store), clock: Arc::clone(&self.clock), process: Process::new() }
    }

    /// The process dies: the first `done` of its queued operations take effect, the others do not, and nobody hears of
    /// any.
    pub fn kill(&self, done: usize) {
        self.process.dead.store(true, Ordering::SeqCst);
        let queued = lock(&self.process.queued).take();
        // What the worker has taken is lost with it; without a worker it is all still here.
        if let Some(mut queued) = queued {
            let now_ms = self.clock.now_ms();
            let mut store = lock(&self.store);
            for _ in 0..done {
                let Ok((op, _)) = queued.try_recv() else { break };
                op(&mut store, now_ms, None);
            }
        }
        self.process.held.send_replace(false);
    }

    /// From now on something goes wrong with about half of what any process asks for, or no more.
    pub fn set_faulty(&self, faulty: bool) {
        lock(&self.store).faulty = faulty;
    }

    /// Nothing waits for anybody.
    pub fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    /// The next operations of this process that write go wrong in this way.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = MemoryFault>) {
        lock(&self.process.faults).extend(faults);
    }

    /// Holds all operations of this process back, or no more.
    pub fn hold(&self, held: bool) {
        self.process.held.send_replace(held);
    }

    /// How long operations of this process take from now on. Default: nothing but a turn of the scheduler.
    pub fn take(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.process.delay_us.store(micros, Ordering::SeqCst);
    }

    /// Messages that wait for all devices of all accounts.
    pub fn entries(&self) -> usize {
        lock(&self.store).entries()
    }

    /// Queues a put.
    fn queue_unless<T: Send + 'static>(
        &self,
        chain: Chain,
        apply: impl FnOnce(&mut Store, u64) -> Result<T, StoreError> + Send + 'static,
    ) -> Commit<T> {
        self.queue_checked(true, Some(chain), apply)
    }

    fn queue<T: Send + 'static>(
        &self,
        writes: bool,
        apply: impl FnOnce(&mut Store, u64) -> Result<T, StoreError> + Send + 'static,
    ) -> Commit<T> {
        self.queue_checked(writes, None, apply)
    }

    fn queue_checked<T: Send + 'static>(
        &self,
        writes: bool,
        chain: Option<Chain>,
        apply: impl FnOnce(&mut Store, u64) -> Result<T, StoreError> + Send + 'static,
    ) -> Commit<T> {
        if self.process.dead.load(Ordering::SeqCst) {
            return futures::future::ready(Err(StoreError::Closed)).boxed();
        }
        self.start_worker();
        let (reply, done) = oneshot::channel();
        let of_op = chain.clone();
        let op: Op = Box::new(move |store, now_ms, fault| {
            let unknown = || StoreError::Unknown("for the test".to_owned());
            let result = match fault {
                _ if of_op.as_ref().is_some_and(Chain::is_broken) => Err(Chain::error()),
                None => apply(store, now_ms),
                Some(MemoryFault::Failed) => Err(StoreError::Failed("for the test".to_owned())),
                Some(MemoryFault::UnknownDone) => apply(store, now_ms).and(Err(unknown())),
                Some(MemoryFault::UnknownLost) => Err(unknown()),
            };
            if let (Some(chain), Err(_)) = (&of_op, &result) {
                chain.break_off();
            }
            let _nobody_waits = reply.send(result);
        });
        if self.process.queue.try_send((op, writes)).is_err() {
            if let Some(chain) = chain {
                chain.break_off();
            }
            return futures::future::ready(Err(StoreError::Busy)).boxed();
        }
        async move { done.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    /// Not before the first operation, which comes from inside the runtime that is to be killed with the process.
    fn start_worker(&self) {
        let Some(queued) = lock(&self.process.queued).take() else { return };
        let (store, clock, process) = (Arc::clone(&self.store), Arc::clone(&self.clock), Arc::downgrade(&self.process));
        let mut held = self.process.held.subscribe();
        tokio::spawn(async move {
            let mut queued = queued;
            while let Some(first) = queued.recv().await {
                let Some(delay) = process.upgrade().map(|process| process.delay_us.load(Ordering::SeqCst)) else {
                    return;
                };
                if delay > 0 {
                    tokio::time::sleep(Duration::from_micros(delay)).await;
                } else {
                    tokio::task::yield_now().await;
                }
                let _closed = held.wait_for(|held| !held).await;
                let Some(process) = process.upgrade() else { return };
                let now_ms = clock.now_ms();
                let mut batch = vec![first];
                while batch.len() < BATCH {
                    let Ok(next) = queued.try_recv() else { break };
                    batch.push(next);
                }
                for (op, writes) in batch {
                    if process.dead.load(Ordering::SeqCst) {
                        return;
                    }
                    let mut store = lock(&store);
                    let planned = if writes { lock(&process.faults).pop_front() } else { None };
                    let fault = planned.or_else(|| store.fault());
                    op(&mut store, now_ms, fault);
                }
            }
        });
    }

    fn read<T: Send + 'static>(&self, look: impl FnOnce(&Store) -> T + Send + 'static) -> Commit<T> {
        let (store, process) = (Arc::clone(&self.store), Arc::clone(&self.process));
        async move {
            tokio::task::yield_now().await;
            if process.dead.load(Ordering::SeqCst) {
                return Err(StoreError::Closed);
            }
            let mut store = lock(&store);
            match store.fault() {
                Some(_) => Err(StoreError::Failed("for the test".to_owned())),
                None => Ok(look(&store)),
            }
        }
        .boxed()
    }
}

impl Process {
    fn new() -> Arc<Self> {
        let (queue, queued) = mpsc::channel(QUEUE);
        Arc::new(Self {
            queue,
            queued: Mutex::new(Some(queued)),
            dead: AtomicBool::new(false),
            held: watch::Sender::new(false),
            delay_us: AtomicU64::new(0),
            faults: Mutex::default(),
        })
    }
}

impl Mailbox for MemoryMailbox {
    fn claim(&self, replica: ReplicaId, account: AccountId) -> Commit<Claimed> {
        self.queue(false, move |store, now_ms| store.claim(replica, account, now_ms))
    }

    fn release(&self, replica: ReplicaId, account: AccountId) -> Commit<()> {
        self.queue(false, move |store, _| {
            store.release(replica, account);
            Ok(())
        })
    }

    fn put(&self, replica: ReplicaId, put: Put) -> Commit<PutOutcome> {
        self.queue_unless(put.chain.clone(), move |store, _| store.put(replica, &put))
    }

    fn forget(&self, replica: ReplicaId, account: AccountId, device: DeviceId, upto: Seq) -> Commit<Usage> {
        self.queue(true, move |store, _| {
            store.owned(replica, account)?;
            Ok(store.erase(account, Some(device), |row| row.header.seq <= upto))
        })
    }

    fn drop_device(
        &self,
        replica: ReplicaId,
        account: AccountId,
        device: DeviceId,
        keep: Option<u32>,
    ) -> Commit<Usage> {
        self.queue(true, move |store, _| {
            store.owned(replica, account)?;
            Ok(store.erase(account, Some(device), |row| keep.is_none_or(|keep| row.enc.registration != keep)))
        })
    }

    fn drop_account(&self, replica: ReplicaId, account: AccountId) -> Commit<()> {
        self.queue(true, move |store, _| {
            store.owned(replica, account)?;
            store.erase(account, None, |_| true);
            Ok(())
        })
    }

    fn expire(&self, now_ms: u64, limit: u32) -> Commit<u64> {
        self.queue(false, move |store, _| Ok(store.expire(now_ms, limit)))
    }

    fn usage(&self, account: AccountId) -> Commit<Vec<DeviceUsage>> {
        self.queue(false, move |store, _| Ok(store.usage(account)))
    }

    fn holds(&self, account: AccountId, key: MessageKey) -> Commit<bool> {
        self.read(move |store| store.holds(account, &key))
    }

    fn page(&self, request: PageRequest) -> Commit<Page> {
        self.read(move |store| store.page(&request))
    }

    fn renew(&self, replica: &Replica, lasts: Duration) -> Commit<()> {
        let (replica, lasts_ms) = (replica.clone(), u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        self.queue(false, move |store, now_ms| store.renew(replica, lasts_ms, now_ms))
    }

    fn leave(&self, replica: ReplicaId) -> Commit<()> {
        self.queue(false, move |store, _| {
            store.leave(replica);
            Ok(())
        })
    }

    fn depth(&self) -> Commit<Depth> {
        self.read(|store| store.depth())
    }

    fn queued(&self) -> usize {
        0
    }

    fn replicas(&self) -> Commit<Vec<Replica>> {
        self.queue(false, |store, now_ms| Ok(store.replicas(now_ms)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use causeway_runtime::clock::ManualClock;
    use proptest::prelude::*;

    use super::*;
    use crate::mailbox::shared_suite::shared_suite;
    use crate::mailbox::suite::{self, BOUNDS, ONE, account, enc, header, model, put, request};

    fn fresh(clock: &Arc<ManualClock>) -> MemoryMailbox {
        let config = RoutingConfig {
            mailbox_messages: BOUNDS.messages,
            mailbox_bytes: BOUNDS.bytes,
            ..RoutingConfig::default()
        };
        MemoryMailbox::new(&config, clock.clone(), 1)
    }

    #[tokio::test]
    async fn it_passes_both_suites() {
        let clock = ManualClock::at_ms(1_000);
        suite::suite(async || fresh(&clock)).await;
        let two = async || {
            let one = fresh(&clock);
            let other = one.another();
            (one, other)
        };
        shared_suite(two, async |time| clock.advance(time)).await;
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn any_history_with_crashes_is_as_in_the_model(history in model::histories()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(model::run(fresh(&ManualClock::at_ms(1_000)), history, async |before| {
                before.kill(usize::MAX);
                before.another()
            }));
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_as_it_is() {
        let mailbox = suite::owned(fresh(&ManualClock::at_ms(1_000))).await;
        mailbox.fail_next([MemoryFault::Failed, MemoryFault::UnknownDone, MemoryFault::UnknownLost]);
        let mut told = Vec::new();
        for seq in 1..=4 {
            told.push(mailbox.put(ONE, put(1, header(seq, 9, seq as u8), vec![enc(1, 101, b"a")])).await);
        }
        assert!(matches!(told[0], Err(StoreError::Failed(_))));
        assert!(matches!((&told[1], &told[2]), (Err(StoreError::Unknown(_)), Err(StoreError::Unknown(_)))));
        let page = mailbox.page(request(1, 1, 0)).await.unwrap();
        assert_eq!(page.entries.iter().map(|entry| entry.header.seq.0).collect::<Vec<_>>(), [2, 4]);
        // A process that dies loses what it had queued, and says nothing more.
        mailbox.hold(true);
        let lost = mailbox.put(ONE, put(1, header(9, 9, 9), vec![enc(1, 101, b"a")]));
        mailbox.kill(0);
        assert_eq!(lost.await, Err(StoreError::Closed));
        assert_eq!(mailbox.usage(account(1)).await, Err(StoreError::Closed));
        assert_eq!(mailbox.another().usage(account(1)).await.unwrap()[0].usage.messages, 2);
    }
}
