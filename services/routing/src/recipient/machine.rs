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

mod keeping;
mod serving;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId, MessageId};
use tokio::time::Instant;

use super::device::Device;
pub(crate) use super::device::Ticket;
use super::outcomes::Outcomes;
use crate::config::DevicePolicy;
use crate::mailbox::{DeviceUsage, PageRequest, Put, Usage};
use crate::message::{
    Class, Enc, Ending, Envelope, Header, MessageKey, Mismatch, Outcome, Rejection, Sender, Seq, Submission, weight,
};
use crate::records::{Found, Record};
use crate::rules;
use crate::session::SessionKey;

/// What the machine asks of the world while it decides.
pub(crate) trait World {
    /// True if there may be room on the way to a session: worth a reading.
    fn has_room(&mut self, session: SessionKey) -> bool;
    /// Takes room on the way to a session; a delivery of this weight follows.
    fn reserve(&mut self, session: SessionKey, weight: usize) -> bool;
    /// Counts a message against its sender's rates; an error is how many milliseconds to wait.
    fn count(&mut self, sender: &Sender) -> Result<(), u64>;
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
}

/// What is to be done. `R` names whom to answer.
#[derive(Debug)]
pub(crate) enum Output<R> {
    Attached {
        session: SessionKey,
        waiting: u64,
    },
    Deliver {
        session: SessionKey,
        tag: u64,
        envelope: Envelope,
        from_mailbox: bool,
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
    /// A message waits for a device that is not here.
    Wake {
        device: DeviceId,
        urgent: bool,
    },
}

/// The state of one recipient account.
pub(crate) struct Machine<R> {
    policy: DevicePolicy,
    account: Option<AccountId>,
    /// The record that was acted on last.
    record: Option<Arc<Record>>,
    devices: BTreeMap<DeviceId, Device>,
    /// Messages without an outcome.
    pending: HashMap<MessageKey, Pending<R>>,
    /// Those of them that are to be written for a device, and are not on their way yet, in order.
    waiting: BTreeMap<Seq, MessageKey>,
    /// The mailbox may hold messages whose outcomes are not remembered.
    forgetful: bool,
    outcomes: Outcomes,
    /// When the window of each message ends, in order.
    deadlines: VecDeque<(Instant, MessageKey, Seq)>,
    puts: HashMap<Ticket, UnderWay>,
    /// Devices of which the mailbox failed to erase what is to be erased.
    undropped: BTreeSet<DeviceId>,
    /// When to try again what there was no room for, or what the mailbox failed to do.
    retry: Option<Instant>,
    last_seq: Seq,
    last_ticket: Ticket,
    last_submission: Option<Instant>,
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

/// A put whose result is awaited.
struct UnderWay {
    key: MessageKey,
    seq: Seq,
    /// It is a call.
    urgent: bool,
    /// Devices and the weight of their copies.
    parts: Vec<(DeviceId, usize)>,
}

/// Repeats of one message that are answered together; of more, the latest.
const MAX_REPLIES: usize = 8;
/// How soon to try again what there was no room for.
const RETRY: Duration = Duration::from_millis(250);

impl<R> Machine<R> {
    pub(crate) fn new(policy: DevicePolicy) -> Self {
        let outcomes = Outcomes::new(policy.remembered_outcomes, Arc::clone(&policy.remembered_total));
        Self {
            policy,
            account: None,
            record: None,
            devices: BTreeMap::new(),
            pending: HashMap::new(),
            waiting: BTreeMap::new(),
            forgetful: false,
            outcomes,
            deadlines: VecDeque::new(),
            puts: HashMap::new(),
            undropped: BTreeSet::new(),
            retry: None,
            last_seq: Seq::default(),
            last_ticket: Ticket::default(),
            last_submission: None,
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

    /// Starts with what the mailbox holds for the account. An earlier account of the same address is gone.
    pub(crate) fn load(&mut self, account: AccountId, usage: &[DeviceUsage], out: &mut Vec<Output<R>>) {
        self.gone(out);
        self.account = Some(account);
        for known in usage {
            self.last_seq = self.last_seq.max(known.last);
            self.devices.insert(known.device, Device { kept: known.usage, ..Device::default() });
        }
        self.forgetful = !usage.is_empty();
    }

    /// The account has left: its sessions end and nothing of it is kept.
    pub(crate) fn gone(&mut self, out: &mut Vec<Output<R>>) {
        let Some(account) = self.account.take() else { return };
        for (_, device) in std::mem::take(&mut self.devices) {
            if let Some(served) = device.served {
                out.push(Output::End { session: served.session, reason: Ending::Withdrawn });
            }
        }
        for (_, pending) in self.pending.drain() {
            out.extend(pending.replies.into_iter().map(|reply| Output::Fail { reply }));
        }
        self.record = None;
        self.outcomes.clear();
        self.deadlines.clear();
        self.waiting.clear();
        self.undropped.clear();
        // Behind the puts that are under way, so that it takes them too.
        out.push(Output::DropAccount { account });
    }

    /// Acts on a record of the loaded account: devices that are not on it any more end, and nothing of them is kept.
    pub(crate) fn reconcile(&mut self, record: &Arc<Record>, out: &mut Vec<Output<R>>) {
        let before = match &self.record {
            Some(before) if Arc::ptr_eq(before, record) => return,
            before => before.clone(),
        };
        self.record = Some(Arc::clone(record));
        let ids: Vec<DeviceId> = self.devices.keys().copied().collect();
        for id in ids {
            let keep = record.device(id).map(|device| device.registration);
            let known = before.as_ref().and_then(|before| before.device(id)).map(|device| device.registration);
            if keep.is_some() && keep == known {
                continue;
            }
            self.remove(id, record.account, keep, out);
        }
    }

    /// Answers a message whose outcome is known, or will be; gives `reply` back otherwise.
    pub(crate) fn repeat(&mut self, key: &MessageKey, reply: R, out: &mut Vec<Output<R>>) -> Result<(), R> {
        if let Some(pending) = self.pending.get_mut(key) {
            if pending.replies.len() >= MAX_REPLIES {
                pending.replies.remove(0);
            }
            pending.replies.push(reply);
            return Ok(());
        }
        match self.outcomes.get(key) {
            Some(outcome) => {
                out.push(Output::Answer { reply, id: key.id, outcome: outcome.clone() });
                Ok(())
            }
            None => Err(reply),
        }
    }

    /// Decides about a message. If `recipient` permits it, its account must have been loaded. The order of the checks is
    /// part of the protocol; a repeat comes before all, since it is told the truth about its first submission.
    pub(crate) fn submit(
        &mut self,
        submission: Submission,
        reply: R,
        (recipient, sender): (&Found, &Found),
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) {
        self.last_submission = Some(now.instant);
        let Err(reply) = self.repeat(&submission.key(), reply, out) else { return };
        let key = submission.key();
        let decided = match (recipient, sender) {
            (Some(recipient), Some(sender)) if rules::permits(recipient, sender, &submission.from) => {
                self.reconcile(recipient, out);
                self.check(&submission, recipient, world, out).map(|()| (recipient, sender))
            }
            _ => Err(Rejection::NotAvailable),
        };
        match decided {
            Ok((recipient, sender)) => self.accept(submission, reply, (recipient, sender), now, world, out),
            // Before this process, or before what it remembers, the same message may have been accepted. For whom the
            // account does not let in, nothing of it is touched.
            Err(rejection) => match self.account.filter(|_| self.forgetful && rejection != Rejection::NotAvailable) {
                Some(account) => out.push(Output::Verify { account, key, reply, rejection }),
                None => out.push(Output::Answer { reply, id: key.id, outcome: Outcome::Rejected(rejection) }),
            },
        }
    }

    /// What was asked for by [`Output::Verify`]; `None` when the mailbox did not answer. What a mailbox holds had been accepted, and is safe for all of its
    /// devices: its repeat is told so.
    pub(crate) fn verified(
        &mut self,
        key: &MessageKey,
        reply: R,
        rejection: Rejection,
        held: Option<bool>,
        out: &mut Vec<Output<R>>,
    ) {
        let outcome = match held {
            Some(true) => Outcome::Stored,
            Some(false) => Outcome::Rejected(rejection),
            None => {
                out.push(Output::Fail { reply });
                return;
            }
        };
        self.remember(*key, &outcome);
        out.push(Output::Answer { reply, id: key.id, outcome });
    }

    fn remember(&mut self, key: MessageKey, outcome: &Outcome) {
        if let Some(now) = self.last_submission {
            self.forgetful |= self.outcomes.remember(key, outcome.clone(), now);
        }
    }

    /// The checks behind consent: limits, size, devices, room.
    fn check(
        &mut self,
        submission: &Submission,
        recipient: &Record,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) -> Result<(), Rejection> {
        world.count(&submission.from).map_err(|retry_after_ms| Rejection::RateLimited { retry_after_ms })?;
        if submission.bytes() > self.policy.max_message_bytes {
            return Err(Rejection::TooLarge);
        }
        let mismatch: Mismatch = rules::mismatch(submission, recipient);
        if !mismatch.is_empty() {
            return Err(Rejection::Devices(mismatch));
        }
        let full = submission.class != Class::Ephemeral
            && submission.enc.iter().any(|enc| {
                self.devices.get(&enc.device).is_some_and(|device| {
                    !device.has_room(weight(enc), self.policy.mailbox_messages, self.policy.mailbox_bytes)
                })
            });
        if full {
            self.recount(recipient.account, out);
            return Err(Rejection::RateLimited { retry_after_ms: self.policy.mailbox_full_retry_ms });
        }
        Ok(())
    }

    fn accept(
        &mut self,
        submission: Submission,
        reply: R,
        (recipient, sender): (&Record, &Record),
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) {
        let key = submission.key();
        let seq = Seq(now.unix_us.max(self.last_seq.0.saturating_add(1)));
        self.last_seq = seq;
        let ts_ms = now.unix_ms();
        let lives_ms = match submission.class {
            Class::Chat => self.policy.chat_expiry_ms,
            Class::Call => self.policy.call_expiry_ms,
            Class::Ephemeral => 0,
        };
        let header = Arc::new(Header {
            seq,
            key,
            from: submission.from.address.clone(),
            class: submission.class,
            ts_ms,
            expires_ms: ts_ms.saturating_add(lives_ms),
            origin: rules::origin(recipient, sender),
            charge: submission.charge,
        });
        let mut parts = Vec::with_capacity(submission.enc.len());
        for enc in submission.enc {
            let envelope = Envelope { header: Arc::clone(&header), enc };
            let state = self.fan_out(&envelope, now, world, out);
            parts.push(Part { enc: envelope.enc, state });
        }
        let pending = Pending { header, replies: vec![reply], parts, put: None };
        if pending.any(State::Live) {
            self.deadlines.push_back((now.instant + self.policy.ack_window, key, seq));
        }
        if pending.any(State::Waiting) {
            self.waiting.insert(seq, key);
        }
        self.pending.insert(key, pending);
        self.settle(&key, out);
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

    /// Writes everything that is not acknowledged, without waiting for the window of each message.
    pub(crate) fn finish(&mut self, out: &mut Vec<Output<R>>) {
        let in_order: BTreeMap<Seq, MessageKey> =
            self.pending.iter().map(|(key, pending)| (pending.header.seq, *key)).collect();
        for key in in_order.values() {
            self.window_over(key, out);
        }
    }

    /// Ends all sessions.
    pub(crate) fn leave(&mut self, out: &mut Vec<Output<R>>) {
        let ids: Vec<DeviceId> = self.devices.keys().copied().collect();
        for id in ids {
            self.end_served(id, Some(Ending::Draining), out);
        }
    }

    /// Sessions that are attached now.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (DeviceId, SessionKey)> + '_ {
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

    fn try_again_at(&mut self, at: Instant) {
        self.retry = Some(self.retry.map_or(at, |before| before.min(at)));
    }

    /// Devices of which nothing is known take no room.
    fn tidy(&mut self, id: DeviceId) {
        if self.devices.get(&id).is_some_and(Device::is_idle) {
            self.devices.remove(&id);
        }
    }

    fn recount(&mut self, account: AccountId, out: &mut Vec<Output<R>>) {
        if self.devices.values().any(|device| device.recount.is_some()) {
            return;
        }
        for device in self.devices.values_mut() {
            device.recount = Some(Usage::default());
        }
        out.push(Output::Recount { account });
    }
}

#[cfg(test)]
impl<R> Machine<R> {
    /// A repeat of this is told the first outcome.
    pub(crate) fn knows(&self, key: &MessageKey) -> bool {
        self.pending.contains_key(key) || self.outcomes.get(key).is_some()
    }

    /// Nothing is believed to be in the mailbox or held for it.
    pub(crate) fn holds_nothing(&self) -> bool {
        let nothing = Usage::default();
        self.devices.values().all(|device| {
            let unkept = device.served.as_ref().map_or(0, |served| served.window.unkept());
            device.kept == nothing && device.reserved == nothing && unkept == 0
        })
    }
}
