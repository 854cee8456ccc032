//! One device of the recipient: its session, what the mailbox holds for it, and how far it has been served.

use std::collections::{BTreeSet, VecDeque};

use super::window::Window;
use crate::mailbox::Usage;
use crate::message::{Envelope, Seq};
use crate::session::SessionKey;

/// What of a slow session's next messages is kept in memory, so that it can catch up without another reading.
const AHEAD_MESSAGES: usize = 64;
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
    /// Given to the session, and not in the mailbox: what may have to go there.
    pub(super) reserved: Usage,
    /// Puts under way.
    pub(super) puts: BTreeSet<Ticket>,
    /// Asked the mailbox for the true usage; what has been queued since.
    pub(super) recount: Option<Usage>,
}

/// A session and how far it has been served.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) session: SessionKey,
    pub(super) registration: u32,
    pub(super) window: Window,
    /// Everything up to here was given to it.
    pub(super) cursor: Seq,
    /// It has been told that it is attached.
    pub(super) announced: bool,
    pub(super) mode: Mode,
}

/// How a session gets its messages.
#[derive(Debug)]
pub(super) enum Mode {
    /// The mailbox has, or may have, messages for it: what comes goes there, and it reads from there.
    Behind(Behind),
    /// It has been given everything: what comes, it gets.
    Live,
}

/// A session that reads from the mailbox.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// Nothing is read before this put and those before it are over: the mailbox then has all that came before the
    /// session.
    pub(super) joining: Option<Ticket>,
    pub(super) reading: bool,
    /// The last reading came to the end; another one before a put is over would find nothing.
    pub(super) at_end: bool,
    /// Everything behind the cursor is in `ahead`: no reading is needed to catch up.
    pub(super) synced: bool,
    /// Messages behind the cursor that a reading may not see yet, in order.
    pub(super) ahead: VecDeque<Ahead>,
    pub(super) ahead_bytes: usize,
    /// A message that a reading may not see yet is not in `ahead`.
    pub(super) gap: bool,
    /// Such messages that are being written.
    pub(super) unseen: BTreeSet<Ticket>,
}

/// A message that is being written, or has been since the last reading began.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) ticket: Ticket,
    pub(super) committed: bool,
    pub(super) envelope: Envelope,
}

impl Device {
    /// Nothing is known of it that would be missed.
    pub(super) fn is_idle(&self) -> bool {
        self.served.is_none() && self.puts.is_empty() && self.recount.is_none() && self.kept == Usage::default()
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
    /// A message has gone to the mailbox.
    pub(super) fn note_put(&mut self, ticket: Ticket, envelope: &Envelope) {
        let weight = envelope.weight();
        let fits = self.ahead.len() < AHEAD_MESSAGES && self.ahead_bytes + weight <= AHEAD_BYTES;
        if self.gap || !fits {
            self.gap = true;
            self.synced = false;
            self.unseen.insert(ticket);
            return;
        }
        self.ahead_bytes += weight;
        self.ahead.push_back(Ahead { ticket, committed: false, envelope: envelope.clone() });
    }

    /// A put is over. One that failed has left nothing to read.
    pub(super) fn note_done(&mut self, ticket: Ticket, stored: bool) {
        self.unseen.remove(&ticket);
        self.at_end = false;
        if stored {
            if let Some(ahead) = self.ahead.iter_mut().find(|ahead| ahead.ticket == ticket) {
                ahead.committed = true;
            }
        } else {
            self.ahead.retain(|ahead| ahead.ticket != ticket);
            self.ahead_bytes = self.ahead.iter().map(|ahead| ahead.envelope.weight()).sum();
        }
    }

    /// A reading begins: it sees everything that is committed.
    pub(super) fn begin_reading(&mut self) {
        self.reading = true;
        self.at_end = false;
        self.ahead.retain(|ahead| !ahead.committed);
        self.ahead_bytes = self.ahead.iter().map(|ahead| ahead.envelope.weight()).sum();
        self.gap = !self.unseen.is_empty();
    }

    /// The next message behind `cursor` that is here.
    pub(super) fn next_ahead(&mut self, cursor: Seq) -> Option<&Envelope> {
        while self.ahead.front().is_some_and(|ahead| ahead.envelope.header.seq <= cursor) {
            self.drop_front();
        }
        self.ahead.front().map(|ahead| &ahead.envelope)
    }

    pub(super) fn drop_front(&mut self) {
        if let Some(front) = self.ahead.pop_front() {
            self.ahead_bytes -= front.envelope.weight();
        }
    }
}
