//! One connection and its transactions. Statements are prepared once a connection; their texts are constants.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use causeway_runtime::telemetry::instruments::Store;
use deadpool::managed::Object;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Row};

use crate::error::{Phase, PostgresError};
use crate::manager::{Manager, Statements};
use crate::pool::Shared;

/// Values of a statement.
pub(crate) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A connection of one's own. Dropping it gives it back, or closes it if it is of no use any more.
///
/// Statements on it, outside a transaction, are each their own commit: when the connection is lost, it is not known
/// whether one happened ([`PostgresError::Unknown`]). Who only reads may repeat it.
pub struct Connection {
    /// Only the destructor takes it.
    object: Option<Object<Manager>>,
    state: State,
}

/// What is known about a connection beside what the pool keeps.
struct State {
    shared: Arc<Shared>,
    broken: AtomicBool,
}

impl State {
    /// Waits for an answer, not for ever, and draws the conclusions of an error.
    async fn answer<T>(
        &self,
        phase: Phase,
        limit: Duration,
        asking: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        let since = tokio::time::Instant::now();
        let answer = tokio::time::timeout(limit, asking).await;
        Store::POSTGRESQL.waited(phase.name(), since.elapsed(), !matches!(answer, Ok(Ok(_))));
        let error = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => PostgresError::from_statement(&error, phase),
            Err(_) if phase == Phase::Before => PostgresError::Lost("no answer in time".to_owned()),
            Err(_) => PostgresError::Unknown("no answer in time".to_owned()),
        };
        if error.spoils_connection() {
            self.broken.store(true, Ordering::SeqCst);
        }
        if error.tells_of_failover() {
            tracing::warn!("the database cannot be written to any more; connecting anew");
            self.shared.discard_all();
        }
        Err(error)
    }
}

/// What a commit answers. A warning with it is how the server says that somebody cut the wait for its standby short.
async fn confirmed<T>(
    warnings: &std::sync::atomic::AtomicU64,
    answer: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    let before = warnings.load(Ordering::SeqCst);
    let answer = answer.await?;
    if warnings.load(Ordering::SeqCst) != before {
        return Err(PostgresError::Unknown("the server confirmed it with a warning".to_owned()));
    }
    Ok(answer)
}

impl Connection {
    pub(crate) fn new(object: Object<Manager>, shared: Arc<Shared>) -> Self {
        Self { object: Some(object), state: State { shared, broken: AtomicBool::new(false) } }
    }

    fn wire(&self) -> (&Client, &Statements) {
        let wire = self.object.as_ref().expect("only the destructor takes it");
        (&wire.client, &wire.statements)
    }

    /// False when it has been lost, or the server behind it can no longer be written to.
    pub fn is_usable(&self) -> bool {
        let current = self.object.as_ref().is_some_and(|object| self.state.shared.is_current(object));
        current && !self.state.broken.load(Ordering::SeqCst)
    }

    /// Does not go back to the others when it is dropped, but is closed.
    pub fn discard(&self) {
        self.state.broken.store(true, Ordering::SeqCst);
    }

    /// All rows that the statement gives, as its own transaction.
    ///
    /// # Errors
    /// [`PostgresError`]; after [`PostgresError::Unknown`] it may have happened.
    pub async fn query(&self, sql: &'static str, values: Values<'_>) -> Result<Vec<Row>, PostgresError> {
        let (client, statements) = self.wire();
        self.alone(async { client.query(&statements.prepared(client, sql).await?, values).await }).await
    }

    /// The row that the statement gives, if it gives one, as its own transaction.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`PostgresError::Value`] if there are several.
    pub async fn query_opt(&self, sql: &'static str, values: Values<'_>) -> Result<Option<Row>, PostgresError> {
        only(self.query(sql, values).await?)
    }

    /// The one row that the statement gives, as its own transaction.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`PostgresError::Value`] if there is none or there are several.
    pub async fn query_one(&self, sql: &'static str, values: Values<'_>) -> Result<Row, PostgresError> {
        exactly(self.query(sql, values).await?)
    }

    /// Does the statement as its own transaction; tells how many rows it concerned.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &'static str, values: Values<'_>) -> Result<u64, PostgresError> {
        let (client, statements) = self.wire();
        self.alone(async { client.execute(&statements.prepared(client, sql).await?, values).await }).await
    }

    /// A statement that is its own transaction is confirmed as any commit is.
    async fn alone<T>(
        &self,
        asking: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        let wire = self.object.as_ref().expect("only the destructor takes it");
        confirmed(&wire.warnings, self.state.answer(Phase::Commit, self.state.shared.answer_timeout, asking)).await
    }

    /// Prepares statements before they are needed, so that later calls that are polled together are sent in the order
    /// in which they are polled first.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn prepare(&self, all: &[&'static str]) -> Result<(), PostgresError> {
        let (client, statements) = self.wire();
        let asking = async {
            for &sql in all {
                statements.prepared(client, sql).await?;
            }
            Ok(())
        };
        self.state.answer(Phase::Before, self.state.shared.answer_timeout, asking).await
    }

    /// Begins a transaction in which each statement sees what was committed before it (READ COMMITTED).
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn begin(&mut self) -> Result<Transaction<'_>, PostgresError> {
        self.begin_with(IsolationLevel::ReadCommitted).await
    }

    /// Begins a transaction that is as if it were alone; its end or any of its statements may fail with
    /// [`Class::Retry`](crate::Class::Retry).
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn begin_serializable(&mut self) -> Result<Transaction<'_>, PostgresError> {
        self.begin_with(IsolationLevel::Serializable).await
    }

    async fn begin_with(&mut self, level: IsolationLevel) -> Result<Transaction<'_>, PostgresError> {
        let Self { object, state } = self;
        let wire = &mut **object.as_mut().expect("only the destructor takes it");
        let limit = state.shared.answer_timeout;
        let asking = wire.client.build_transaction().isolation_level(level).start();
        let inner = state.answer(Phase::Before, limit, asking).await?;
        let statements = &wire.statements;
        let warnings = &wire.warnings;
        Ok(Transaction { inner, statements, warnings, state, limit, failed: AtomicBool::new(false) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let usable = self.is_usable();
        if let Some(object) = self.object.take()
            && !usable
        {
            Object::take(object).abort();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("usable", &self.is_usable()).finish_non_exhaustive()
    }
}

/// A transaction. Dropping it undoes it.
pub struct Transaction<'a> {
    inner: tokio_postgres::Transaction<'a>,
    statements: &'a Statements,
    warnings: &'a std::sync::atomic::AtomicU64,
    state: &'a State,
    limit: Duration,
    /// After an error the server would answer a commit by undoing everything, without an error.
    failed: AtomicBool,
}

impl Transaction<'_> {
    /// All rows that the statement gives.
    ///
    /// # Errors
    /// [`PostgresError`]; after any error the transaction can only be undone.
    pub async fn query(&self, sql: &'static str, values: Values<'_>) -> Result<Vec<Row>, PostgresError> {
        let client = self.inner.client();
        self.ask(async { client.query(&self.statements.prepared(client, sql).await?, values).await }).await
    }

    /// The row that the statement gives, if it gives one.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`PostgresError::Value`] if there are several.
    pub async fn query_opt(&self, sql: &'static str, values: Values<'_>) -> Result<Option<Row>, PostgresError> {
        only(self.query(sql, values).await?)
    }

    /// The one row that the statement gives.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`PostgresError::Value`] if there is none or there are several.
    pub async fn query_one(&self, sql: &'static str, values: Values<'_>) -> Result<Row, PostgresError> {
        exactly(self.query(sql, values).await?)
    }

    /// Does the statement; tells how many rows it concerned.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &'static str, values: Values<'_>) -> Result<u64, PostgresError> {
        let client = self.inner.client();
        self.ask(async { client.execute(&self.statements.prepared(client, sql).await?, values).await }).await
    }

    /// Does several statements without values, which are not prepared: for tables and settings.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn batch(&self, sql: &str) -> Result<(), PostgresError> {
        self.ask(self.inner.batch_execute(sql)).await
    }

    /// Makes it last. When this resolves with `Ok`, it is on disk, and on the standby that the server waits for.
    ///
    /// # Errors
    /// [`PostgresError::Unknown`] when the answer did not come, or said that the standby was not waited for; after any
    /// other error nothing happened.
    pub async fn commit(self) -> Result<(), PostgresError> {
        let Self { inner, warnings, state, limit, failed, .. } = self;
        if failed.load(Ordering::SeqCst) {
            return Err(PostgresError::Lost("the transaction had failed before".to_owned()));
        }
        confirmed(warnings, state.answer(Phase::Commit, limit, inner.commit())).await
    }

    /// Undoes it, and waits for that.
    ///
    /// # Errors
    /// [`PostgresError`]; it is undone nevertheless.
    pub async fn rollback(self) -> Result<(), PostgresError> {
        let Self { inner, state, limit, .. } = self;
        state.answer(Phase::Before, limit, inner.rollback()).await
    }

    /// Waits longer than usual for answers.
    pub(crate) fn patient(&mut self, limit: Duration) {
        self.limit = limit;
    }

    async fn ask<T>(&self, asking: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, PostgresError> {
        let result = self.state.answer(Phase::Before, self.limit, asking).await;
        if result.is_err() {
            self.failed.store(true, Ordering::SeqCst);
        }
        result
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

fn only(rows: Vec<Row>) -> Result<Option<Row>, PostgresError> {
    let mut rows = rows.into_iter();
    match (rows.next(), rows.next()) {
        (first, None) => Ok(first),
        _ => Err(PostgresError::Value("several rows where one was expected".to_owned())),
    }
}

fn exactly(rows: Vec<Row>) -> Result<Row, PostgresError> {
    only(rows)?.ok_or_else(|| PostgresError::Value("no row where one was expected".to_owned()))
}
