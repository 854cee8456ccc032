//! The service as a whole: what its calls share, and how it starts and stops.

use std::future::Future;
use std::sync::Arc;

use causeway_fetch::Fetcher;
use causeway_proto::directory::v1::accounts_server::AccountsServer;
use causeway_proto::directory::v1::consent_server::ConsentServer;
use causeway_proto::directory::v1::prekeys_server::PrekeysServer;
use causeway_proto::directory::v1::providers_server::ProvidersServer;
use causeway_proto::directory::v1::records_server::RecordsServer;
use causeway_proto::directory::v1::token_keys_server::TokenKeysServer;
use causeway_runtime::clock::SharedClock;
use causeway_runtime::config::Check as _;
use causeway_runtime::grpc;
use causeway_runtime::lifecycle::Lifecycle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;

use crate::changes::Changes;
use crate::config::{DirectoryConfig, StoreKind};
use crate::error::{CallError, DirectoryError};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::operator::OperatorGuard;
use crate::rpc::Rpc;
use crate::store::{PostgresStore, SqliteStore, Store};
use crate::token_keys::TokenKeys;

/// Batches of keys whose signatures are verified at the same time; each keeps one core busy for some milliseconds.
const VERIFICATIONS: usize = 4;

/// The key-directory, built and not yet serving.
pub struct KeyDirectory {
    directory: Arc<Directory>,
    operator: OperatorGuard,
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
            StoreKind::Postgres => Arc::new(PostgresStore::open(&config.postgres).await?),
        };

        let metrics = Metrics::new();
        let loaded = TokenKeys::load(&config, Arc::clone(&store), fetcher, Arc::clone(&clock), metrics.clone()).await?;
        let closing = CancellationToken::new();
        let directory = Directory {
            changes: Changes::alone(config.lease(), config.follower_queue, closing.clone()),
            limits: Limits::new(&config),
            verifications: Arc::new(Semaphore::new(VERIFICATIONS)),
            token_keys: Arc::new(loaded),
            config,
            clock,
            store,
            metrics,
            closing,
        };
        Ok(Self { directory: Arc::new(directory), operator })
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

    /// The calls of operators, behind the operator token.
    pub fn operator_router(&self) -> Router {
        grpc::server().add_service(ProvidersServer::with_interceptor(self.rpc(), self.operator.clone()))
    }

    fn rpc(&self) -> Rpc {
        Rpc(Arc::clone(&self.directory))
    }

    /// Keeps token keys fresh until the lifecycle drains; then ends the long streams, so that servers can finish.
    ///
    /// # Errors
    /// [`DirectoryError::StoreLost`] when the store can never answer again.
    pub async fn serve(self, life: Lifecycle) -> Result<(), DirectoryError> {
        let directory = self.directory;
        let outcome = tokio::select! {
            () = life.draining() => Ok(()),
            () = directory.store.lost() => Err(DirectoryError::StoreLost),
            () = directory.token_keys.run(directory.closing.clone()) => Ok(()),
        };
        directory.closing.cancel();
        outcome
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
