//! Messages: repeats, checks in the protocol's order, acceptance.

use std::sync::Arc;

use causeway_identity::AccountId;

use super::{Machine, Now, Output, Part, Pending, State, Unwritten, World};
use crate::mailbox::Usage;
use crate::message::{
    Class, EncType, Envelope, Header, MessageKey, Mismatch, Outcome, Rejection, Seq, Submission, weight,
};
use crate::recipient::outcomes::Outcomes;
use crate::records::{Found, Record};
use crate::rules;

/// Repeats of one message that are answered together; the sessions of earlier ones end, since each has an answer coming.
const MAX_REPLIES: usize = 8;
/// An account that nobody has.
const NOBODY: AccountId = AccountId::from_bytes([0; 16]);

impl<R> Machine<R> {
    /// True for a message whose outcome is known, or will be.
    pub(crate) fn is_repeat(&self, key: &MessageKey) -> bool {
        self.pending.contains_key(key) || self.outcome(key).is_some()
    }

    fn outcome(&self, key: &MessageKey) -> Option<Outcome> {
        self.outcomes.as_ref()?.get(key)
    }

    /// Answers a message whose outcome is known, or will be; gives `reply` back otherwise.
    pub(crate) fn repeat(&mut self, key: &MessageKey, reply: R, out: &mut Vec<Output<R>>) -> Result<(), R> {
        if let Some(pending) = self.pending.get_mut(key) {
            pending.replies.push(reply);
            if pending.replies.len() > MAX_REPLIES {
                out.push(Output::Fail { reply: pending.replies.remove(0) });
            }
            return Ok(());
        }
        match self.outcome(key) {
            Some(outcome) => {
                out.push(Output::Answer { reply, id: key.id, outcome });
                Ok(())
            }
            None => Err(reply),
        }
    }

    /// Decides about a message. If `recipient` permits it, its account must have been loaded. The order of the checks is
    /// part of the protocol; a repeat comes before all, since it is told the truth about its first submission. Gives how
    /// many milliseconds the sender is to wait if the message is refused for a while: nothing behind it may be accepted before.
    pub(crate) fn submit(
        &mut self,
        submission: Submission,
        reply: R,
        (recipient, sender): (&Found, &Found),
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) -> Option<u64> {
        self.last_submission = Some(now.instant);
        let Err(reply) = self.repeat(&submission.key(), reply, out) else { return None };
        let key = submission.key();
        let decided = match (recipient, sender) {
            (Some(recipient), Some(sender)) if rules::permits(recipient, sender, &submission.from) => {
                self.reconcile(recipient, out);
                self.check(&submission, recipient, world, out).map(|()| (recipient, sender))
            }
            _ => Err(Rejection::NotAvailable),
        };
        let rejection = match decided {
            Ok((recipient, sender)) => {
                self.accept(submission, reply, (recipient, sender), now, world, out);
                return None;
            }
            Err(rejection) => rejection,
        };
        let come_again = match rejection {
            Rejection::RateLimited { retry_after_ms } | Rejection::Full { retry_after_ms } => Some(retry_after_ms),
            Rejection::Devices(_) | Rejection::NotAvailable | Rejection::TooLarge => None,
        };
        // Before this process, or before what it remembers, the same message may have been accepted; a repeat gets the
        // first outcome, also from whom the account has shut out since. Whoever is not let in, this machine need not have
        // loaded the account; so that nobody learns from the time it takes who exists, or who is in memory here, it is
        // always asked after something.
        let asked = recipient.as_ref().map(|recipient| recipient.account);
        let remembers_all = asked.is_some() && asked == self.account && !self.forgetful;
        if remembers_all && rejection != Rejection::NotAvailable {
            out.push(Output::Answer { reply, id: key.id, outcome: Outcome::Rejected(rejection) });
        } else {
            let account = asked.unwrap_or(NOBODY);
            out.push(Output::Verify { account, key, reply, rejection });
        }
        come_again
    }

    /// What was asked for by [`Output::Verify`]; `None` when the mailbox did not answer. What a mailbox holds had been
    /// accepted, and is safe for all of its devices: its repeat is told so.
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

    pub(super) fn remember(&mut self, key: MessageKey, outcome: &Outcome) {
        let Some(now) = self.last_submission.filter(|_| !matches!(outcome, Outcome::Rejected(_))) else { return };
        let outcomes = self.outcomes.get_or_insert_with(|| {
            let (limit, total) = (self.policy.remembered_outcomes, &self.policy.remembered_total);
            Box::new(Outcomes::new(limit, Arc::clone(total)))
        });
        self.forgetful |= outcomes.remember(key, outcome, now);
    }

    /// The checks behind consent: limits, size, devices, room.
    fn check(
        &mut self,
        submission: &Submission,
        recipient: &Record,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) -> Result<(), Rejection> {
        world.count(&submission.from)?;
        if submission.bytes() > self.policy.max_message_bytes {
            return Err(Rejection::TooLarge);
        }
        let mismatch: Mismatch = rules::mismatch(submission, recipient);
        if !mismatch.is_empty() {
            return Err(Rejection::Devices(Box::new(mismatch)));
        }
        let full = submission.class != Class::Ephemeral
            && submission.enc.iter().any(|enc| {
                self.devices.get(&enc.device).is_some_and(|device| {
                    !device.has_room(weight(enc), self.policy.mailbox_messages, self.policy.mailbox_bytes)
                })
            });
        if full {
            self.recount(recipient.account, out);
            return Err(Rejection::Full { retry_after_ms: self.policy.mailbox_full_retry_ms });
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
            trace: submission.trace,
        });
        out.push(Output::Accepted {
            account: recipient.account,
            header: Arc::clone(&header),
            devices: submission.enc.iter().map(|enc| enc.device).collect(),
            asks_again: submission.enc.iter().any(|enc| enc.kind == EncType::Plaintext),
            from: submission.from,
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
        if pending.header.class != Class::Ephemeral {
            self.unwritten.push_back(Unwritten { seq, key, waits: pending.any(State::Waiting) });
        }
        self.pending.insert(key, pending);
        self.settle(&key, out);
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
