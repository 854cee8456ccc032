//! Carries out what the machine says, in order.

use causeway_identity::{DeviceId, MessageId};
use futures::FutureExt as _;

use super::{Actor, Finished, Senses};
use crate::message::{Ending, Outcome, Rejection};
use crate::recipient::ReplyTo;
use crate::recipient::machine::Output;

impl Actor {
    pub(super) fn perform(&mut self) {
        for output in std::mem::take(&mut self.out) {
            self.perform_one(output);
        }
    }

    fn perform_one(&mut self, output: Output<ReplyTo>) {
        let mailbox = &self.shared.mailbox;
        match output {
            Output::Attached { session, waiting } => {
                if let Some(session) = self.sessions.get(&session) {
                    session.attached(waiting);
                }
            }
            Output::Deliver { session, tag, envelope, from_mailbox } => {
                if let Some(session) = self.sessions.get(&session) {
                    self.shared.metrics.delivering(from_mailbox);
                    session.deliver(tag, envelope);
                }
            }
            Output::End { session, reason } => {
                if let Some(session) = self.sessions.get(&session).cloned() {
                    let retry_after = if reason == Ending::Draining { self.retry_after(&session) } else { 0 };
                    session.end(reason, retry_after);
                    self.forget(&session);
                }
            }
            Output::Answer { reply, id, outcome } => self.answer(reply, id, outcome),
            Output::Fail { reply } => self.fail(&reply),
            Output::Put { ticket, put } => {
                let done = mailbox.put(self.shared.replica, put);
                self.results.push_back(Box::pin(done.map(move |result| Finished::Put(ticket, result))));
            }
            Output::Forget { account, device, upto } => {
                let done = mailbox.forget(self.shared.replica, account, device, upto);
                let forgotten = done.map(move |result| Finished::Forgotten(device, upto, result));
                self.results.push_back(Box::pin(forgotten));
            }
            Output::DropDevice { account, device, keep } => {
                let done = mailbox.drop_device(self.shared.replica, account, device, keep);
                self.results.push_back(Box::pin(done.map(move |result| Finished::DroppedDevice(device, result))));
            }
            Output::DropAccount { account } => {
                let done = mailbox.drop_account(self.shared.replica, account);
                let dropped = done.map(move |result| Finished::DroppedAccount(account, result));
                self.results.push_back(Box::pin(dropped));
            }
            Output::Recount { account } => {
                let done = mailbox.usage(account);
                self.results.push_back(Box::pin(done.map(move |result| Finished::Recounted(account, result))));
            }
            Output::Page { session, request } => {
                let done = mailbox.page(request);
                self.readings.push(Box::pin(done.map(move |result| Finished::Page(session, result))));
            }
            Output::Verify { account, key, reply, rejection } => {
                let done = mailbox.holds(account, key);
                let verified = done.map(move |held| Finished::Verified(key, reply, rejection, held));
                self.readings.push(Box::pin(verified));
            }
            Output::Wake { device, urgent } => self.wake(device, urgent),
        }
    }

    fn answer(&self, reply: ReplyTo, id: MessageId, outcome: Outcome) {
        match outcome {
            Outcome::Rejected(rejection @ Rejection::NotAvailable) => {
                self.shared.strangers.refused(&reply.session.device);
                self.shared.pace.refuse(reply, id, rejection);
            }
            Outcome::Rejected(_) => reply.session.answer(outcome, id, reply.to),
            Outcome::Delivered | Outcome::Stored | Outcome::Dropped => {
                self.shared.strangers.reached(&reply.session.device, &self.address);
                reply.session.answer(outcome, id, reply.to);
            }
        }
    }

    /// Feeds a result back to the machine.
    pub(super) fn finished(&mut self, finished: Finished) {
        let now = self.now();
        let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused_ms: None };
        match finished {
            Finished::Put(ticket, result) => {
                self.machine.put_done(ticket, &result, now, &mut world, &mut self.out);
            }
            Finished::Forgotten(device, upto, result) => {
                self.machine.forgotten(device, upto, result.ok(), now, &mut world, &mut self.out);
            }
            Finished::DroppedDevice(device, result) => self.machine.dropped(device, result.ok(), now),
            Finished::Recounted(account, result) => self.machine.recounted(account, result.as_deref().ok()),
            Finished::Page(session, result) => {
                if let Err(error) = &result {
                    self.shared.metrics.store_failed(error);
                    tracing::error!(%error, "a mailbox could not be read; it is tried again");
                }
                self.machine.page_read(session, result, now, &mut world, &mut self.out);
            }
            Finished::Verified(key, reply, rejection, held) => {
                self.machine.verified(&key, reply, rejection, held.ok(), &mut self.out);
            }
            Finished::DroppedAccount(_, Ok(())) => {}
            Finished::DroppedAccount(account, Err(error)) => {
                tracing::warn!(%account, %error, "what a withdrawn account has left could not be erased yet");
                if !self.takes_nothing {
                    let wait = tokio::time::sleep(DROP_AGAIN).map(move |()| Finished::DropAccount(account));
                    self.readings.push(Box::pin(wait));
                }
            }
            Finished::DropAccount(account) => self.out.push(Output::DropAccount { account }),
        }
    }

    /// Has the device's provider told that something waits.
    fn wake(&self, id: DeviceId, urgent: bool) {
        let Some(record) = self.machine.record() else { return };
        let Some(device) = record.device(id).filter(|device| !device.push_token.is_empty()) else { return };
        self.shared.pusher.wake(&record.provider, record.account, id, &device.push_token, urgent);
    }
}

/// Before what an account has left is erased again.
const DROP_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);
