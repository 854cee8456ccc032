//! The processes of a deployment, asked over their observability listeners (`server.health_listen`): `/health` and
//! `/metrics`. What answers may be anything: answers are bounded in time and size, and cleaned before they are shown.

mod config;
mod exposition;
mod fetch;
mod health;
mod target;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use self::config::{Listed, ProcessConfig, Scope};
pub(crate) use self::exposition::Exposition;
use self::fetch::Getter;
pub(crate) use self::fetch::Offset;
pub(crate) use self::health::Health;
pub(crate) use self::target::Target;

/// Processes that are looked at; what DNS has beyond it is left out.
const MAX_PROCESSES: usize = 256;
/// Of them, asked at a time.
const AT_ONCE: usize = 32;
const MAX_HEALTH_BYTES: usize = 256 * 1024;
const MAX_METRICS_BYTES: usize = 8 * 1024 * 1024;

/// Which processes, and how long one may take.
#[derive(Debug, Args)]
pub(crate) struct FleetArguments {
    /// Observability listener of a process (its server.health_listen): http://host:port, or dns+http://name:port for all
    /// addresses of a name; repeat for more.
    #[arg(long = "target", env = "CAUSEWAY_TARGETS", value_delimiter = ',', value_name = "URL")]
    targets: Vec<Target>,
    /// Configuration file (TOML) of a process, whose server.health_listen is looked at too; repeat for more. Environment
    /// variables like CAUSEWAY_SERVER__HEALTH_LISTEN go before it.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,
    /// How long a process may take to answer, in milliseconds.
    #[arg(long, default_value_t = 3_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=60_000))]
    timeout_ms: u64,
}

/// The processes that are to be looked at.
pub(crate) struct Fleet {
    targets: Vec<Target>,
    configs: Vec<ProcessConfig>,
    getter: Getter,
}

/// What a look at one process has found.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// `host:port` of its listener.
    pub(crate) place: String,
    /// Or why it told nothing.
    pub(crate) health: Result<Health, String>,
    /// Empty if it counts nothing, or did not tell.
    pub(crate) metrics: Exposition,
    /// Its clock, against this machine's.
    pub(crate) offset: Option<Offset>,
    /// When its metrics were asked for.
    pub(crate) at: Instant,
}

impl Fleet {
    /// Reads the configuration files; asks nobody yet.
    pub(crate) fn open(arguments: FleetArguments) -> anyhow::Result<Self> {
        let FleetArguments { mut targets, configs, timeout_ms } = arguments;
        let configs = configs.iter().map(|file| ProcessConfig::read(file)).collect::<anyhow::Result<Vec<_>>>()?;
        for target in configs.iter().filter_map(ProcessConfig::health_target) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        if targets.is_empty() && configs.is_empty() {
            bail!(
                "no process is named: give --target http://host:port of each (its server.health_listen), or --config"
            );
        }
        Ok(Self { targets, configs, getter: Getter::new(Duration::from_millis(timeout_ms))? })
    }

    /// Fails if nothing that was named has a listener to ask.
    pub(crate) fn with_targets(self) -> anyhow::Result<Self> {
        if self.targets.is_empty() {
            bail!("server.health_listen is not set in the file: set it, or give --target http://host:port");
        }
        Ok(self)
    }

    /// The files that were named.
    pub(crate) fn configs(&self) -> &[ProcessConfig] {
        &self.configs
    }

    /// How long one may take.
    pub(crate) fn patience(&self) -> Duration {
        self.getter.patience()
    }

    /// Looks at all of them, each once, some at a time. In the order in which they were named, names' addresses sorted.
    pub(crate) async fn look(&self) -> Vec<Seen> {
        let mut places = Vec::new();
        for target in &self.targets {
            places.extend(target.resolve(self.patience()).await);
        }
        let mut known = Vec::<String>::new();
        places.retain(|place| {
            let new = !known.contains(&place.name);
            known.push(place.name.clone());
            new
        });
        places.truncate(MAX_PROCESSES);
        let mut all: Vec<Option<Seen>> = places.iter().map(|_| None).collect();
        let mut asking = JoinSet::new();
        let mut waiting = places.into_iter().enumerate();
        loop {
            while asking.len() < AT_ONCE {
                let Some((index, place)) = waiting.next() else { break };
                let getter = self.getter.clone();
                asking.spawn(async move { (index, ask(&getter, place).await) });
            }
            match asking.join_next().await {
                None => return all.into_iter().flatten().collect(),
                Some(Ok((index, seen))) => all[index] = Some(seen),
                // One that was cut off is not shown; none is.
                Some(Err(_)) => {}
            }
        }
    }
}

async fn ask(getter: &Getter, place: target::Place) -> Seen {
    let mut seen = Seen {
        place: place.name,
        health: Err(String::new()),
        metrics: Exposition::default(),
        offset: None,
        at: Instant::now(),
    };
    if let Some(problem) = place.problem {
        seen.health = Err(problem);
        return seen;
    }
    let base = format!("http://{}", seen.place);
    let answer = match getter.get(&format!("{base}/health"), MAX_HEALTH_BYTES).await {
        Ok(answer) => answer,
        Err(problem) => {
            seen.health = Err(problem);
            return seen;
        }
    };
    seen.health = Health::read(&answer.body);
    seen.offset = match &seen.health {
        Ok(health) => answer.offset(health.time),
        Err(_) => None,
    };
    if seen.health.is_ok() {
        seen.at = Instant::now();
        if let Ok(answer) = getter.get(&format!("{base}/metrics"), MAX_METRICS_BYTES).await {
            seen.metrics = Exposition::read(&answer.body);
        }
    }
    seen
}

impl Seen {
    /// `edge 127.0.0.1:7463`, for sentences.
    pub(crate) fn name(&self) -> String {
        match &self.health {
            Ok(health) => format!("{} {}", health.short_service(), self.place),
            Err(_) => self.place.clone(),
        }
    }

    /// What it is, in short: `edge`, `all`; empty if it does not say.
    pub(crate) fn service(&self) -> &str {
        self.health.as_ref().map_or("", Health::short_service)
    }
}
