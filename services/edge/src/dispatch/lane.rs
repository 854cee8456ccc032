//! The messages to one recipient: where they are submitted, in which order, and what their outcomes mean.

use std::collections::VecDeque;

use causeway_proto::routing::v1::Submitted;
use causeway_proto::routing::v1::edge_event::Event as ToRouting;
use causeway_proto::wire::v1 as pb;
use tokio::time::Instant;

use super::{Act, Dispatch, Place, Told};
use crate::trip::Trip;

/// The messages to one recipient that have no outcome, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Where the first `sent` are.
    pub(super) place: Option<Place>,
    pub(super) sent: usize,
    /// Rises when one of its messages is refused for a while.
    pub(super) generation: u32,
    pub(super) queue: VecDeque<Kept>,
}

/// A message that has no outcome.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) message: pb::Submit,
    /// Its place among all that the client has sent; that of the first time if it was refused for a while.
    pub(super) order: u64,
    /// Of its lane when it was sent.
    pub(super) generation: u32,
    /// A replica that was lost may have accepted it.
    pub(super) tried: bool,
    pub(super) trip: Trip,
    /// What it is charged for.
    pub(super) size: usize,
}

impl Lane {
    /// What was submitted may or may not have been decided.
    pub(super) fn lose(&mut self) -> usize {
        for kept in self.queue.iter_mut().take(self.sent) {
            kept.tried = true;
        }
        self.place = None;
        std::mem::take(&mut self.sent)
    }

    /// Takes the first message with this id out, of so many.
    pub(super) fn take(&mut self, id: &[u8], of: usize) -> Option<Kept> {
        let index = self.queue.iter().take(of).position(|kept| kept.message.id == id)?;
        if index < self.sent {
            self.sent -= 1;
        }
        self.queue.remove(index)
    }
}

impl Dispatch {
    pub(super) fn outcome(&mut self, place: Place, outcome: pb::Outcome, now: Instant) {
        let accepted = matches!(pb::Status::try_from(outcome.status), Ok(pb::Status::Delivered | pb::Status::Stored));
        let Some(lane) = self.lanes.get_mut(&outcome.to) else { return };
        // Whoever accepted it, it is accepted. To refuse it is up to the one who was asked last.
        let heard = match (accepted, lane.place == Some(place)) {
            (true, _) => lane.queue.len(),
            (false, true) => lane.sent,
            (false, false) => 0,
        };
        let Some(mut first) = lane.take(&outcome.id, heard) else { return };
        // What is accepted is accepted for all of its repeats, of which routing answers only some. To each submission there
        // is an outcome.
        let repeats: Vec<Kept> =
            if accepted { std::iter::from_fn(|| lane.take(&outcome.id, heard)).collect() } else { Vec::new() };
        if lane.sent == 0 {
            lane.place = None;
        }
        let (waits, empty) = (lane.sent < lane.queue.len(), lane.queue.is_empty());
        self.release(&first);
        for mut repeat in repeats {
            self.release(&repeat);
            repeat.trip.ends(&outcome, now, &self.bounds.metrics);
            self.tell(Told::Outcome(outcome.clone()));
        }
        if !accepted && first.tried {
            // The one before may have delivered it: nobody can say any more that it was refused.
            self.tell(Told::Lost);
            return;
        }
        first.trip.ends(&outcome, now, &self.bounds.metrics);
        if pb::Rejection::try_from(outcome.reason) == Ok(pb::Rejection::RateLimited) && !accepted {
            self.tell(Told::Outcome(outcome.clone()));
            self.close(&outcome, &first, now);
            self.ping();
            if self.lanes.get(&outcome.to).is_some_and(|lane| lane.queue.is_empty()) {
                self.lanes.remove(&outcome.to);
            } else {
                self.pump(&outcome.to, now);
            }
            return;
        }
        if accepted {
            self.settle(&outcome);
        }
        if empty {
            self.lanes.remove(&outcome.to);
        }
        let to = waits.then(|| outcome.to.clone());
        self.tell(Told::Outcome(outcome));
        if let Some(to) = to {
            self.pump(&to, now);
        }
    }

    /// Submits what is not submitted yet, to whoever is responsible now. Those that are with somebody else must be
    /// answered before.
    pub(super) fn pump(&mut self, to: &str, now: Instant) {
        let waits = self.lanes.get(to).is_some_and(|lane| lane.sent < lane.queue.len());
        if self.over || !waits {
            return;
        }
        let Some(link) = self.link_for(to) else {
            if self.lanes.get(to).is_some_and(|lane| lane.place.is_none()) {
                self.stuck.get_or_insert(now);
            }
            return;
        };
        let Some(lane) = self.lanes.get(to) else { return };
        let place = match lane.place {
            Some(place) if place.link == link => place,
            Some(_) => return,
            None => self.introduced(link),
        };
        let Some(lane) = self.lanes.get_mut(to) else { return };
        lane.place = Some(place);
        for kept in lane.queue.iter().skip(lane.sent) {
            let submitted = Submitted {
                message: Some(kept.message.clone()),
                generation: kept.generation,
                traceparent: kept.trip.traceparent(),
            };
            self.acts.push_back(Act::Send(place, ToRouting::Submit(submitted)));
        }
        lane.sent = lane.queue.len();
    }

    pub(super) fn pump_all(&mut self, now: Instant) {
        let before = self.stuck.take();
        let lanes: Vec<String> =
            self.lanes.iter().filter(|(_, lane)| lane.sent < lane.queue.len()).map(|(to, _)| to.clone()).collect();
        for to in lanes {
            self.pump(&to, now);
        }
        if self.stuck.is_some() && before.is_some() {
            self.stuck = before;
        }
    }
}
