//! A deployment of real processes on this machine, with a link between any two of them that talk.
//!
//! Its processes are the `causeway` binary, PostgreSQL and Redis; each can be killed, paused and started again on the same
//! data and ports, has a clock and a disk of its own that can fail ([`crate::preload`]), and reaches the others through
//! links ([`crate::proxy`]) only. Names: services are `all`, or `edge-1`, `routing-3`, `directory-2`, `media-1`;
//! stores are `postgres` and `redis`; the link from one to another is `edge-1>routing-3`, that of clients `clients>edge-1`.
//!
//! Clients reach the media-relays by one address, `clients>media`; where there are several, connections go on to
//! `clients>media-1` and `clients>media-2` in turn.
//!
//! Two kinds of links are shared by all who connect, since the address that leads to them is one for all: those between
//! routings (`routings>routing-2`, the address that a routing advertises), and those to the servers of Redis behind Sentinels
//! or of a Redis Cluster (`all>redis-1`), whose addresses are told by the servers themselves.
//!
//! The providers are not processes of it: they are the driver's.

mod config;
mod service;
mod stores;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use causeway_identity::RootPublicKey;
use causeway_test_servers::{Folder, Port};

use crate::events::FaultLog;
use crate::proxy::{Link, Mode};

pub use service::{Service, ServiceKind};
pub use stores::{Postgres, PostgresShape, Redis, RedisShape, Store};

/// How a deployment is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// `causeway all` on SQLite.
    One,
    /// Two edges, three routings, two key-directories, two media-relays on these stores.
    Scaled(PostgresShape, RedisShape),
}

impl Variant {
    /// Its name on the command line and in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Scaled(PostgresShape::Single, RedisShape::Single) => "scaled",
            Self::Scaled(PostgresShape::Pair, RedisShape::Single) => "scaled-standby",
            Self::Scaled(PostgresShape::Single, RedisShape::Sentinel) => "scaled-sentinel",
            Self::Scaled(PostgresShape::Single, RedisShape::Cluster) => "scaled-cluster",
            Self::Scaled(PostgresShape::Pair, RedisShape::Sentinel) => "scaled-standby-sentinel",
            Self::Scaled(PostgresShape::Pair, RedisShape::Cluster) => "scaled-standby-cluster",
        }
    }

    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::One,
        Self::Scaled(PostgresShape::Single, RedisShape::Single),
        Self::Scaled(PostgresShape::Pair, RedisShape::Single),
        Self::Scaled(PostgresShape::Single, RedisShape::Sentinel),
        Self::Scaled(PostgresShape::Single, RedisShape::Cluster),
        Self::Scaled(PostgresShape::Pair, RedisShape::Sentinel),
        Self::Scaled(PostgresShape::Pair, RedisShape::Cluster),
    ];
}

impl std::str::FromStr for Variant {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        Self::ALL.into_iter().find(|variant| variant.name() == name).with_context(|| format!("{name} is no variant"))
    }
}

/// What a cluster is made from.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How it is built.
    pub variant: Variant,
    /// What its links draw from.
    pub seed: u64,
    /// Folder for what is to be kept: logs of all processes, in `logs`.
    pub folder: PathBuf,
    /// Settings beside its own, as `section.field` and a TOML value.
    pub settings: Vec<(String, String)>,
    /// The `causeway` binary; `None`: `$CAUSEWAY_BIN`, or the one beside this program.
    pub binary: Option<PathBuf>,
}

/// A running deployment.
pub struct Cluster {
    // Dropped in this order: processes, then what they use.
    services: Vec<Arc<Service>>,
    supervisor: tokio::task::JoinHandle<()>,
    postgres: Option<Store<Postgres>>,
    redis: Option<Store<Redis>>,
    links: BTreeMap<String, Arc<Link>>,
    known: Known,
    log: FaultLog,
    options: ClusterOptions,
    _ports: Vec<Port>,
    _work: Folder,
}

/// What its clients and operators have to know.
#[derive(Debug, Clone)]
struct Known {
    edges: Vec<SocketAddr>,
    media: String,
    operator: String,
    operator_token: String,
    deployment: String,
    root: RootPublicKey,
}

impl Cluster {
    /// Starts all of it and waits until it serves.
    ///
    /// # Errors
    /// A program is missing, or something does not start.
    pub async fn start(options: ClusterOptions, log: FaultLog) -> anyhow::Result<Arc<Self>> {
        let binary = find_binary(options.binary.as_deref())?;
        let variant = options.variant;
        let mut builder = config::Builder::new(options, log, binary).await?;
        match variant {
            Variant::One => builder.one().await?,
            Variant::Scaled(postgres, redis) => builder.scaled(postgres, redis).await?,
        }
        builder.finish()
    }

    /// Where clients connect: a link to each edge.
    pub fn edges(&self) -> &[SocketAddr] {
        &self.known.edges
    }

    /// The deployment's name.
    pub fn deployment(&self) -> &str {
        &self.known.deployment
    }

    /// The root that clients pin.
    pub fn root(&self) -> RootPublicKey {
        self.known.root
    }

    /// The operator API's URL (that of the first key-directory) and its token.
    pub fn operator(&self) -> (&str, &str) {
        (&self.known.operator, &self.known.operator_token)
    }

    /// The media-relays' base URL: that of a link, behind which each has its turn.
    pub fn media(&self) -> &str {
        &self.known.media
    }

    /// How it is built.
    pub fn variant(&self) -> Variant {
        self.options.variant
    }

    /// The processes of ours.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// One of them, by its name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.iter().find(|service| service.name() == name)
    }

    /// PostgreSQL, if there is one.
    pub fn postgres(&self) -> Option<&Store<Postgres>> {
        self.postgres.as_ref()
    }

    /// Redis, if there is one.
    pub fn redis(&self) -> Option<&Store<Redis>> {
        self.redis.as_ref()
    }

    /// The links, by their names.
    pub fn links(&self) -> &BTreeMap<String, Arc<Link>> {
        &self.links
    }

    /// Where faults are written down.
    pub fn log(&self) -> &FaultLog {
        &self.log
    }

    /// The folder of the logs of all processes.
    pub fn logs(&self) -> PathBuf {
        self.options.folder.join("logs")
    }

    /// Everything is made well: links pass, clocks and disks are right, all processes run. For the end of a run, when no fault
    /// is under way.
    ///
    /// # Errors
    /// Something does not come back.
    pub async fn heal(&self) -> anyhow::Result<()> {
        for link in self.links.values() {
            link.set(Mode::default());
        }
        if let Some(postgres) = &self.postgres {
            postgres.run(Postgres::heal).await.context("heal PostgreSQL")?;
        }
        if let Some(redis) = &self.redis {
            redis.run(Redis::heal).await.context("heal Redis")?;
        }
        for service in &self.services {
            service.heal().await.with_context(|| format!("heal {}", service.name()))?;
        }
        Ok(())
    }

    /// Resident memory in bytes and open descriptors of each process of ours that runs.
    pub fn usage(&self) -> Vec<(String, u64, u64)> {
        self.services.iter().filter_map(|service| service.usage()).collect()
    }

    /// Stops the processes of ours with SIGTERM, from the outside in.
    ///
    /// # Errors
    /// One does not leave in time, or leaves with a failure.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.supervisor.abort();
        let mut failed = Vec::new();
        for service in self.services.iter().rev() {
            if let Err(error) = service.leave().await {
                failed.push(format!("{}: {error:#}", service.name()));
            }
        }
        if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// Starts again what ends by itself, as an orchestrator would, and writes it down.
async fn supervise(services: Vec<Arc<Service>>, postgres: Option<Store<Postgres>>, log: FaultLog) {
    let stores = async {
        let Some(postgres) = &postgres else { return };
        loop {
            match postgres.run(|postgres| Ok(postgres.supervise())).await {
                Ok(said) => said.iter().for_each(|text| written(log.note(text))),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "PostgreSQL is not looked after"),
            }
            tokio::time::sleep(SUPERVISION).await;
        }
    };
    tokio::join!(stores, supervise_services(&services, &log));
}

async fn supervise_services(services: &[Arc<Service>], log: &FaultLog) {
    loop {
        for service in services {
            if let Some(text) = service.ended_by_itself().await {
                written(if service.is_excused() { log.note(&text) } else { log.bad(&text) });
                if let Err(error) = service.start().await {
                    tracing::warn!(%error, service = service.name(), "does not start");
                }
            }
        }
        tokio::time::sleep(SUPERVISION).await;
    }
}

fn written(written: anyhow::Result<()>) {
    if let Err(error) = written {
        tracing::error!(error = format!("{error:#}"), "the log of faults cannot be written");
    }
}

fn find_binary(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match given.map(Path::to_owned).or_else(|| std::env::var_os("CAUSEWAY_BIN").map(PathBuf::from)) {
        Some(path) => path,
        None => {
            let this = std::env::current_exe().context("path of this program")?;
            // Beside this program; for a test of it, one folder up.
            let folders = this.ancestors().skip(1).take(2);
            folders.map(|folder| folder.join("causeway")).find(|path| path.is_file()).unwrap_or_default()
        }
    };
    anyhow::ensure!(path.is_file(), "no causeway binary: run `cargo build -p causeway`, or set CAUSEWAY_BIN");
    Ok(path)
}

const SUPERVISION: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
