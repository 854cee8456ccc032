//! The nemesis: which faults happen when, and carrying them out.
//!
//! The schedule is made from a seed and from what there is ([`Topology`]) before the run begins, so a seed and a variant
//! give the same faults at the same times. Time is divided into periods of 20 to 40 s; each draws a subset of the kinds,
//! and one in four is quiet. Faults overlap, but not on the same target: one whose target is still ill when its time
//! comes is left out.

mod perform;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::{Cluster, PostgresShape, RedisShape, Service, Variant};
use crate::events::FaultKind;

/// What is to be drawn.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The last fault begins before this.
    pub lasts: Duration,
    /// Outside quiet periods, a fault begins about each so often.
    pub pace: Duration,
    /// No fault is to last longer.
    pub longest: Duration,
    /// The kinds that may be drawn.
    pub kinds: Vec<FaultKind>,
    /// Only targets that have one of these in their names, unless it is empty.
    pub targets: Vec<String>,
}

impl Plan {
    /// All kinds, a fault about each 5 s of at most 15 s.
    pub fn new(lasts: Duration) -> Self {
        let (pace, longest) = (Duration::from_secs(5), Duration::from_secs(15));
        Self { lasts, pace, longest, kinds: FaultKind::ALL.to_vec(), targets: Vec::new() }
    }
}

/// What there is that could fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Processes of ours.
    pub services: Vec<String>,
    /// Links, in the order of their names.
    pub links: Vec<String>,
    /// PostgreSQL, if there is one.
    pub postgres: Option<PostgresShape>,
    /// Redis, if there is one.
    pub redis: Option<RedisShape>,
}

/// A fault that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When it begins, from the beginning of the run.
    pub at: Duration,
    /// What.
    pub kind: FaultKind,
    /// To whom.
    pub target: String,
    /// For how long, if it is not over at once.
    pub lasts: Duration,
    /// Decides what is left open: by how much, which one of several.
    pub pick: u64,
}

/// What became of a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// How many faults of each kind there were.
    pub kinds: BTreeMap<FaultKind, u32>,
    /// How many were left out, since their target was still ill.
    pub left_out: u32,
    /// How many met nothing that they could do anything to.
    pub idle: u32,
    /// What did not go as planned.
    pub failed: Vec<String>,
}

/// A schedule and the cluster that it is for.
pub struct Nemesis {
    cluster: Arc<Cluster>,
    schedule: std::vec::IntoIter<Planned>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    ill: BTreeSet<String>,
    /// Begun, and healed.
    counts: (u64, u64),
    done: Done,
}

/// How far a nemesis has come. For whoever watches it.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Mutex<State>>);

impl Progress {
    /// How many faults have begun, and how many of them have not been healed.
    pub fn counts(&self) -> (u64, u64) {
        let (begun, healed) = self.0.lock().unwrap_or_else(PoisonError::into_inner).counts;
        (begun, begun - healed)
    }
}

impl Topology {
    /// What this cluster has.
    pub fn of(cluster: &Cluster) -> Self {
        let (postgres, redis) = match cluster.variant() {
            Variant::One => (None, None),
            Variant::Scaled(postgres, redis) => (Some(postgres), Some(redis)),
        };
        Self {
            services: cluster.services().iter().map(|service| service.name().to_owned()).collect(),
            links: cluster.links().keys().cloned().collect(),
            postgres,
            redis,
        }
    }

    /// Whom a kind of fault can hit.
    pub fn targets(&self, kind: FaultKind) -> Vec<String> {
        let links = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
            self.links.iter().filter(|link| wanted(link)).cloned().collect()
        };
        let only = |name: &str, there: bool| if there { vec![name.to_owned()] } else { Vec::new() };
        let many = self.services.len() > 1;
        let postgres = || only("postgres", self.postgres.is_some());
        match kind {
            FaultKind::Kill | FaultKind::KillStarting | FaultKind::Pause | FaultKind::Drain => self.services.clone(),
            FaultKind::Rolling => only("all", many),
            FaultKind::Isolate => {
                if many {
                    self.services.clone()
                } else {
                    Vec::new()
                }
            }
            FaultKind::Cut
            | FaultKind::CutThere
            | FaultKind::CutBack
            | FaultKind::Reset
            | FaultKind::Delay
            | FaultKind::Slow
            | FaultKind::HalfClose
            | FaultKind::CutMidway => self.links.clone(),
            FaultKind::CommitCut => {
                let mut targets: Vec<_> = self
                    .links
                    .iter()
                    .filter_map(|link| Some(format!("{}>postgres", link.split_once(">postgres")?.0)))
                    .collect();
                targets.dedup();
                targets
            }
            FaultKind::Herd => links(&|link| link.starts_with("clients>") && !link.starts_with("clients>media")),
            FaultKind::RedisKill | FaultKind::RedisPause | FaultKind::RedisFlush | FaultKind::RedisSleep => {
                only("redis", self.redis.is_some())
            }
            FaultKind::RedisFailover => only("redis", self.redis.is_some_and(|shape| shape != RedisShape::Single)),
            FaultKind::SentinelKill => only("redis", self.redis == Some(RedisShape::Sentinel)),
            FaultKind::PostgresKill
            | FaultKind::PostgresRestart
            | FaultKind::PostgresPause
            | FaultKind::PostgresLock
            | FaultKind::PostgresTerminate => postgres(),
            FaultKind::PostgresPromote | FaultKind::StandbyKill | FaultKind::StandbyPause | FaultKind::StandbyLost => {
                only("postgres", self.postgres == Some(PostgresShape::Pair))
            }
            // Where the data is.
            FaultKind::DiskFull | FaultKind::SyncFails | FaultKind::SyncSlow | FaultKind::SyncLies => {
                if self.postgres.is_some() { postgres() } else { self.services.clone() }
            }
            FaultKind::Clock => self.services.iter().cloned().chain(postgres()).collect(),
        }
    }

    /// What must be well for a fault to begin, and is ill until it is healed.
    fn resources(&self, planned: &Planned) -> BTreeSet<String> {
        let target = planned.target.clone();
        match planned.kind {
            FaultKind::Rolling => self.services.iter().cloned().collect(),
            FaultKind::Isolate => self.touching(&target).into_iter().collect(),
            FaultKind::CommitCut => self.to_postgres(&target).into_iter().collect(),
            FaultKind::Clock => BTreeSet::from([format!("clock of {target}")]),
            // Over at once.
            FaultKind::Reset | FaultKind::HalfClose | FaultKind::Herd => BTreeSet::new(),
            _ => BTreeSet::from([target]),
        }
    }

    /// The links behind `routing-1>postgres`: one to each server, of which one is the primary.
    pub fn to_postgres(&self, target: &str) -> Vec<String> {
        self.links.iter().filter(|link| link.starts_with(target)).cloned().collect()
    }

    /// The links of a process, both those from it and those to it. Those that it shares with others when it connects
    /// (to other routings) are not among them.
    pub fn touching(&self, service: &str) -> Vec<String> {
        let touches = |link: &&String| link.split_once('>').is_some_and(|(from, to)| from == service || to == service);
        self.links.iter().filter(touches).cloned().collect()
    }
}

/// The faults of a run, in the order of their times.
pub fn schedule(seed: u64, topology: &Topology, plan: &Plan) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let targets = |kind: FaultKind| -> Vec<String> {
        let wanted = |target: &String| plan.targets.is_empty() || plan.targets.iter().any(|part| target.contains(part));
        topology.targets(kind).into_iter().filter(wanted).collect()
    };
    let possible: Vec<_> = plan.kinds.iter().filter(|kind| !targets(**kind).is_empty()).copied().collect();
    let mut planned = Vec::new();
    let mut period_begins = Duration::ZERO;
    while period_begins < plan.lasts && !possible.is_empty() {
        let period_ends = period_begins + between(&mut rng, PERIOD.0, PERIOD.1);
        // Not the first, so that a short run has faults.
        let quiet = period_begins > Duration::ZERO && rng.random_ratio(1, 4);
        let mut kinds = possible.clone();
        kinds.shuffle(&mut rng);
        kinds.truncate(rng.random_range(KINDS_AT_LEAST..=KINDS_AT_MOST));
        // Faults begin before this.
        let ends = if quiet { period_begins } else { period_ends.min(plan.lasts) };
        let mut at = period_begins;
        loop {
            at += between(&mut rng, plan.pace / 4, plan.pace * 7 / 4);
            if at >= ends {
                break;
            }
            let Some(kind) = kinds.choose(&mut rng).copied() else { break };
            let targets = targets(kind);
            let Ok(target) = targets.choose_weighted(&mut rng, |target| weight(target)).cloned() else { break };
            let (least, most) = lasting(kind);
            let lasts = between(&mut rng, least, most).min(plan.longest);
            planned.push(Planned { at, kind, target, lasts, pick: rng.random() });
        }
        period_begins = period_ends;
    }
    planned
}

/// How often a target is drawn, compared with others: links that messages take more often than those that they do not.
fn weight(target: &str) -> u32 {
    let Some((from, to)) = target.split_once('>') else { return 1 };
    let of = |name: &str| matches!(name.split('-').next(), Some("clients" | "edge" | "routing" | "routings" | "all"));
    if from.starts_with("media") || to.starts_with("media") || to.starts_with("sentinel") {
        1
    } else if of(from) && !to.starts_with("redis") {
        6
    } else {
        3
    }
}

fn between(rng: &mut StdRng, least: Duration, most: Duration) -> Duration {
    // Whole milliseconds are easier to read.
    let [least, most] = [least, most].map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    Duration::from_millis(rng.random_range(least..=most.max(least)))
}

/// How long faults of a kind last.
fn lasting(kind: FaultKind) -> (Duration, Duration) {
    let ms = Duration::from_millis;
    match kind {
        FaultKind::Reset
        | FaultKind::HalfClose
        | FaultKind::Herd
        | FaultKind::Drain
        | FaultKind::Rolling
        | FaultKind::RedisFlush
        | FaultKind::RedisFailover
        | FaultKind::PostgresTerminate => (ms(0), ms(0)),
        FaultKind::Kill | FaultKind::KillStarting | FaultKind::RedisKill => (ms(0), ms(3_000)),
        FaultKind::SentinelKill => (ms(500), ms(6_000)),
        FaultKind::StandbyKill | FaultKind::StandbyLost => (ms(500), ms(8_000)),
        FaultKind::PostgresKill | FaultKind::PostgresRestart | FaultKind::PostgresPromote => (ms(0), ms(3_000)),
        FaultKind::RedisSleep | FaultKind::PostgresLock => (ms(500), ms(6_000)),
        FaultKind::Pause | FaultKind::RedisPause | FaultKind::PostgresPause | FaultKind::StandbyPause => {
            (ms(500), ms(15_000))
        }
        FaultKind::CommitCut | FaultKind::CutMidway => (ms(2_000), ms(10_000)),
        FaultKind::SyncFails | FaultKind::SyncLies | FaultKind::DiskFull => (ms(500), ms(8_000)),
        FaultKind::Cut
        | FaultKind::CutThere
        | FaultKind::CutBack
        | FaultKind::Isolate
        | FaultKind::Delay
        | FaultKind::Slow
        | FaultKind::SyncSlow
        | FaultKind::Clock => (ms(1_000), ms(15_000)),
    }
}

impl Nemesis {
    /// Draws a schedule for this cluster.
    pub fn new(seed: u64, cluster: &Arc<Cluster>, plan: &Plan) -> Self {
        let schedule = schedule(seed, &Topology::of(cluster), plan).into_iter();
        Self { cluster: Arc::clone(cluster), schedule, state: Arc::default() }
    }

    /// The faults that are still to come.
    pub fn planned(&self) -> &[Planned] {
        self.schedule.as_slice()
    }

    /// To watch it while it runs.
    pub fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.state))
    }

    /// Carries it out until its end or until `stop`, then heals everything.
    ///
    /// # Errors
    /// The cluster does not become well again, or the log of faults cannot be written.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<Done> {
        let (stopping, stopped) = watch::channel(false);
        let mut under_way = JoinSet::new();
        let began = Instant::now();
        tokio::pin!(stop);
        let topology = Topology::of(&self.cluster);
        for planned in self.schedule {
            tokio::select! {
                () = tokio::time::sleep_until(began + planned.at) => {}
                () = &mut stop => break,
            }
            let resources = topology.resources(&planned);
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if !state.ill.is_disjoint(&resources) {
                    state.done.left_out += 1;
                    continue;
                }
                state.ill.extend(resources.iter().cloned());
                state.counts.0 += 1;
                *state.done.kinds.entry(planned.kind).or_default() += 1;
            }
            under_way.spawn(carry_out(
                Arc::clone(&self.cluster),
                planned,
                resources,
                Arc::clone(&self.state),
                stopped.clone(),
            ));
        }
        stopping.send_replace(true);
        while let Some(ended) = under_way.join_next().await {
            ended.context("a fault")??;
        }
        self.cluster.heal().await.context("heal everything")?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(state.done.clone())
    }
}

async fn carry_out(
    cluster: Arc<Cluster>,
    planned: Planned,
    resources: BTreeSet<String>,
    state: Arc<Mutex<State>>,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let log = cluster.log().clone();
    let number = log.begin(planned.kind, &planned.target, &perform::describe(&planned))?;
    let outcome = Box::pin(perform::perform(&cluster, &planned, stopped)).await.map_err(|error| format!("{error:#}"));
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    for resource in &resources {
        state.ill.remove(resource);
    }
    state.counts.1 += 1;
    state.done.idle += u32::from(outcome.as_ref().is_ok_and(|done| done.idle));
    if let Err(error) = &outcome {
        state.done.failed.push(format!("{} of {}: {error}", planned.kind, planned.target));
    }
    log.end(number, outcome)
}

/// A process of ours, by its name.
fn service<'c>(cluster: &'c Cluster, name: &str) -> anyhow::Result<&'c Arc<Service>> {
    cluster.service(name).with_context(|| format!("no process is called {name}"))
}

const PERIOD: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(40));
const KINDS_AT_LEAST: usize = 3;
const KINDS_AT_MOST: usize = 12;

#[cfg(test)]
mod tests;
