//! Where the session is attached, and when it attaches again: after a loss, after the mailbox went to another replica, and
//! after a replica had no time for it.

use std::time::Duration;

use causeway_proto::routing::v1::Detach;
use causeway_proto::routing::v1::edge_event::Event as ToRouting;
use causeway_proto::wire::v1 as pb;
use tokio::time::Instant;

use super::{Act, Dispatch, LinkId, Place, Told};

/// The session's place at a replica may be lost by an `End` that says no more than "not now": so long at least it is not
/// used.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A session that is moved on sooner than this after it came waits before it attaches again, longer each time.
pub(super) const SETTLED: Duration = Duration::from_secs(1);
const FIRST_WAIT: Duration = Duration::from_millis(50);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Of a session, as its device.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attachment {
    None,
    /// Since when, and when it is to be tried next.
    Away {
        since: Instant,
        next: Instant,
    },
    /// Waits for the answer.
    Asked {
        since: Instant,
        place: Place,
    },
    Here {
        since: Instant,
        place: Place,
    },
}

impl Dispatch {
    pub(super) fn attached_at(&self) -> Option<Place> {
        match self.attachment {
            Attachment::None | Attachment::Away { .. } => None,
            Attachment::Asked { place, .. } | Attachment::Here { place, .. } => Some(place),
        }
    }

    pub(super) fn home(&self) -> Option<LinkId> {
        self.link_for(&self.who.as_ref()?.address)
    }

    pub(super) fn attach_if_due(&mut self, now: Instant) {
        let Attachment::Away { since, next } = self.attachment else { return };
        if self.over {
            return;
        }
        let (Some(link), true) = (self.home(), next <= now) else { return };
        let Some(mut who) = self.who.clone() else { return };
        let place = self.new_place(link);
        // It may submit there as well.
        self.known.entry(link).or_insert(place.number);
        self.base = self.last;
        self.attachment = Attachment::Asked { since, place };
        if let Some(login) = &mut who.login {
            login.attachment = place.number;
        }
        self.acts.push_back(Act::Send(place, ToRouting::Attach(who)));
    }

    /// The mailbox is another replica's now.
    pub(super) fn moved(&mut self, place: Place, now: Instant) {
        if self.known.get(&place.link) != Some(&place.number) {
            self.acts.push_back(Act::Send(place, ToRouting::Detach(Detach {})));
        }
        let (since, settled) = match self.attachment {
            Attachment::Here { since, .. } => (now, now >= since + SETTLED),
            Attachment::Asked { since, .. } => (since, false),
            Attachment::None | Attachment::Away { .. } => return,
        };
        self.moves = if settled { 0 } else { self.moves.saturating_add(1) };
        // The first is followed at once. After it, two that take it from each other are given time to agree.
        let wait = match self.moves {
            0 | 1 => Duration::ZERO,
            moves => (FIRST_WAIT * 2_u32.saturating_pow(moves - 2)).min(LONGEST_WAIT),
        };
        self.attachment = Attachment::Away { since, next: now + wait };
        self.attach_if_due(now);
    }

    pub(super) fn end(&mut self, place: Place, end: pb::End, attached: bool, now: Instant) {
        let known = self.known.get(&place.link) == Some(&place.number);
        if !attached && !known {
            return;
        }
        let reason = pb::EndReason::try_from(end.reason);
        let only_here = match reason {
            Ok(pb::EndReason::Draining) => true,
            // A login has the client wait; whoever is in stays in and waits here.
            Ok(pb::EndReason::Overloaded) => !attached || self.begun,
            _ => false,
        };
        if !only_here {
            self.tell(Told::End(end));
            return;
        }
        if known {
            self.known.remove(&place.link);
        }
        let mut overtaking = false;
        for lane in self.lanes.values_mut().filter(|lane| lane.place == Some(place)) {
            overtaking |= lane.is_closing();
            lane.lose();
        }
        if overtaking {
            self.tell(Told::Lost);
        }
        let pause = Duration::from_millis(end.retry_after_ms).clamp(LEAST_PAUSE, LONGEST_PAUSE);
        self.pauses.insert(place.link, now + pause);
        if attached {
            let since = match self.attachment {
                Attachment::Asked { since, .. } => since,
                _ => now,
            };
            self.attachment = Attachment::Away { since, next: now };
            self.attach_if_due(now);
        }
        self.pump_all(now);
    }
}
