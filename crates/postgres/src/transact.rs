//! A transaction that is repeated while that can help.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::connection::Transaction;
use crate::error::{Class, PostgresError};
use crate::pool::Postgres;

/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Writes something to the log of the database, and nothing to its tables. So the commit waits until the disk and the
/// standby have everything up to here, also when the repeat of a transaction finds that all was done the first time.
const TRACE: &str = "SELECT pg_logical_emit_message(true, 'causeway', '')::text";

/// Whether a transaction may be repeated that may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Only after it certainly did not happen.
    IfUndone,
    /// Also after its commit was not answered: to do it twice is as good as once, also in the result.
    Always,
}

/// Why a transaction was not committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Abort<E> {
    /// PostgreSQL failed; see [`PostgresError::class`].
    Postgres(PostgresError),
    /// The work itself decided so; everything was undone.
    Refused(E),
}

impl<E> From<PostgresError> for Abort<E> {
    fn from(error: PostgresError) -> Self {
        Self::Postgres(error)
    }
}

impl Postgres {
    /// Does `work` in a transaction (READ COMMITTED) and commits it. While errors are [`Class::Retry`] it is begun anew,
    /// on another connection if need be, until `deadline` has passed.
    ///
    /// # Errors
    /// [`Abort::Refused`] with what `work` gave; [`Abort::Postgres`] with the last error, which is
    /// [`Class::Unknown`] whenever an attempt may have been committed.
    pub async fn transact<T, E, W>(&self, deadline: Duration, repeat: Repeat, work: W) -> Result<T, Abort<E>>
    where
        W: for<'a> Fn(&'a Transaction<'a>) -> BoxFuture<'a, Result<T, Abort<E>>>,
    {
        let end = Instant::now() + deadline;
        let mut pause = FIRST_PAUSE;
        let mut unknown: Option<PostgresError> = None;
        loop {
            let error = match self.attempt(&work, unknown.is_some()).await {
                Ok(done) => return Ok(done),
                Err(Abort::Refused(refused)) if unknown.is_none() => return Err(Abort::Refused(refused)),
                // Refused because the attempt before has happened, or not: nobody can tell here.
                Err(Abort::Refused(_)) => {
                    return Err(unknown.map_or(Abort::Postgres(PostgresError::Closed), Abort::Postgres));
                }
                Err(Abort::Postgres(error)) => error,
            };
            let again = match error.class() {
                Class::Retry => true,
                Class::Unknown => {
                    unknown = Some(error.clone());
                    repeat == Repeat::Always
                }
                Class::Failed => false,
            };
            if !again || Instant::now() + pause >= end {
                return Err(Abort::Postgres(unknown.unwrap_or(error)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt<T, E, W>(&self, work: &W, in_doubt: bool) -> Result<T, Abort<E>>
    where
        W: for<'a> Fn(&'a Transaction<'a>) -> BoxFuture<'a, Result<T, Abort<E>>>,
    {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        match work(&transaction).await {
            Ok(done) => {
                if in_doubt {
                    transaction.query(TRACE, &[]).await?;
                }
                transaction.commit().await?;
                Ok(done)
            }
            Err(abort) => {
                // Its own error would say less.
                let _undone = transaction.rollback().await;
                Err(abort)
            }
        }
    }
}
