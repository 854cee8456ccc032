//! The world around the machine, and the promises that it checks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::{AccountId, DeviceId, MessageId};
use tokio::time::Instant;

use crate::config::DevicePolicy;
use crate::mailbox::{DeviceUsage, Page, PageRequest, Put, PutOutcome, StoreError, Usage};
use crate::message::{Class, Enc, EncType, Ending, Envelope, MessageKey, Outcome, Sender, Seq, Submission};
use crate::recipient::machine::{Attaching, Machine, Now, Output, Ticket, World};
use crate::records::{Found, Record, fake};
use crate::session::SessionKey;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Send {
        sender: usize,
        kind: u8,
        bytes: usize,
    },
    /// The mailbox commits its next operations.
    Commit {
        count: usize,
    },
    FailCommit {
        count: usize,
    },
    /// A reading happens; what it saw is told later.
    ReadPage {
        nth: usize,
    },
    DeliverPage {
        nth: usize,
        fails: bool,
    },
    Attach {
        device: u32,
    },
    Detach {
        device: u32,
    },
    /// A device acknowledges a share of what it has been given.
    Acknowledge {
        device: u32,
        share: u8,
    },
    Wait {
        ms: u64,
    },
    LinkFull {
        full: bool,
    },
    /// The process dies; of what was queued, so much had been committed.
    Crash {
        committed: usize,
    },
    RemoveDevice {
        device: u32,
    },
    EnlistDevice {
        device: u32,
    },
    /// A sender's connection breaks: it repeats what has no outcome.
    BreakSender {
        sender: usize,
    },
    /// A sender repeats what has an outcome.
    RepeatOld {
        sender: usize,
        nth: usize,
    },
}

/// A bug around the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// Results are told before the commit.
    StoredBeforeCommit,
    /// A commit that failed is told as done.
    CommitErrorIgnored,
    /// What a session that ends has not acknowledged is not written.
    DetachDropsWindow,
    /// Two deliveries to a session change places.
    SwappedDeliveries,
    /// A reading passes over its first entry.
    PageSkipsEntry,
    /// An acknowledgement erases one entry too many.
    ForgetsTooMuch,
    /// An entry of another device is shown.
    WrongDevice,
    /// Acknowledgements of what has not been given count.
    AcknowledgedTooMuch,
    /// A write is forgotten and told as done.
    LostWrite,
}

impl Planted {
    pub(super) const ALL: [Self; 9] = [
        Self::StoredBeforeCommit,
        Self::CommitErrorIgnored,
        Self::DetachDropsWindow,
        Self::SwappedDeliveries,
        Self::PageSkipsEntry,
        Self::ForgetsTooMuch,
        Self::WrongDevice,
        Self::AcknowledgedTooMuch,
        Self::LostWrite,
    ];
}

/// A submission that waits for its outcome: sender, message, and the connection it came by.
type Reply = (usize, usize, u32);

pub(super) struct Simulated {
    machine: Machine<Reply>,
    senders: Vec<SimSender>,
    devices: BTreeMap<u32, SimDevice>,
    record: Arc<Record>,
    registrations: u32,
    mailbox: SimMailbox,
    link_full: bool,
    instant: Instant,
    unix_us: u64,
    sessions: u64,
    out: Vec<Output<Reply>>,
    /// A message was given up, or the process died: from then on a device may be given a message twice.
    faults: bool,
    planted: Option<Planted>,
}

struct SimSender {
    from: Arc<Sender>,
    record: Found,
    connection: u32,
    messages: Vec<Sent>,
}

struct Sent {
    key: MessageKey,
    class: Class,
    bytes: usize,
    /// Devices that it was for when it was accepted, with their registrations.
    addressed: Vec<(u32, u32)>,
    /// Those that it was for whenever it was submitted.
    always_addressed: Option<Vec<(u32, u32)>>,
    outcome: Option<Outcome>,
    first_connection: u32,
    last_connection: u32,
}

/// A device id under one registration after the other.
#[derive(Default)]
struct SimDevice {
    registration: Option<u32>,
    session: Option<SimSession>,
    /// What it has acknowledged, by registration.
    acknowledged: HashSet<(u32, MessageKey)>,
    /// What it shows, in order, by registration: each message once.
    shown: Vec<(u32, MessageKey)>,
}

impl SimDevice {
    /// The session is over. The device dies with it: what it has not acknowledged, it has not saved.
    fn lose_session(&mut self) {
        let (Some(session), Some(registration)) = (self.session.take(), self.registration) else { return };
        let saved = &self.acknowledged;
        let unsaved: HashSet<MessageKey> = session.given[session.acknowledged..]
            .iter()
            .filter(|key| !saved.contains(&(registration, **key)))
            .copied()
            .collect();
        self.shown.retain(|(to, key)| *to != registration || !unsaved.contains(key));
    }
}

struct SimSession {
    key: SessionKey,
    attached: bool,
    given: Vec<MessageKey>,
    acknowledged: usize,
}

#[derive(Default)]
struct SimMailbox {
    rows: BTreeMap<(DeviceId, Seq), Envelope>,
    queue: VecDeque<Op>,
    to_read: Vec<(SessionKey, PageRequest)>,
    read: Vec<(SessionKey, Page)>,
    planted: Option<Planted>,
    puts: usize,
}

enum Op {
    Put(Ticket, Put),
    Forget(DeviceId, Seq),
    DropDevice(DeviceId, Option<u32>),
    Recount,
}

enum Done {
    Put(Ticket, Result<PutOutcome, StoreError>),
    Forgotten(DeviceId, Seq, Option<Usage>),
    Dropped(DeviceId, Option<Usage>),
    Recounted(Option<Vec<DeviceUsage>>),
}

const RECIPIENT: AccountId = AccountId::from_bytes([1; 16]);
const DEVICE_MESSAGES: u64 = 14;
const DEVICE_BYTES: u64 = 14 * 700;

fn policy() -> DevicePolicy {
    DevicePolicy {
        ack_window: Duration::from_millis(25),
        session_messages: 4,
        session_bytes: 2_000,
        max_message_bytes: 10_000,
        mailbox_messages: DEVICE_MESSAGES,
        mailbox_bytes: DEVICE_BYTES,
        mailbox_full_retry_ms: 1_000,
        chat_expiry_ms: 1_000_000_000,
        call_expiry_ms: 60_000,
        remembered_outcomes: 16,
        remembered_total: crate::limits::Budget::new(1_000),
    }
}

fn device_id(n: u32) -> DeviceId {
    DeviceId::new(n).unwrap()
}

struct Link(bool);

impl World for Link {
    fn has_room(&mut self, _: SessionKey) -> bool {
        !self.0
    }

    fn reserve(&mut self, _: SessionKey, _: usize) -> bool {
        !self.0
    }

    fn count(&mut self, _: &Sender) -> Result<(), u64> {
        Ok(())
    }
}

impl Simulated {
    #[expect(clippy::disallowed_methods, reason = "only a start to count from")]
    pub(super) fn new(planted: Option<Planted>) -> Self {
        let senders = (0..2_u8).map(|n| {
            let address = format!("s{n}@birdy.example");
            let record = Record::parse(fake::record(&address, 10 + n, &[1]), &address.parse().unwrap()).unwrap();
            let from = Sender {
                account: record.account,
                device: device_id(1),
                address: address.parse().unwrap(),
                provider: record.provider.clone(),
            };
            SimSender { from: Arc::new(from), record: Some(Arc::new(record)), connection: 1, messages: Vec::new() }
        });
        let mut this = Self {
            machine: Machine::new(policy()),
            senders: senders.collect(),
            devices: (1..4).map(|id| (id, SimDevice::default())).collect(),
            record: Arc::new(record(&[])),
            registrations: 200,
            mailbox: SimMailbox::default(),
            link_full: false,
            instant: Instant::from_std(std::time::Instant::now()),
            unix_us: 1_000_000_000,
            sessions: 0,
            out: Vec::new(),
            faults: false,
            planted,
        };
        this.mailbox.planted = planted;
        this.enlist(1);
        this.enlist(2);
        this.load();
        this
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Send { sender, kind, bytes } => self.send(sender, kind, bytes),
            Step::Commit { count } => self.commit(count),
            Step::FailCommit { count } => self.fail_commit(count),
            Step::ReadPage { nth } => self.read_page(nth),
            Step::DeliverPage { nth, fails } => self.deliver_page(nth, fails),
            Step::Attach { device } => self.attach(device),
            Step::Detach { device } => self.detach(device),
            Step::Acknowledge { device, share } => self.acknowledge(device, share),
            Step::Wait { ms } => self.wait(ms),
            Step::LinkFull { full } => self.link_full = full,
            Step::Crash { committed } => self.crash(committed),
            Step::RemoveDevice { device } => self.remove(device),
            Step::EnlistDevice { device } => self.enlist(device),
            Step::BreakSender { sender } => self.break_sender(sender),
            Step::RepeatOld { sender, nth } => {
                if let Some(sent) = self.senders[sender].messages.get_mut(nth) {
                    // Where nobody remembers it, it is a late message: there is no order to keep.
                    sent.last_connection = u32::MAX;
                    // After a rejection it is a new attempt.
                    if matches!(sent.outcome, Some(Outcome::Rejected(_))) {
                        sent.outcome = None;
                    }
                    self.submit(sender, nth);
                }
            }
        }
        self.carry_out();
    }

    /// Everything heals: all commits succeed, all devices come and acknowledge all, senders repeat what has no outcome.
    pub(super) fn finish(mut self) {
        self.link_full = false;
        for round in 0..60 {
            if round % 10 == 0 {
                for sender in 0..self.senders.len() {
                    self.break_sender(sender);
                }
                for device in 1..4 {
                    self.attach(device);
                    self.carry_out();
                }
            }
            self.wait(3_000);
            self.carry_out();
            self.commit(usize::MAX);
            self.carry_out();
            while !self.mailbox.to_read.is_empty() || !self.mailbox.read.is_empty() {
                self.read_page(0);
                self.deliver_page(0, false);
                self.carry_out();
            }
            for device in 1..4 {
                self.acknowledge(device, 100);
                self.carry_out();
            }
        }
        self.check_end();
    }

    fn check_end(&self) {
        for sender in &self.senders {
            for (index, sent) in sender.messages.iter().enumerate() {
                let outcome = sent.outcome.as_ref();
                assert!(outcome.is_some(), "message {index} never got an outcome");
                let promised = matches!(outcome, Some(Outcome::Delivered | Outcome::Stored));
                for (id, registration) in &sent.addressed {
                    let device = &self.devices[id];
                    let stayed = device.registration == Some(*registration);
                    let shown = device.shown.contains(&(*registration, sent.key));
                    assert!(!(promised && stayed) || shown, "acknowledged message {index} is lost for device {id}");
                }
            }
        }
        assert!(self.mailbox.rows.is_empty(), "{} rows are left", self.mailbox.rows.len());
        assert!(self.machine.is_quiet());
        assert!(self.machine.holds_nothing(), "the machine believes that something is kept");
    }

    fn now(&self) -> Now {
        Now { instant: self.instant, unix_us: self.unix_us }
    }

    fn send(&mut self, sender: usize, kind: u8, bytes: usize) {
        let class = match kind {
            0 => Class::Ephemeral,
            1 => Class::Call,
            _ => Class::Chat,
        };
        let from = &mut self.senders[sender];
        let number = from.messages.len();
        let mut id = [0; 16];
        // Two senders use the same ids.
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let key = MessageKey { account: from.from.account, device: from.from.device, id: MessageId::from_bytes(id) };
        from.messages.push(Sent {
            key,
            class,
            bytes,
            addressed: Vec::new(),
            always_addressed: None,
            outcome: None,
            first_connection: from.connection,
            last_connection: from.connection,
        });
        self.submit(sender, number);
    }

    fn submit(&mut self, sender: usize, number: usize) {
        let from = &mut self.senders[sender];
        let sent = &mut from.messages[number];
        if sent.outcome.is_none() {
            sent.last_connection = sent.last_connection.max(from.connection);
        }
        if sent.outcome.is_none() && !self.machine.knows(&sent.key) {
            sent.addressed = self.record.devices.iter().map(|device| (device.id.get(), device.registration)).collect();
        }
        match &mut sent.always_addressed {
            Some(always) => always.retain(|device| sent.addressed.contains(device)),
            none => *none = Some(sent.addressed.clone()),
        }
        let enc = self.record.devices.iter().map(|device| Enc {
            device: device.id,
            registration: device.registration,
            kind: EncType::Whisper,
            ciphertext: Bytes::from(vec![0; sent.bytes]),
        });
        let submission = Submission {
            id: sent.key.id,
            from: Arc::clone(&from.from),
            to: "bo@home.example".parse().unwrap(),
            class: sent.class,
            enc: enc.collect(),
            charge: None,
        };
        let reply = (sender, number, from.connection);
        let (recipient, sender) = (Some(Arc::clone(&self.record)), from.record.clone());
        let now = self.now();
        let mut world = Link(self.link_full);
        self.machine.submit(submission, reply, (&recipient, &sender), now, &mut world, &mut self.out);
    }

    /// Repeats everything without an outcome, in the original order, on a new connection.
    fn break_sender(&mut self, sender: usize) {
        self.senders[sender].connection += 1;
        for number in 0..self.senders[sender].messages.len() {
            if self.senders[sender].messages[number].outcome.is_none() {
                self.submit(sender, number);
            }
        }
    }

    fn attach(&mut self, device: u32) {
        let Some(registration) = self.devices[&device].registration else { return };
        self.sessions += 1;
        let key = SessionKey(self.sessions);
        let session = SimSession { key, attached: false, given: Vec::new(), acknowledged: 0 };
        let (now, mut world) = (self.now(), Link(self.link_full));
        let record = Arc::clone(&self.record);
        let attaching = Attaching { session: key, device: device_id(device), registration, number: 0 };
        self.machine.attach(&attaching, &record, now, &mut world, &mut self.out);
        // What comes out first ends the older session.
        let known = self.devices.get_mut(&device).unwrap();
        let older = known.session.as_ref().map(|older| older.key);
        known.lose_session();
        known.session = Some(session);
        if let Some(older) = older {
            let ends = self
                .out
                .iter()
                .any(|output| matches!(output, Output::End { session, reason: Ending::Replaced } if *session == older));
            assert!(ends, "a session is left beside the new one");
        }
    }

    fn detach(&mut self, device: u32) {
        let known = self.devices.get_mut(&device).unwrap();
        if let Some(session) = known.session.as_ref().map(|session| session.key) {
            known.lose_session();
            let before = self.out.len();
            self.machine.detach(session, &mut self.out);
            if self.planted == Some(Planted::DetachDropsWindow) {
                for output in self.out.drain(before..).collect::<Vec<_>>() {
                    let Output::Put { ticket, .. } = output else {
                        self.out.push(output);
                        continue;
                    };
                    let (now, mut world) = (self.now(), Link(self.link_full));
                    let stored = Ok(PutOutcome::Stored { repeats: Vec::new() });
                    self.machine.put_done(ticket, &stored, now, &mut world, &mut self.out);
                }
            }
        }
    }

    fn acknowledge(&mut self, device: u32, share: u8) {
        let (now, mut world) = (self.now(), Link(self.link_full));
        let device = self.devices.get_mut(&device).unwrap();
        let (Some(session), Some(registration)) = (&mut device.session, device.registration) else { return };
        let open = session.given.len() - session.acknowledged;
        let upto = session.acknowledged + open * usize::from(share) / 100;
        if upto == session.acknowledged {
            return;
        }
        if self.planted == Some(Planted::AcknowledgedTooMuch) {
            let all = session.given.len() as u64;
            session.acknowledged = upto;
            self.machine.processed(session.key, all, now, &mut world, &mut self.out);
            return;
        }
        for key in &session.given[session.acknowledged..upto] {
            device.acknowledged.insert((registration, *key));
        }
        session.acknowledged = upto;
        self.machine.processed(session.key, upto as u64, now, &mut world, &mut self.out);
    }

    fn wait(&mut self, ms: u64) {
        self.instant += Duration::from_millis(ms);
        self.unix_us += ms * 1_000;
        let (now, mut world) = (self.now(), Link(self.link_full));
        self.machine.tick(now, &mut world, &mut self.out);
    }

    fn remove(&mut self, device: u32) {
        let known = self.devices.get_mut(&device).unwrap();
        if known.registration.take().is_some() {
            known.session = None;
            self.new_record();
        }
    }

    fn enlist(&mut self, device: u32) {
        self.registrations += 1;
        let known = self.devices.get_mut(&device).unwrap();
        known.registration = Some(self.registrations);
        known.session = None;
        self.new_record();
    }

    fn new_record(&mut self) {
        let devices: Vec<(u32, u32)> =
            self.devices.iter().filter_map(|(id, device)| Some((*id, device.registration?))).collect();
        self.record = Arc::new(record(&devices));
        if self.machine.account().is_some() {
            let record = Arc::clone(&self.record);
            self.machine.reconcile(&record, &mut self.out);
        }
    }

    fn load(&mut self) {
        let usage = self.mailbox.usage();
        self.machine.load(RECIPIENT, &usage, &mut self.out);
        let record = Arc::clone(&self.record);
        self.machine.reconcile(&record, &mut self.out);
    }

    fn crash(&mut self, committed: usize) {
        self.faults = true;
        for _ in 0..committed {
            let Some(op) = self.mailbox.queue.pop_front() else { break };
            let _nobody_hears = self.mailbox.apply(op);
        }
        self.mailbox.queue.clear();
        self.mailbox.to_read.clear();
        self.mailbox.read.clear();
        self.out.clear();
        self.machine = Machine::new(policy());
        self.devices.values_mut().for_each(SimDevice::lose_session);
        self.load();
        for sender in 0..self.senders.len() {
            self.break_sender(sender);
        }
    }

    fn commit(&mut self, count: usize) {
        let count = count.min(self.mailbox.queue.len());
        let mut done: Vec<Done> = Vec::new();
        for _ in 0..count {
            if let Some(op) = self.mailbox.queue.pop_front() {
                done.push(self.mailbox.apply(op));
            }
        }
        self.tell(done);
    }

    fn fail_commit(&mut self, count: usize) {
        let failed = || StoreError::Failed("for the test".to_owned());
        let mut done = Vec::new();
        for _ in 0..count {
            done.push(match self.mailbox.queue.pop_front() {
                Some(Op::Put(ticket, _)) if self.planted == Some(Planted::CommitErrorIgnored) => {
                    Done::Put(ticket, Ok(PutOutcome::Stored { repeats: Vec::new() }))
                }
                Some(Op::Put(ticket, _)) => Done::Put(ticket, Err(failed())),
                Some(Op::Forget(device, upto)) => Done::Forgotten(device, upto, None),
                Some(Op::DropDevice(device, _)) => Done::Dropped(device, None),
                Some(Op::Recount) => Done::Recounted(None),
                None => break,
            });
        }
        self.faults |= !done.is_empty();
        self.tell(done);
    }

    fn tell(&mut self, done: Vec<Done>) {
        for result in done {
            let (now, mut world) = (self.now(), Link(self.link_full));
            match result {
                Done::Put(ticket, result) => {
                    self.machine.put_done(ticket, &result, now, &mut world, &mut self.out);
                }
                Done::Forgotten(device, upto, erased) => {
                    self.machine.forgotten(device, upto, erased, now, &mut world, &mut self.out);
                }
                Done::Dropped(device, erased) => self.machine.dropped(device, erased, now),
                Done::Recounted(usage) => self.machine.recounted(RECIPIENT, usage.as_deref()),
            }
            self.carry_out();
        }
    }

    fn read_page(&mut self, nth: usize) {
        if nth < self.mailbox.to_read.len() {
            let (session, request) = self.mailbox.to_read.remove(nth);
            let page = self.mailbox.page(&request);
            self.mailbox.read.push((session, page));
        }
    }

    fn deliver_page(&mut self, nth: usize, fails: bool) {
        if nth < self.mailbox.read.len() {
            let (session, page) = self.mailbox.read.remove(nth);
            let result = if fails { Err(StoreError::Failed("for the test".to_owned())) } else { Ok(page) };
            let (now, mut world) = (self.now(), Link(self.link_full));
            self.machine.page_read(session, result, now, &mut world, &mut self.out);
        }
    }

    fn carry_out(&mut self) {
        if self.planted == Some(Planted::SwappedDeliveries) {
            let deliveries: Vec<usize> = self
                .out
                .iter()
                .enumerate()
                .filter(|(_, output)| matches!(output, Output::Deliver { .. }))
                .map(|(place, _)| place)
                .collect();
            if let [first, second, ..] = deliveries[..] {
                let (one, other) = self.out.split_at_mut(second);
                if let (
                    Output::Deliver { session, envelope, .. },
                    Output::Deliver { session: same, envelope: next, .. },
                ) = (&mut one[first], &mut other[0])
                    && session == same
                {
                    std::mem::swap(envelope, next);
                }
            }
        }
        let mut broken: BTreeSet<usize> = BTreeSet::new();
        let mut told_early: Vec<Ticket> = Vec::new();
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Attached { session, waiting: _, number: _ } => {
                    let session = self.session(session).expect("attached without a session");
                    assert!(!std::mem::replace(&mut session.attached, true) && session.given.is_empty());
                }
                Output::Deliver { session, tag, envelope, from_mailbox: _ } => self.given(session, tag, &envelope),
                Output::Moved { session: _ } => unreachable!("nobody else is there"),
                Output::End { session, reason } => {
                    assert!(matches!(reason, Ending::Replaced | Ending::DeviceRemoved), "{reason:?} has no cause here");
                    for device in self.devices.values_mut() {
                        if device.session.as_ref().is_some_and(|known| known.key == session) {
                            device.lose_session();
                        }
                    }
                }
                Output::Answer { reply, id, outcome } => self.answered(reply, id, outcome),
                Output::Fail { reply: (sender, _, connection) } => {
                    self.faults = true;
                    if self.senders[sender].connection == connection {
                        broken.insert(sender);
                    }
                }
                Output::Put { ticket, put } => {
                    self.mailbox.queue.push_back(Op::Put(ticket, put));
                    if self.planted == Some(Planted::StoredBeforeCommit) {
                        told_early.push(ticket);
                    }
                }
                Output::Forget { device, upto, .. } => self.mailbox.queue.push_back(Op::Forget(device, upto)),
                Output::DropDevice { device, keep, .. } => self.mailbox.queue.push_back(Op::DropDevice(device, keep)),
                Output::Recount { .. } => self.mailbox.queue.push_back(Op::Recount),
                Output::Verify { key, reply, rejection, .. } => {
                    let held = self.mailbox.rows.values().any(|row| row.header.key == key);
                    if held {
                        // It counts as it was first submitted, whatever the repeat says.
                        let sent = &mut self.senders[reply.0].messages[reply.1];
                        sent.addressed = sent.always_addressed.clone().unwrap_or_default();
                    }
                    self.machine.verified(&key, reply, rejection, Some(held), &mut self.out);
                }
                Output::DropAccount { .. } => unreachable!("nobody withdraws here"),
                Output::Page { session, request } => self.mailbox.to_read.push((session, request)),
                Output::Wake { .. } => {}
            }
        }
        for ticket in told_early {
            self.tell(vec![Done::Put(ticket, Ok(PutOutcome::Stored { repeats: Vec::new() }))]);
        }
        // Those whose message was given up come again, as their clients would.
        for sender in broken {
            self.break_sender(sender);
        }
        if !self.out.is_empty() {
            self.carry_out();
        }
    }

    fn session(&mut self, key: SessionKey) -> Option<&mut SimSession> {
        self.devices.values_mut().filter_map(|device| device.session.as_mut()).find(|session| session.key == key)
    }

    /// A device is given a message: it must be its own, and in order.
    fn given(&mut self, key: SessionKey, tag: u64, envelope: &Envelope) {
        let faults = self.faults;
        let device = self
            .devices
            .values_mut()
            .find(|device| device.session.as_ref().is_some_and(|session| session.key == key))
            .expect("given to a session that is over");
        let registration = device.registration.expect("given to a device that was removed");
        let session = device.session.as_mut().expect("found by it");
        let message = envelope.header.key;
        assert!(session.attached);
        assert_eq!(envelope.enc.registration, registration, "meant for another device");
        assert_eq!(tag, session.given.len() as u64 + 1);
        assert!(session.given.len() - session.acknowledged < policy().session_messages, "more than the window");
        assert!(faults || !session.given.contains(&message), "given twice in one session");
        session.given.push(message);
        if device.shown.contains(&(registration, message)) {
            return;
        }
        device.shown.push((registration, message));
        let shown: Vec<MessageKey> = device
            .shown
            .iter()
            .filter(|(to, shown)| *to == registration && shown.account == message.account)
            .map(|(_, shown)| *shown)
            .collect();
        let sender = self.senders.iter().find(|sender| sender.from.account == message.account).expect("a sender");
        let by_key: HashMap<MessageKey, usize> =
            sender.messages.iter().enumerate().map(|(number, sent)| (sent.key, number)).collect();
        let number = by_key[&message];
        let this = &sender.messages[number];
        assert!(!matches!(this.outcome, Some(Outcome::Rejected(_))), "rejected, and given to a device");
        for before in &shown[..shown.len() - 1] {
            let earlier = by_key[before];
            let came_again = this.last_connection > sender.messages[earlier].first_connection;
            assert!(earlier < number || came_again, "message {number} after message {earlier}");
        }
    }

    fn answered(&mut self, (sender, number, _): Reply, id: MessageId, outcome: Outcome) {
        let sent = &self.senders[sender].messages[number];
        assert_eq!(sent.key.id, id);
        let acknowledged =
            |id: &u32, registration: &u32| self.devices[id].acknowledged.contains(&(*registration, sent.key));
        let kept = |id: &u32, registration: &u32| {
            self.mailbox.rows.iter().any(|((device, _), row)| {
                device.get() == *id && row.enc.registration == *registration && row.header.key == sent.key
            })
        };
        let first = sent.outcome.is_none();
        match &outcome {
            Outcome::Delivered if first => {
                assert!(sent.addressed.iter().all(|(id, registration)| acknowledged(id, registration)));
            }
            Outcome::Stored if first => {
                for (id, registration) in &sent.addressed {
                    let here = self.devices[id].registration == Some(*registration);
                    let safe = !here || acknowledged(id, registration) || kept(id, registration);
                    assert!(safe, "told stored, and device {id} has it neither nor is it kept");
                }
            }
            Outcome::Dropped => assert_eq!(sent.class, Class::Ephemeral),
            Outcome::Rejected(_) if first => {
                let given = self.devices.values().any(|device| device.shown.iter().any(|(_, key)| *key == sent.key));
                assert!(!given || self.faults, "rejected after it was given to a device");
            }
            _ => {}
        }
        if first {
            self.senders[sender].messages[number].outcome = Some(outcome);
        }
    }
}

fn record(devices: &[(u32, u32)]) -> Record {
    let address = "bo@home.example";
    let ids: Vec<u32> = devices.iter().map(|(id, _)| *id).collect();
    let mut record = fake::record(address, 1, &ids);
    for (device, (_, registration)) in record.devices.iter_mut().zip(devices) {
        device.registration_id = *registration;
    }
    Record::parse(record, &address.parse().unwrap()).unwrap()
}

impl SimMailbox {
    fn apply(&mut self, op: Op) -> Done {
        match op {
            Op::Put(ticket, put) => Done::Put(ticket, Ok(self.put(&put))),
            Op::Forget(device, upto) if self.planted == Some(Planted::ForgetsTooMuch) => {
                let next = self.rows.keys().find(|(of, seq)| *of == device && *seq > upto).map(|(_, seq)| *seq);
                let erased = self.erase(device, |seq, _| seq <= next.unwrap_or(upto));
                Done::Forgotten(device, upto, Some(erased))
            }
            Op::Forget(device, upto) => Done::Forgotten(device, upto, Some(self.erase(device, |seq, _| seq <= upto))),
            Op::DropDevice(device, keep) => {
                let erased = self.erase(device, |_, row| keep.is_none_or(|keep| row.enc.registration != keep));
                Done::Dropped(device, Some(erased))
            }
            Op::Recount => Done::Recounted(Some(self.usage())),
        }
    }

    fn put(&mut self, put: &Put) -> PutOutcome {
        let mut repeats = Vec::new();
        self.puts += 1;
        if self.planted == Some(Planted::LostWrite) && self.puts.is_multiple_of(7) {
            return PutOutcome::Stored { repeats };
        }
        for enc in &put.parts {
            let same = |row: &Envelope| {
                row.header.key == put.header.key
                    && row.enc.device == enc.device
                    && row.enc.registration == enc.registration
            };
            if self.rows.values().any(same) {
                repeats.push(enc.device);
            } else {
                let mut usage = self.of(enc.device);
                usage.add(Usage::one(crate::message::weight(enc)));
                assert!(
                    usage.messages <= DEVICE_MESSAGES && usage.bytes <= DEVICE_BYTES,
                    "more than there is room for"
                );
                let envelope = Envelope { header: Arc::clone(&put.header), enc: enc.clone() };
                assert!(self.rows.insert((enc.device, put.header.seq), envelope).is_none());
            }
        }
        PutOutcome::Stored { repeats }
    }

    fn erase(&mut self, device: DeviceId, which: impl Fn(Seq, &Envelope) -> bool) -> Usage {
        let mut erased = Usage::default();
        self.rows.retain(|(of, seq), row| {
            let erase = *of == device && which(*seq, row);
            if erase {
                erased.add(Usage::one(row.weight()));
            }
            !erase
        });
        erased
    }

    fn of(&self, device: DeviceId) -> Usage {
        let mut usage = Usage::default();
        for row in self.rows.iter().filter(|((of, _), _)| *of == device).map(|(_, row)| row) {
            usage.add(Usage::one(row.weight()));
        }
        usage
    }

    fn usage(&self) -> Vec<DeviceUsage> {
        let devices: BTreeSet<DeviceId> = self.rows.keys().map(|(device, _)| *device).collect();
        let usage = |device: DeviceId| {
            let last = self.rows.keys().filter(|(of, _)| *of == device).map(|(_, seq)| *seq).max();
            DeviceUsage { device, usage: self.of(device), last: last.unwrap_or_default() }
        };
        devices.into_iter().map(usage).collect()
    }

    fn page(&self, request: &PageRequest) -> Page {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for ((device, seq), row) in &self.rows {
            let shown = (*device == request.device || self.planted == Some(Planted::WrongDevice))
                && *seq > request.after
                && (row.enc.registration == request.registration || self.planted == Some(Planted::WrongDevice))
                && row.header.expires_ms > request.now_ms;
            if !shown {
                continue;
            }
            if entries.len() >= request.messages || (bytes >= request.bytes && !entries.is_empty()) {
                return Page { entries, end: false };
            }
            bytes += row.weight();
            entries.push(row.clone());
        }
        if self.planted == Some(Planted::PageSkipsEntry) && entries.len() > 1 {
            entries.remove(0);
        }
        Page { entries, end: true }
    }
}
