//! The world around the machines: senders, devices, two replicas on one store.

mod devices;
mod replicas;
mod running;
mod senders;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId};
use tokio::time::Instant;

use self::devices::{SimDevice, record};
use self::senders::SimSender;
use super::planted::Planted;
use super::replica::{Goes, Replica, Waiting};
use super::store::Store;
use crate::config::DevicePolicy;
use crate::message::{Outcome, Rejection, Sender};
use crate::recipient::machine::{Now, Output, World};
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
                    sent.repeated_late = true;
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
}
