//! The handle: a bounded number of connections to the server that can be written to.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{Object, Pool, PoolConfig, PoolError, QueueMode, TimeoutType, Timeouts};

use crate::config::PostgresConfig;
use crate::connection::Connection;
use crate::error::PostgresError;
use crate::manager::{Manager, Wire};
use crate::metrics;
use crate::tls;

/// Connections to a database; cheap to clone.
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pool: Pool<Manager>,
    cutoff: Arc<Mutex<Option<Instant>>>,
    pub(crate) answer_timeout: Duration,
    pub(crate) migration_timeout: Duration,
}

/// How busy the connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// Connections that are open.
    pub open: usize,
    /// Of these, how many nobody uses now.
    pub idle: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
}

impl Postgres {
    /// Checks the settings and makes a first connection. `name` is what the server shows for the connections;
    /// `settings` are settings of the server for them, constants of the program without spaces.
    ///
    /// # Errors
    /// [`PostgresError::Setup`] and [`PostgresError::Refused`] for what somebody has to correct, else as
    /// [`connection`](Self::connection).
    pub async fn open(config: &PostgresConfig, name: &str, settings: &[(&str, &str)]) -> Result<Self, PostgresError> {
        let target = config.connector(name, settings)?;
        let tls = if target.encrypted { tls::connector(config.ca_file.as_deref())? } else { tls::none()? };
        let hosts = u32::try_from(target.postgres.get_hosts().len()).unwrap_or(u32::MAX);
        let cutoff = Arc::new(Mutex::new(None));
        let allow_unsafe = config.allow_unsafe_durability;
        if allow_unsafe {
            tracing::warn!("the database may forget what it confirmed: allow_unsafe_durability is for tests only");
        }
        let manager = Manager { target, tls, allow_unsafe, cutoff: Arc::clone(&cutoff) };
        let timeouts = Timeouts {
            wait: Some(config.connect_timeout()),
            // Hosts are tried one after the other.
            create: Some(config.connect_timeout().saturating_mul(hosts.clamp(1, 16))),
            recycle: Some(config.connect_timeout()),
        };
        // The one that was used last comes first: prepared statements stay warm, and idle ones can be told.
        let bounds = PoolConfig { max_size: config.max_connections, timeouts, queue_mode: QueueMode::Lifo };
        let pool = Pool::builder(manager)
            .config(bounds)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| PostgresError::Setup(error.to_string()))?;
        let postgres = Self {
            shared: Arc::new(Shared {
                pool,
                cutoff,
                answer_timeout: config.answer_timeout(),
                migration_timeout: config.migration_timeout(),
            }),
        };
        drop(postgres.connection().await?);
        metrics::observe(&postgres.shared, name);
        Ok(postgres)
    }

    /// A connection of one's own until it is dropped.
    ///
    /// # Errors
    /// [`PostgresError::Busy`] if none becomes free, [`PostgresError::Unreachable`] if none can be made within the
    /// configured time; [`PostgresError::Refused`], [`PostgresError::Closed`].
    pub async fn connection(&self) -> Result<Connection, PostgresError> {
        let object = self.shared.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => PostgresError::Busy,
            PoolError::Timeout(_) => PostgresError::Unreachable("it took too long".to_owned()),
            PoolError::Backend(error) => error,
            PoolError::Closed => PostgresError::Closed,
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                PostgresError::Setup("the pool has no runtime".to_owned())
            }
        })?;
        Ok(Connection::new(object, Arc::clone(&self.shared)))
    }

    /// Gives all connections up: idle ones are closed now, others when they are dropped; who asks for one gets
    /// [`PostgresError::Closed`].
    pub fn close(&self) {
        self.shared.pool.close();
    }

    /// How busy the connections are.
    pub fn status(&self) -> PoolStatus {
        self.shared.status()
    }

    pub(crate) fn migration_timeout(&self) -> Duration {
        self.shared.migration_timeout
    }
}

impl Shared {
    pub(crate) fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus { open: status.size, idle: status.available, waiting: status.waiting }
    }

    /// No connection that was made until now is used again: the server behind them is not the one to write to.
    pub(crate) fn discard_all(&self) {
        // The pool counts by the system's clock, too; a test that stops tokio's does not use this.
        let now = tokio::time::Instant::now().into_std();
        *self.cutoff.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        let _removed = self.pool.retain(|_, metrics| metrics.created > now);
    }

    /// Whether a connection that was in use may go back.
    pub(crate) fn is_current(&self, object: &Object<Manager>) -> bool {
        let cutoff = *self.cutoff.lock().unwrap_or_else(PoisonError::into_inner);
        let wire: &Wire = object;
        !wire.client.is_closed() && cutoff.is_none_or(|cutoff| Object::metrics(object).created > cutoff)
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("status", &self.status()).finish_non_exhaustive()
    }
}
