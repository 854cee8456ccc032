//! The service as a whole: what its calls share, and how it starts and stops.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use causeway_fetch::Fetcher;
use causeway_postgres::Postgres;
use causeway_proto::directory::v1::accounts_server::AccountsServer;
use causeway_proto::directory::v1::consent_server::ConsentServer;
use causeway_proto::directory::v1::prekeys_server::PrekeysServer;
use causeway_proto::directory::v1::providers_server::ProvidersServer;
use causeway_proto::directory::v1::records_server::RecordsServer;
use causeway_proto::directory::v1::token_keys_server::TokenKeysServer;
use causeway_proto::directory::v1::traces_server::TracesServer;
use causeway_redis::{Holds, Redis, counters};
use causeway_runtime::clock::SharedClock;
use causeway_runtime::config::Check as _;
use causeway_runtime::grpc::{self, Endpoints, Router};
use causeway_runtime::health::{Health, Part};
use causeway_runtime::lifecycle::Lifecycle;
use futures::FutureExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::changes::{Changes, Followers};
use crate::config::{DirectoryConfig, StoreKind};
use crate::error::{CallError, DirectoryError};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::operator::OperatorGuard;
use crate::peers::{Peers, Task};
use crate::rpc::{Complaints, Rpc};
use crate::store::{PostgresLog, PostgresStore, SqliteStore, Store};
use crate::token_keys::TokenKeys;
use crate::traces::Traces;
use crate::witness::Witness;

/// Batches of keys whose signatures are verified at the same time; each keeps one core busy for some milliseconds.
const VERIFICATIONS: usize = 4;
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// The key-directory, built and not yet serving.
pub struct KeyDirectory {
    directory: Arc<Directory>,
    operator: OperatorGuard,
    /// `None`: the store is this process's alone.
    peers: Option<Peers>,
    redis: Option<Redis>,
    witness: Witness,
}

/// What all calls share.
pub(crate) struct Directory {
    pub(crate) config: DirectoryConfig,
    pub(crate) clock: SharedClock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) token_keys: Arc<TokenKeys>,
    pub(crate) changes: Changes,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    /// Cancelled when the long streams must end.
    pub(crate) closing: CancellationToken,
    pub(crate) complaints: Complaints,
    verifications: Arc<Semaphore>,
}

impl KeyDirectory {
    /// Checks the settings, opens the store, reads or makes the operator token, and loads the providers.
    ///
    /// # Errors
    /// [`DirectoryError`], which names the setting, file or folder and the fix.
    pub async fn build(config: DirectoryConfig, clock: SharedClock) -> Result<Self, DirectoryError> {
        config.check()?;
        let fetcher = Fetcher::new(config.fetch.clone())?;
        let operator = OperatorGuard::open(&config.operator_token_file)?;
        let store: Arc<dyn Store> = match config.store {
            StoreKind::Sqlite => {
                let folder = config.data_dir.clone();
                let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&folder)).await;
                Arc::new(opened.map_err(|_| DirectoryError::StoreLost)??)
            }
            StoreKind::Postgres => Arc::new(Box::pin(PostgresStore::open(&config.postgres)).await?),
        };
        let redis = match &config.redis {
            Some(redis) => Some(Redis::open(redis, "key-directory", Holds::Hints)?),
            None => None,
        };
        let witness = Witness::of(Arc::clone(&store), redis.clone(), Arc::clone(&clock));
        if witness.knows_better().await {
            return Err(DirectoryError::PutBack);
        }

        let metrics = Metrics::new();
        let loaded = TokenKeys::load(&config, Arc::clone(&store), fetcher, Arc::clone(&clock), metrics.clone()).await?;
        let token_keys = Arc::new(loaded);
        let closing = CancellationToken::new();
        let (lease, queue) = (config.lease(), config.follower_queue);
        let (changes, peers) = match config.store {
            StoreKind::Sqlite => (Changes::alone(lease, queue, closing.clone()), None),
            StoreKind::Postgres => {
                let log = Box::pin(Postgres::open(&config.log_database(), "causeway-key-directory-log", &[])).await?;
                let followers = Followers::shared(lease, queue, closing.clone(), Arc::clone(&clock));
                let observer = Arc::clone(&token_keys);
                let peers =
                    Peers::new(Arc::new(PostgresLog::new(log)), followers, observer, redis.clone(), config.peers());
                (peers.changes(), Some(peers))
            }
        };
        let directory = Directory {
            changes,
            limits: Limits::new(&config),
            complaints: Complaints::default(),
            verifications: Arc::new(Semaphore::new(VERIFICATIONS)),
            token_keys,
            config,
            clock,
            store,
            metrics,
            closing,
        };
        Ok(Self { directory: Arc::new(directory), operator, peers, redis, witness })
    }

    /// The calls of edges and routings. Not for the public: whoever reaches it is trusted.
    pub fn internal_router(&self) -> Router {
        let rpc = self.rpc();
        grpc::server()
            .add_service(TokenKeysServer::new(rpc.clone()))
            .add_service(AccountsServer::new(rpc.clone()))
            .add_service(PrekeysServer::new(rpc.clone()))
            .add_service(ConsentServer::new(rpc.clone()))
            .add_service(RecordsServer::new(rpc))
    }

    /// The calls of operators, behind the operator token; delivery traces also for providers. `routings` are all replicas of
    /// routing, which are asked for these.
    pub fn operator_router(&self, routings: Endpoints) -> Router {
        let traces = Traces::new(Arc::clone(&self.directory), self.operator.clone(), routings);
        grpc::server()
            .add_service(ProvidersServer::with_interceptor(self.rpc(), self.operator.clone()))
            .add_service(TracesServer::new(traces))
    }

    fn rpc(&self) -> Rpc {
        Rpc(Arc::clone(&self.directory))
    }

    /// Keeps token keys fresh, and takes part among the directories of a shared store, until the lifecycle drains; then
    /// ends the long streams, so that servers can finish.
    ///
    /// # Errors
    /// [`DirectoryError::StoreLost`] when the store can never answer again, [`DirectoryError::PutBack`] when it was put back to
    /// an earlier time.
    pub async fn serve(self, life: Lifecycle) -> Result<(), DirectoryError> {
        let Self { directory, peers, redis, witness, .. } = self;
        let tables = match directory.config.store {
            StoreKind::Sqlite => SqliteStore::TABLES,
            StoreKind::Postgres => PostgresStore::TABLES,
        };
        life.health().tables("directory.store", tables);
        let mut peers = peers.map(|peers| Task::spawn(peers.run(life.health().clone(), directory.closing.clone())));
        let _with_redis = redis.map(|redis| {
            let sharing = counters::sync(redis.clone(), directory.limits.to_share(), directory.closing.clone());
            let tidying = tidy(Arc::clone(&directory));
            [sharing.boxed(), tidying.boxed(), watch_redis(redis, life.health().clone()).boxed()].map(Task::spawn)
        });
        let outcome = tokio::select! {
            () = life.draining() => Ok(()),
            () = directory.store.lost() => Err(DirectoryError::StoreLost),
            () = witness.watch(life.health()) => Err(DirectoryError::PutBack),
            () = directory.token_keys.run(directory.closing.clone()) => Ok(()),
            () = ended(peers.as_mut()) => Err(DirectoryError::StoreLost),
        };
        directory.closing.cancel();
        if outcome.is_ok() {
            witness.turn().await;
        }
        if outcome.is_ok() && peers.is_some() {
            // Calls that have changed something are told of the confirmation first.
            ended(peers.as_mut()).await;
        }
        outcome
    }
}

/// Resolves when the task has ended, never without one.
async fn ended(task: Option<&mut Task>) {
    match task {
        Some(task) => task.ended().await,
        None => std::future::pending().await,
    }
}

async fn tidy(directory: Arc<Directory>) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        directory.limits.tidy();
    }
}

/// Tells how Redis is.
async fn watch_redis(redis: Redis, health: Health) {
    const PART: &str = "directory.redis";
    let mut state = redis.health();
    loop {
        let is_up = state.borrow_and_update().is_up();
        let meaning = "each key-directory counts its rate limits alone, and notices others' changes a little later";
        health.report(PART, if is_up { Part::Up } else { Part::Degraded(meaning.to_owned()) });
        if state.changed().await.is_err() {
            return;
        }
    }
}

impl Directory {
    /// Runs a change to its end, also when the caller gives up in the middle: what was committed must be published.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        change: impl Future<Output = Result<T, CallError>> + Send + 'static,
    ) -> Result<T, CallError> {
        tokio::spawn(change).await.map_err(|_| CallError::Task)?
    }

    /// Runs signature checks on a thread that may be busy, few at a time.
    pub(crate) async fn verify<T: Send + 'static>(
        &self,
        check: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let permit = Arc::clone(&self.verifications).acquire_owned().await.map_err(|_| CallError::Task)?;
        let task = tokio::task::spawn_blocking(move || {
            // Held by the work itself, which goes on when its caller gives up.
            let _permit = permit;
            check()
        });
        task.await.map_err(|_| CallError::Task)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_change_ends_though_its_caller_has_given_up() {
        let (go, may_go) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut change = Box::pin(Directory::to_the_end(async move {
            may_go.await.map_err(|_| CallError::Task)?;
            done.send(()).map_err(|()| CallError::Task)
        }));
        assert!(futures::poll!(&mut change).is_pending());
        drop(change);
        go.send(()).unwrap();
        is_done.await.unwrap();
    }
}
