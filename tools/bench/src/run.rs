//! Runs players on threads, and reads what the servers use in each window.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::deployment::Watched;
use crate::engine::{Engine, Player, Wire};
use crate::measure::clock::{self, SECOND};
use crate::measure::memory;
use crate::measure::processor::Reading;
use crate::measure::window::{Shape, Windows};
use crate::report::progress;

/// What players and the one who measures tell each other.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    ready: AtomicUsize,
    /// Sessions that were opened before the load, for the progress line.
    pub(crate) opened: AtomicU64,
    windows: OnceLock<Windows>,
    /// What has happened so far, for the progress line.
    pub(crate) happened: AtomicU64,
    /// Somebody has failed: all leave.
    pub(crate) failed: AtomicBool,
}

impl Gate {
    /// A thread's sessions are open.
    pub(crate) fn ready(&self) {
        self.ready.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the sessions of so many threads are open.
    pub(crate) fn are_ready(&self, threads: usize) -> bool {
        self.ready.load(Ordering::SeqCst) >= threads
    }

    /// Tells when it is measured.
    pub(crate) fn begin(&self, windows: Windows) -> anyhow::Result<()> {
        self.windows.set(windows).map_err(|_| anyhow!("a run has one beginning"))
    }

    /// When it is measured, once that is known: load may begin.
    pub(crate) fn windows(&self) -> Option<Windows> {
        self.windows.get().copied()
    }
}

/// What each role has used in a window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Use {
    /// Nanoseconds.
    pub(crate) elapsed: u64,
    /// Nanoseconds on a processor, by role.
    pub(crate) processor: BTreeMap<&'static str, u64>,
    /// The same of this process.
    pub(crate) generator: u64,
}

impl Use {
    /// Microseconds of the servers for each of so many.
    pub(crate) fn each(&self, number: u64) -> Option<f64> {
        let all: u64 = self.processor.values().sum();
        (number > 0).then(|| all as f64 / 1e3 / number as f64)
    }

    /// Seconds that passed.
    pub(crate) fn seconds(&self) -> f64 {
        self.elapsed as f64 / SECOND as f64
    }
}

/// A reading of all processes.
pub(crate) struct Snapshot {
    at: u64,
    servers: Vec<(&'static str, Reading)>,
    generator: Reading,
}

impl Snapshot {
    /// Reads them.
    pub(crate) fn take(watched: &[Watched]) -> anyhow::Result<Self> {
        let servers = watched.iter().map(|one| Ok((one.role, Reading::take(one.id, one.children)?)));
        let servers = servers.collect::<anyhow::Result<_>>()?;
        Ok(Self { at: clock::now(), servers, generator: Reading::take(std::process::id(), false)? })
    }

    /// What was used between an earlier one and this one.
    pub(crate) fn since(&self, earlier: &Self) -> Use {
        let mut processor = BTreeMap::new();
        for ((role, now), (_, before)) in self.servers.iter().zip(&earlier.servers) {
            *processor.entry(*role).or_default() += now.since(before);
        }
        Use { elapsed: self.at - earlier.at, processor, generator: self.generator.since(&earlier.generator) }
    }
}

/// Resident bytes of all processes of ours, by role.
pub(crate) fn resident(watched: &[Watched]) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let mut bytes = BTreeMap::new();
    for one in watched.iter().filter(|one| !one.children) {
        *bytes.entry(one.role).or_default() += memory::resident(one.id)?;
    }
    Ok(bytes)
}

/// A player's thread that is to be.
pub(crate) type Job<D> = Box<dyn FnOnce(Arc<Gate>) -> anyhow::Result<D> + Send>;

/// A thread for a player with these clients.
pub(crate) fn job<W, P, D>(
    net: &W::Net,
    logins: Vec<W::Login>,
    make: impl FnOnce(Arc<Gate>) -> P + Send + 'static,
    wrap: impl FnOnce(P::Done) -> D + Send + 'static,
) -> Job<D>
where
    W: Wire,
    P: Player<W>,
{
    let net = net.clone();
    Box::new(move |gate| Ok(wrap(Engine::<W, P>::new(net, logins, make(gate))?.run()?)))
}

/// What a run has given.
pub(crate) struct Ran<D> {
    /// What each player has left.
    pub(crate) done: Vec<D>,
    /// Of each window.
    pub(crate) uses: Vec<Use>,
    /// From the start of the load until all players were done.
    pub(crate) whole: Use,
}

/// How long sessions may take to open.
const OPENING: u64 = 600 * SECOND;
/// How long players may take to end after the last window.
const ENDING: u64 = 90 * SECOND;
const STEP: Duration = Duration::from_millis(2);

/// Runs players until they are done; `at_end` is called when the last window ends, while they go on.
pub(crate) fn run<D: Send + 'static>(
    watched: &[Watched],
    jobs: Vec<Job<D>>,
    shape: Shape,
    label: &str,
    at_end: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Ran<D>> {
    let gate = Arc::new(Gate::default());
    let mut threads = Vec::new();
    let count = jobs.len();
    for (index, job) in jobs.into_iter().enumerate() {
        let gate = Arc::clone(&gate);
        let thread = std::thread::Builder::new().name(format!("clients-{index}")).spawn(move || {
            let done = job(Arc::clone(&gate));
            if done.is_err() {
                gate.failed.store(true, Ordering::SeqCst);
            }
            done
        });
        threads.push(thread.context("start a thread")?);
    }
    let waited = wait_ready(&gate, count, label);
    let measured = waited.and_then(|()| {
        let before = Snapshot::take(watched)?;
        let windows = Windows::from(shape, clock::now());
        gate.begin(windows)?;
        let uses = watch(watched, windows, &gate, label)?;
        at_end()?;
        Ok((before, uses))
    });
    if measured.is_err() {
        gate.failed.store(true, Ordering::SeqCst);
    }
    let mut last = gate.happened.load(Ordering::Relaxed);
    let mut deadline = clock::now() + ENDING;
    while !threads.iter().all(std::thread::JoinHandle::is_finished) {
        let now = clock::now();
        let happened = gate.happened.load(Ordering::Relaxed);
        if happened != last {
            (last, deadline) = (happened, now + ENDING);
        }
        progress::line(&format!("{label}: {happened} so far"));
        if now > deadline {
            gate.failed.store(true, Ordering::SeqCst);
            return Err(anyhow!("{label}: the clients do not end"));
        }
        std::thread::sleep(STEP);
    }
    progress::clear();
    let mut done = Vec::new();
    for thread in threads {
        done.push(thread.join().map_err(|_| anyhow!("{label}: a thread has panicked"))??);
    }
    let (before, uses) = measured?;
    // Those that were killed have nothing to read any more.
    let whole = Snapshot::take(watched).map(|after| after.since(&before)).unwrap_or_default();
    Ok(Ran { done, uses, whole })
}

fn wait_ready(gate: &Gate, count: usize, label: &str) -> anyhow::Result<()> {
    let deadline = clock::now() + OPENING;
    while !gate.are_ready(count) {
        anyhow::ensure!(!gate.failed.load(Ordering::SeqCst), "{label}: the clients have failed");
        anyhow::ensure!(clock::now() < deadline, "{label}: the clients' sessions do not open");
        progress::line(&format!("{label}: {} sessions are open", gate.opened.load(Ordering::Relaxed)));
        std::thread::sleep(STEP);
    }
    Ok(())
}

/// Reads at the edges of all windows.
fn watch(watched: &[Watched], windows: Windows, gate: &Gate, label: &str) -> anyhow::Result<Vec<Use>> {
    let mut uses = Vec::new();
    let mut before: Option<Snapshot> = None;
    for index in 0..=windows.count() {
        let edge = windows.edge(index);
        loop {
            let now = clock::now();
            anyhow::ensure!(!gate.failed.load(Ordering::SeqCst), "{label}: the clients have failed");
            if now >= edge {
                break;
            }
            let part = if index == 0 { "warm-up".to_owned() } else { format!("{index} of {}", windows.count()) };
            progress::line(&format!("{label}: {part}, {} so far", gate.happened.load(Ordering::Relaxed)));
            clock::sleep_until(edge.min(now + SECOND / 2));
        }
        let now = Snapshot::take(watched)?;
        if let Some(before) = &before {
            uses.push(now.since(before));
        }
        before = Some(now);
    }
    Ok(uses)
}
