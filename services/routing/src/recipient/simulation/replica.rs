//! One of the replicas: its machine, what it knows of owning the account, what it has asked the store for. It does what
//! `actor/owning.rs` does.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::DeviceId;
use tokio::time::Instant;

use super::planted::Planted;
use super::store::{Claimed, Store};
use super::world::{Reply, policy};
use crate::mailbox::{Chain, DeviceUsage, Page, PageRequest, Put, PutOutcome, StoreError, Usage};
use crate::message::{Seq, Submission};
use crate::recipient::machine::{Attaching, Machine, Output, Ticket};
use crate::session::SessionKey;

pub(super) struct Replica {
    pub(super) machine: Machine<Reply>,
    /// Of its lease.
    pub(super) id: u64,
    /// Until when the lease holds, as it counts.
    pub(super) until: Instant,
    /// Under which lease it has claimed the account.
    pub(super) owned: Option<u64>,
    pub(super) claiming: bool,
    /// The other one wants the account: what is under way settles.
    pub(super) releasing: bool,
    /// After a release the other one comes first.
    pub(super) not_before: Instant,
    held_back: Vec<Output<Reply>>,
    /// Counts how often everything was forgotten.
    pub(super) epoch: u32,
    /// It does not get through to the store, and nothing comes back.
    pub(super) cut: bool,
    pub(super) waiting: VecDeque<Waiting>,
    /// Accepted and not settled.
    pub(super) under_way: BTreeSet<Seq>,
    queue: VecDeque<(u32, u64, Op)>,
    pub(super) to_read: Vec<(u32, SessionKey, PageRequest)>,
    pub(super) read: Vec<(u32, SessionKey, Page)>,
    /// Its clock is behind by so much.
    pub(super) behind_us: u64,
}

/// What needs the account.
pub(super) enum Waiting {
    Message(Submission, Reply),
    Attach(Attaching),
    /// The id is another, and sessions are attached.
    Own,
}

pub(super) enum Op {
    Put(Ticket, Put),
    Forget(DeviceId, Seq),
    DropDevice(DeviceId, Option<u32>),
    Recount,
    Claim,
    Release,
}

pub(super) enum Done {
    Put(Ticket, Result<PutOutcome, StoreError>),
    Forgotten(DeviceId, Seq, Result<Usage, StoreError>),
    Dropped(DeviceId, Result<Usage, StoreError>),
    Recounted(Option<Vec<DeviceUsage>>),
    Claimed(u64, Option<Claimed>),
    Released,
}

/// How an operation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    Well,
    Wrong,
    /// Nobody can say; it happened, or did not.
    Unknown(bool),
}

impl Replica {
    pub(super) fn new(id: u64, now: Instant, behind_us: u64) -> Self {
        Self {
            machine: Machine::new(Arc::new(policy())),
            id,
            until: now,
            owned: None,
            claiming: false,
            releasing: false,
            not_before: now,
            held_back: Vec::new(),
            epoch: 0,
            cut: false,
            waiting: VecDeque::new(),
            under_way: BTreeSet::new(),
            queue: VecDeque::new(),
            to_read: Vec::new(),
            read: Vec::new(),
            behind_us,
        }
    }

    /// It may decide now.
    pub(super) fn owns(&self, now: Instant, planted: Option<Planted>) -> bool {
        let lease = now < self.until && self.owned == Some(self.id);
        !self.releasing && (lease || planted == Some(Planted::DecidesWithoutLease) && self.owned.is_some())
    }

    /// Queues what the machine wants of the store; gives anything else back.
    pub(super) fn ask(&mut self, output: Output<Reply>) -> Option<Output<Reply>> {
        let writes = matches!(
            output,
            Output::Put { .. } | Output::Forget { .. } | Output::DropDevice { .. } | Output::Recount { .. }
        );
        if writes && self.claiming && self.owned.is_some() {
            self.held_back.push(output);
            return None;
        }
        match output {
            Output::Put { ticket, put } => self.push(Op::Put(ticket, put)),
            Output::Forget { device, upto, .. } => self.push(Op::Forget(device, upto)),
            Output::DropDevice { device, keep, .. } => self.push(Op::DropDevice(device, keep)),
            Output::Recount { .. } => self.push(Op::Recount),
            Output::Page { session, request } => self.to_read.push((self.epoch, session, request)),
            other => return Some(other),
        }
        None
    }

    pub(super) fn push(&mut self, op: Op) {
        let id = if matches!(op, Op::Claim) { self.id } else { self.owned.unwrap_or(self.id) };
        self.queue.push_back((self.epoch, id, op));
    }

    /// What was held back while the account was claimed again.
    pub(super) fn held_back(&mut self) -> Vec<Output<Reply>> {
        std::mem::take(&mut self.held_back)
    }

    /// Everything that is known is given up.
    pub(super) fn reset(&mut self, out: &mut Vec<Output<Reply>>) {
        self.held_back.clear();
        self.machine.reset(out);
        self.owned = None;
        self.epoch += 1;
    }

    /// Nothing of what this life has asked for is under way.
    pub(super) fn nothing_queued(&self) -> bool {
        self.queue.iter().all(|(epoch, _, _)| *epoch != self.epoch)
    }

    /// The next operation takes effect, or not; the result, and for what life it is.
    pub(super) fn commit(&mut self, store: &mut Store, goes: Goes, now: Instant) -> Option<(u32, Done)> {
        let (epoch, id, op) = self.queue.pop_front()?;
        let error = match goes {
            Goes::Well => None,
            Goes::Wrong => Some(StoreError::Failed("for the test".to_owned())),
            Goes::Unknown(_) => Some(StoreError::Unknown("for the test".to_owned())),
        };
        let happens = matches!(goes, Goes::Well | Goes::Unknown(true));
        let fenced = !store.may_write(id);
        let result = |usage: Usage| match &error {
            Some(error) => Err(error.clone()),
            None if fenced => Err(StoreError::Fenced),
            None => Ok(usage),
        };
        let done = match op {
            Op::Put(ticket, put) if put.chain.is_broken() => Done::Put(ticket, Err(Chain::error())),
            Op::Put(ticket, put) => {
                if error.is_some() {
                    put.chain.break_off();
                }
                let outcome = if happens && !fenced { store.put(&put) } else { Err(StoreError::Fenced) };
                Done::Put(ticket, error.map_or(outcome, Err))
            }
            Op::Forget(device, upto) => {
                let erased = if happens && !fenced { store.forget(device, upto) } else { Usage::default() };
                Done::Forgotten(device, upto, result(erased))
            }
            Op::DropDevice(device, keep) => {
                let others = |row: &crate::message::Envelope| keep.is_none_or(|keep| row.enc.registration != keep);
                let drops = happens && !fenced;
                let erased = if drops { store.erase(device, |_, row| others(row)) } else { Usage::default() };
                Done::Dropped(device, result(erased))
            }
            Op::Recount => Done::Recounted(error.is_none().then(|| store.usage())),
            Op::Claim => {
                let claimed = happens.then(|| store.claim(id, now));
                Done::Claimed(id, claimed.filter(|_| error.is_none()))
            }
            Op::Release => {
                // What fails or is unknown is asked for again by whoever wants the account.
                if happens {
                    store.release(id);
                }
                Done::Released
            }
        };
        Some((epoch, done))
    }

    /// The process dies; of what was queued, so much takes effect.
    pub(super) fn die(&mut self, store: &mut Store, committed: usize, id: u64, now: Instant) {
        for _ in 0..committed {
            let _nobody_hears = self.commit(store, Goes::Well, now);
        }
        *self = Self { cut: self.cut, ..Self::new(id, now, self.behind_us) };
    }

    /// Asks for the lease again; true if it has another id since.
    pub(super) fn renew(&mut self, store: &mut Store, now: Instant, next_id: &mut u64) -> bool {
        if self.cut {
            return false;
        }
        if let Some(until) = store.renew(self.id, now) {
            self.until = until;
            return false;
        }
        *next_id += 1;
        self.id = *next_id;
        if let Some(until) = store.renew(self.id, now) {
            self.until = until;
        }
        let will = self.waiting.iter().any(|waiting| matches!(waiting, Waiting::Own));
        if self.owned.is_some() && self.machine.sessions().next().is_some() && !will {
            self.waiting.push_back(Waiting::Own);
        }
        true
    }

    /// Before it claims again what it has released.
    pub(super) fn yields(&mut self, now: Instant) {
        self.not_before = now + Duration::from_millis(10);
    }
}

/// A record as the machine wants it.
pub(super) type Found = Option<Arc<crate::records::Record>>;
