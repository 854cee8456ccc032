//! Those who follow this directory, and what they have acknowledged.
//!
//! A change is settled when each follower has acknowledged it, or its lease has passed, so that it does not act on the
//! older record any more. A follower that does not acknowledge within a lease gets no further lease and is cut off, so a
//! change is settled after at most two leases and [`TRANSIT`].
//!
//! A follower that sends pings counts its lease from when it sent the ping that the lease names, which was before it came
//! in here: how long a message is on its way does not matter. One that does not counts from the lease's arrival; for it
//! leases are made when the stream asks for its next message, never queued behind others, and the network is granted
//! [`TRANSIT`].
//!
//! One of several directories has a lease itself, on the store. What it grants ends no later than that, and it grants
//! nothing to a follower without pings. It counts by the time of day as well: a machine that was suspended may not have
//! counted the time in between.

mod following;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_runtime::clock::SharedClock;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::following::{Ear, Following, Next};
use self::state::{Follower, State};
use super::Change;

/// A lease may arrive this much later than it was made.
pub(crate) const TRANSIT: Duration = Duration::from_secs(1);

/// Why a follower's stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    /// Too many changes, or one for too long, without acknowledgement.
    #[error("the follower fell behind: connect again and start with an empty cache")]
    Behind,
    /// This directory has lost its place in the log of changes, or its lease on it.
    #[error("the directory begins anew: connect again and start with an empty cache")]
    Anew,
    /// An acknowledgement of what was not sent.
    #[error("the follower acknowledged a change that was not sent")]
    BadAck,
    /// Its own end has closed.
    #[error("the follower has left")]
    Left,
    /// The directory stops.
    #[error("the directory is stopping")]
    Closing,
}

/// A time by both clocks: that which only goes on, and the time of day in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) day_ms: u64,
}

impl Moment {
    /// Later by `time`.
    pub(crate) fn after(self, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { at: self.at + time, day_ms: self.day_ms.saturating_add(millis) }
    }
}

/// Until when followers may be told to trust their caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Warrant {
    /// For as long as they acknowledge: nobody else changes anything.
    Alone,
    /// No longer than this directory's own lease.
    Until(Moment),
    /// Not at all.
    Withdrawn,
}

/// All followers of this directory; cloning gives another handle.
#[derive(Clone)]
pub(crate) struct Followers {
    shared: Arc<Shared>,
}

struct Shared {
    lease: Duration,
    queue: usize,
    closing: CancellationToken,
    /// `None`: nobody else changes anything.
    clock: Option<SharedClock>,
    /// Told whenever something happens by which a change may have settled.
    progress: Notify,
    state: Mutex<State>,
}

/// What all followers are done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// No follower acts on anything from before this change or an earlier one.
    pub(crate) number: u64,
    /// When it may be more without anybody's doing.
    pub(crate) look_again: Option<Instant>,
}

impl Followers {
    /// Of a directory that has its store for itself.
    pub(crate) fn alone(lease: Duration, queue: usize, closing: CancellationToken) -> Self {
        Self::with(Warrant::Alone, lease, queue, closing, None)
    }

    /// Of one of several directories: nobody can follow until [`Self::begin`].
    pub(crate) fn shared(lease: Duration, queue: usize, closing: CancellationToken, clock: SharedClock) -> Self {
        Self::with(Warrant::Withdrawn, lease, queue, closing, Some(clock))
    }

    fn with(
        warrant: Warrant,
        lease: Duration,
        queue: usize,
        closing: CancellationToken,
        clock: Option<SharedClock>,
    ) -> Self {
        let state = State { warrant, last_number: 0, last_follower: 0, followers: HashMap::new() };
        let shared = Shared { lease, queue, closing, clock, progress: Notify::new(), state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// Tells every follower of a change under the next number.
    pub(crate) fn publish_next(&self, change: &Change) {
        let mut state = self.shared.lock();
        let number = state.last_number + 1;
        state.publish(number, change, Instant::now(), self.shared.queue);
    }

    /// Tells every follower of a change under the number that the log gave it, which is greater than those before.
    pub(crate) fn publish(&self, number: u64, change: &Change) {
        self.shared.lock().publish(number, change, Instant::now(), self.shared.queue);
    }

    /// What has this number is not for followers.
    pub(crate) fn pass(&self, number: u64) {
        self.shared.lock().last_number = number;
    }

    /// From now on this directory tells of all changes after `number`, and vouches for caches that are empty now, but no
    /// longer than its own lease.
    pub(crate) fn begin(&self, number: u64, until: Moment) {
        let mut state = self.shared.lock();
        state.cut_all(Cut::Anew);
        state.last_number = number;
        state.warrant = Warrant::Until(until);
    }

    /// This directory's own lease lasts longer now.
    pub(crate) fn extend(&self, until: Moment) {
        let mut state = self.shared.lock();
        if matches!(state.warrant, Warrant::Until(before) if before.at < until.at) {
            state.warrant = Warrant::Until(until);
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Moment {
        Moment { at: Instant::now(), day_ms: self.shared.day_ms() }
    }

    /// This directory can tell of no changes: nobody may follow it.
    pub(crate) fn end(&self) {
        let mut state = self.shared.lock();
        state.cut_all(Cut::Anew);
        state.warrant = Warrant::Withdrawn;
        drop(state);
        self.shared.progress.notify_waiters();
    }

    /// What nobody acts against any more. Cuts off those that are silent for too long.
    pub(crate) fn settled(&self) -> Settled {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let mut settled = Settled { number: state.last_number, look_again: None };
        let last_number = state.last_number;
        for follower in state.followers.values_mut() {
            follower.settle(last_number);
            if follower.settled >= last_number {
                continue;
            }
            // Without an acknowledgement for a lease it gets no further one.
            let overdue = follower.pending.front().map_or(now, |oldest| oldest.since + self.shared.lease);
            if follower.cut.is_none() && overdue <= now {
                follower.cut = Some(Cut::Behind);
                follower.wake.notify_one();
            }
            let look_again = if follower.cut.is_some() { follower.trusts_until } else { overdue };
            if look_again > now {
                settled.number = settled.number.min(follower.settled);
                settled.look_again = Some(settled.look_again.map_or(look_again, |time| time.min(look_again)));
            }
        }
        settled
    }

    /// Resolves when everything up to this change is settled.
    pub(crate) async fn settle(&self, number: u64) {
        loop {
            let progress = self.progress();
            tokio::pin!(progress);
            progress.as_mut().enable();
            let Settled { number: settled, look_again } = self.settled();
            if settled >= number {
                return;
            }
            tokio::select! {
                () = progress => {}
                () = sleep_until(look_again) => {}
            }
        }
    }

    /// Resolves when a follower has been heard or was cut off, if that is after this was made and enabled.
    pub(crate) fn progress(&self) -> Notified<'_> {
        self.shared.progress.notified()
    }

    /// The number of the last change that was told.
    pub(crate) fn last_number(&self) -> u64 {
        self.shared.lock().last_number
    }

    /// When the last follower stops trusting its cache, if none gets a further lease.
    pub(crate) fn trusted_until(&self) -> Option<Instant> {
        self.shared.lock().followers.values().map(|follower| follower.trusts_until).max()
    }

    /// A new follower, which has cached nothing yet.
    pub(crate) fn follow(&self) -> Result<Following, Cut> {
        let now = Instant::now();
        let mut state = self.shared.lock();
        if state.warrant == Warrant::Withdrawn {
            return Err(Cut::Anew);
        }
        state.forget_harmless(now);
        state.last_follower += 1;
        let id = state.last_follower;
        let wake = Arc::new(Notify::new());
        let follower = Follower {
            pending: VecDeque::new(),
            settled: state.last_number,
            sent: state.last_number,
            trusts_until: now,
            next_lease: now,
            ping: None,
            cut: None,
            wake: Arc::clone(&wake),
        };
        state.followers.insert(id, follower);
        Ok(Following { id, wake, shared: Arc::clone(&self.shared) })
    }

    /// How many follow now.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.shared.lock().followers.values().filter(|follower| follower.cut.is_none()).count()
    }
}

impl Shared {
    fn day_ms(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock.now_ms())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Never without a time.
pub(crate) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
