//! Makes connections and decides which may be used again.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use deadpool::managed;
use tokio::task::AbortHandle;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::Target;
use crate::durability;
use crate::error::PostgresError;

/// Statements that are kept prepared per connection; the texts are constants, so this is never reached.
const MAX_STATEMENTS: usize = 1_024;

/// A connection as it lies in the pool.
pub(crate) struct Wire {
    pub(crate) client: Client,
    pub(crate) statements: Statements,
    /// Warnings that the server has sent so far.
    pub(crate) warnings: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Wire {
    /// Closes the socket at once, whatever is on its way.
    pub(crate) fn abort(self) {
        self.task.abort();
    }
}

/// Statements that are prepared already, by their texts.
#[derive(Default)]
pub(crate) struct Statements(Mutex<HashMap<&'static str, Statement>>);

impl Statements {
    pub(crate) async fn prepared(
        &self,
        client: &Client,
        sql: &'static str,
    ) -> Result<Statement, tokio_postgres::Error> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = client.prepare(sql).await?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_STATEMENTS {
            all.insert(sql, statement.clone());
        }
        Ok(statement)
    }
}

/// Makes connections.
pub(crate) struct Manager {
    pub(crate) target: Target,
    pub(crate) tls: MakeRustlsConnect,
    pub(crate) allow_unsafe: bool,
    /// Connections made before this are not used again.
    pub(crate) cutoff: Arc<Mutex<Option<Instant>>>,
}

impl Manager {
    async fn connect(&self) -> Result<Wire, PostgresError> {
        let connecting = self.target.postgres.connect(self.tls.clone());
        let (client, mut connection) = connecting.await.map_err(|error| PostgresError::from_connect(&error))?;
        let warnings = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&warnings);
        let task = tokio::spawn(async move {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    // Counted before the answer behind it is passed on, so that whoever reads that sees it.
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        if notice.parsed_severity() == Some(Severity::Warning) {
                            counted.fetch_add(1, Ordering::SeqCst);
                            tracing::warn!(sqlstate = notice.code().code(), "PostgreSQL warns");
                        }
                    }
                    Some(Ok(_)) => {}
                    // Whoever waits for an answer is told; an idle connection is found closed when it is used next.
                    Some(Err(_)) | None => return,
                }
            }
        });
        let wire = Wire { client, statements: Statements::default(), warnings, task: task.abort_handle() };
        durability::check(&wire.client, self.allow_unsafe).await?;
        Ok(wire)
    }
}

impl managed::Manager for Manager {
    type Type = Wire;
    type Error = PostgresError;

    async fn create(&self) -> Result<Wire, PostgresError> {
        self.connect().await
    }

    async fn recycle(&self, wire: &mut Wire, metrics: &managed::Metrics) -> managed::RecycleResult<PostgresError> {
        let cutoff = *self.cutoff.lock().unwrap_or_else(PoisonError::into_inner);
        if wire.client.is_closed() || cutoff.is_some_and(|cutoff| metrics.created <= cutoff) {
            return Err(managed::RecycleError::message("of no use any more"));
        }
        Ok(())
    }
}
