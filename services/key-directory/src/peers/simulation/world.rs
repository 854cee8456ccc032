//! All that there is, and what befalls it.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use causeway_identity::Domain;
use causeway_runtime::clock::ManualClock;
use causeway_runtime::health::Health;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::store::{ACCOUNTS, Store, Way, change_of, late};
use super::{Planted, Seen, follower};
use crate::changes::{Changes, Cut, Followers, Next};
use crate::peers::{LogError, Observer, Peers, Settings};
use crate::store::Logged;

const DIRECTORIES: usize = 2;
const FOLLOWERS: usize = 3;
const LEASE: Duration = Duration::from_secs(3);
const SETTINGS: Settings = Settings { poll: Duration::from_millis(200), lease: Duration::from_secs(5) };
const QUEUE: usize = 64;

/// A process that can be made to stand still: its tasks are not polled while it does, and time goes on.
#[derive(Default)]
pub(super) struct Process(Mutex<Frozen>);

#[derive(Default)]
struct Frozen {
    frozen: bool,
    waiting: Vec<Waker>,
}

impl Process {
    async fn live<F: Future>(self: Arc<Self>, life: F) -> F::Output {
        let mut life = Box::pin(life);
        poll_fn(|context| {
            let mut state = self.0.lock().unwrap();
            if state.frozen {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            drop(state);
            life.as_mut().poll(context)
        })
        .await
    }

    fn freeze(&self, frozen: bool) {
        let mut state = self.0.lock().unwrap();
        state.frozen = frozen;
        if !frozen {
            state.waiting.drain(..).for_each(Waker::wake);
        }
    }
}

/// A connection between a follower and a directory.
pub(super) struct Link(Mutex<Instant>);

impl Link {
    pub(super) fn stalled_until(&self) -> Instant {
        *self.0.lock().unwrap()
    }
}

/// A follower's end: each message with when it arrives.
pub(super) struct Stream {
    pub(super) incoming: mpsc::UnboundedReceiver<(Instant, Next)>,
    pub(super) outgoing: mpsc::UnboundedSender<(Instant, u64, u64)>,
    pub(super) link: Arc<Link>,
}

/// A directory that runs.
struct Running {
    process: Arc<Process>,
    changes: Changes,
    way: Arc<Way>,
    _tasks: JoinSet<()>,
    /// For streams and calls.
    more: mpsc::UnboundedSender<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>,
    closing: CancellationToken,
}

pub(super) struct Shared {
    pub(super) store: Store,
    planted: Option<Planted>,
    seen: Mutex<Seen>,
    /// The version of each record that somebody has been told of.
    confirmed: Mutex<[u64; ACCOUNTS]>,
    directories: Mutex<Vec<Option<Running>>>,
    links: Mutex<Vec<Arc<Link>>>,
}

pub(super) struct World {
    shared: Arc<Shared>,
    followers: Vec<Arc<Process>>,
    /// Nothing else happens than that a directory cannot reach the store for about a lease.
    only_cuts: bool,
    _tasks: JoinSet<()>,
}

struct NoProviders;

#[async_trait]
impl Observer for NoProviders {
    async fn provider_changed(&self, _: &Domain) -> Result<(), LogError> {
        Ok(())
    }

    async fn anything_changed(&self) -> Result<(), LogError> {
        Ok(())
    }
}

impl Shared {
    /// Acts on a cached record.
    pub(super) fn decided(&self, follower: usize, account: usize, version: u64) {
        let confirmed = self.confirmed.lock().unwrap()[account];
        let mut seen = self.seen.lock().unwrap();
        seen.decisions += 1;
        if version < confirmed {
            let what = format!("follower {follower}: version {version} of {account}, but {confirmed} is confirmed");
            seen.violations.push(what);
        }
    }

    /// Opens a stream to a directory, if it is there.
    pub(super) fn connect(&self, random: &mut StdRng) -> Option<Stream> {
        let nth = random.random_range(0..DIRECTORIES);
        let directories = self.directories.lock().unwrap();
        let directory = directories[nth].as_ref()?;
        let following = directory.changes.follow().ok()?;
        let link = Arc::new(Link(Mutex::new(Instant::now())));
        let mut links = self.links.lock().unwrap();
        links.retain(|link| Arc::strong_count(link) > 1);
        links.push(Arc::clone(&link));
        let (to_follower, incoming) = mpsc::unbounded_channel();
        let (outgoing, mut from_follower) = mpsc::unbounded_channel::<(Instant, u64, u64)>();
        let ear = following.ear();
        let mut down = StdRng::from_rng(random);
        let speaks = async move {
            while let Ok(next) = following.next().await {
                if to_follower.send((Instant::now() + late(&mut down), next)).is_err() {
                    return;
                }
            }
        };
        let on = Arc::clone(&link);
        let hears = async move {
            while let Some((arrives, acknowledged, ping)) = from_follower.recv().await {
                sleep_until(arrives.max(on.stalled_until())).await;
                if !ear.heard(acknowledged, ping) {
                    return;
                }
            }
            ear.cut(Cut::Left);
        };
        let _dies = directory.more.send(Box::pin(speaks));
        let _dies = directory.more.send(Box::pin(hears));
        Some(Stream { incoming, outgoing, link })
    }

    fn start(&self, nth: usize, seed: u64) {
        let process = Arc::new(Process::default());
        let closing = CancellationToken::new();
        let followers = Followers::shared(LEASE, QUEUE, closing.clone(), ManualClock::at_ms(1_750_000_000_000));
        let way = Arc::new(Way {
            store: self.store.clone(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            cut_until: Mutex::new(Instant::now()),
        });
        let log = Arc::clone(&way);
        let mut peers = Peers::new(log, followers, Arc::new(NoProviders), None, SETTINGS);
        peers.planted = self.planted;
        let changes = peers.changes();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&process).live(peers.run(Health::default(), closing.clone())));
        let (more, mut to_run) = mpsc::unbounded_channel();
        let of = Arc::clone(&process);
        tasks.spawn(async move {
            let mut tasks = JoinSet::new();
            while let Some(task) = to_run.recv().await {
                tasks.spawn(Arc::clone(&of).live(task));
            }
        });
        let running = Running { process, changes, way, _tasks: tasks, more, closing };
        self.directories.lock().unwrap()[nth] = Some(running);
    }

    /// Somebody changes a record by way of a directory, and is told, or not.
    fn change(
        self: &Arc<Self>,
        nth: usize,
        account: usize,
        only_waits: bool,
    ) -> Option<tokio::sync::oneshot::Receiver<()>> {
        let directories = self.directories.lock().unwrap();
        let directory = directories[nth].as_ref()?;
        let (changes, way, shared) = (directory.changes.clone(), Arc::clone(&directory.way), Arc::clone(self));
        let (told, is_told) = tokio::sync::oneshot::channel();
        let call = async move {
            if way.pass().await.is_err() {
                return;
            }
            let (version, logged) = if only_waits {
                (shared.store.version(account), Logged::default())
            } else {
                let (version, number) = shared.store.change(account);
                (version, Logged { changes: vec![change_of(account)], number: Some(number) })
            };
            if way.pass().await.is_err() {
                return;
            }
            changes.publish_all(&logged).confirm().await;
            let confirmed = &mut shared.confirmed.lock().unwrap()[account];
            *confirmed = version.max(*confirmed);
            shared.seen.lock().unwrap().confirmed += 1;
            let _gave_up = told.send(());
        };
        let _dies = directory.more.send(Box::pin(call));
        Some(is_told)
    }
}

impl World {
    pub(super) fn start(random: &mut StdRng, planted: Option<Planted>) -> Self {
        let shared = Arc::new(Shared {
            store: Store::new(planted),
            planted,
            seen: Mutex::default(),
            confirmed: Mutex::default(),
            directories: Mutex::new((0..DIRECTORIES).map(|_| None).collect()),
            links: Mutex::default(),
        });
        for nth in 0..DIRECTORIES {
            shared.start(nth, random.random());
        }
        let mut tasks = JoinSet::new();
        let followers: Vec<_> = (0..FOLLOWERS).map(|_| Arc::new(Process::default())).collect();
        for (name, process) in followers.iter().enumerate() {
            let life = follower::live(name, Arc::clone(&shared), StdRng::from_rng(random));
            tasks.spawn(Arc::clone(process).live(life));
        }
        let (users, mut of_users) = (Arc::clone(&shared), StdRng::from_rng(random));
        tasks.spawn(async move {
            loop {
                sleep(Duration::from_millis(of_users.random_range(0..250))).await;
                let (nth, account) = (of_users.random_range(0..DIRECTORIES), of_users.random_range(0..ACCOUNTS));
                let _told = users.change(nth, account, of_users.random_ratio(1, 5));
            }
        });
        Self { shared, followers, only_cuts: random.random_ratio(1, 4), _tasks: tasks }
    }

    pub(super) fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Something goes wrong.
    pub(super) fn trouble(&self, random: &mut StdRng) {
        let nth = random.random_range(0..DIRECTORIES);
        let (kind, lasts) = if self.only_cuts { (4, 4_500..6_500) } else { (random.random_range(0..12), 50..9_000) };
        let lasts = Duration::from_millis(random.random_range(lasts));
        let mut directories = self.shared.directories.lock().unwrap();
        match kind {
            // A directory stands still.
            0 | 1 => {
                if let Some(directory) = &directories[nth] {
                    let process = Arc::clone(&directory.process);
                    process.freeze(true);
                    thaw_after(process, lasts);
                }
            }
            // It dies, and comes back.
            2 => {
                let again_in = Duration::from_millis(random.random_range(0..3_000));
                if directories[nth].take().is_some() {
                    let (shared, seed) = (Arc::clone(&self.shared), random.random());
                    tokio::spawn(async move {
                        sleep(again_in).await;
                        shared.start(nth, seed);
                    });
                }
            }
            // It is told to stop, and soon dies.
            3 => {
                if let Some(directory) = &directories[nth] {
                    directory.closing.cancel();
                    let shared = Arc::clone(&self.shared);
                    let (stops_in, seed) = (Duration::from_millis(random.random_range(0..2_000)), random.random());
                    let stopped = Arc::clone(&directory.process);
                    tokio::spawn(async move {
                        sleep(stops_in).await;
                        let is_same = |running: &Option<Running>| {
                            running.as_ref().is_some_and(|running| Arc::ptr_eq(&running.process, &stopped))
                        };
                        let mut directories = shared.directories.lock().unwrap();
                        if is_same(&directories[nth]) {
                            directories[nth] = None;
                            drop(directories);
                            shared.start(nth, seed);
                        }
                    });
                }
            }
            // It cannot reach the store.
            4..=6 => {
                if let Some(directory) = &directories[nth] {
                    *directory.way.cut_until.lock().unwrap() = Instant::now() + lasts;
                }
            }
            // Nobody can.
            7 => {
                for directory in directories.iter().flatten() {
                    *directory.way.cut_until.lock().unwrap() = Instant::now() + lasts / 3;
                }
            }
            // A follower stands still.
            8 => {
                let process = Arc::clone(&self.followers[random.random_range(0..FOLLOWERS)]);
                process.freeze(true);
                thaw_after(process, lasts);
            }
            // A follower's connection lets nothing through for a while.
            9 | 10 => {
                let links = self.shared.links.lock().unwrap();
                if !links.is_empty() {
                    *links[random.random_range(0..links.len())].0.lock().unwrap() = Instant::now() + lasts;
                }
            }
            // The log is trimmed, before everybody has read it.
            11 => {
                drop(directories);
                self.shared.store.trim_to(random.random_range(0..3));
            }
            _ => {}
        }
    }

    /// All is well again, but for what lasts.
    pub(super) fn heal(&self) {
        self.followers.iter().for_each(|process| process.freeze(false));
        for directory in self.shared.directories.lock().unwrap().iter().flatten() {
            directory.process.freeze(false);
            *directory.way.cut_until.lock().unwrap() = Instant::now();
        }
        for link in &*self.shared.links.lock().unwrap() {
            *link.0.lock().unwrap() = Instant::now();
        }
    }

    /// Changes are confirmed everywhere.
    pub(super) async fn finish(&self) {
        // Whoever died is back, and whose lease had ended has begun anew.
        sleep(3 * SETTINGS.lease).await;
        for nth in 0..DIRECTORIES {
            let told = self.shared.change(nth, nth, false);
            // Two leases of a follower that was silent, and messages that are late.
            let patience = 2 * LEASE + 2 * SETTINGS.lease;
            let confirmed = match told {
                Some(told) => matches!(timeout(patience, told).await, Ok(Ok(()))),
                None => false,
            };
            if !confirmed {
                self.shared.seen.lock().unwrap().stuck.push(format!("a change by directory {nth}"));
            }
        }
    }
}

fn thaw_after(process: Arc<Process>, lasts: Duration) {
    tokio::spawn(async move {
        sleep(lasts).await;
        process.freeze(false);
    });
}
