//! Readings, on threads of their own. Whoever is free takes some of what waits and reads it in one transaction, which has
//! begun after all of it was asked for. Under load nobody is woken, and pages that several need are looked up once.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::engine::failed;
use crate::store::StoreError;

/// Readings that may wait.
const QUEUE: usize = 8_192;
/// Readings in one transaction.
const TOGETHER: usize = 32;
/// Of what waits, so much is left to one thread that has been woken already.
const OF_ONE: usize = 4;

/// Gets the connection, or why there is none to read from.
type Reading = Box<dyn FnOnce(Result<&Connection, StoreError>) + Send>;

/// The threads; they end with this.
pub(super) struct Readers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    readings: VecDeque<Reading>,
    /// Threads without work, and how many of these have been woken.
    idle: usize,
    woken: usize,
    closed: bool,
}

impl Readers {
    /// A thread for each connection.
    pub(super) fn start(connections: Vec<Connection>) -> std::io::Result<Self> {
        let mut readers = Self { queue: Arc::default(), threads: Vec::with_capacity(connections.len()) };
        for db in connections {
            let queue = Arc::clone(&readers.queue);
            let thread = std::thread::Builder::new().name("directory-reader".to_owned());
            readers.threads.push(thread.spawn(move || read_until_closed(&db, &queue))?);
        }
        Ok(readers)
    }

    /// Runs a reading, which sees one state of the database throughout, and all that was committed before.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        reading: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(Box::new(move |db| {
            // Nobody waits for it any more.
            if answer.is_closed() {
                return;
            }
            let _caller_gone = answer.send(db.and_then(reading));
        }))?;
        answered.await.map_err(|_| StoreError::Failed("a reading broke off".to_owned()))?
    }
}

impl Readers {
    /// Reads what waits, and lets go of the connections.
    pub(super) fn close(&mut self) {
        self.queue.lock().closed = true;
        self.queue.more.notify_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    fn push(&self, reading: Reading) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.readings.len() >= QUEUE {
            return Err(StoreError::Overloaded);
        }
        waiting.readings.push_back(reading);
        let wake = waiting.idle > waiting.woken && waiting.readings.len() > OF_ONE * waiting.woken;
        waiting.woken += usize::from(wake);
        drop(waiting);
        if wake {
            self.more.notify_one();
        }
        Ok(())
    }

    /// Waits for readings; false when there will be none.
    fn take(&self, some: &mut VecDeque<Reading>) -> bool {
        let mut waiting = self.lock();
        while waiting.readings.is_empty() {
            if waiting.closed {
                return false;
            }
            waiting.idle += 1;
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
            waiting.woken = waiting.woken.saturating_sub(1);
        }
        let count = waiting.readings.len().min(TOGETHER);
        some.extend(waiting.readings.drain(..count));
        true
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_until_closed(db: &Connection, queue: &Queue) {
    let mut some = VecDeque::with_capacity(TOGETHER);
    while queue.take(&mut some) {
        let transaction = db.unchecked_transaction().map_err(failed);
        for reading in some.drain(..) {
            let connection = transaction.as_deref().map_err(Clone::clone);
            // One that panics drops its answer, which its caller sees.
            let _panicked = catch_unwind(AssertUnwindSafe(|| reading(connection)));
        }
    }
}
