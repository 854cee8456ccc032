//! What is known of each follower.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Cut, Warrant};
use crate::changes::Change;

/// Of all of them.
pub(super) struct State {
    pub(super) warrant: Warrant,
    pub(super) last_number: u64,
    pub(super) last_follower: u64,
    pub(super) followers: HashMap<u64, Follower>,
}

/// One of them, or one that was cut off and may still trust its cache.
pub(super) struct Follower {
    /// Published and not acknowledged, in order.
    pub(super) pending: VecDeque<Pending>,
    /// It acts on nothing from before this change or an earlier one.
    pub(super) settled: u64,
    /// Changes up to this one have been sent.
    pub(super) sent: u64,
    /// When it may no longer trust its cache, if it hears nothing more.
    pub(super) trusts_until: Instant,
    pub(super) next_lease: Instant,
    /// The greatest ping, and when it came in.
    pub(super) ping: Option<(u64, Instant)>,
    pub(super) cut: Option<Cut>,
    pub(super) wake: Arc<Notify>,
}

/// A change that is to be acknowledged.
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) since: Instant,
    pub(super) change: Change,
}

impl State {
    /// Those that were cut off matter only until they stop trusting their caches.
    pub(super) fn forget_harmless(&mut self, now: Instant) {
        self.followers.retain(|_, follower| follower.cut.is_none() || follower.trusts_until > now);
    }

    pub(super) fn publish(&mut self, number: u64, change: &Change, now: Instant, queue: usize) {
        self.forget_harmless(now);
        for follower in self.followers.values_mut().filter(|follower| follower.cut.is_none()) {
            if follower.pending.len() >= queue {
                follower.cut = Some(Cut::Behind);
            } else {
                follower.pending.push_back(Pending { number, since: now, change: change.clone() });
            }
            follower.wake.notify_one();
        }
        self.last_number = number;
    }

    pub(super) fn cut_all(&mut self, why: Cut) {
        for follower in self.followers.values_mut() {
            follower.cut.get_or_insert(why);
            follower.wake.notify_one();
        }
    }
}

impl Follower {
    /// The first change that was not sent.
    pub(super) fn unsent(&self) -> Option<&Pending> {
        self.pending.get(self.pending.partition_point(|pending| pending.number <= self.sent))
    }

    /// Nothing is waited for up to the change before the first unacknowledged one, or up to the last one.
    pub(super) fn settle(&mut self, last_number: u64) {
        if self.cut.is_none() {
            self.settled = self.pending.front().map_or(last_number, |first| first.number - 1);
        }
    }
}
