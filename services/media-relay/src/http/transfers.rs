//! Transfers: how many at a time, how slow each may be, how long it may take, and what is counted of them.

use std::future::Future;
use std::time::Duration;

use causeway_identity::AccountId;
use tokio::time::Instant;

use super::pace::Pace;
use crate::metrics::{Direction, metrics};
use crate::shares::{Place, Shares};

/// What transfers are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransferLimits {
    /// At one time.
    pub(crate) max: u32,
    /// At one time for one account.
    pub(crate) max_per_account: u32,
    /// Bytes a second at least, on average over 30 s of waiting for the peer; 0 for no demand.
    pub(crate) min_bytes_per_s: u32,
    /// Nothing may stand still for longer.
    pub(crate) idle: Duration,
    /// Nothing may take longer.
    pub(crate) total: Duration,
}

/// Who a transfer is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    /// Whom the ticket names.
    Account(AccountId),
    /// Somebody who knows a blob's id. All of these together get half the room: nobody can tell them apart, and uploads
    /// and downloads by ticket must not wait for them.
    Anyone,
}

/// The room for transfers, shared by both roles.
#[derive(Debug, Clone)]
pub(crate) struct Transfers {
    room: Shares<Party>,
    limits: TransferLimits,
}

/// Nothing moved for too long or too little did, or the whole took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transfer was too slow")]
pub(crate) struct TooSlow;

impl Transfers {
    /// Room within these limits.
    pub(crate) fn new(limits: TransferLimits) -> Self {
        Self { room: Shares::new(limits.max), limits }
    }

    /// Begins one; `None` when there is no room, or none left for this party.
    pub(crate) fn begin(&self, direction: Direction, party: Party) -> Option<Transfer> {
        let share = match party {
            Party::Account(_) => self.limits.max_per_account,
            Party::Anyone => self.limits.max.div_ceil(2),
        };
        let place = self.room.take(party, share).ok()?;
        metrics().transfer_began(direction);
        let since = Instant::now();
        Some(Transfer {
            _place: place,
            idle: self.limits.idle,
            since,
            deadline: since + self.limits.total,
            pace: Pace::new(self.limits.min_bytes_per_s),
            direction,
            bytes: 0,
            outcome: "broken-off",
        })
    }

    /// How long a transfer may take: an upload to which nothing was written for longer is dead.
    pub(crate) fn total(&self) -> Duration {
        self.limits.total
    }
}

/// One transfer; counted when it is dropped.
#[derive(Debug)]
pub(crate) struct Transfer {
    _place: Place<Party>,
    idle: Duration,
    since: Instant,
    deadline: Instant,
    pace: Pace,
    direction: Direction,
    bytes: u64,
    outcome: &'static str,
}

impl Transfer {
    /// Waits for the next thing of this transfer, as long as it may stand still, be slow and take in all.
    pub(crate) async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, TooSlow> {
        let mut next = std::pin::pin!(next);
        let until = self.deadline.min(Instant::now() + self.idle);
        loop {
            let since = Instant::now();
            let pause = until.min(since + self.pace.left());
            let came = tokio::time::timeout_at(pause, next.as_mut()).await;
            if !self.pace.waited(since.elapsed()) {
                return Err(TooSlow);
            }
            match came {
                Ok(came) => return Ok(came),
                Err(_) if Instant::now() >= until => return Err(TooSlow),
                Err(_) => {}
            }
        }
    }

    /// Counts bytes that moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.pace.moved(bytes);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// How it ended; a word of a closed list.
    pub(crate) fn ended(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        metrics().transfer_ended(self.direction, self.outcome, self.bytes, self.since.elapsed());
    }
}
