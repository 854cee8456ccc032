//! One device of the recipient: its session, what the mailbox holds for it, and how far it has been served.

use std::collections::{BTreeSet, VecDeque};

use super::window::Window;
use crate::mailbox::Usage;
use crate::message::{Envelope, Seq};
use crate::session::SessionKey;

/// What of a slow session's next messages is kept in memory, so that it can catch up without another reading.
const AHEAD_MESSAGES: usize = if cfg!(test) { 3 } else { 64 };
const AHEAD_BYTES: usize = 256 * 1024;

/// Names a put, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Ticket(pub(crate) u64);

/// A device that has a session or messages.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) served: Option<Served>,
    /// In the mailbox, or on the way there.
    pub(super) kept: Usage,
    /// Accepted, not acknowledged, and not on the way to the mailbox: what may have to go there.
    pub(super) reserved: Usage,
    /// Puts under way, in order.
    pub(super) puts: VecDeque<Ticket>,
    /// How many orders to forget are under way.
    pub(super) forgets: usize,
    /// Everything up to here was acknowledged and the mailbox failed to erase it.
    pub(super) unforgotten: Option<Seq>,
    /// Asked the mailbox for the true usage; what has been queued since.
    pub(super) recount: Option<Usage>,
}

/// A session and how far it has been served.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) session: SessionKey,
    /// Rises with each session of the device.
    pub(super) number: u64,
    pub(super) registration: u32,
    pub(super) window: Window,
    /// Everything up to here was given to it.
    pub(super) cursor: Seq,
    /// It has been told that it is attached: with the first reading, so that from then on it gets what comes.
    pub(super) announced: bool,
    pub(super) mode: Mode,
}

/// How a session gets its messages.
#[derive(Debug)]
pub(super) enum Mode {
    /// The mailbox has, or may have, messages for it: what comes goes there, and it reads from there.
    Behind(Box<Behind>),
    /// It has been given everything: what comes, it gets.
    Live,
}

/// A session that reads from the mailbox.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// The session begins once everything is over that was under way in the mailbox when it came: up to this put, and
    /// all that was to be forgotten. What is read then is what it is to be given, no less and no more.
    joining: Option<Ticket>,
    pub(super) reading: bool,
    /// The last reading came to the end; another one before a put is over would find nothing.
    pub(super) at_end: bool,
    /// Everything behind the cursor is in `ahead`: no reading is needed to catch up.
    pub(super) synced: bool,
    /// Messages behind the cursor that a reading may not see yet, in order.
    ahead: VecDeque<Ahead>,
    ahead_bytes: usize,
    /// A message that a reading may not see yet is not in `ahead`.
    pub(super) gap: bool,
    /// Such messages, until they are in the mailbox.
    unseen: BTreeSet<Seq>,
}

/// A message that was not in the mailbox when the last reading began.
#[derive(Debug)]
struct Ahead {
    committed: bool,
    envelope: Envelope,
}

impl Device {
    /// Nothing is known of it that would be missed.
    pub(super) fn is_idle(&self) -> bool {
        let nothing_known =
            self.served.is_none() && self.puts.is_empty() && self.forgets == 0 && self.recount.is_none();
        let nothing = Usage::default();
        nothing_known && self.unforgotten.is_none() && self.kept == nothing && self.reserved == nothing
    }

    /// Room in the mailbox, should a message of this weight have to go there.
    pub(super) fn has_room(&self, weight: usize, max_messages: u64, max_bytes: u64) -> bool {
        let mut sum = self.kept;
        sum.add(self.reserved);
        sum.add(Usage::one(weight));
        sum.messages <= max_messages && sum.bytes <= max_bytes
    }
}

impl Behind {
    /// A session that begins behind this put and those before it.
    pub(super) fn joining(last: Ticket) -> Box<Self> {
        Box::new(Self { joining: Some(last), ..Self::default() })
    }

    pub(super) fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// Begins if nothing of before is under way any more.
    pub(super) fn join(&mut self, first_put: Option<Ticket>, forgets: usize) {
        if forgets == 0 && self.joining.is_some_and(|last| first_put.is_none_or(|first| first > last)) {
            self.joining = None;
        }
    }

    /// A session that has been given everything so far.
    pub(super) fn from_now_on() -> Box<Self> {
        Box::new(Self { synced: true, ..Self::default() })
    }

    /// A message has come that is not given to the session now.
    pub(super) fn note(&mut self, envelope: &Envelope) {
        let weight = envelope.weight();
        let fits = self.ahead.len() < AHEAD_MESSAGES && self.ahead_bytes + weight <= AHEAD_BYTES;
        if self.gap || !fits {
            self.gap = true;
            self.synced = false;
            self.unseen.insert(envelope.header.seq);
            return;
        }
        self.ahead_bytes += weight;
        self.ahead.push_back(Ahead { committed: false, envelope: envelope.clone() });
    }

    /// The mailbox has a message now.
    pub(super) fn note_stored(&mut self, seq: Seq) {
        self.unseen.remove(&seq);
        self.at_end = false;
        if let Some(ahead) = self.ahead.iter_mut().find(|ahead| ahead.envelope.header.seq == seq) {
            ahead.committed = true;
        }
    }

    /// The session does not keep up: what the mailbox has is read from there, when there is room again, and takes no
    /// memory until then.
    pub(super) fn let_go(&mut self) {
        self.ahead.retain(|ahead| !ahead.committed);
        self.weigh();
        self.synced = false;
        self.gap = true;
    }

    /// A message has been given up: it will not be in the mailbox.
    pub(super) fn note_lost(&mut self, seq: Seq) {
        self.unseen.remove(&seq);
        self.at_end = false;
        self.ahead.retain(|ahead| ahead.envelope.header.seq != seq);
        self.weigh();
    }

    /// A reading begins: it sees everything that is committed.
    pub(super) fn begin_reading(&mut self) {
        self.reading = true;
        self.at_end = false;
        self.ahead.retain(|ahead| !ahead.committed);
        self.weigh();
        self.gap = !self.unseen.is_empty();
    }

    /// A reading has come to its end, and all of it has been given.
    pub(super) fn end_reading(&mut self) {
        self.at_end = true;
        self.synced = !self.gap;
    }

    /// Another reading would find nothing new.
    pub(super) fn waits_for_puts(&self) -> bool {
        self.at_end && !self.unseen.is_empty()
    }

    /// The next message behind `cursor` that is here, and whether the mailbox has it.
    pub(super) fn next_ahead(&mut self, cursor: Seq) -> Option<(&Envelope, bool)> {
        while self.ahead.front().is_some_and(|ahead| ahead.envelope.header.seq <= cursor) {
            self.drop_front();
        }
        self.ahead.front().map(|ahead| (&ahead.envelope, ahead.committed))
    }

    pub(super) fn drop_front(&mut self) {
        if let Some(front) = self.ahead.pop_front() {
            self.ahead_bytes -= front.envelope.weight();
        }
    }

    fn weigh(&mut self) {
        self.ahead_bytes = self.ahead.iter().map(|ahead| ahead.envelope.weight()).sum();
    }
}
