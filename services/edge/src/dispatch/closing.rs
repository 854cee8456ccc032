//! What becomes of a lane when one of its messages is refused for a while (`rate-limited`), so that nothing overtakes it.
//!
//! What the client has sent behind such a message, it sent without knowing. So the message is *owed*: until it comes
//! again, the lane takes nothing else, and what is refused for that is owed too, in the order in which the client sent it
//! first. Nothing is taken either as long as something is under way from before the refusal was known: routing refuses
//! that by its generation.
//!
//! What the client does not mean to send again is forgotten [`PATIENCE`] after it could have sent it: after the time that
//! it was told to wait, and after it knew. That it knows is seen from a ping that is sent behind the refusal and has been
//! answered. Time alone does not tell: what it sends may arrive while nothing gets through to it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use causeway_proto::wire::v1 as pb;
use tokio::time::Instant;

use super::lane::{Kept, Lane};
use super::{Dispatch, Told};
use crate::limits::Charge;

/// A message that does not come again within this time after it might have, is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// No message is waited for longer than this and [`PATIENCE`].
const LONGEST: Duration = Duration::from_secs(3_600);
/// Messages of a session that are owed at a time. What is refused beyond that may be overtaken.
const MAX_OWED: usize = 512;
/// What one of them costs.
const BYTES: usize = size_of::<Owed>();

/// Lanes are remembered by a number that nobody outside can foresee: clients choose addresses, long ones too.
static NUMBERS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// All that is to come again, by its place among all that the client has sent.
#[derive(Debug, Default)]
pub(super) struct Owing {
    all: Vec<Owed>,
    /// The number of the last ping.
    pinged: u64,
    /// It has not been answered.
    unanswered: bool,
    /// Something has been refused since.
    ping: bool,
}

#[derive(Debug)]
struct Owed {
    order: u64,
    lane: u64,
    id: [u8; 16],
    /// What the client was told to wait for.
    retry_at: Instant,
    /// The number of the ping behind the refusal, and when that was answered.
    ping: u64,
    known_at: Option<Instant>,
    _charge: Charge,
}

impl Owing {
    pub(super) fn rest(&mut self) {
        self.all.shrink_to_fit();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Where the message is, if it is owed.
    fn position(&self, lane: u64, id: &[u8]) -> Option<usize> {
        self.all.iter().position(|owed| owed.lane == lane && owed.id == id)
    }

    /// Gives up what does not come again, but nothing of these lanes.
    fn forgive(&mut self, now: Instant, but: impl Fn(u64) -> bool) {
        let over = |owed: &Owed| owed.known_at.is_some_and(|at| now >= at.max(owed.retry_at) + PATIENCE);
        self.all.retain(|owed| !over(owed) || but(owed.lane));
    }
}

impl Lane {
    /// Something is under way from before the last refusal was known.
    pub(super) fn is_closing(&self) -> bool {
        self.queue.front().is_some_and(|kept| kept.generation < self.generation)
    }
}

impl Dispatch {
    /// The place of a message that the client sends, or what to answer if others must come first.
    pub(super) fn admit(&mut self, message: &pb::Submit, now: Instant) -> Result<u64, Box<pb::Outcome>> {
        let closing = self.lanes.get(&message.to).is_some_and(Lane::is_closing);
        if self.owing.all.is_empty() && !closing {
            return Ok(self.arrived);
        }
        let lane = NUMBERS.hash_one(&message.to);
        if !closing {
            self.owing.forgive(now, |other| other != lane);
        }
        let first = self.owing.all.iter().position(|owed| owed.lane == lane);
        let retry_at = match first.map(|first| (first, &self.owing.all[first])) {
            None if !closing => return Ok(self.arrived),
            Some((first, owed)) if !closing && owed.id == message.id[..] => {
                return Ok(self.owing.all.remove(first).order);
            }
            Some((_, owed)) => owed.retry_at,
            None => now,
        };
        self.owe(self.arrived, message, retry_at, now);
        Err(Box::new(come_again(message, retry_at.saturating_duration_since(now))))
    }

    /// The client is told to send a message again later: nothing that came behind it may be accepted before.
    pub(super) fn close(&mut self, outcome: &pb::Outcome, refused: &Kept, now: Instant) {
        let retry_at = now + Duration::from_millis(outcome.retry_after_ms).min(LONGEST);
        self.owe(refused.order, &refused.message, retry_at, now);
        let Some(lane) = self.lanes.get_mut(&outcome.to) else { return };
        if refused.generation == lane.generation {
            self.generation = self.generation.saturating_add(1);
            lane.generation = self.generation;
        }
        let unsent: Vec<Kept> = lane.queue.drain(lane.sent..).collect();
        unsent.iter().for_each(|kept| self.release(kept));
        for mut kept in unsent {
            if kept.tried {
                self.tell(Told::Lost);
                return;
            }
            self.owe(kept.order, &kept.message, retry_at, now);
            let refused = come_again(&kept.message, retry_at.saturating_duration_since(now));
            kept.trip.ends(&refused, now, &self.bounds.metrics);
            self.tell(Told::Outcome(refused));
        }
    }

    /// Behind what has been refused goes a ping, one at a time.
    pub(super) fn ping(&mut self) {
        if self.owing.ping && !self.owing.unanswered {
            (self.owing.ping, self.owing.unanswered) = (false, true);
            self.owing.pinged += 1;
            self.tell(Told::Ping(self.owing.pinged));
        }
    }

    /// The client has answered a ping.
    pub(crate) fn ponged(&mut self, number: u64, now: Instant) {
        if number != self.owing.pinged || !self.owing.unanswered {
            return;
        }
        self.owing.unanswered = false;
        for owed in self.owing.all.iter_mut().filter(|owed| owed.ping <= number) {
            owed.known_at.get_or_insert(now);
        }
        self.ping();
    }

    /// It was accepted after all, as the repeat of one that had been.
    pub(super) fn settle(&mut self, outcome: &pb::Outcome) {
        if !self.owing.all.is_empty() {
            let position = self.owing.position(NUMBERS.hash_one(&outcome.to), &outcome.id);
            position.map(|position| self.owing.all.remove(position));
        }
    }

    fn owe(&mut self, order: u64, message: &pb::Submit, retry_at: Instant, now: Instant) {
        let Ok(id) = <[u8; 16]>::try_from(&message.id[..]) else { return };
        let lane = NUMBERS.hash_one(&message.to);
        if let Some(before) = self.owing.position(lane, &id) {
            if self.owing.all[before].order <= order {
                return;
            }
            self.owing.all.remove(before);
        }
        if self.owing.all.len() >= MAX_OWED {
            let closing = self.lanes.iter().filter(|(_, lane)| lane.is_closing());
            let closing: BTreeSet<u64> = closing.map(|(to, _)| NUMBERS.hash_one(to)).collect();
            self.owing.forgive(now, |lane| closing.contains(&lane));
        }
        if self.owing.all.len() >= MAX_OWED {
            return;
        }
        let Some(charge) = self.bounds.total.charge(BYTES) else { return };
        self.owing.ping = true;
        let ping = self.owing.pinged + 1;
        let at = self.owing.all.partition_point(|owed| owed.order < order);
        self.owing.all.insert(at, Owed { order, lane, id, retry_at, ping, known_at: None, _charge: charge });
    }
}

fn come_again(message: &pb::Submit, wait: Duration) -> pb::Outcome {
    pb::Outcome {
        id: message.id.clone(),
        to: message.to.clone(),
        status: pb::Status::Rejected.into(),
        reason: pb::Rejection::RateLimited.into(),
        retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1),
        ..pb::Outcome::default()
    }
}
