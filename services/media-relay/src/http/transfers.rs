//! Transfers: how many at a time, how long each may take, and what is counted of them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::metrics::{Direction, metrics};

/// The room for transfers, shared by both roles.
#[derive(Debug, Clone)]
pub(crate) struct Transfers {
    room: Arc<Semaphore>,
    idle: Duration,
    total: Duration,
}

/// Nothing moved for too long, or the whole took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transfer was too slow")]
pub(crate) struct TooSlow;

impl Transfers {
    /// Room for `max` at a time.
    pub(crate) fn new(max: u32, idle: Duration, total: Duration) -> Self {
        Self { room: Arc::new(Semaphore::new(max as usize)), idle, total }
    }

    /// Begins one; `None` when there is no room.
    pub(crate) fn begin(&self, direction: Direction) -> Option<Transfer> {
        let permit = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let deadline = Instant::now() + self.total;
        Some(Transfer { _permit: permit, idle: self.idle, deadline, direction, bytes: 0, outcome: "broken-off" })
    }

    /// How long a transfer may take: an upload to which nothing was written for longer is dead.
    pub(crate) fn total(&self) -> Duration {
        self.total
    }
}

/// One transfer; counted when it is dropped.
#[derive(Debug)]
pub(crate) struct Transfer {
    _permit: OwnedSemaphorePermit,
    idle: Duration,
    deadline: Instant,
    direction: Direction,
    bytes: u64,
    outcome: &'static str,
}

impl Transfer {
    /// Waits for the next thing of this transfer, within its deadlines.
    pub(crate) async fn wait<T>(&self, next: impl Future<Output = T>) -> Result<T, TooSlow> {
        let until = self.deadline.min(Instant::now() + self.idle);
        tokio::time::timeout_at(until, next).await.map_err(|_| TooSlow)
    }

    /// Counts bytes that moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// How it ended; a word of a closed list.
    pub(crate) fn ended(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        metrics().transfer_ended(self.direction, self.outcome, self.bytes);
    }
}
