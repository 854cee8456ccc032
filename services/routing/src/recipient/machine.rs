//! The rules of delivery for one recipient account, without I/O: inputs are methods, what is to be done comes out as
//! [`Output`]s, to be carried out in order.
//!
//! What holds at all times, and what the simulation asserts:
//! - a sender is told `delivered` only when every addressed device has acknowledged, and `stored` only when every other
//!   device has acknowledged or its copy is in the mailbox;
//! - what a session has been given and has not acknowledged is in the mailbox, on its way there, or here, and goes there
//!   when the session ends;
//! - a device gets its messages in the order of their [`Seq`]: a session that has not been given everything before gets
//!   nothing directly.

mod deciding;
mod keeping;
mod lifetime;
mod serving;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId, MessageId};
use causeway_runtime::telemetry::trace::TraceContext;
use tokio::time::Instant;

use super::device::Device;
pub(crate) use super::device::Ticket;
use super::few::Few;
use super::outcomes::Outcomes;
use crate::config::DevicePolicy;
use crate::keyed::KeyedMap;
use crate::mailbox::{Chain, PageRequest, Put};
use crate::message::{Class, Enc, Ending, Envelope, Header, MessageKey, Outcome, Rejection, Sender, Seq};
use crate::records::Record;
use crate::session::{LoginOrder, SessionKey};
use crate::trails::Settled;

/// What the machine asks of the world while it decides.
pub(crate) trait World {
    /// True if there may be room on the way to a session: worth a reading.
    fn has_room(&mut self, session: SessionKey) -> bool;
    /// Takes room on the way to a session; a delivery of this weight follows.
    fn reserve(&mut self, session: SessionKey, weight: usize) -> bool;
    /// Counts a message against its sender's rates.
    fn count(&mut self, sender: &Sender) -> Result<(), Rejection>;
}

/// The time, as two clocks show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    /// Microseconds since the Unix epoch.
    pub(crate) unix_us: u64,
}

impl Now {
    pub(crate) fn unix_ms(&self) -> u64 {
        self.unix_us / 1_000
    }
}

/// A device that attaches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attaching {
    pub(crate) session: SessionKey,
    pub(crate) device: DeviceId,
    pub(crate) registration: u32,
    /// What it was told when it attached first; 0: this is the first time.
    pub(crate) number: u64,
    /// Which of the device's logins it is, if that is known.
    pub(crate) login: Option<LoginOrder>,
}

/// The newest session of a device.
#[derive(Debug, Clone, Copy)]
struct Newest {
    number: u64,
    login: Option<LoginOrder>,
    /// It has attached here for the first time, so that every other session with a number is older.
    fresh: bool,
}

/// What is to be done. `R` names whom to answer.
#[derive(Debug)]
pub(crate) enum Output<R> {
    Attached {
        session: SessionKey,
        waiting: u64,
        number: u64,
    },
    Deliver {
        session: SessionKey,
        tag: u64,
        envelope: Envelope,
        from_mailbox: bool,
    },
    /// The session is to attach again, perhaps elsewhere. It is not known any more.
    Moved {
        session: SessionKey,
    },
    /// The session is not known any more.
    End {
        session: SessionKey,
        reason: Ending,
    },
    Answer {
        reply: R,
        id: MessageId,
        outcome: Outcome,
    },
    /// There is nothing true to tell about a message: the sender must come again and repeat it.
    Fail {
        reply: R,
    },
    Put {
        ticket: Ticket,
        put: Put,
    },
    Forget {
        account: AccountId,
        device: DeviceId,
        upto: Seq,
    },
    DropDevice {
        account: AccountId,
        device: DeviceId,
        keep: Option<u32>,
    },
    DropAccount {
        account: AccountId,
    },
    /// Ask for the usage of the account: the answer goes to [`Machine::recounted`].
    Recount {
        account: AccountId,
    },
    /// Ask whether the mailbox holds a message that would be rejected now: the answer goes to [`Machine::verified`].
    Verify {
        account: AccountId,
        key: MessageKey,
        reply: R,
        rejection: Rejection,
    },
    Page {
        session: SessionKey,
        request: PageRequest,
    },
    /// A message is accepted: it is under way until it is settled.
    Accepted {
        account: AccountId,
        from: Arc<Sender>,
        header: Arc<Header>,
        devices: Vec<DeviceId>,
        /// It asks its recipient to send an earlier one again.
        asks_again: bool,
    },
    /// The mailbox has a message for these devices.
    Kept {
        account: AccountId,
        seq: Seq,
        devices: Vec<DeviceId>,
    },
    /// A device has acknowledged a message.
    Acknowledged {
        account: AccountId,
        seq: Seq,
        device: DeviceId,
    },
    /// A message that was accepted has its outcome, or has been given up.
    Settled {
        account: AccountId,
        seq: Seq,
        class: Class,
        how: Settled,
    },
    /// A message waits for a device that is not here.
    Wake {
        device: DeviceId,
        urgent: bool,
        trace: Option<TraceContext>,
    },
}

/// The state of one recipient account.
pub(crate) struct Machine<R> {
    policy: Arc<DevicePolicy>,
    account: Option<AccountId>,
    /// The record that was acted on last.
    record: Option<Arc<Record>>,
    devices: Few<DeviceId, Device>,
    /// Also of devices that have left since.
    newest: Few<DeviceId, Newest>,
    /// Numbers that sessions had elsewhere, as far as is known.
    hints: Few<DeviceId, u64>,
    /// Messages without an outcome.
    pending: KeyedMap<MessageKey, Pending<R>>,
    /// Those of them that may have to be written, and are not on their way yet, in order.
    unwritten: VecDeque<Unwritten>,
    /// The mailbox may hold messages whose outcomes are not remembered.
    forgetful: bool,
    /// Once there is one.
    outcomes: Option<Box<Outcomes>>,
    /// When the window of each message ends, in order; the first is of a message without an outcome.
    deadlines: VecDeque<(Instant, MessageKey, Seq)>,
    /// In order.
    puts: VecDeque<(Ticket, UnderWay)>,
    /// Everything that is written for the account since it was loaded.
    chain: Chain,
    /// Devices of which the mailbox failed to erase what is to be erased.
    undropped: BTreeSet<DeviceId>,
    /// When to try again what there was no room for, or what the mailbox failed to do.
    retry: Option<Instant>,
    last_seq: Seq,
    last_ticket: Ticket,
    last_submission: Option<Instant>,
    /// Messages that are being acknowledged together.
    acknowledging: Vec<MessageKey>,
}

/// A message without an outcome.
struct Pending<R> {
    header: Arc<Header>,
    replies: Vec<R>,
    parts: Vec<Part>,
    /// It is on its way to the mailbox.
    put: Option<Ticket>,
}

struct Part {
    enc: Enc,
    state: State,
}

/// How far a message is for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Given to its session, not acknowledged.
    Live,
    /// Its device cannot be given it now. It goes to the mailbox together with what other devices do not acknowledge,
    /// so that a message which is in a mailbox is safe for all of its devices.
    Waiting,
    /// On its way to the mailbox.
    Writing,
    /// In the mailbox.
    Stored,
    Acknowledged,
    /// It was ephemeral and the device was not there for it.
    Missed,
    /// The device has been removed.
    Gone,
}

impl<R> Pending<R> {
    fn any(&self, state: State) -> bool {
        self.parts.iter().any(|part| part.state == state)
    }

    /// Changes how far it is for a device.
    fn set(&mut self, id: DeviceId, next: impl FnOnce(State) -> State) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.enc.device == id) {
            part.state = next(part.state);
        }
    }

    /// The device has been removed, or is another one under registration `keep`; true if that changes anything.
    fn lose(&mut self, id: DeviceId, keep: Option<u32>) -> bool {
        let lost = self.parts.iter_mut().find(|part| {
            part.enc.device == id && Some(part.enc.registration) != keep && part.state != State::Acknowledged
        });
        match lost {
            Some(part) => {
                part.state = State::Gone;
                true
            }
            None => false,
        }
    }
}

/// A message that is not on its way to the mailbox.
struct Unwritten {
    seq: Seq,
    key: MessageKey,
    /// It is to be written for a device that could not be given it, with the next that is written.
    waits: bool,
}

/// A put whose result is awaited.
struct UnderWay {
    key: MessageKey,
    seq: Seq,
    /// It is a call.
    urgent: bool,
    trace: Option<TraceContext>,
    /// Devices and the weight of their copies.
    parts: Vec<(DeviceId, usize)>,
}

/// How soon to try again what there was no room for.
const RETRY: Duration = Duration::from_millis(250);

impl<R> Machine<R> {
    pub(crate) fn new(policy: Arc<DevicePolicy>) -> Self {
        Self {
            policy,
            account: None,
            record: None,
            devices: Few::new(),
            newest: Few::new(),
            hints: Few::new(),
            pending: KeyedMap::default(),
            unwritten: VecDeque::new(),
            forgetful: false,
            outcomes: None,
            deadlines: VecDeque::new(),
            puts: VecDeque::new(),
            chain: Chain::default(),
            undropped: BTreeSet::new(),
            retry: None,
            last_seq: Seq::default(),
            last_ticket: Ticket::default(),
            last_submission: None,
            acknowledging: Vec::new(),
        }
    }

    /// The account that has been loaded.
    pub(crate) fn account(&self) -> Option<AccountId> {
        self.account
    }

    /// The record that was acted on last.
    pub(crate) fn record(&self) -> Option<&Arc<Record>> {
        self.record.as_ref()
    }

    /// What is to be done next without any input, and when.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let window = self.deadlines.front().map(|(deadline, _, _)| *deadline);
        [window, self.retry].into_iter().flatten().min()
    }

    /// The time has come.
    pub(crate) fn tick(&mut self, now: Now, world: &mut impl World, out: &mut Vec<Output<R>>) {
        while self.deadlines.front().is_some_and(|(deadline, _, _)| *deadline <= now.instant) {
            if let Some((_, key, seq)) = self.deadlines.pop_front()
                && self.is_pending(&key, seq)
            {
                self.window_over(&key, out);
            }
        }
        if self.retry.is_some_and(|retry| retry <= now.instant) {
            self.retry = None;
            self.erase_again(out);
            let ids: Vec<DeviceId> = self.devices.keys().copied().collect();
            for id in ids {
                self.advance(id, now, world, out);
            }
        }
    }

    /// Sessions that are attached now.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (DeviceId, SessionKey)> {
        self.devices.iter().filter_map(|(id, device)| device.served.as_ref().map(|served| (*id, served.session)))
    }

    /// Nothing is awaited: no outcome, no put.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pending.is_empty() && self.puts.is_empty()
    }

    /// Nobody is here, nothing is awaited and nothing is to be done.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_quiet() && self.retry.is_none() && self.devices.values().all(|device| device.served.is_none())
    }

    /// True for a message without an outcome. One that was given up and came again has another place in the order.
    fn is_pending(&self, key: &MessageKey, seq: Seq) -> bool {
        self.pending.get(key).is_some_and(|pending| pending.header.seq == seq)
    }

    /// Takes no more memory than it needs: it may be long until something comes.
    pub(crate) fn rest(&mut self) {
        self.pending.shrink_to_fit();
        self.unwritten.shrink_to_fit();
        self.deadlines.shrink_to_fit();
        self.puts.shrink_to_fit();
        self.acknowledging = Vec::new();
        for device in self.devices.values_mut() {
            device.puts.shrink_to_fit();
            if let Some(served) = &mut device.served {
                served.window.rest();
            }
        }
    }

    /// A message has its outcome: nothing waits for the end of its window.
    fn forget_windows(&mut self) {
        while let Some((_, key, seq)) = self.deadlines.front()
            && !self.is_pending(key, *seq)
        {
            self.deadlines.pop_front();
        }
    }

    /// A message is not to be written any more, or is on its way.
    fn forget_unwritten(&mut self, seq: Seq) {
        if let Ok(at) = self.unwritten.binary_search_by_key(&seq, |unwritten| unwritten.seq) {
            self.unwritten.remove(at);
        }
    }

    fn try_again_at(&mut self, at: Instant) {
        self.retry = Some(self.retry.map_or(at, |before| before.min(at)));
    }

    /// Devices of which nothing is known take no room.
    fn tidy(&mut self, id: DeviceId) {
        if self.devices.get(&id).is_some_and(Device::is_idle) {
            self.devices.remove(&id);
        }
    }
}

#[cfg(test)]
impl<R> Machine<R> {
    /// Nothing is believed to be in the mailbox or held for it, and nothing is to be done at a time.
    pub(crate) fn holds_nothing(&self) -> bool {
        if !self.deadlines.is_empty() || !self.unwritten.is_empty() {
            return false;
        }
        let nothing = crate::mailbox::Usage::default();
        self.devices.values().all(|device| {
            let unkept = device.served.as_ref().map_or(0, |served| served.window.unkept());
            device.kept == nothing && device.reserved == nothing && unkept == 0
        })
    }
}
