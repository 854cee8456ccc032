//! Changes as steps: what one does in its transaction, and how often it may be tried.
//!
//! Transactions are READ COMMITTED, and the first statement of one that concerns an account locks the account's row.
//! Each statement behind it then sees all that was committed by whoever held the lock before, and nobody else changes
//! the account until the end; so the steps of an account are one after the other, whichever replica takes them. A
//! stricter level would read from before the lock was waited for, and fail instead of waiting. What is not under an
//! account's lock has one of its own (a free address: its row in `addresses`; providers: `providers_lock`). Whoever holds
//! one of these waits for no other but the log of changes, which is the last of all, so nobody waits in a circle.

use std::time::Duration;

use async_trait::async_trait;
use causeway_postgres::{Class, Postgres, PostgresError, Row, ToSql, Transaction};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::change_log;
use super::statements::Sql;
use crate::store::{Change, Logged, StoreError, Written};

/// A call takes at most this long, however often it is tried: less than callers wait.
const PATIENCE: Duration = Duration::from_secs(8);
/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A server that cannot be reached is tried for no longer than this: callers have other things to do.
const AWAY: Duration = Duration::from_secs(2);

/// Steps at a time that add to the log of changes. They commit one after the other anyway: while one does, the others are
/// made ready.
const LOGGED: usize = 4;
/// Such steps that may wait for their turn; more are refused.
const WAITING: usize = 1_024;

/// Turns of the steps that add to the log of changes. Each holds a connection while it waits for those that commit before
/// it; without turns they would take all of them, and nobody could log in or read.
pub(super) struct Turns {
    turns: Semaphore,
    /// Bounds those that wait, and those whose turn it is.
    places: Semaphore,
}

impl Turns {
    /// For a store with so many connections, of which at least half are left to others.
    pub(super) fn of(connections: usize) -> Self {
        Self { turns: Semaphore::new(LOGGED.min(connections / 2)), places: Semaphore::new(WAITING) }
    }

    /// Takes a step that adds to the log when it is its turn. The wait counts as part of the call.
    pub(super) async fn take<S: Step>(&self, postgres: &Postgres, step: &S) -> Result<Written<S::Outcome>, StoreError> {
        let _place = self.places.try_acquire().map_err(|_| StoreError::Overloaded)?;
        take_in_turn(postgres, step, Some(&self.turns)).await
    }
}

/// One change, which happens or does not.
#[async_trait]
pub(super) trait Step: Send + Sync {
    type Outcome: Clone + Send + Sync;

    /// Whether it may be tried again after its commit was not answered.
    const REPEATABLE: bool = true;

    /// Does it, as far as it is not done. `unanswered` is what an attempt before has done, if that was committed, which
    /// is not known.
    async fn attempt(
        &self,
        tx: &Tx<'_>,
        unanswered: Option<&Done<Self::Outcome>>,
    ) -> Result<Done<Self::Outcome>, Failure>;
}

/// What an attempt has found and done.
#[derive(Clone)]
pub(super) struct Done<T> {
    outcome: T,
    changes: Vec<Change>,
    /// There is something to commit.
    wrote: bool,
}

impl<T> Done<T> {
    /// Nothing was written.
    pub(super) const fn nothing(outcome: T) -> Self {
        Self { outcome, changes: Vec::new(), wrote: false }
    }

    /// Something was written of which followers need not know.
    pub(super) const fn silently(outcome: T) -> Self {
        Self { outcome, changes: Vec::new(), wrote: true }
    }

    /// Something was written, and followers must be told.
    pub(super) fn told(outcome: T, changes: impl IntoIterator<Item = Change>) -> Self {
        Self { outcome, changes: changes.into_iter().collect(), wrote: true }
    }
}

/// Why an attempt has failed.
#[derive(Debug)]
pub(super) enum Failure {
    Postgres(PostgresError),
    /// Would be the same the next time.
    Store(StoreError),
}

impl From<PostgresError> for Failure {
    fn from(error: PostgresError) -> Self {
        Self::Postgres(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Values of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A transaction for steps.
pub(super) struct Tx<'t>(&'t Transaction<'t>);

impl Tx<'_> {
    pub(super) async fn rows(&self, sql: Sql, values: Values<'_>) -> Result<Vec<Row>, PostgresError> {
        self.0.query(sql.text(), values).await
    }

    pub(super) async fn row(&self, sql: Sql, values: Values<'_>) -> Result<Option<Row>, PostgresError> {
        self.0.query_opt(sql.text(), values).await
    }

    /// How many rows it concerned.
    pub(super) async fn execute(&self, sql: Sql, values: Values<'_>) -> Result<u64, PostgresError> {
        self.0.execute(sql.text(), values).await
    }
}

/// Takes the step, trying again while that can help and do no harm.
pub(super) async fn take<S: Step>(postgres: &Postgres, step: &S) -> Result<Written<S::Outcome>, StoreError> {
    take_in_turn(postgres, step, None).await
}

async fn take_in_turn<S: Step>(
    postgres: &Postgres,
    step: &S,
    turns: Option<&Semaphore>,
) -> Result<Written<S::Outcome>, StoreError> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut unanswered = None;
    // Whatever happens then: if an attempt may have been committed, that is what the caller must know.
    let mut unknown: Option<PostgresError> = None;
    loop {
        let Ok(turn) = timeout_at(start + PATIENCE, turn(turns)).await else {
            return Err(unknown.map_or(StoreError::Overloaded, |error| refused(&error)));
        };
        let attempt = timeout_at(start + PATIENCE, attempt(postgres, step, unanswered.as_ref())).await;
        // Others need not wait for its pauses.
        drop(turn);
        let error = match attempt {
            Ok(Ok(written)) => return Ok(written),
            Ok(Err(Ended::Before(Failure::Store(error)))) => return Err(error),
            Ok(Err(Ended::Before(Failure::Postgres(error)))) => error,
            Ok(Err(Ended::Unanswered(done, error))) => {
                unanswered = Some(done);
                error
            }
            Err(_) => return Err(StoreError::Failed("PostgreSQL took too long".to_owned())),
        };
        let again = match error.class() {
            Class::Retry => true,
            Class::Unknown => {
                unknown = Some(error.clone());
                S::REPEATABLE
            }
            Class::Failed => false,
        };
        let patience = if is_away(&error) { AWAY } else { PATIENCE };
        if !again || start.elapsed() + pause >= patience {
            return Err(unknown.map_or_else(|| refused(&error), |error| refused(&error)));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// `None`: without waiting for one.
async fn turn(turns: Option<&Semaphore>) -> Option<SemaphorePermit<'_>> {
    turns?.acquire().await.ok()
}

/// How an attempt ended.
enum Ended<T> {
    /// Nothing happened.
    Before(Failure),
    /// It was to be committed, and there was no answer.
    Unanswered(Done<T>, PostgresError),
}

impl<T, F: Into<Failure>> From<F> for Ended<T> {
    fn from(failure: F) -> Self {
        Self::Before(failure.into())
    }
}

async fn attempt<S: Step>(
    postgres: &Postgres,
    step: &S,
    unanswered: Option<&Done<S::Outcome>>,
) -> Result<Written<S::Outcome>, Ended<S::Outcome>> {
    let mut connection = postgres.connection().await?;
    let transaction = connection.begin().await?;
    let tried = async {
        let done = step.attempt(&Tx(&transaction), unanswered).await?;
        // Last of all: from here to the commit nobody else gets a number.
        let number = match &done.changes[..] {
            [] => None,
            changes => Some(change_log::append(&transaction, changes).await?),
        };
        Ok::<_, Failure>((done, number))
    };
    let (done, number) = match tried.await {
        Ok(tried) => tried,
        Err(failure) => {
            // Its own error would say less.
            let _undone = transaction.rollback().await;
            return Err(failure.into());
        }
    };
    if done.wrote {
        match transaction.commit().await {
            Ok(()) => {}
            Err(error) if error.class() == Class::Unknown => return Err(Ended::Unanswered(done, error)),
            Err(error) => return Err(error.into()),
        }
    } else {
        // Nothing to undo but the locks.
        let _undone = transaction.rollback().await;
    }
    Ok(Written { outcome: done.outcome, logged: Logged { changes: done.changes, number } })
}

/// Runs a reading that is one statement, trying again while that can help.
pub(super) async fn read(postgres: &Postgres, sql: Sql, values: Values<'_>) -> Result<Vec<Row>, StoreError> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let reading = async { postgres.connection().await?.query(sql.text(), values).await };
        let error = match timeout_at(start + PATIENCE, reading).await {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error)) => error,
            Err(_) => return Err(StoreError::Away("PostgreSQL took too long".to_owned())),
        };
        let patience = if is_away(&error) { AWAY } else { PATIENCE };
        // A reading may always be repeated.
        if error.class() == Class::Failed || start.elapsed() + pause >= patience {
            return Err(refused(&error));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const fn is_away(error: &PostgresError) -> bool {
    matches!(error, PostgresError::Unreachable(_) | PostgresError::Busy)
}

fn refused(error: &PostgresError) -> StoreError {
    match error {
        PostgresError::Busy => StoreError::Overloaded,
        error if error.class() == Class::Retry => StoreError::Away(error.to_string()),
        error => StoreError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use causeway_identity::{AccountId, DeviceId};

    use super::super::PostgresStore;
    use super::super::leave::{Remove, Withdraw};
    use super::super::tests::Server;
    use super::*;
    use crate::store::suite::{self as made, added};
    use crate::store::{Removed, Store as _, What};

    async fn attempt_after<S: Step>(store: &PostgresStore, step: &S, unanswered: &Done<S::Outcome>) -> S::Outcome {
        let written = attempt(store.postgres(), step, Some(unanswered)).await;
        written.unwrap_or_else(|_| panic!("the server is there")).outcome
    }

    fn change(account: AccountId) -> Change {
        Change::Record { address: made::address(1), account, what: What::Devices }
    }

    #[tokio::test]
    async fn what_somebody_else_did_is_not_taken_for_the_attempt_that_was_not_answered() {
        let server = Server::start();
        let store = PostgresStore::open(&server.database()).await.unwrap();
        let (account, first) = made::an_account(&store).await;
        let [by, device] = [2, 3].map(|phone| made::enlistment(1, phone));
        let (_, by) = added(store.enlist(&by).await.unwrap().outcome);
        let (_, device) = added(store.enlist(&device).await.unwrap().outcome);
        // It was not committed, and now the one who asked is no more: neither was the device removed, nor the account.
        assert_eq!(store.remove_device(account, first, by, 1).await.unwrap().outcome, Removed::Done);
        let remove = |by: DeviceId, device: DeviceId| Remove { account, by, device, now_ms: 2 };
        let done = Done::told(Removed::Done, [change(account)]);
        assert_eq!(attempt_after(&store, &remove(by, device), &done).await, Removed::NotEnlisted);
        let withdraw = Withdraw { account, by, now_ms: 2 };
        assert!(!attempt_after(&store, &withdraw, &Done::told(true, [change(account)])).await);
        assert_eq!(made::record(&store, account).await.devices.len(), 2);

        // Here it is done, by whomever.
        assert_eq!(attempt_after(&store, &remove(by, by), &done).await, Removed::Done);
        assert_eq!(attempt_after(&store, &remove(first, by), &done).await, Removed::Done);
        assert!(store.withdraw(account, first, 3).await.unwrap().outcome);
        assert!(attempt_after(&store, &withdraw, &Done::told(true, [change(account)])).await);
    }
}
