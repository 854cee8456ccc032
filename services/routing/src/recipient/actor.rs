//! Drives the machine of one recipient: brings it records, messages and results, and carries out what it says.
//!
//! Messages are decided one after the other. While one waits for the directory or the mailbox, those behind it wait
//! too; acknowledgements, detachments and results do not.

mod perform;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId};
use causeway_runtime::clock::SharedClock;
use futures::StreamExt as _;
use futures::stream::{FuturesOrdered, FuturesUnordered};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::machine::{Attaching, Machine, Now, Output, Ticket, World};
use super::{Control, Job, ReplyTo};
use crate::limits::Limits;
use crate::mailbox::{DeviceUsage, Mailbox, Page, PutOutcome, ReplicaId, StoreError, Usage};
use crate::message::{Ending, MessageKey, Outcome, Rejection, Sender, Seq};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::push::Pusher;
use crate::recipients::Recipients;
use crate::records::{Change, Fetched, Found, Record, Records, Unavailable};
use crate::rules;
use crate::session::{Notice, Session, SessionKey};
use crate::strangers::Strangers;

/// What all actors share.
pub(crate) struct Shared {
    pub(crate) mailbox: Arc<dyn Mailbox>,
    /// As which this process writes there.
    pub(crate) replica: ReplicaId,
    pub(crate) records: Records,
    pub(crate) limits: Limits,
    pub(crate) strangers: Strangers,
    pub(crate) pace: Pace,
    pub(crate) pusher: Pusher,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    pub(crate) retry_ms: u64,
    pub(crate) idle: Duration,
}

/// One recipient's actor.
pub(crate) struct Actor {
    address: Address,
    machine: Machine<ReplyTo>,
    sessions: HashMap<SessionKey, Arc<Session>>,
    /// What needs records, in order; sessions that attach come first.
    waiting: VecDeque<Step>,
    /// The first of `waiting` awaits this.
    need: Option<Pending<Needed>>,
    /// When a record was fetched although it was cached.
    looked_again_at: Option<Instant>,
    /// How often the first of `waiting` has been tried.
    attempts: u32,
    /// Results of what the mailbox does in order: they are told in that order.
    results: FuturesOrdered<Pending<Finished>>,
    /// Results of readings.
    readings: FuturesUnordered<Pending<Finished>>,
    out: Vec<Output<ReplyTo>>,
    shared: Arc<Shared>,
    recipients: Arc<Recipients>,
    /// It finishes what it has.
    takes_nothing: bool,
    /// Dropped once nothing is awaited any more.
    quiet: Option<mpsc::Sender<Infallible>>,
    /// It ends as soon as nothing is awaited.
    leaving: bool,
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What needs records to be decided.
enum Step {
    Attach(Arc<Session>),
    Message(Box<Job>),
    /// The devices of the account may have changed.
    Look,
}

/// What the first step needed.
enum Needed {
    Records(Result<Fetched, Unavailable>),
    Loaded(AccountId, Result<Vec<DeviceUsage>, StoreError>),
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
}

/// What became of an attempt at the first step.
enum Tried {
    Done,
    /// Records are missing.
    Records(Step),
    /// The account's mailbox has not been looked at.
    Load(Step, AccountId),
    /// What is cached contradicts what a client has seen: the directory may be ahead of its own announcements.
    Stale(Step),
}

/// A step that does not get what it needs in so many attempts is given up.
const ATTEMPTS: u32 = 8;
/// Readings under way; a sender that makes for more of them waits.
const MAX_READINGS: usize = 8 + DeviceId::MAX_PER_ACCOUNT;
/// A cached record is fetched again at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Actor {
    pub(crate) fn new(address: Address, shared: Arc<Shared>, recipients: Arc<Recipients>) -> Self {
        shared.metrics.recipient_loaded();
        Self {
            address,
            machine: Machine::new(recipients.policy().clone()),
            sessions: HashMap::new(),
            waiting: VecDeque::new(),
            need: None,
            looked_again_at: None,
            attempts: 0,
            results: FuturesOrdered::new(),
            readings: FuturesUnordered::new(),
            out: Vec::new(),
            shared,
            recipients,
            takes_nothing: false,
            quiet: None,
            leaving: false,
        }
    }

    /// Runs until nobody has needed it for a while, or until drained.
    pub(crate) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, mut control: mpsc::UnboundedReceiver<Control>) {
        let mut used_at = Instant::now();
        loop {
            let retire_at = self.retire_at(used_at);
            let deadline = [self.machine.next_deadline(), retire_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                Some(told) = control.recv() => self.told(told),
                Some(finished) = self.results.next(), if !self.results.is_empty() => self.finished(finished),
                Some(finished) = self.readings.next(), if !self.readings.is_empty() => self.finished(finished),
                needed = next_of(&mut self.need) => self.needed(needed),
                // One after the other: what is not taken stays in its bounded queue.
                Some(job) = jobs.recv(), if self.takes_jobs() => {
                    self.waiting.push_back(Step::Message(Box::new(job)));
                }
                // Last, so that a time that has passed keeps nothing waiting; what is due is looked at below each time.
                () = sleep_until(deadline) => {}
            }
            self.step();
            if self.takes_nothing {
                while let Ok(job) = jobs.try_recv() {
                    // It gets no answer: its session ends, and its client repeats it elsewhere.
                    drop(job);
                }
                if self.is_finished() {
                    self.quiet = None;
                    if self.leaving && self.recipients.retire(&self.address, || jobs.is_empty()) {
                        return;
                    }
                }
            } else if !self.is_idle() {
                used_at = Instant::now();
            } else if retire_at.is_some_and(|at| at <= Instant::now())
                && self.recipients.retire(&self.address, || jobs.is_empty() && control.is_empty())
            {
                return;
            }
        }
    }

    /// Decides what can be decided, and carries it out.
    fn step(&mut self) {
        let now = self.now();
        if self.machine.next_deadline().is_some_and(|deadline| deadline <= now.instant) {
            let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused_ms: None };
            self.machine.tick(now, &mut world, &mut self.out);
        }
        self.perform();
        while self.need.is_none() {
            let Some(first) = self.waiting.pop_front() else { return };
            match self.attempt(first) {
                Tried::Done => self.attempts = 0,
                Tried::Records(step) => self.fetch_for(step),
                Tried::Load(step, account) => self.load_for(step, account),
                Tried::Stale(step) => {
                    self.shared.records.cache().forget(&self.address);
                    self.fetch_for(step);
                }
            }
            self.perform();
        }
    }

    fn attempt(&mut self, step: Step) -> Tried {
        match step {
            Step::Message(job) => self.attempt_message(*job),
            Step::Attach(session) if session.is_over() => {
                self.forget(&session);
                Tried::Done
            }
            step => {
                let address = self.address.clone();
                let records = self.shared.records.clone();
                let mut step = Some(step);
                let tried = records.decide(&address, &address, |found, _| {
                    step.take().map_or(Tried::Done, |step| self.look(step, found))
                });
                match (tried.ok(), step) {
                    (Some(tried), _) => tried,
                    (None, step) => step.map_or(Tried::Done, Tried::Records),
                }
            }
        }
    }

    /// A message: its sender may have left, it may be a repeat, else it is decided on the two records.
    fn attempt_message(&mut self, job: Job) -> Tried {
        if job.reply.session.is_over() {
            return Tried::Done;
        }
        let Job { submission, reply, refused_ms } = job;
        let reply = match self.machine.repeat(&submission.key(), reply, &mut self.out) {
            Ok(()) => return Tried::Done,
            Err(reply) => reply,
        };
        // Also after a look-up, for what others of this sender were refused meanwhile.
        if let Err(retry_after_ms) = self.shared.strangers.may_ask(&submission.from, &self.address) {
            let outcome = Outcome::Rejected(Rejection::RateLimited { retry_after_ms });
            reply.session.answer(outcome, submission.id, reply.to);
            return Tried::Done;
        }
        let (address, sender) = (self.address.clone(), submission.from.address.clone());
        let records = self.shared.records.clone();
        let mut job = Some(Box::new(Job { submission, reply, refused_ms }));
        let tried = records.decide(&address, &sender, |recipient, sender| {
            job.take().map_or(Tried::Done, |job| self.decide(job, recipient, sender))
        });
        match (tried.ok(), job) {
            (Some(tried), _) => tried,
            (None, job) => job.map_or(Tried::Done, |job| Tried::Records(Step::Message(job))),
        }
    }

    /// Decides a message on records that are true now.
    fn decide(&mut self, job: Box<Job>, recipient: &Found, sender: &Found) -> Tried {
        if job.reply.session.is_over() {
            return Tried::Done;
        }
        // Nothing of an account is touched for whom it does not let in.
        if let (Some(recipient), Some(sender)) = (recipient, sender)
            && rules::permits(recipient, sender, &job.submission.from)
        {
            if self.machine.account() != Some(recipient.account) {
                return Tried::Load(Step::Message(job), recipient.account);
            }
            if !rules::mismatch(&job.submission, recipient).is_empty() && self.may_look_again() {
                return Tried::Stale(Step::Message(job));
            }
        }
        let now = self.now();
        let Job { submission, reply, refused_ms } = *job;
        let refused_ms = refused_ms.or_else(|| reply.session.closed_for_ms());
        let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused_ms };
        self.machine.submit(submission, reply, (recipient, sender), now, &mut world, &mut self.out);
        Tried::Done
    }

    /// Acts on the account's own record: a session that attaches, or devices that may have changed.
    fn look(&mut self, step: Step, found: &Found) -> Tried {
        let session = match &step {
            Step::Attach(session) => Some(Arc::clone(session)),
            Step::Look | Step::Message(_) => None,
        };
        let Some(record) = found else {
            self.machine.gone(&mut self.out);
            if let Some(session) = session {
                self.refuse(&session, Ending::Withdrawn);
            }
            return Tried::Done;
        };
        if session.as_ref().is_some_and(|session| session.device.account != record.account) {
            if let Some(session) = session {
                self.refuse(&session, Ending::Withdrawn);
            }
            return Tried::Done;
        }
        if self.machine.account() != Some(record.account) {
            return Tried::Load(step, record.account);
        }
        match session {
            Some(session) => {
                let listed = record.device(session.device.device);
                let known = listed.is_some_and(|device| device.registration == session.registration);
                if !known && self.may_look_again() {
                    return Tried::Stale(step);
                }
                self.attach(&session, record);
            }
            None => self.machine.reconcile(record, &mut self.out),
        }
        Tried::Done
    }

    fn attach(&mut self, session: &Arc<Session>, record: &Arc<Record>) {
        let now = self.now();
        let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused_ms: None };
        let device = session.device.device;
        self.shared.pusher.is_here(&session.device.provider, record.account, device);
        let attaching = Attaching { session: session.key, device, registration: session.registration };
        self.machine.attach(&attaching, record, now, &mut world, &mut self.out);
    }

    /// True at most once in a while, so that wrong lists do not become the directory's load.
    fn may_look_again(&mut self) -> bool {
        let now = Instant::now();
        let may = self.looked_again_at.is_none_or(|before| now.duration_since(before) >= LOOK_AGAIN);
        if may {
            self.looked_again_at = Some(now);
        }
        may
    }

    /// A session that never got as far as the machine.
    fn refuse(&mut self, session: &Arc<Session>, reason: Ending) {
        let retry_after = if reason == Ending::Draining { self.retry_after(session) } else { 0 };
        session.end(reason, retry_after);
        self.forget(session);
    }

    fn fetch_for(&mut self, step: Step) {
        let Some(step) = self.try_once_more(step) else { return };
        let (sender, since) = match &step {
            Step::Message(job) => (job.submission.from.address.clone(), job.reply.since),
            Step::Attach(_) | Step::Look => (self.address.clone(), Instant::now()),
        };
        self.waiting.push_front(step);
        let (records, address) = (self.shared.records.clone(), self.address.clone());
        self.need = Some(Box::pin(async move { Needed::Records(records.fetch(&address, &sender, since).await) }));
    }

    fn load_for(&mut self, step: Step, account: AccountId) {
        let Some(step) = self.try_once_more(step) else { return };
        self.waiting.push_front(step);
        let usage = self.shared.mailbox.usage(account);
        self.need = Some(Box::pin(async move { Needed::Loaded(account, usage.await) }));
    }

    /// Gives a step back unless it has been tried too often.
    fn try_once_more(&mut self, step: Step) -> Option<Step> {
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            self.give_up(step);
            return None;
        }
        Some(step)
    }

    /// Nothing true can be said about a step now.
    fn give_up(&mut self, step: Step) {
        self.attempts = 0;
        match step {
            Step::Message(job) => self.fail(&job.reply),
            Step::Attach(session) => {
                session.end(Ending::Overloaded, self.retry_after(&session));
                self.forget(&session);
            }
            // The next message or session brings the record.
            Step::Look => {}
        }
    }

    /// Ends a sender's session: its client comes back and repeats what has no outcome.
    fn fail(&self, reply: &ReplyTo) {
        self.shared.metrics.left_unanswered();
        reply.session.end(Ending::Overloaded, self.retry_after(&reply.session));
    }

    /// From one to two times the configured time, by session, so that not all come back at once.
    fn retry_after(&self, session: &Session) -> u64 {
        let base = self.shared.retry_ms;
        let spread = u64::from(session.id.as_bytes()[0]) * base / 256;
        base + spread
    }

    fn needed(&mut self, needed: Needed) {
        self.need = None;
        let Some(step) = self.waiting.pop_front() else { return };
        match needed {
            Needed::Records(Ok(Fetched::Cached)) => self.waiting.push_front(step),
            Needed::Records(Ok(Fetched::Once(recipient, sender))) => {
                let tried = match step {
                    Step::Message(job) => self.decide(job, &recipient, &sender),
                    step => self.look(step, &recipient),
                };
                match tried {
                    Tried::Done => self.attempts = 0,
                    Tried::Records(step) | Tried::Stale(step) => self.fetch_for(step),
                    Tried::Load(step, account) => self.load_for(step, account),
                }
            }
            Needed::Loaded(account, Ok(usage)) => {
                self.machine.load(account, &usage, &mut self.out);
                self.waiting.push_front(step);
            }
            Needed::Records(Err(_)) | Needed::Loaded(_, Err(_)) => self.give_up(step),
        }
    }

    fn told(&mut self, control: Control) {
        match control {
            Control::Attach(session) => {
                if self.takes_nothing {
                    session.end(Ending::Draining, self.retry_after(&session));
                    return;
                }
                self.sessions.insert(session.key, Arc::clone(&session));
                self.shared.metrics.session_attached();
                // Behind the step that is under way, before messages.
                let position = usize::from(self.need.is_some()).min(self.waiting.len());
                let attaching = self.waiting.iter().skip(position);
                let position = position + attaching.take_while(|step| matches!(step, Step::Attach(_))).count();
                self.waiting.insert(position, Step::Attach(session));
            }
            Control::Signal(key) => self.signalled(key),
            Control::Changed(change) => self.changed(&change),
            Control::Finish(quiet) => {
                self.takes_nothing = true;
                self.quiet = Some(quiet);
                self.need = None;
                for step in std::mem::take(&mut self.waiting) {
                    if let Step::Attach(session) = step {
                        self.refuse(&session, Ending::Draining);
                    }
                }
                self.machine.finish(&mut self.out);
            }
            Control::Leave => {
                self.leaving = true;
                self.machine.leave(&mut self.out);
            }
        }
    }

    fn signalled(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(&key).cloned() else { return };
        let (processed, detached) = session.take_signal();
        let now = self.now();
        let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused_ms: None };
        if processed > 0 {
            self.machine.processed(key, processed, now, &mut world, &mut self.out);
        }
        if detached {
            self.machine.detach(key, &mut self.out);
            self.perform();
            self.forget(&session);
        }
    }

    fn changed(&mut self, change: &Change) {
        let notice = match change {
            Change::PrekeysLow { device, ec, kyber } => {
                let notice = Notice::PrekeysLow { ec: *ec, kyber: *kyber };
                for session in self.sessions.values() {
                    if device.is_none_or(|device| device == session.device.device) {
                        session.notify(notice.clone());
                    }
                }
                return;
            }
            Change::Devices => Some(Notice::DevicesChanged { address: self.address.clone() }),
            Change::Consent => Some(Notice::ConsentChanged),
            Change::Withdrawn | Change::Push | Change::Other => None,
        };
        if let Some(notice) = notice {
            self.sessions.values().for_each(|session| session.notify(notice.clone()));
        }
        // One that has not begun yet will see this change too.
        let begun = usize::from(self.need.is_some());
        let will_look = self.waiting.iter().skip(begun).any(|step| matches!(step, Step::Look));
        if !matches!(change, Change::Consent) && !self.takes_nothing && !will_look {
            self.waiting.push_back(Step::Look);
        }
    }

    fn forget(&mut self, session: &Arc<Session>) {
        if self.sessions.remove(&session.key).is_some() {
            self.shared.metrics.session_detached();
        }
    }

    fn now(&self) -> Now {
        let since = self.shared.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now { instant: Instant::now(), unix_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX) }
    }

    fn takes_jobs(&self) -> bool {
        self.waiting.is_empty() && !self.takes_nothing && self.readings.len() < MAX_READINGS
    }

    fn is_finished(&self) -> bool {
        self.machine.is_quiet() && self.results.is_empty() && self.readings.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.machine.is_idle() && self.is_finished() && self.waiting.is_empty() && self.sessions.is_empty()
    }

    fn retire_at(&self, used_at: Instant) -> Option<Instant> {
        // Whoever does not exist is not worth remembering: strangers choose which addresses are asked for.
        let patience = match self.machine.account() {
            Some(_) => self.recipients.patience(self.shared.idle),
            None => Duration::ZERO,
        };
        self.is_idle().then(|| used_at + patience)
    }
}

/// Also when the actor panics: its sessions must not believe that somebody serves them.
impl Drop for Actor {
    fn drop(&mut self) {
        for session in self.sessions.values() {
            session.end(Ending::Overloaded, self.retry_after(session));
            self.shared.metrics.session_detached();
        }
        for step in &self.waiting {
            if let Step::Message(job) = step {
                self.fail(&job.reply);
            }
        }
        self.recipients.forget(&self.address);
        self.shared.metrics.recipient_left();
    }
}

/// What the machine may ask while it decides.
struct Senses<'a> {
    sessions: &'a HashMap<SessionKey, Arc<Session>>,
    shared: &'a Shared,
    /// The message that is being decided came behind one that was over its sender's rate.
    refused_ms: Option<u64>,
}

impl World for Senses<'_> {
    fn has_room(&mut self, session: SessionKey) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.has_room())
    }

    fn reserve(&mut self, session: SessionKey, weight: usize) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.reserve(weight))
    }

    fn count(&mut self, sender: &Sender) -> Result<(), u64> {
        if let Some(left) = self.refused_ms {
            return Err(left);
        }
        self.shared.limits.count(sender).map_err(|wait| wait.max(self.shared.retry_ms))
    }
}

async fn next_of<T>(pending: &mut Option<Pending<T>>) -> T {
    match pending {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
