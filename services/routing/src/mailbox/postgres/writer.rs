//! The writers: each takes what is queued for its accounts, does it in order in one transaction, and tells the results
//! only after the commit was answered.
//!
//! When a commit is not answered, the batch is begun anew on another connection, and asks first which batch was committed
//! last: then the results of the first time are true, or nothing of it has happened and never will, because the question
//! waits for the lock that the first transaction holds, if it lives.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::AccountId;
use causeway_postgres::{Class, Connection, Postgres, PostgresError};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::mailbox::postgres::ops::{Action, Done, Op};
use crate::mailbox::postgres::rows::Id;
use crate::mailbox::postgres::{batch, sql};
use crate::mailbox::{Bounds, Chain, StoreError};
use crate::metrics::Metrics;

/// Operations and bytes that may be queued for one writer; what comes on top is told [`StoreError::Busy`].
const QUEUE_OPS: usize = 32_768;
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// A transaction is closed at this many operations or bytes.
const BATCH_OPS: usize = 1_024;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// So often a key that is there already is taken for the transaction before, which is about to end.
const COLLISIONS: u32 = 2;

/// What is queued for one writer.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    commits: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    ops: VecDeque<Op>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), filled: Notify::new(), commits: AtomicU64::new(0) })
    }

    pub(super) fn push(&self, op: Op) -> Result<(), StoreError> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(StoreError::Closed);
        }
        let bytes = op.action.bytes();
        if waiting.ops.len() >= QUEUE_OPS || waiting.bytes + bytes > QUEUE_BYTES {
            return Err(StoreError::Busy);
        }
        waiting.bytes += bytes;
        waiting.ops.push_back(op);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Operations that wait for their transaction.
    pub(super) fn len(&self) -> usize {
        self.waiting().ops.len()
    }

    /// Takes nothing more. What is queued is still written.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.filled.notify_one();
    }

    /// Transactions that were committed.
    #[cfg(test)]
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is queued, up to the bounds of a transaction; `None` once closed and empty.
    async fn next_batch(&self) -> Option<Vec<Op>> {
        loop {
            {
                let mut waiting = self.waiting();
                if !waiting.ops.is_empty() {
                    return Some(waiting.take());
                }
                if waiting.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }
}

impl Waiting {
    fn take(&mut self) -> Vec<Op> {
        let mut batch = Vec::with_capacity(self.ops.len().min(BATCH_OPS));
        let mut bytes = 0;
        while batch.len() < BATCH_OPS && bytes < BATCH_BYTES {
            let Some(op) = self.ops.pop_front() else { break };
            bytes += op.action.bytes();
            batch.push(op);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        batch
    }
}

/// However the task ends, also by a panic, nothing more is queued and nobody waits for what was.
impl Drop for Writer {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        waiting.closed = true;
        waiting.ops.clear();
    }
}

/// One of the tasks that write.
pub(super) struct Writer {
    queue: Arc<Queue>,
    postgres: Postgres,
    bounds: Bounds,
    timeout: Duration,
    metrics: Metrics,
    /// Random, never used again.
    id: Id,
    /// Kept from batch to batch.
    connection: Option<Connection>,
    /// Number of the last batch that was begun.
    batch: i64,
    /// A transaction of this or an earlier batch may not have ended yet.
    doubt: bool,
}

/// Why a batch was given up.
enum GivenUp {
    /// A statement cannot be done; without the operation that it is about the others can.
    Statement(PostgresError),
    /// None of it can be done now.
    All(StoreError),
}

impl Writer {
    pub(super) fn new(
        queue: Arc<Queue>,
        postgres: Postgres,
        bounds: Bounds,
        timeout: Duration,
        metrics: Metrics,
        id: [u8; 16],
    ) -> Self {
        Self { queue, postgres, bounds, timeout, metrics, id: Id(id), connection: None, batch: 0, doubt: false }
    }

    /// Runs until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        while let Some(ops) = self.queue.next_batch().await {
            let mut parts = vec![ops];
            while let Some(ops) = parts.pop() {
                self.write(ops, &mut parts).await;
            }
        }
    }

    /// Does a batch and tells the results; or leaves it in `parts`, divided, if something in it cannot be done.
    async fn write(&mut self, ops: Vec<Op>, parts: &mut Vec<Vec<Op>>) {
        let (cut_off, ops): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(Op::is_cut_off);
        for op in cut_off {
            op.tell(Err(Chain::error()));
        }
        let started = Instant::now();
        let operations = ops.len();
        let error = match self.commit(&ops, started).await {
            Ok(results) => {
                self.queue.commits.fetch_add(1, Ordering::SeqCst);
                self.metrics.committed(operations, started.elapsed());
                for (op, done) in ops.into_iter().zip(results) {
                    op.tell(if done == Done::Fenced { Err(StoreError::Fenced) } else { Ok(done) });
                }
                return;
            }
            Err(GivenUp::Statement(error)) => match divide(ops) {
                Ok((one, other)) => {
                    tracing::warn!(%error, operations, "a mailbox batch failed; trying its halves");
                    parts.extend([other, one]);
                    return;
                }
                Err(ops) => (ops, StoreError::Failed(error.to_string())),
            },
            Err(GivenUp::All(error)) => (ops, error),
        };
        let (ops, error) = error;
        tracing::warn!(%error, operations, "a mailbox batch failed; nothing of it is told as stored");
        for op in ops {
            self.metrics.store_failed(&error);
            op.tell(Err(error.clone()));
        }
    }

    /// Does a batch, again and again while that can help and there is time.
    async fn commit(&mut self, ops: &[Op], started: Instant) -> Result<Vec<Done>, GivenUp> {
        let queued = ops.first().map_or(started, |op| op.queued);
        // What has waited long for its turn gets some time nevertheless.
        let end = (queued + self.timeout).max(started + self.timeout / 5);
        self.batch += 1;
        // The results of an attempt that may have been committed.
        let mut maybe: Option<Vec<Done>> = None;
        let (mut pause, mut collisions) = (FIRST_PAUSE, 0);
        loop {
            let attempt = Attempt { ops, maybe: &mut maybe, committing: false };
            let error = match self.attempt_until(end, attempt).await {
                Ok(results) => return Ok(results),
                Err(error) => error,
            };
            if self.connection.as_ref().is_some_and(|connection| !connection.is_usable()) {
                self.connection = None;
            }
            let again = match error.class() {
                Class::Retry | Class::Unknown => true,
                // Of a transaction of before that has ended meanwhile, so that the next attempt sees what it did.
                Class::Failed => {
                    collisions += 1;
                    error.is_unique_violation() && collisions <= COLLISIONS
                }
            };
            if again && Instant::now() + pause < end {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            return Err(match error {
                _ if maybe.is_some() => GivenUp::All(StoreError::Unknown(error.to_string())),
                PostgresError::Closed => GivenUp::All(StoreError::Closed),
                PostgresError::Database(_) | PostgresError::Value(_) if error.class() == Class::Failed => {
                    GivenUp::Statement(error)
                }
                error => GivenUp::All(StoreError::Failed(error.to_string())),
            });
        }
    }

    async fn attempt_until(&mut self, end: Instant, mut attempt: Attempt<'_>) -> Result<Vec<Done>, PostgresError> {
        if let Ok(result) = tokio::time::timeout_at(end, self.attempt(&mut attempt)).await {
            return result;
        }
        // In the middle of it: nobody knows what the server makes of it, but it is not asked to commit any more.
        if let Some(connection) = &self.connection {
            connection.discard();
        }
        let committing = attempt.committing;
        if committing {
            self.doubt = true;
            attempt.maybe.get_or_insert_default();
        }
        let reason = "it took too long".to_owned();
        Err(if committing { PostgresError::Unknown(reason) } else { PostgresError::Lost(reason) })
    }

    async fn attempt(&mut self, attempt: &mut Attempt<'_>) -> Result<Vec<Done>, PostgresError> {
        if self.connection.as_ref().is_none_or(|connection| !connection.is_usable()) {
            self.connection = None;
            let connection = self.postgres.connection().await?;
            // Before anything is sent together, so that it is sent in the order of the program.
            connection.prepare(sql::WRITING).await?;
            self.connection = Some(connection);
        }
        let Some(connection) = &mut self.connection else { return Err(PostgresError::Busy) };
        let tx = connection.begin().await?;
        if self.doubt {
            let row = tx.query_one(sql::LAST_BATCH, &[&self.id]).await?;
            let last: i64 = row.try_get(0).map_err(|error| PostgresError::Value(error.to_string()))?;
            if attempt.maybe.is_some() && last == self.batch {
                // It was committed; where there is a standby, it has it when it has this.
                tx.commit().await?;
                self.doubt = false;
                return Ok(attempt.maybe.take().unwrap_or_default());
            }
            // Whatever transaction was open has ended: this holds the lock that each needs to commit.
            self.doubt = false;
            *attempt.maybe = None;
        }
        let mark = async {
            // Who only looks leaves nothing that could be in doubt.
            let writes = attempt.ops.iter().any(|op| !matches!(op.action, Action::Usage));
            if writes { tx.execute(sql::MARK, &[&self.id, &self.batch]).await } else { Ok(0) }
        };
        let (results, _) = futures::try_join!(batch::apply(&tx, attempt.ops, self.bounds), mark)?;
        attempt.committing = true;
        let committed = tx.commit().await;
        attempt.committing = false;
        match committed {
            Ok(()) => Ok(results),
            Err(error) => {
                if error.class() == Class::Unknown {
                    self.doubt = true;
                    *attempt.maybe = Some(results);
                }
                Err(error)
            }
        }
    }
}

struct Attempt<'a> {
    ops: &'a [Op],
    maybe: &'a mut Option<Vec<Done>>,
    /// The commit was asked for and not answered yet.
    committing: bool,
}

/// In halves, the operations of each account in one of them; or as it was, if all are of one account.
fn divide(ops: Vec<Op>) -> Result<(Vec<Op>, Vec<Op>), Vec<Op>> {
    let accounts: BTreeSet<AccountId> = ops.iter().map(|op| op.account).collect();
    let Some(&middle) = accounts.iter().nth(accounts.len() / 2).filter(|_| accounts.len() > 1) else {
        return Err(ops);
    };
    Ok(ops.into_iter().partition(|op| op.account < middle))
}
