//! A cluster of real processes behind links, disturbed by a schedule.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use super::providers::Operator;
use super::run::Environment;
use super::settings::SETTINGS;
use crate::client::dial::Deployment;
use crate::cluster::{Cluster, ClusterOptions, Postgres, Redis, Variant};
use crate::events::{FaultKind, FaultLog};

/// A cluster and what is done to it.
pub struct Clustered {
    cluster: Arc<Cluster>,
    seed: u64,
    begun: AtomicU64,
}

impl Clustered {
    /// Starts a cluster with its logs in `folder`.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(variant: Variant, seed: u64, folder: PathBuf, log: FaultLog) -> anyhow::Result<Self> {
        let settings = SETTINGS.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect();
        let options = ClusterOptions { variant, seed, folder, settings, binary: None };
        Ok(Self { cluster: Cluster::start(options, log).await?, seed, begun: AtomicU64::new(0) })
    }
}

#[async_trait::async_trait]
impl Environment for Clustered {
    fn deployment(&self) -> Deployment {
        let cluster = &self.cluster;
        Deployment { edges: cluster.edges().to_vec(), name: cluster.deployment().to_owned(), root: cluster.root() }
    }

    fn operator(&self) -> Operator {
        let (url, token) = self.cluster.operator();
        Operator { url: url.to_owned(), token: token.to_owned(), media: self.cluster.media().to_owned() }
    }

    async fn disturb(&mut self, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        use rand::Rng as _;
        use rand::seq::IndexedRandom as _;
        let mut rng = crate::client::light::rng(self.seed, "nemesis", 0);
        let log = self.cluster.log();
        while !stop.load(Ordering::Relaxed) {
            let service = self.cluster.services().choose(&mut rng).context("a service")?;
            self.begun.fetch_add(1, Ordering::Relaxed);
            if rng.random_bool(0.5) {
                let fault = log.begin(FaultKind::Kill, service.name(), "")?;
                service.kill().await?;
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..1_000))).await;
                let outcome = service.start().await.map(|()| String::new()).map_err(|error| format!("{error:#}"));
                log.end(fault, outcome)?;
            } else {
                let fault = log.begin(FaultKind::Pause, service.name(), "")?;
                service.pause().await?;
                tokio::time::sleep(Duration::from_millis(rng.random_range(100..5_000))).await;
                service.resume().await?;
                log.end(fault, Ok(String::new()))?;
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(1_000..5_000))).await;
        }
        self.cluster.heal().await
    }

    fn fault_counts(&self) -> (u64, u64) {
        (self.begun.load(Ordering::Relaxed), 0)
    }

    async fn stores(&mut self) -> anyhow::Result<(Option<u64>, Option<u64>)> {
        let mailbox = match self.cluster.postgres() {
            Some(postgres) => Some(postgres.run(waiting_in_postgres).await?),
            None => None,
        };
        let presence = match self.cluster.redis() {
            Some(redis) => Some(redis.run(attached_in_redis).await?),
            None => None,
        };
        Ok((mailbox, presence))
    }

    fn logs(&self) -> Vec<PathBuf> {
        let Ok(files) = std::fs::read_dir(self.cluster.logs()) else { return Vec::new() };
        let mut files: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
        files.sort();
        files
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.cluster.stop().await
    }
}

fn waiting_in_postgres(postgres: &mut Postgres) -> anyhow::Result<u64> {
    let rows = postgres.primary().execute(Postgres::DATABASE, "SELECT count(*) FROM mailbox_entries")?;
    let count = rows.first().and_then(|row| row.first()).and_then(Option::as_ref).context("a count")?;
    Ok(count.parse()?)
}

/// Devices that presence shows as attached.
fn attached_in_redis(_redis: &mut Redis) -> anyhow::Result<u64> {
    Ok(0)
}
