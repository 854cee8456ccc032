//! Drives the machine of one recipient: brings it records, messages and results, and carries out what it says.
//!
//! Messages are decided one after the other. While one waits for the directory or for the account to be this replica's,
//! those behind it wait too, but for those that are refused in any case ([`screening`]); acknowledgements, detachments and
//! results do not wait.

mod controls;
mod owning;
mod perform;
mod screening;
mod senses;
mod steps;
mod turns;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId};
use causeway_runtime::clock::SharedClock;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::few::Few;
use super::inbox::Sent;
use super::machine::{Machine, Now, Output, Ticket};
use super::{Control, Inbox, Job, ReplyTo};
use crate::limits::Limits;
use crate::mailbox::{DeviceUsage, Mailbox, Page, PutOutcome, StoreError, Usage};
use crate::message::{Ending, MessageKey, Rejection, Seq};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::peers::Peers;
use crate::presence::Presence;
use crate::push::Pusher;
use crate::recipients::Recipients;
use crate::records::{Fetched, Memo, Records, Unavailable};
use crate::replica::Lease;
use crate::session::{Session, SessionKey};
use crate::strangers::Strangers;
use crate::trails::Trails;

use owning::{Claim, Done, Owning};
use senses::Senses;
use turns::{InOrder, Unordered};

/// What all actors share.
pub(crate) struct Shared {
    pub(crate) mailbox: Arc<dyn Mailbox>,
    /// As which, and whether, this process decides.
    pub(crate) lease: Arc<Lease>,
    pub(crate) peers: Peers,
    /// How long a message waits until its account is owned here.
    pub(crate) claim_timeout: Duration,
    pub(crate) records: Records,
    pub(crate) limits: Limits,
    pub(crate) strangers: Strangers,
    pub(crate) pace: Pace,
    pub(crate) pusher: Pusher,
    pub(crate) presence: Presence,
    pub(crate) clock: SharedClock,
    pub(crate) trails: Arc<Trails>,
    pub(crate) metrics: Metrics,
    pub(crate) retry_ms: u64,
    pub(crate) idle: Duration,
}

/// One recipient's actor.
pub(crate) struct Actor {
    address: Address,
    inbox: Arc<Inbox>,
    /// The time, as it was when it was woken, or a moment ago.
    now: Now,
    /// The record of its own address.
    record: Memo,
    machine: Machine<ReplyTo>,
    sessions: Few<SessionKey, Arc<Session>>,
    /// What needs records, in order; sessions that attach come first.
    waiting: VecDeque<Step>,
    /// The first of `waiting` awaits this.
    need: Option<Pending<Needed>>,
    /// When a record was fetched although it was cached.
    looked_again_at: Option<Instant>,
    /// How often the first of `waiting` has been tried.
    attempts: u32,
    owning: Owning,
    /// It was needed for a message or a session, not only for a look.
    used: bool,
    /// Counts how often everything was forgotten: results of before are not for what is known now.
    epoch: u64,
    /// Results of what the mailbox does in order: they are told in that order.
    results: InOrder<(u64, Finished)>,
    /// Results of readings.
    readings: Unordered<(u64, Finished)>,
    out: Vec<Output<ReplyTo>>,
    shared: Arc<Shared>,
    recipients: Arc<Recipients>,
    /// It finishes what it has.
    takes_nothing: bool,
    /// Dropped once nothing is awaited any more.
    quiet: Option<mpsc::Sender<Infallible>>,
    /// It ends as soon as nothing is awaited.
    leaving: bool,
    /// Since when nobody has needed it.
    idle_since: Option<Instant>,
    /// When it is to be woken at the latest; it may be sooner than there is something to do.
    timer: Option<Pin<Box<Sleep>>>,
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What needs records to be decided.
enum Step {
    Attach(Arc<Session>),
    Message(Box<Job>),
    /// The devices of the account may have changed.
    Look,
    /// This replica has another id: what it owns is to be claimed again.
    Own,
}

/// What the first step needed.
enum Needed {
    Records(Result<Fetched, Unavailable>),
    Claimed(AccountId, Claim),
}

/// Results of what the machine has asked for.
enum Finished {
    Put(Ticket, Result<PutOutcome, StoreError>),
    Forgotten(DeviceId, Seq, Result<Usage, StoreError>),
    DroppedDevice(DeviceId, Result<Usage, StoreError>),
    Recounted(AccountId, Result<Vec<DeviceUsage>, StoreError>),
    Page(SessionKey, Result<Page, StoreError>),
    Verified(MessageKey, ReplyTo, Rejection, Result<bool, StoreError>),
    DroppedAccount(AccountId, Result<(), StoreError>),
    /// Time to try it again.
    DropAccount(AccountId),
    /// What is known of a sender whose message waits may be more by now.
    LookedUp,
    /// The account was released for these.
    Released(Vec<Done>, Result<(), StoreError>),
}

/// What became of an attempt at the first step.
enum Tried {
    Done,
    /// Records are missing.
    Records(Step),
    /// The account is not owned, or the lease does not hold.
    Claim(Step, AccountId),
    /// What is cached contradicts what a client has seen: the directory may be ahead of its own announcements.
    Stale(Step),
}

/// A step that does not get what it needs in so many attempts is given up.
const ATTEMPTS: u32 = 8;
/// Steps that wait; more messages stay in their queue.
const MAX_WAITING: usize = 64;
/// Readings under way; a sender that makes for more of them waits.
const MAX_READINGS: usize = 8 + DeviceId::MAX_PER_ACCOUNT;
/// A cached record is fetched again at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Actor {
    pub(crate) fn new(address: Address, inbox: Arc<Inbox>, shared: Arc<Shared>, recipients: Arc<Recipients>) -> Self {
        shared.metrics.recipient_loaded();
        Self {
            address,
            inbox,
            now: shared.now(),
            record: Memo::default(),
            machine: Machine::new(Arc::clone(recipients.policy())),
            sessions: Few::new(),
            waiting: VecDeque::new(),
            need: None,
            looked_again_at: None,
            attempts: 0,
            owning: Owning::default(),
            used: false,
            epoch: 0,
            results: InOrder::default(),
            readings: Unordered::default(),
            out: Vec::new(),
            shared,
            recipients,
            takes_nothing: false,
            quiet: None,
            leaving: false,
            idle_since: None,
            timer: None,
        }
    }

    fn forget(&mut self, session: &Arc<Session>) {
        self.shared.presence.detach(session.key);
        if self.sessions.remove(&session.key) {
            self.shared.metrics.session_detached();
        }
    }

    fn takes_jobs(&self) -> bool {
        self.waiting.len() < MAX_WAITING && !self.takes_nothing && self.readings.len() < MAX_READINGS
    }

    fn is_finished(&self) -> bool {
        self.machine.is_quiet() && self.results.is_empty() && self.readings.is_empty() && !self.is_releasing()
    }

    fn is_idle(&self) -> bool {
        self.machine.is_idle() && self.is_finished() && self.waiting.is_empty() && self.sessions.is_empty()
    }

    /// How long it stays when nobody needs it.
    fn patience(&self) -> Duration {
        // Whoever does not exist is not worth remembering: strangers choose which addresses are asked for.
        match self.machine.account() {
            Some(_) if self.used => self.recipients.patience(self.shared.idle),
            // Nor is who was only looked at; another replica may want it.
            Some(_) | None => Duration::ZERO,
        }
    }
}

/// Also when the actor panics: its sessions must not believe that somebody serves them.
impl Drop for Actor {
    fn drop(&mut self) {
        for sent in self.inbox.close() {
            match sent {
                Sent::Told(Control::Attach(session)) => session.end(Ending::Overloaded, self.retry_after(&session)),
                Sent::Told(_) => {}
                Sent::Message(job) => self.fail(&job.reply),
            }
        }
        for session in self.sessions.values() {
            session.end(Ending::Overloaded, self.retry_after(session));
            self.shared.presence.detach(session.key);
            self.shared.metrics.session_detached();
        }
        for step in &self.waiting {
            if let Step::Message(job) = step {
                self.fail(&job.reply);
            }
        }
        self.count_owned(false);
        self.recipients.forget(&self.address);
        self.shared.metrics.recipient_left();
    }
}

// There is one for each who is attached, also while nothing happens.
const _: () = assert!(size_of::<Actor>() <= 1_024);

impl Shared {
    fn now(&self) -> Now {
        let since = self.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now { instant: Instant::now(), unix_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX) }
    }
}
