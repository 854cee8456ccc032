//! The world around the machines: senders, devices, two replicas on one store.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::{AccountId, DeviceId, MessageId};
use tokio::time::Instant;

use super::planted::Planted;
use super::replica::{Done, Found, Goes, Op, Replica, Waiting};
use super::store::{Claimed, Store};
use crate::config::DevicePolicy;
use crate::mailbox::{PutOutcome, StoreError};
use crate::message::{Class, Enc, EncType, Ending, MessageKey, Outcome, Rejection, Sender, Submission};
use crate::recipient::machine::{Attaching, Now, Output, Ticket, World};
use crate::records::{Record, fake};
use crate::session::SessionKey;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Send {
        sender: usize,
        kind: u8,
        bytes: usize,
    },
    /// The store does the next operations of a replica, in this way.
    Commit {
        at: usize,
        count: usize,
        goes: Goes,
    },
    /// A reading happens; what it saw is told later.
    ReadPage {
        at: usize,
        nth: usize,
    },
    DeliverPage {
        at: usize,
        nth: usize,
        fails: bool,
    },
    /// At this replica; `silently`: where it was attached nobody hears that it has left.
    Attach {
        device: u32,
        at: usize,
        silently: bool,
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
    /// A process dies; of what it had queued, so much takes effect.
    Crash {
        at: usize,
        committed: usize,
    },
    /// A replica does not get through to the store, or does again.
    Cut {
        at: usize,
        cut: bool,
    },
    RemoveDevice {
        device: u32,
    },
    EnlistDevice {
        device: u32,
    },
    /// A sender's link breaks: what has no outcome is submitted again, in order, to this replica.
    BreakSender {
        sender: usize,
        to: usize,
    },
    /// A sender goes on at another replica, if all that it has sent has an outcome.
    Choose {
        sender: usize,
        to: usize,
    },
    /// A sender repeats what has an outcome.
    RepeatOld {
        sender: usize,
        nth: usize,
    },
}

/// A submission that waits for its outcome: sender, message, and the connection it came by.
pub(super) type Reply = (usize, usize, u32);

pub(super) struct Simulated {
    pub(super) replicas: Vec<Replica>,
    pub(super) store: Store,
    pub(super) senders: Vec<SimSender>,
    pub(super) devices: BTreeMap<u32, SimDevice>,
    record: Arc<Record>,
    registrations: u32,
    link_full: bool,
    instant: Instant,
    unix_us: u64,
    sessions: u64,
    lease_ids: u64,
    out: Vec<Output<Reply>>,
    /// Sessions that their edge has given up, and of which a replica does not know that.
    pub(super) left: HashSet<SessionKey>,
    /// Something went wrong, or the account has changed hands: from then on a device may be given a message twice.
    pub(super) faults: bool,
    pub(super) planted: Option<Planted>,
}

pub(super) struct SimSender {
    pub(super) from: Arc<Sender>,
    record: Found,
    pub(super) connection: u32,
    /// Where it submits.
    at: usize,
    pub(super) messages: Vec<Sent>,
}

pub(super) struct Sent {
    pub(super) key: MessageKey,
    pub(super) class: Class,
    bytes: usize,
    /// Devices that it was for whenever it was submitted, with their registrations.
    pub(super) addressed: Vec<(u32, u32)>,
    submitted: bool,
    pub(super) outcome: Option<Outcome>,
    pub(super) first_connection: u32,
    pub(super) last_connection: u32,
}

/// A device id under one registration after the other.
#[derive(Default)]
pub(super) struct SimDevice {
    pub(super) registration: Option<u32>,
    pub(super) session: Option<SimSession>,
    /// What it has acknowledged, by registration.
    pub(super) acknowledged: HashSet<(u32, MessageKey)>,
    /// What it shows, in order, by registration: each message once.
    pub(super) shown: Vec<(u32, MessageKey)>,
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

pub(super) struct SimSession {
    pub(super) key: SessionKey,
    /// Where it is attached.
    at: usize,
    pub(super) attached: bool,
    pub(super) given: Vec<MessageKey>,
    pub(super) acknowledged: usize,
}

const RECIPIENT: AccountId = AccountId::from_bytes([1; 16]);
pub(super) const DEVICE_MESSAGES: u64 = 14;
pub(super) const DEVICE_BYTES: u64 = 14 * 700;
const REPLICAS: usize = 2;

pub(super) fn policy() -> DevicePolicy {
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

    fn count(&mut self, _: &Sender) -> Result<(), Rejection> {
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
            let record = Some(Arc::new(record));
            SimSender { from: Arc::new(from), record, connection: 1, at: 0, messages: Vec::new() }
        });
        let instant = Instant::from_std(std::time::Instant::now());
        let mut this = Self {
            // Their clocks differ by more than a lease.
            replicas: (0..REPLICAS).map(|n| Replica::new(1 + n as u64, instant, 150_000 * n as u64)).collect(),
            store: Store::new(planted),
            senders: senders.collect(),
            devices: (1..4).map(|id| (id, SimDevice::default())).collect(),
            record: Arc::new(record(&[])),
            registrations: 200,
            link_full: false,
            instant,
            unix_us: 1_000_000_000,
            sessions: 0,
            lease_ids: REPLICAS as u64,
            out: Vec::new(),
            left: HashSet::new(),
            faults: false,
            planted,
        };
        this.wait(0);
        this.enlist(1);
        this.enlist(2);
        // The first replica owns the account and serves its devices to begin with.
        for device in 1..3 {
            this.attach(device, 0, false);
            for _ in 0..2 {
                this.pump();
                this.commit(0, usize::MAX, Goes::Well);
            }
            this.pump();
            this.read_page(0, 0);
            this.deliver_page(0, 0, false);
        }
        this
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Send { sender, kind, bytes } => self.send(sender, kind, bytes),
            Step::Commit { at, count, goes } => self.commit(at, count, goes),
            Step::ReadPage { at, nth } => self.read_page(at, nth),
            Step::DeliverPage { at, nth, fails } => self.deliver_page(at, nth, fails),
            Step::Attach { device, at, silently } => self.attach(device, at, silently),
            Step::Detach { device } => self.detach(device, false),
            Step::Acknowledge { device, share } => self.acknowledge(device, share),
            Step::Wait { ms } => self.wait(ms),
            Step::LinkFull { full } => self.link_full = full,
            Step::Crash { at, committed } => self.crash(at, committed),
            Step::Cut { at, cut } => self.replicas[at].cut = cut,
            Step::RemoveDevice { device } => self.remove(device),
            Step::EnlistDevice { device } => self.enlist(device),
            Step::BreakSender { sender, to } => self.break_sender(sender, to),
            Step::Choose { sender, to } => {
                if self.senders[sender].messages.iter().all(|sent| sent.outcome.is_some()) {
                    self.senders[sender].at = to;
                }
            }
            Step::RepeatOld { sender, nth } => {
                let sent = self.senders[sender].messages.get_mut(nth);
                if let Some(sent) = sent.filter(|sent| sent.outcome.is_some()) {
                    // Where nobody remembers it, it is a late message: there is no order to keep.
                    sent.last_connection = u32::MAX;
                    // After a rejection it is a new attempt; what counts may still be a copy of an earlier one.
                    if matches!(sent.outcome, Some(Outcome::Rejected(_))) {
                        sent.outcome = None;
                    }
                    self.submit(sender, nth);
                }
            }
        }
        self.pump();
    }

    /// Everything heals: all commits succeed, all devices come to one replica and acknowledge all, senders repeat there
    /// what has no outcome.
    pub(super) fn finish(mut self) {
        self.link_full = false;
        self.replicas.iter_mut().for_each(|replica| replica.cut = false);
        // Also where nobody attaches or sends any more, what removed devices have left is erased at the next look.
        self.replicas[0].waiting.push_back(Waiting::Own);
        for round in 0..60 {
            if round % 10 == 0 {
                for sender in 0..self.senders.len() {
                    self.break_sender(sender, 0);
                }
                for device in 1..4 {
                    self.attach(device, 0, false);
                    self.pump();
                }
            }
            self.wait(if round % 2 == 0 { 40 } else { 3_000 });
            self.pump();
            for at in 0..REPLICAS {
                self.commit(at, usize::MAX, Goes::Well);
                self.pump();
                while !self.replicas[at].to_read.is_empty() || !self.replicas[at].read.is_empty() {
                    self.read_page(at, 0);
                    self.deliver_page(at, 0, false);
                    self.pump();
                }
            }
            for device in 1..4 {
                self.acknowledge(device, 100);
                self.pump();
            }
        }
        self.check_end();
    }

    fn now(&self, at: usize) -> Now {
        Now { instant: self.instant, unix_us: self.unix_us - self.replicas[at].behind_us }
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
            submitted: false,
            outcome: None,
            first_connection: from.connection,
            last_connection: from.connection,
        });
        self.submit(sender, number);
    }

    fn submit(&mut self, sender: usize, number: usize) {
        let from = &mut self.senders[sender];
        let (connection, at) = (from.connection, from.at);
        let sent = &mut from.messages[number];
        let devices: Vec<(u32, u32)> =
            self.record.devices.iter().map(|device| (device.id.get(), device.registration)).collect();
        if sent.outcome.is_none() {
            sent.last_connection = sent.last_connection.max(connection);
            if !std::mem::replace(&mut sent.submitted, true) {
                sent.addressed.clone_from(&devices);
            } else {
                sent.addressed.retain(|device| devices.contains(device));
            }
        }
        let enc = devices.iter().map(|&(device, registration)| Enc {
            device: device_id(device),
            registration,
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
            trace: None,
        };
        self.replicas[at].waiting.push_back(Waiting::Message(submission, (sender, number, connection)));
        self.pump();
    }

    /// Submits everything without an outcome again, in the original order, by a new link to this replica.
    fn break_sender(&mut self, sender: usize, to: usize) {
        self.senders[sender].connection += 1;
        self.senders[sender].at = to;
        for number in 0..self.senders[sender].messages.len() {
            if self.senders[sender].messages[number].outcome.is_none() {
                self.submit(sender, number);
            }
        }
    }

    fn attach(&mut self, device: u32, at: usize, silently: bool) {
        let Some(registration) = self.devices[&device].registration else { return };
        let elsewhere = self.devices[&device].session.as_ref().is_some_and(|session| session.at != at);
        if elsewhere {
            self.detach(device, silently);
        }
        self.sessions += 1;
        let key = SessionKey(self.sessions);
        let session = SimSession { key, at, attached: false, given: Vec::new(), acknowledged: 0 };
        let attaching = Attaching { session: key, device: device_id(device), registration, number: 0 };
        let known = self.devices.get_mut(&device).unwrap();
        // A newer one on the same replica ends the older one.
        if let Some(older) = known.session.as_ref().map(|older| older.key) {
            self.left.insert(older);
        }
        known.lose_session();
        known.session = Some(session);
        let position =
            self.replicas[at].waiting.iter().take_while(|step| !matches!(step, Waiting::Message(..))).count();
        self.replicas[at].waiting.insert(position, Waiting::Attach(attaching));
    }

    /// A device leaves; `silently`: its replica does not hear of it.
    fn detach(&mut self, device: u32, silently: bool) {
        let known = self.devices.get_mut(&device).unwrap();
        let Some((session, at)) = known.session.as_ref().map(|session| (session.key, session.at)) else { return };
        known.lose_session();
        self.left.insert(session);
        if silently {
            return;
        }
        let replica = &mut self.replicas[at];
        replica.waiting.retain(|step| !matches!(step, Waiting::Attach(attaching) if attaching.session == session));
        let before = self.out.len();
        replica.machine.detach(session, &mut self.out);
        if self.planted == Some(Planted::DetachDropsWindow) {
            for output in self.out.drain(before..).collect::<Vec<_>>() {
                let Output::Put { ticket, .. } = output else {
                    self.out.push(output);
                    continue;
                };
                let (now, mut world) = (self.now(at), Link(self.link_full));
                let stored = PutOutcome::Stored { repeats: Vec::new() };
                self.replicas[at].machine.put_done(ticket, &stored, now, &mut world, &mut self.out);
            }
        }
        self.carry_out(at);
    }

    fn acknowledge(&mut self, device: u32, share: u8) {
        let Some(at) = self.devices[&device].session.as_ref().map(|session| session.at) else { return };
        let (now, mut world) = (self.now(at), Link(self.link_full));
        let device = self.devices.get_mut(&device).unwrap();
        let (Some(session), Some(registration)) = (&mut device.session, device.registration) else { return };
        let open = session.given.len() - session.acknowledged;
        let upto = session.acknowledged + open * usize::from(share) / 100;
        if upto == session.acknowledged {
            return;
        }
        let machine = &mut self.replicas[at].machine;
        if self.planted == Some(Planted::AcknowledgedTooMuch) {
            let all = session.given.len() as u64;
            session.acknowledged = upto;
            machine.processed(session.key, all, now, &mut world, &mut self.out);
        } else {
            for key in &session.given[session.acknowledged..upto] {
                device.acknowledged.insert((registration, *key));
            }
            session.acknowledged = upto;
            machine.processed(session.key, upto as u64, now, &mut world, &mut self.out);
        }
        self.carry_out(at);
    }

    /// Time goes by; replicas renew their leases in time, if they get through to the store.
    fn wait(&mut self, ms: u64) {
        let mut left = ms;
        while left > 40 {
            self.wait_briefly(40);
            left -= 40;
        }
        self.wait_briefly(left);
    }

    fn wait_briefly(&mut self, ms: u64) {
        self.instant += Duration::from_millis(ms);
        self.unix_us += ms * 1_000;
        for at in 0..REPLICAS {
            let (now, mut world) = (self.now(at), Link(self.link_full));
            self.replicas[at].machine.tick(now, &mut world, &mut self.out);
            self.carry_out(at);
            self.replicas[at].renew(&mut self.store, self.instant, &mut self.lease_ids);
        }
    }

    fn remove(&mut self, device: u32) {
        let known = self.devices.get_mut(&device).unwrap();
        if known.registration.take().is_some() {
            if let Some(session) = known.session.take() {
                self.left.insert(session.key);
            }
            self.new_record();
        }
    }

    fn enlist(&mut self, device: u32) {
        self.registrations += 1;
        let known = self.devices.get_mut(&device).unwrap();
        known.registration = Some(self.registrations);
        if let Some(session) = known.session.take() {
            self.left.insert(session.key);
        }
        self.new_record();
    }

    /// All replicas hear of it before it is confirmed.
    fn new_record(&mut self) {
        let devices: Vec<(u32, u32)> =
            self.devices.iter().filter_map(|(id, device)| Some((*id, device.registration?))).collect();
        self.record = Arc::new(record(&devices));
        for at in 0..REPLICAS {
            if self.replicas[at].owns(self.instant, self.planted) {
                let record = Arc::clone(&self.record);
                self.replicas[at].machine.reconcile(&record, &mut self.out);
                self.carry_out(at);
            }
        }
    }

    fn crash(&mut self, at: usize, committed: usize) {
        self.faults = true;
        self.lease_ids += 1;
        self.replicas[at].die(&mut self.store, committed, self.lease_ids, self.instant);
        self.replicas[at].renew(&mut self.store, self.instant, &mut self.lease_ids);
        for device in self.devices.values_mut() {
            if device.session.as_ref().is_some_and(|session| session.at == at) {
                device.lose_session();
            }
        }
        for sender in 0..self.senders.len() {
            if self.senders[sender].at == at {
                self.break_sender(sender, at);
            }
        }
    }

    fn commit(&mut self, at: usize, count: usize, goes: Goes) {
        if self.replicas[at].cut {
            return;
        }
        let mut done = Vec::new();
        for _ in 0..count {
            let Some(result) = self.replicas[at].commit(&mut self.store, goes, self.instant) else {
                break;
            };
            done.push(result);
            self.faults |= goes != Goes::Well;
        }
        for (epoch, result) in done {
            let result = match result {
                Done::Put(ticket, Err(StoreError::Failed(_))) if self.planted == Some(Planted::CommitErrorIgnored) => {
                    Done::Put(ticket, Ok(PutOutcome::Stored { repeats: Vec::new() }))
                }
                result => result,
            };
            self.tell(at, epoch, result);
        }
    }

    fn tell(&mut self, at: usize, epoch: u32, result: Done) {
        let (now, mut world) = (self.now(at), Link(self.link_full));
        if let Done::Claimed(id, claimed) = result {
            self.claimed(at, id, claimed);
            return;
        }
        let replica = &mut self.replicas[at];
        if epoch != replica.epoch {
            return;
        }
        let uncertain = match &result {
            Done::Put(_, Err(_)) => true,
            Done::Forgotten(_, _, Err(error)) | Done::Dropped(_, Err(error)) => !error.is_certain(),
            _ => false,
        };
        let (machine, out) = (&mut replica.machine, &mut self.out);
        match result {
            _ if uncertain => {
                self.faults = true;
                replica.reset(out);
            }
            Done::Put(ticket, Ok(outcome)) => machine.put_done(ticket, &outcome, now, &mut world, out),
            Done::Put(_, Err(_)) => {}
            Done::Forgotten(device, upto, erased) => {
                machine.forgotten(device, upto, erased.ok(), now, &mut world, out);
            }
            Done::Dropped(device, erased) => machine.dropped(device, erased.ok(), now),
            Done::Recounted(usage) => machine.recounted(RECIPIENT, usage.as_deref()),
            Done::Claimed(..) | Done::Released => {}
        }
        self.carry_out(at);
    }

    fn claimed(&mut self, at: usize, id: u64, claimed: Option<Claimed>) {
        let replica = &mut self.replicas[at];
        replica.claiming = false;
        match claimed {
            Some(Claimed::Ours { usage, before }) => {
                let goes_on = replica.owned.is_some() && replica.owned == before;
                if !goes_on {
                    self.faults |= before.is_some();
                    if replica.owned.is_some() {
                        replica.reset(&mut self.out);
                    }
                    replica.machine.load(RECIPIENT, &usage, &mut self.out);
                }
                replica.owned = Some(id);
                let held_back = replica.held_back();
                self.out.splice(0..0, held_back);
                let record = Arc::clone(&self.record);
                self.replicas[at].machine.reconcile(&record, &mut self.out);
                self.carry_out(at);
            }
            Some(Claimed::Held(owner)) => {
                let needed = replica.waiting.iter().any(|waiting| !matches!(waiting, Waiting::Own));
                if replica.owned.is_some() {
                    replica.waiting.retain(|waiting| !matches!(waiting, Waiting::Own));
                }
                if replica.owned.is_some() {
                    replica.reset(&mut self.out);
                }
                self.carry_out(at);
                if needed {
                    self.ask_for_release(at, owner);
                }
            }
            // It is tried again, under another id if need be.
            Some(Claimed::Fenced) | None => {
                let held_back = replica.held_back();
                self.out.splice(0..0, held_back);
                self.carry_out(at);
            }
        }
    }

    /// The owner settles what it has under way, if it lives and is reached.
    fn ask_for_release(&mut self, by: usize, owner: u64) {
        for at in (0..REPLICAS).filter(|at| *at != by) {
            let replica = &mut self.replicas[at];
            if replica.owned == Some(owner) {
                if !replica.releasing && !replica.claiming {
                    self.faults = true;
                    replica.releasing = true;
                    replica.machine.finish(&mut self.out);
                    self.carry_out(at);
                }
            } else if replica.id == owner && !replica.claiming {
                replica.push(Op::Release);
            }
        }
    }

    fn read_page(&mut self, at: usize, nth: usize) {
        let replica = &mut self.replicas[at];
        if nth < replica.to_read.len() && !replica.cut {
            let (epoch, session, request) = replica.to_read.remove(nth);
            let page = self.store.page(&request);
            replica.read.push((epoch, session, page));
        }
    }

    fn deliver_page(&mut self, at: usize, nth: usize, fails: bool) {
        let (now, mut world) = (self.now(at), Link(self.link_full));
        let replica = &mut self.replicas[at];
        if nth < replica.read.len() {
            let (epoch, session, page) = replica.read.remove(nth);
            if epoch == replica.epoch {
                let result = if fails { Err(StoreError::Failed("for the test".to_owned())) } else { Ok(page) };
                replica.machine.page_read(session, result, now, &mut world, &mut self.out);
                self.carry_out(at);
            }
        }
    }

    /// Lets replicas go on with what waits, and with what they release.
    fn pump(&mut self) {
        for at in 0..REPLICAS {
            self.carry_out(at);
            self.go_on(at);
            let replica = &mut self.replicas[at];
            if replica.releasing && replica.machine.is_quiet() && replica.nothing_queued() {
                let id = replica.owned;
                replica.reset(&mut self.out);
                replica.owned = id;
                replica.push(Op::Release);
                replica.owned = None;
                replica.releasing = false;
                replica.yields(self.instant);
                self.carry_out(at);
            }
            let replica = &mut self.replicas[at];
            let wants = !replica.waiting.is_empty() && !replica.releasing && !replica.claiming;
            if wants && !replica.owns(self.instant, self.planted) && self.instant >= replica.not_before {
                replica.claiming = true;
                replica.push(Op::Claim);
            }
        }
    }

    /// Decides what waits, as long as this replica may.
    fn go_on(&mut self, at: usize) {
        loop {
            let (now, mut world) = (self.now(at), Link(self.link_full));
            let record = Arc::clone(&self.record);
            let owns = self.replicas[at].owns(self.instant, self.planted);
            let replica = &mut self.replicas[at];
            let Some(first) = replica.waiting.pop_front() else { return };
            match first {
                Waiting::Own if owns => {}
                Waiting::Message(submission, reply) => {
                    if self.senders[reply.0].connection != reply.2 {
                        // Its link is lost.
                        continue;
                    }
                    // A repeat is told its outcome by whoever knows it.
                    match replica.machine.repeat(&submission.key(), reply, &mut self.out) {
                        Ok(()) => {}
                        Err(reply) if owns => {
                            let sender = self.senders[reply.0].record.clone();
                            let records = (&Some(record), &sender);
                            replica.machine.submit(submission, reply, records, now, &mut world, &mut self.out);
                        }
                        Err(reply) => {
                            replica.waiting.push_front(Waiting::Message(submission, reply));
                            self.carry_out(at);
                            return;
                        }
                    }
                }
                Waiting::Attach(attaching) if self.left.contains(&attaching.session) => {}
                Waiting::Attach(attaching) if owns => {
                    replica.machine.attach(&attaching, &record, now, &mut world, &mut self.out);
                }
                first => {
                    replica.waiting.push_front(first);
                    return;
                }
            }
            self.carry_out(at);
        }
    }

    fn carry_out(&mut self, at: usize) {
        self.swap_deliveries();
        let mut broken: BTreeSet<usize> = BTreeSet::new();
        let mut told_early: Vec<Ticket> = Vec::new();
        for output in std::mem::take(&mut self.out) {
            if let Output::Put { ticket, .. } = &output
                && self.planted == Some(Planted::StoredBeforeCommit)
            {
                told_early.push(*ticket);
            }
            let Some(output) = self.replicas[at].ask(output) else { continue };
            match output {
                Output::Attached { session, waiting: _, number: _ } => {
                    if !self.left.contains(&session) {
                        let session = self.session(session).expect("attached without a session");
                        assert!(!std::mem::replace(&mut session.attached, true) && session.given.is_empty());
                    }
                }
                Output::Deliver { session, tag, envelope, from_mailbox: _ } => self.given(session, tag, &envelope),
                Output::Moved { session } => self.lose(session),
                Output::End { session, reason } => {
                    assert!(matches!(reason, Ending::Replaced | Ending::DeviceRemoved), "{reason:?} has no cause here");
                    self.lose(session);
                }
                Output::Answer { reply, id, outcome } => self.answered(reply, id, outcome),
                Output::Fail { reply: (sender, _, connection) } => {
                    self.faults = true;
                    if self.senders[sender].connection == connection {
                        broken.insert(sender);
                    }
                }
                Output::Verify { key, reply, rejection, .. } => {
                    let held = self.store.holds(&key);
                    self.replicas[at].machine.verified(&key, reply, rejection, Some(held), &mut self.out);
                }
                Output::DropAccount { .. } => unreachable!("nobody withdraws here"),
                Output::Wake { .. } | Output::Kept { .. } | Output::Acknowledged { .. } => {}
                Output::Accepted { header, .. } => {
                    assert!(self.replicas[at].under_way.insert(header.seq), "two messages in one place");
                }
                Output::Settled { seq, .. } => {
                    assert!(self.replicas[at].under_way.remove(&seq), "settled twice, or never accepted");
                }
                Output::Put { .. }
                | Output::Forget { .. }
                | Output::DropDevice { .. }
                | Output::Recount { .. }
                | Output::Page { .. } => unreachable!("the replica has taken it"),
            }
        }
        for ticket in told_early {
            let epoch = self.replicas[at].epoch;
            self.tell(at, epoch, Done::Put(ticket, Ok(PutOutcome::Stored { repeats: Vec::new() })));
        }
        // Those whose message was given up come again, as their clients would.
        for sender in broken {
            let to = self.senders[sender].at;
            self.break_sender(sender, to);
        }
        if !self.out.is_empty() {
            self.carry_out(at);
        }
    }

    fn lose(&mut self, session: SessionKey) {
        for device in self.devices.values_mut() {
            if device.session.as_ref().is_some_and(|known| known.key == session) {
                device.lose_session();
            }
        }
        self.left.insert(session);
    }

    fn swap_deliveries(&mut self) {
        if self.planted != Some(Planted::SwappedDeliveries) {
            return;
        }
        let deliveries: Vec<usize> = self
            .out
            .iter()
            .enumerate()
            .filter(|(_, output)| matches!(output, Output::Deliver { .. }))
            .map(|(place, _)| place)
            .collect();
        if let [first, second, ..] = deliveries[..] {
            let (one, other) = self.out.split_at_mut(second);
            if let (Output::Deliver { session, envelope, .. }, Output::Deliver { session: same, envelope: next, .. }) =
                (&mut one[first], &mut other[0])
                && session == same
            {
                std::mem::swap(envelope, next);
            }
        }
    }

    fn session(&mut self, key: SessionKey) -> Option<&mut SimSession> {
        self.devices.values_mut().filter_map(|device| device.session.as_mut()).find(|session| session.key == key)
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
