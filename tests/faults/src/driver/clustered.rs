//! A cluster of real processes behind links, disturbed by a schedule.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use causeway_test_servers::Reply;
use futures::FutureExt as _;

use super::providers::Operator;
use super::run::{Environment, FaultCounts};
use super::settings::SETTINGS;
use crate::client::dial::Deployment;
use crate::cluster::{Cluster, ClusterOptions, Postgres, Redis};
use crate::events::FaultLog;
use crate::nemesis::{Nemesis, Plan, Progress};

/// A cluster and what is done to it.
pub struct Clustered {
    cluster: Arc<Cluster>,
    seed: u64,
    plan: Plan,
    progress: Arc<Mutex<Option<Progress>>>,
}

impl Clustered {
    /// Starts a cluster; `plan` is what will be done to it.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(options: ClusterOptions, plan: Plan, log: FaultLog) -> anyhow::Result<Self> {
        let seed = options.seed;
        let settings = SETTINGS.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned()));
        let settings = settings.chain(options.settings).collect();
        let cluster = Cluster::start(ClusterOptions { settings, ..options }, log).await?;
        Ok(Self { cluster, seed, plan, progress: Arc::default() })
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
        let nemesis = Nemesis::new(self.seed, &self.cluster, &self.plan);
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(nemesis.progress());
        let stopped = async move {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let stop_again = stopped.shared();
        nemesis.run(stop_again.clone()).await?;
        // The schedule may be over before the load is.
        stop_again.await;
        Ok(())
    }

    fn fault_counts(&self) -> FaultCounts {
        let progress = Arc::clone(&self.progress);
        Box::new(move || {
            let progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.as_ref().map_or((0, 0), Progress::counts)
        })
    }

    async fn stores(&mut self) -> anyhow::Result<(Option<u64>, Option<u64>)> {
        let mailbox = match self.cluster.postgres() {
            Some(postgres) => Some(postgres.run(waiting_in_postgres).await?),
            None => None,
        };
        let presence = match self.cluster.redis() {
            Some(redis) => redis.run(attached_in_redis).await?,
            None => None,
        };
        Ok((mailbox, presence))
    }

    fn usage(&self) -> Vec<(String, u64, u64)> {
        self.cluster.usage()
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

    async fn left_behind(&mut self) -> anyhow::Result<Option<u64>> {
        if self.cluster.postgres().is_some() {
            return Ok(None);
        }
        let folders: Vec<_> = self.cluster.services().iter().map(|service| service.data().to_owned()).collect();
        tokio::task::spawn_blocking(move || waiting_in_files(&folders).map(Some)).await?
    }
}

/// What the mailboxes of stopped processes hold.
fn waiting_in_files(folders: &[PathBuf]) -> anyhow::Result<u64> {
    let mut waiting = 0;
    for folder in folders {
        let file = find(folder, "mailbox.sqlite")?.with_context(|| format!("no mailbox in {}", folder.display()))?;
        let store = rusqlite::Connection::open(&file).with_context(|| file.display().to_string())?;
        let count: i64 = store.query_row("SELECT count(*) FROM entries", (), |row| row.get(0))?;
        waiting += count.unsigned_abs();
    }
    Ok(waiting)
}

fn find(folder: &Path, name: &str) -> anyhow::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|file| file == name) {
            return Ok(Some(path));
        }
        if path.is_dir()
            && let Some(found) = find(&path, name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn waiting_in_postgres(postgres: &mut Postgres) -> anyhow::Result<u64> {
    let rows = postgres.primary().execute(Postgres::DATABASE, "SELECT count(*) FROM mailbox_entries")?;
    let count = rows.first().and_then(|row| row.first()).and_then(Option::as_ref).context("a count")?;
    Ok(count.parse()?)
}

/// Devices that presence shows as attached. Those of a primary and of its replica are the same.
fn attached_in_redis(redis: &mut Redis) -> anyhow::Result<Option<u64>> {
    match redis {
        Redis::Single(server) => attached_at(server).map(Some),
        Redis::Sentinel(sentinel) => attached_at(sentinel.primary()?).map(Some),
        Redis::Cluster(cluster) => {
            let mut attached = 0;
            for server in cluster.nodes() {
                let role = server.call(&["ROLE"])?;
                if matches!(&role, Reply::List(role) if role.first().is_some_and(|role| role.text() == "master")) {
                    attached += attached_at(server)?;
                }
            }
            Ok(Some(attached))
        }
    }
}

fn attached_at(server: &mut causeway_test_servers::Redis) -> anyhow::Result<u64> {
    let list = |reply: Reply| match reply {
        Reply::List(list) => list,
        _ => Vec::new(),
    };
    let time = list(server.call(&["TIME"])?);
    let seconds: u64 = time.first().context("the time")?.text().parse()?;
    let now_ms = (seconds + 1) * 1_000;
    let mut attached = 0;
    for key in list(server.call(&["KEYS", "*presence*"])?) {
        let fields = list(server.call(&["HGETALL", key.text()])?);
        // Device, then `NUMBER UNTIL PLACE`.
        for value in fields.iter().skip(1).step_by(2) {
            let until = value.text().split(' ').nth(1).and_then(|word| word.parse::<u64>().ok());
            attached += u64::from(until.is_some_and(|until| until > now_ms));
        }
    }
    Ok(attached)
}
