//! What becomes of a lane when one of its messages is refused for a while (`rate-limited`), so that nothing overtakes it.
//!
//! What the client has sent behind such a message, it sent without knowing. So the message is *owed*: until it comes
//! again, the lane takes nothing else, and what is refused for that is owed too, in the order in which the client sent it
//! first. Nothing is taken either as long as something is under way from before the refusal was known: routing refuses
//! that by its generation. What the client does not mean to send again is forgotten [`PATIENCE`] after the time that it was
//! told to wait.

use std::time::Duration;

use bytes::Bytes;
use causeway_proto::wire::v1 as pb;
use tokio::time::Instant;

use super::{Dispatch, Kept, Lane, Told};

/// A message that does not come again within this time after it might have, is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// No message is waited for longer than this and [`PATIENCE`].
const LONGEST: Duration = Duration::from_secs(60);
/// Messages of a session that are owed at a time. What is refused beyond that may be overtaken.
const MAX_OWED: usize = 512;

/// A message that is to come again.
#[derive(Debug)]
pub(super) struct Owed {
    id: Bytes,
    /// What the client was told to wait for.
    retry_at: Instant,
}

impl Lane {
    /// Something is under way from before the last refusal was known.
    pub(super) fn is_closing(&self) -> bool {
        self.queue.front().is_some_and(|kept| kept.generation < self.generation)
    }

    /// Gives up what does not come again; gives how many.
    fn forgive(&mut self, now: Instant) -> usize {
        let before = self.owed.len();
        self.owed.retain(|_, owed| now < owed.retry_at + PATIENCE);
        before - self.owed.len()
    }
}

impl Dispatch {
    /// The place of a message that the client sends, or what to answer if others must come first.
    pub(super) fn admit(&mut self, message: &pb::Submit, now: Instant) -> Result<u64, Box<pb::Outcome>> {
        let Some(lane) = self.lanes.get_mut(&message.to) else { return Ok(self.arrived) };
        let closing = lane.is_closing();
        if !closing {
            self.owed -= lane.forgive(now);
        }
        let first = lane.owed.first_key_value().map(|(order, owed)| (*order, owed.retry_at, owed.id == message.id));
        let retry_at = match first {
            None if !closing => return Ok(self.arrived),
            Some((order, _, true)) if !closing => {
                lane.owed.remove(&order);
                self.owed -= 1;
                return Ok(order);
            }
            Some((_, retry_at, _)) => retry_at,
            None => now,
        };
        let refused = come_again(message, retry_at.saturating_duration_since(now));
        self.owe(self.arrived, message, retry_at, now);
        Err(Box::new(refused))
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
        self.messages -= unsent.len();
        for mut kept in unsent {
            if kept.tried {
                self.tell(Told::Lost);
                return;
            }
            self.owe(kept.order, &kept.message, retry_at, now);
            let again = come_again(&kept.message, retry_at.saturating_duration_since(now));
            kept.trip.ends(&again, now);
            self.tell(Told::Outcome(again));
        }
    }

    /// It was accepted after all, as the repeat of one that had been.
    pub(super) fn settle(&mut self, outcome: &pb::Outcome) {
        let Some(lane) = self.lanes.get_mut(&outcome.to) else { return };
        let before = lane.owed.len();
        lane.owed.retain(|_, owed| owed.id != outcome.id);
        self.owed -= before - lane.owed.len();
    }

    fn owe(&mut self, order: u64, message: &pb::Submit, retry_at: Instant, now: Instant) {
        if self.owed >= MAX_OWED {
            let idle = self.lanes.values_mut().filter(|lane| lane.queue.is_empty());
            self.owed -= idle.map(|lane| lane.forgive(now)).sum::<usize>();
            self.lanes.retain(|to, lane| *to == message.to || !lane.is_like_new());
        }
        if self.owed >= MAX_OWED {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&message.to) else { return };
        let before = lane.owed.iter().find(|(_, owed)| owed.id == message.id).map(|(order, _)| *order);
        if before.is_some_and(|before| before <= order) {
            return;
        }
        match before {
            Some(before) => drop(lane.owed.remove(&before)),
            None => self.owed += 1,
        }
        // A copy, so that it does not hold the record that it came in.
        lane.owed.insert(order, Owed { id: Bytes::copy_from_slice(&message.id), retry_at });
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
