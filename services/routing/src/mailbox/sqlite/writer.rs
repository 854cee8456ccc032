//! The writer thread: takes everything that is queued, applies it in order, commits once, then tells the results.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use causeway_runtime::telemetry::instruments::Store;
use rusqlite::Connection;

use crate::mailbox::sqlite::ops::{Applied, Op, Reply};
use crate::mailbox::sqlite::{connect_to_write, failed};
use crate::mailbox::{Bounds, Chain, StoreError};
use crate::metrics::Metrics;

/// Operations and bytes that may be queued; what comes on top is told [`StoreError::Busy`].
const QUEUE_OPS: usize = 65_536;
const QUEUE_BYTES: usize = 128 * 1024 * 1024;
/// A transaction is closed at this many operations or bytes.
const COMMIT_OPS: usize = 4_096;
const COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// The thread's handle. Dropping it writes what is queued, then closes the file.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    commits: AtomicU64,
    #[cfg(test)]
    faults: Faults,
}

#[derive(Default)]
struct Queue {
    ops: VecDeque<(Op, usize)>,
    bytes: usize,
    closed: bool,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        file: PathBuf,
        bounds: Bounds,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            commits: AtomicU64::new(0),
            #[cfg(test)]
            faults: Faults::default(),
        });
        let worker = Worker { shared: Arc::clone(&shared), connection: Some(connection), file, bounds, metrics };
        let thread = std::thread::Builder::new().name("mailbox".to_owned()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues an operation that weighs `bytes`.
    pub(super) fn queue(&self, op: Op, bytes: usize) -> Result<(), StoreError> {
        let mut queue = self.shared.queue();
        if queue.closed {
            return Err(StoreError::Closed);
        }
        if queue.ops.len() >= QUEUE_OPS || queue.bytes + bytes > QUEUE_BYTES {
            return Err(StoreError::Busy);
        }
        queue.bytes += bytes;
        queue.ops.push_back((op, bytes));
        drop(queue);
        self.shared.filled.notify_one();
        Ok(())
    }

    pub(super) fn queued(&self) -> usize {
        self.shared.queue().ops.len()
    }

    #[cfg(test)]
    pub(super) fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::SeqCst)
    }

    #[cfg(test)]
    pub(super) fn fail_commits(&self, fail: bool) {
        self.shared.faults.fail.store(fail, Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(super) fn hold(&self) -> Held {
        *self.shared.faults.held.lock().unwrap() = true;
        Held(Arc::clone(&self.shared))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// However the thread ends, also by a panic, nothing more is queued and nobody waits for what was.
impl Drop for Worker {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        queue.ops.clear();
    }
}

struct Worker {
    shared: Arc<Shared>,
    /// `None` after a failure that the connection did not survive.
    connection: Option<Connection>,
    file: PathBuf,
    bounds: Bounds,
    metrics: Metrics,
}

impl Worker {
    fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            #[cfg(test)]
            self.shared.faults.wait_while_held();
            let started = tokio::time::Instant::now();
            let (cut_off, batch): (Vec<Op>, Vec<Op>) = batch.into_iter().partition(Op::is_cut_off);
            for op in cut_off {
                op.fail(&Chain::error(), self.connection.as_ref());
            }
            let operations = batch.len();
            match self.commit(batch) {
                Ok(replies) => {
                    self.shared.commits.fetch_add(1, Ordering::SeqCst);
                    Store::SQLITE.waited("commit", started.elapsed(), false);
                    self.metrics.committed(operations, started.elapsed());
                    for reply in replies {
                        reply.send();
                    }
                }
                Err((batch, error)) => {
                    Store::SQLITE.waited("commit", started.elapsed(), true);
                    tracing::warn!(%error, operations, "a mailbox commit failed; nothing of it is told as stored");
                    for op in batch {
                        self.metrics.store_failed(&error);
                        op.fail(&error, self.connection.as_ref());
                    }
                }
            }
        }
    }

    /// Everything that is queued, up to the bounds of a transaction; `None` once closed and empty.
    fn next_batch(&self) -> Option<Vec<Op>> {
        let mut queue = self.shared.queue();
        while queue.ops.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let mut batch = Vec::with_capacity(queue.ops.len().min(COMMIT_OPS));
        let mut taken = 0;
        while batch.len() < COMMIT_OPS && taken < COMMIT_BYTES {
            let Some((op, bytes)) = queue.ops.pop_front() else { break };
            taken += bytes;
            batch.push(op);
        }
        queue.bytes -= taken;
        Some(batch)
    }

    /// Applies and commits a batch; the replies may be sent only after that. On an error nothing of the batch is done.
    fn commit(&mut self, batch: Vec<Op>) -> Result<Vec<Reply>, (Vec<Op>, StoreError)> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => match connect_to_write(&self.file) {
                Ok(connection) => connection,
                Err(error) => return Err((batch, failed(error))),
            },
        };
        let applied = apply_all(&connection, &batch, self.bounds);
        #[cfg(test)]
        let applied = applied.and_then(|results| self.shared.faults.check().map(|()| results));
        let committed = applied.and_then(|results| {
            connection.execute_batch("COMMIT").map_err(failed)?;
            Ok(results)
        });
        match committed {
            Ok(results) => {
                self.connection = Some(connection);
                Ok(batch.into_iter().zip(results).filter_map(|(op, result)| op.reply(result)).collect())
            }
            Err(error) => {
                // SQLite may have rolled back by itself. A connection that cannot is closed, which rolls back too.
                if connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok() {
                    self.connection = Some(connection);
                }
                Err((batch, error))
            }
        }
    }
}

fn apply_all(connection: &Connection, batch: &[Op], bounds: Bounds) -> Result<Vec<Applied>, StoreError> {
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    batch.iter().map(|op| op.apply(connection, bounds)).collect()
}

#[cfg(test)]
#[derive(Default)]
struct Faults {
    fail: std::sync::atomic::AtomicBool,
    held: Mutex<bool>,
    released: Condvar,
}

#[cfg(test)]
impl Faults {
    fn check(&self) -> Result<(), StoreError> {
        if self.fail.load(Ordering::SeqCst) { Err(StoreError::Failed("for the test".to_owned())) } else { Ok(()) }
    }

    fn wait_while_held(&self) {
        let held = self.held.lock().unwrap();
        let _held = self.released.wait_while(held, |held| *held).unwrap();
    }
}

/// The writer waits while this lives.
#[cfg(test)]
pub(crate) struct Held(Arc<Shared>);

#[cfg(test)]
impl Drop for Held {
    fn drop(&mut self) {
        *self.0.faults.held.lock().unwrap() = false;
        self.0.faults.released.notify_all();
    }
}
