//! What needs records, and mostly the account, to be decided: messages, sessions that attach, a look at the devices.

use std::sync::Arc;

use tokio::time::Instant;

use super::{ATTEMPTS, Actor, LOOK_AGAIN, Needed, Senses, Shared, Step, Tried};
use crate::message::{Ending, Outcome, Rejection};
use crate::recipient::machine::Attaching;
use crate::recipient::{Job, ReplyTo};
use crate::records::{Fetched, Found, Record, Vouched};
use crate::rules;
use crate::session::Session;

impl Actor {
    /// `shared` is what all actors share, and so this one.
    pub(super) fn attempt(&mut self, step: Step, shared: &Shared) -> Tried {
        match step {
            Step::Message(job) => self.attempt_message(job, shared),
            Step::Own => self.own_again(),
            Step::Attach(session) if !session.is_here() => {
                self.forget(&session);
                Tried::Done
            }
            step => {
                let vouched = shared.records.vouched();
                match vouched.as_ref().and_then(|vouched| vouched.find(&self.address, &self.record)) {
                    Some(found) => self.look(step, &found),
                    None => Tried::Records(step),
                }
            }
        }
    }

    /// A message: its sender may have left, it may be a repeat, else it is decided on the two records.
    fn attempt_message(&mut self, job: Box<Job>, shared: &Shared) -> Tried {
        let Some(job) = self.answer_early(job) else { return Tried::Done };
        let vouched = shared.records.vouched();
        match vouched.as_ref().and_then(|vouched| self.find_both(vouched, &job)) {
            Some((recipient, sender)) => self.decide(job, &recipient, &sender),
            None => Tried::Records(Step::Message(job)),
        }
    }

    /// The records of the recipient and of the sender of a message, if both are known.
    pub(super) fn find_both(&self, vouched: &Vouched<'_>, job: &Job) -> Option<(Found, Found)> {
        let recipient = vouched.find(&self.address, &self.record)?;
        Some((recipient, vouched.find(&job.submission.from.address, job.reply.session.record())?))
    }

    /// What needs no record; gives a message back that does.
    pub(super) fn answer_early(&mut self, job: Box<Job>) -> Option<Box<Job>> {
        if job.reply.session.is_over() {
            return None;
        }
        let key = job.submission.key();
        if self.machine.is_repeat(&key) {
            let _answered = self.machine.repeat(&key, job.reply, &mut self.out);
            return None;
        }
        // Also after a look-up, for what others of this sender were refused meanwhile.
        if let Err(retry_after_ms) = self.shared.strangers.may_ask(&job.submission.from, &self.address) {
            let Job { submission, reply } = *job;
            reply.session.close(&self.address, reply.generation, retry_after_ms);
            let outcome = Outcome::Rejected(Rejection::RateLimited { retry_after_ms });
            reply.session.answer(outcome, submission.id, reply.to);
            return None;
        }
        Some(job)
    }

    /// Decides a message on records that are true now.
    pub(super) fn decide(&mut self, job: Box<Job>, recipient: &Found, sender: &Found) -> Tried {
        if job.reply.session.is_over() {
            return Tried::Done;
        }
        // Nothing of an account is claimed or loaded for whom it does not let in.
        if let (Some(recipient), Some(sender)) = (recipient, sender)
            && rules::permits(recipient, sender, &job.submission.from)
        {
            if !self.owns(recipient.account) {
                return Tried::Claim(Step::Message(job), recipient.account);
            }
            self.used = true;
            if !rules::mismatch(&job.submission, recipient).is_empty() && self.may_look_again() {
                return Tried::Stale(Step::Message(job));
            }
        }
        let now = self.now;
        let Job { submission, reply } = *job;
        let (session, generation) = (Arc::clone(&reply.session), reply.generation);
        let refused = session.refuses(&self.address, generation).filter(|_| !crate::planted::is("overtaking"));
        let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused };
        let records = (recipient, sender);
        let come_again = self.machine.submit(submission, reply, records, now, &mut world, &mut self.out);
        if let Some(retry_after_ms) = come_again {
            session.close(&self.address, generation, retry_after_ms);
        }
        Tried::Done
    }

    /// Acts on the account's own record: a session that attaches, or devices that may have changed.
    fn look(&mut self, step: Step, found: &Found) -> Tried {
        let session = match &step {
            Step::Attach(session) => Some(Arc::clone(session)),
            Step::Look | Step::Own | Step::Message(_) => None,
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
        if !self.owns(record.account) {
            return Tried::Claim(step, record.account);
        }
        match session {
            Some(session) => {
                let listed = record.device(session.device.device);
                let known = listed.is_some_and(|device| device.registration == session.registration);
                if !known && self.may_look_again() {
                    return Tried::Stale(step);
                }
                self.used = true;
                self.attach(&session, record);
            }
            None => self.machine.reconcile(record, &mut self.out),
        }
        Tried::Done
    }

    fn attach(&mut self, session: &Arc<Session>, record: &Arc<Record>) {
        let now = self.now;
        let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused: None };
        let device = session.device.device;
        self.shared.pusher.is_here(&session.device.provider, record.account, device);
        let Session { key, registration, number, login, .. } = **session;
        let attaching = Attaching { session: key, device, registration, number, login };
        self.machine.attach(&attaching, record, now, &mut world, &mut self.out);
    }

    /// True at most once in a while, so that wrong lists do not become the directory's load.
    fn may_look_again(&mut self) -> bool {
        let now = self.now.instant;
        let may = self.looked_again_at.is_none_or(|before| now.duration_since(before) >= LOOK_AGAIN);
        if may {
            self.looked_again_at = Some(now);
        }
        may
    }

    /// A session that never got as far as the machine.
    fn refuse(&mut self, session: &Arc<Session>, reason: Ending) {
        session.end(reason, 0);
        self.forget(session);
    }

    pub(super) fn fetch_for(&mut self, step: Step) {
        let Some(step) = self.try_once_more(step) else { return };
        let (sender, since) = match &step {
            Step::Message(job) => (job.submission.from.address.clone(), job.reply.since),
            Step::Attach(_) | Step::Look | Step::Own => (self.address.clone(), Instant::now()),
        };
        self.waiting.push_front(step);
        let (records, address) = (self.shared.records.clone(), self.address.clone());
        self.need = Some(Box::pin(async move { Needed::Records(records.fetch(&address, &sender, since).await) }));
    }

    /// Gives a step back unless it has been tried too often.
    pub(super) fn try_once_more(&mut self, step: Step) -> Option<Step> {
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            self.give_up(step);
            return None;
        }
        Some(step)
    }

    /// Nothing true can be said about a step now.
    pub(super) fn give_up(&mut self, step: Step) {
        self.attempts = 0;
        match step {
            Step::Message(job) => self.fail(&job.reply),
            Step::Attach(session) => {
                session.end(Ending::Overloaded, self.retry_after(&session));
                self.forget(&session);
            }
            // The next message or session brings the record.
            Step::Look => {}
            Step::Own => self.renamed(),
        }
    }

    /// Ends a sender's session: its client comes back and repeats what has no outcome.
    pub(super) fn fail(&self, reply: &ReplyTo) {
        self.shared.metrics.left_unanswered();
        reply.session.end(Ending::Overloaded, self.retry_after(&reply.session));
    }

    /// From one to two times the configured time, by session, so that not all come back at once.
    pub(super) fn retry_after(&self, session: &Session) -> u64 {
        let base = self.shared.retry_ms;
        let spread = u64::from(session.id.as_bytes()[0]) * base / 256;
        base + spread
    }

    pub(super) fn needed(&mut self, needed: Needed) {
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
                    Tried::Claim(step, account) => self.claim_for(step, account),
                }
            }
            Needed::Claimed(account, claim) => self.claimed(step, account, claim),
            Needed::Records(Err(_)) => self.give_up(step),
        }
    }
}
