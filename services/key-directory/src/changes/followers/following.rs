//! One follower's stream: what it is told next, and what it says.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Cut, Shared, TRANSIT, Warrant};
use crate::changes::Change;

/// The next message of a follower's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// It may trust its cache for this long, from when it sent the ping of this number (0: from the arrival).
    Lease {
        lasts: Duration,
        pong: u64,
    },
    Change(u64, Change),
}

/// One follower's end. Dropping it is its leaving; it may trust its cache until its lease has passed.
pub(crate) struct Following {
    pub(super) id: u64,
    pub(super) wake: Arc<Notify>,
    pub(super) shared: Arc<Shared>,
}

impl Following {
    /// The next message. A lease first, then one at least each third of a lease.
    pub(crate) async fn next(&self) -> Result<Next, Cut> {
        loop {
            let woken = self.wake.notified();
            let next_lease = match self.take(Instant::now())? {
                Taken::Message(message) => return Ok(message),
                Taken::NothingUntil(time) => time,
            };
            tokio::select! {
                biased;
                () = woken => {}
                () = tokio::time::sleep_until(next_lease) => {}
                () = self.shared.closing.cancelled() => return Err(Cut::Closing),
            }
        }
    }

    fn take(&self, now: Instant) -> Result<Taken, Cut> {
        if self.shared.closing.is_cancelled() {
            return Err(Cut::Closing);
        }
        let lease = self.shared.lease;
        let mut state = self.shared.lock();
        let warrant = state.warrant;
        let Some(follower) = state.followers.get_mut(&self.id) else { return Err(Cut::Left) };
        if let Some(cut) = follower.cut {
            return Err(cut);
        }
        if follower.pending.front().is_some_and(|oldest| oldest.since + lease <= now) {
            follower.cut = Some(Cut::Behind);
            self.shared.progress.notify_waiters();
            return Err(Cut::Behind);
        }
        if follower.next_lease <= now {
            follower.next_lease = now + lease / 3;
            let (pong, since, transit) = match follower.ping {
                Some((number, since)) => (number, since, Duration::ZERO),
                None => (0, now, TRANSIT),
            };
            let lasts = match warrant {
                Warrant::Alone => lease,
                Warrant::Until(until) if pong > 0 => {
                    let left_of_day = Duration::from_millis(until.day_ms.saturating_sub(self.shared.day_ms()));
                    lease.min(until.at.saturating_duration_since(since)).min(now - since + left_of_day)
                }
                Warrant::Until(_) | Warrant::Withdrawn => Duration::ZERO,
            };
            if lasts > Duration::ZERO {
                follower.trusts_until = follower.trusts_until.max(since + lasts + transit);
            }
            return Ok(Taken::Message(Next::Lease { lasts, pong }));
        }
        if let Some(unsent) = follower.unsent() {
            let (number, change) = (unsent.number, unsent.change.clone());
            follower.sent = number;
            return Ok(Taken::Message(Next::Change(number, change)));
        }
        Ok(Taken::NothingUntil(follower.next_lease))
    }

    /// What hears the follower.
    pub(crate) fn ear(&self) -> Ear {
        Ear { id: self.id, shared: Arc::clone(&self.shared) }
    }
}

enum Taken {
    Message(Next),
    NothingUntil(Instant),
}

impl Drop for Following {
    fn drop(&mut self) {
        self.ear().cut(Cut::Left);
    }
}

/// The other direction of a follower's stream.
pub(crate) struct Ear {
    id: u64,
    shared: Arc<Shared>,
}

impl Ear {
    /// The follower no longer acts on anything from before change `acknowledged` and all earlier ones, and sent `ping`,
    /// which is answered at once if it is greater than those before. False: it is cut off.
    pub(crate) fn heard(&self, acknowledged: u64, ping: u64) -> bool {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let last_number = state.last_number;
        let Some(follower) = state.followers.get_mut(&self.id) else { return false };
        if acknowledged > follower.sent {
            drop(state);
            self.cut(Cut::BadAck);
            return false;
        }
        while follower.pending.front().is_some_and(|pending| pending.number <= acknowledged) {
            follower.pending.pop_front();
        }
        follower.settle(last_number);
        if ping > follower.ping.map_or(0, |(number, _)| number) {
            follower.ping = Some((ping, now));
            follower.next_lease = now;
            follower.wake.notify_one();
        }
        let stays = follower.cut.is_none();
        drop(state);
        self.shared.progress.notify_waiters();
        stays
    }

    /// The follower has closed its end, or broke the rules.
    pub(crate) fn cut(&self, why: Cut) {
        let mut state = self.shared.lock();
        let last_number = state.last_number;
        if let Some(follower) = state.followers.get_mut(&self.id) {
            follower.settle(last_number);
            follower.cut.get_or_insert(why);
            follower.wake.notify_one();
        }
        drop(state);
        self.shared.progress.notify_waiters();
    }
}
