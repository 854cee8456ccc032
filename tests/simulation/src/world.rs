//! One run: hosts, what happens to them, and what came of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use causeway_edge::{EdgeConfig, EdgeDeps, Logins, Random, UnboundEdge};
use causeway_identity::{NoiseKey, RootKey, ServerCertificate, Validity};
use causeway_noise::StaticKey;
use causeway_routing::{MemoryMailbox, Routing, RoutingConfig};
use causeway_runtime::clock::{Clock as _, SharedClock};
use causeway_runtime::grpc::Endpoints;
use causeway_runtime::lifecycle::Lifecycle;
use turmoil::Sim;

use crate::client::{self, EDGE_PORT};
use crate::clock::SimulatedClock;
use crate::directory::Directory;
use crate::ledger::{Figures, Ledger, Violation};
use crate::net;
use crate::people::DEPLOYMENT;
use crate::schedule::{DIRECTORY, EDGES, END, Fault, LOAD, ROUTINGS, Schedule, host_of};

const GRPC_PORT: u16 = 7450;
const TICK: Duration = Duration::from_millis(2);
const LEASE_MS: u64 = 2_000;

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) figures: Figures,
    pub(crate) faults: usize,
    pub(crate) took: Duration,
    pub(crate) violations: Vec<Violation>,
    pub(crate) log: Vec<String>,
}

impl Outcome {
    pub(crate) fn summary(&self) -> String {
        let Figures { messages, acknowledged, delivered, deliveries, repeats } = self.figures;
        format!(
            "seed={} messages={messages} acknowledged={acknowledged} delivered={delivered} deliveries={deliveries} \
             repeats={repeats} faults={} simulated_ms={}",
            self.seed,
            self.faults,
            self.took.as_millis()
        )
    }
}

/// Runs one seed.
pub(crate) fn run(seed: u64) -> anyhow::Result<Outcome> {
    let schedule = Schedule::new(seed);
    let files = tempfile::tempdir().context("a folder for keys")?;
    write_keys(files.path())?;
    let store_clock: SharedClock = Arc::new(SimulatedClock { ahead: Duration::ZERO });
    let (ledger, store) = (
        Ledger::default(),
        Store::new(MemoryMailbox::new(&RoutingConfig::default(), store_clock, seed), schedule.write),
    );
    ledger.join(&schedule.people);

    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(END + Duration::from_secs(60))
        .tick_duration(TICK)
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(6))
        .enable_random_order()
        .tcp_capacity(1_024)
        .build();
    add_hosts(&mut sim, &schedule, &ledger, &store, files.path());
    for plan in &schedule.clients {
        let (plan, ledger) = (plan.clone(), ledger.clone());
        sim.client(host_of(&plan.person), async move { Ok(client::run(plan, ledger).await?) });
    }

    ledger.begins();
    let mut pending: Vec<Step> = Vec::new();
    for planned in &schedule.faults {
        let cuts = schedule.people.iter().find(|person| planned.fault.cuts(&host_of(person)));
        ledger.breaks(planned.begin, planned.end, cuts.copied());
        pending.push(Step { at: planned.begin, mends: false, fault: planned.fault.clone() });
        pending.push(Step { at: planned.end, mends: true, fault: planned.fault.clone() });
    }
    // The last first; of those at one time, what begins before what ends.
    pending.sort_by_key(|step| std::cmp::Reverse((step.at, step.mends)));
    loop {
        while let Some(step) = pending.pop_if(|step| step.at <= sim.elapsed()) {
            ledger.note_at(sim.elapsed(), &format!("{}{:?}", if step.mends { "mended: " } else { "" }, step.fault));
            apply(&mut sim, &step, &store);
        }
        sim.step().map_err(|error| anyhow!("a host failed: {error}"))?;
        let over = sim.elapsed() > LOAD + Duration::from_secs(1) && pending.is_empty();
        if sim.elapsed() > END || over && ledger.is_settled() && store.mailbox.is_empty() {
            break;
        }
    }
    let took = sim.elapsed();
    let mut violations = ledger.check();
    if !store.mailbox.is_empty() {
        let what = "devices have acknowledged everything, and something waits".to_owned();
        violations.push(Violation { promise: "mailboxes are empty in the end", what });
    }
    Ok(Outcome { seed, figures: ledger.figures(), faults: schedule.faults.len(), took, violations, log: ledger.log() })
}

struct Step {
    at: Duration,
    mends: bool,
    fault: Fault,
}

fn apply(sim: &mut Sim<'_>, step: &Step, store: &Store) {
    match (&step.fault, step.mends) {
        (Fault::Crash(host), false) => {
            store.kill(host);
            sim.crash(host.as_str());
        }
        (Fault::Crash(host), true) => sim.bounce(host.as_str()),
        (Fault::Cut { from, to, both: true }, false) => sim.partition(from.as_str(), to.as_str()),
        (Fault::Cut { from, to, both: false }, false) => sim.partition_oneway(from.as_str(), to.as_str()),
        (Fault::Cut { from, to, .. }, true) => sim.repair(from.as_str(), to.as_str()),
        (Fault::Hold { from, to }, false) => sim.hold(from.as_str(), to.as_str()),
        (Fault::Hold { from, to }, true) => sim.release(from.as_str(), to.as_str()),
        (Fault::Away(host), mends) => store.hold(host, !mends),
        (Fault::Store, mends) => store.mailbox.set_faulty(!mends),
    }
}

fn add_hosts(sim: &mut Sim<'_>, schedule: &Schedule, ledger: &Ledger, store: &Store, files: &Path) {
    let directory = Directory::new(&schedule.people);
    let (closings, of_directory) = (schedule.closings.clone(), ledger.clone());
    sim.host(DIRECTORY, move || {
        let (directory, closings, ledger) = (directory.clone(), closings.clone(), of_directory.clone());
        async move {
            for (account, from, until) in closings {
                tokio::spawn(close(directory.clone(), ledger.clone(), account, from, until));
            }
            Ok(net::serve(directory.router(), GRPC_PORT).await?)
        }
    });
    for (index, name) in ROUTINGS.into_iter().enumerate() {
        let (store, ahead, rate) = (store.clone(), schedule.ahead[index], schedule.rate);
        sim.host(name, move || {
            let mailbox = store.started(name);
            async move { Ok(routing(name, mailbox, SimulatedClock { ahead }, rate).await?) }
        });
    }
    // As Redis would tell them.
    let logins = Logins::own(&Random::seeded(0));
    for name in EDGES {
        let (files, logins, seeds) = (files.to_owned(), logins.clone(), Cell::new(schedule.people.len() as u64));
        sim.host(name, move || {
            // Another seed for each start.
            seeds.set(seeds.get() + 1);
            let (files, logins, random) = (files.clone(), logins.clone(), Random::seeded(seeds.get()));
            async move { Ok(edge(&files, logins, random).await?) }
        });
    }
}

async fn close(directory: Directory, ledger: Ledger, account: u8, from: Duration, until: Duration) {
    tokio::time::sleep(from.saturating_sub(turmoil::sim_elapsed().unwrap_or_default())).await;
    ledger.note(&format!("account {account} closes"));
    ledger.closes(account);
    directory.set_closed(account, true).await;
    ledger.note(&format!("account {account} is closed"));
    ledger.closed(account);
    tokio::time::sleep(until.saturating_sub(turmoil::sim_elapsed().unwrap_or_default())).await;
    ledger.note(&format!("account {account} opens"));
    ledger.opens(account);
    directory.set_closed(account, false).await;
    ledger.opened(account);
}

async fn routing(
    name: &'static str,
    mailbox: MemoryMailbox,
    clock: SimulatedClock,
    (account_per_s, account_burst): (u32, u32),
) -> anyhow::Result<()> {
    let config = RoutingConfig {
        name: name.to_owned(),
        advertise_url: name.to_owned(),
        lease_ms: LEASE_MS,
        account_per_s,
        account_burst,
        provider_per_s: 100_000,
        provider_burst: 100_000,
        ..RoutingConfig::default()
    };
    let clock: SharedClock = Arc::new(clock);
    let routing = Routing::with_memory_mailbox(config, mailbox, net::channel(DIRECTORY, GRPC_PORT), clock).await?;
    let routing = routing.reach_peers_by(|name| Some(net::channel(name, GRPC_PORT)));
    let life = Lifecycle::new();
    let router = routing.router();
    life.spawn_vital("routing", routing.serve(life.clone()));
    net::serve(router, GRPC_PORT).await
}

async fn edge(files: &Path, logins: Logins, random: Random) -> anyhow::Result<()> {
    let routings = ROUTINGS.map(|name| (format!("http://{name}"), net::channel(name, GRPC_PORT)));
    let deps = EdgeDeps {
        directory: net::channel(DIRECTORY, GRPC_PORT),
        routing: Endpoints::fixed(routings),
        // Nobody sends media here.
        media: net::channel(DIRECTORY, GRPC_PORT),
    };
    let config = EdgeConfig {
        noise_key_file: files.join("noise.key"),
        certificate_file: files.join("certificate"),
        deployment: DEPLOYMENT.to_owned(),
        // Read once, at the start: reading files is not simulated.
        certificate_reload_interval_ms: 3_600_000,
        ping_interval_ms: 10_000,
        overload_retry_ms: 200,
        ..EdgeConfig::default()
    };
    let edge = UnboundEdge::build(config, deps, Arc::new(SimulatedClock { ahead: Duration::ZERO }), random)?;
    let clients = net::accepted(EDGE_PORT).await?;
    edge.with_logins(logins).serve_on(Lifecycle::new(), clients).await?;
    Ok(())
}

/// The mailbox, and each routing's handle on it.
#[derive(Clone)]
struct Store {
    mailbox: MemoryMailbox,
    write: Duration,
    handles: Arc<Mutex<BTreeMap<String, MemoryMailbox>>>,
}

impl Store {
    fn new(mailbox: MemoryMailbox, write: Duration) -> Self {
        Self { mailbox, write, handles: Arc::default() }
    }

    /// Holds everything back that a routing asks for, or no more.
    fn hold(&self, host: &str, held: bool) {
        if let Some(handle) = self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(host) {
            handle.hold(held);
        }
    }

    /// The handle of a routing's next life.
    fn started(&self, host: &str) -> MemoryMailbox {
        let handle = self.mailbox.another();
        handle.take(self.write);
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), handle.clone());
        handle
    }

    /// What a process that is killed had queued is lost.
    fn kill(&self, host: &str) {
        if let Some(handle) = self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(host) {
            handle.kill(0);
        }
    }
}

/// The keys of the deployment's edges.
fn write_keys(folder: &Path) -> anyhow::Result<()> {
    let static_key = StaticKey::from_bytes([0x11; 32]);
    let key = format!("{}\n", hex::encode(*static_key.to_bytes()));
    causeway_runtime::secret_file::create(&folder.join("noise.key"), key.as_bytes())?;
    let now = SimulatedClock { ahead: Duration::ZERO }.now();
    let hour = Duration::from_secs(3_600);
    let validity = Validity { not_before: now - hour, not_after: now + hour };
    let public = NoiseKey::new(*static_key.public()).context("a good key")?;
    let certificate = ServerCertificate::issue(&RootKey::from_seed([7; 32]), DEPLOYMENT, &public, validity)?;
    std::fs::write(folder.join("certificate"), certificate.to_bytes())?;
    Ok(())
}
