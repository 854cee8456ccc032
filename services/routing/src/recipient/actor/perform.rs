//! Carries out what the machine says, in order.

use std::future::Future;

use causeway_identity::{DeviceId, MessageId};
use causeway_runtime::telemetry::trace::{Hop, Step, TraceContext};
use futures::FutureExt as _;

use super::{Actor, Finished, Senses, owning};
use crate::mailbox::StoreError;
use crate::message::{Outcome, Rejection, Sender};
use crate::push::Wake;
use crate::recipient::ReplyTo;
use crate::recipient::machine::Output;
use crate::recipient::planted::out_of_order;
use crate::trails::Recipient;

impl Actor {
    pub(super) fn perform(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let mut outputs = out_of_order(std::mem::take(&mut self.out));
        for output in outputs.drain(..) {
            self.perform_one(output);
        }
        // What carrying it out has led to comes behind it; mostly there is nothing, and the room is used again.
        if self.out.is_empty() {
            self.out = outputs;
        }
    }

    fn perform_one(&mut self, output: Output<ReplyTo>) {
        if self.holds_back(&output) {
            self.hold_back(output);
            return;
        }
        let (mailbox, replica, epoch) = (&self.shared.mailbox, self.writes_as(), self.epoch);
        match output {
            Output::Attached { session, waiting, number } => {
                if let Some(session) = self.sessions.get(&session) {
                    session.attached(waiting, number);
                    let Sender { account, device, .. } = *session.device;
                    self.shared.presence.attach(session.key, account, device, number);
                }
            }
            Output::Deliver { session, tag, envelope, from_mailbox } => {
                if let Some(session) = self.sessions.get(&session) {
                    self.shared.metrics.delivering(from_mailbox);
                    if from_mailbox && crate::planted::is("delete-before-device-ack") {
                        let Sender { account, device, .. } = *session.device;
                        drop(mailbox.forget(replica, account, device, envelope.header.seq));
                    }
                    self.shared.trails.handed(&session.device, &envelope, from_mailbox, self.now);
                    session.deliver(tag, envelope, from_mailbox, self.now.instant);
                }
            }
            Output::Moved { session } => {
                if let Some(session) = self.sessions.get(&session).cloned() {
                    session.moved();
                    self.forget(&session);
                }
            }
            Output::End { session, reason } => {
                if let Some(session) = self.sessions.get(&session).cloned() {
                    session.end(reason, 0);
                    self.forget(&session);
                }
            }
            Output::Answer { reply, id, outcome } => self.answer(reply, id, outcome),
            Output::Fail { reply } => self.fail(&reply),
            Output::Put { ticket, put } => {
                let step = Step::under(Hop::STORE, put.header.trace);
                let done = mailbox.put(replica, put);
                self.in_order(done.map(move |result| {
                    drop(step);
                    (epoch, Finished::Put(ticket, result))
                }));
            }
            Output::Forget { account, device, upto } => {
                let done = mailbox.forget(replica, account, device, upto);
                self.in_order(done.map(move |result| (epoch, Finished::Forgotten(device, upto, result))));
            }
            Output::DropDevice { account, device, keep } => {
                // Under the same id there may be another device now, of which nothing is erased.
                if keep.is_none() {
                    self.shared.trails.removed(account, device);
                }
                let done = mailbox.drop_device(replica, account, device, keep);
                self.in_order(done.map(move |result| (epoch, Finished::DroppedDevice(device, result))));
            }
            Output::DropAccount { account } => {
                self.shared.trails.withdrawn(account);
                let done = mailbox.drop_account(replica, account);
                self.in_order(done.map(move |result| (epoch, Finished::DroppedAccount(account, result))));
            }
            Output::Recount { account } => {
                let done = mailbox.usage(account);
                self.in_order(done.map(move |result| (epoch, Finished::Recounted(account, result))));
            }
            Output::Page { session, request } => {
                let done = mailbox.page(request);
                self.read(done.map(move |result| (epoch, Finished::Page(session, result))));
            }
            Output::Verify { account, key, reply, rejection } => {
                let done = mailbox.holds(account, key);
                self.read(done.map(move |held| (epoch, Finished::Verified(key, reply, rejection, held))));
            }
            Output::Accepted { account, from, header, devices, asks_again } => {
                self.shared.metrics.accepted(header.class);
                let unknown = &from.provider;
                let provider = self.machine.record().map_or(unknown, |record| &record.provider);
                let to = Recipient { account, address: &self.address, provider };
                self.shared.trails.accepted(to, &from, &header, &devices, asks_again, self.now);
            }
            Output::Kept { account, seq, devices } => self.shared.trails.queued(account, seq, &devices, self.now),
            Output::Acknowledged { account, seq, device } => {
                self.shared.trails.acknowledged(account, seq, device, self.now);
            }
            Output::Settled { account, seq, class, how } => {
                self.shared.metrics.settled(class, how);
                self.shared.trails.settled(account, seq, how, self.now);
            }
            Output::Wake { device, urgent, trace } => self.wake(device, urgent, trace),
        }
    }

    fn in_order(&mut self, done: impl Future<Output = (u64, Finished)> + Send + 'static) {
        self.results.push(Box::pin(done));
    }

    /// A result whose place among the others does not matter.
    pub(super) fn read(&mut self, done: impl Future<Output = (u64, Finished)> + Send + 'static) {
        self.readings.push(Box::pin(done));
    }

    fn answer(&self, reply: ReplyTo, id: MessageId, outcome: Outcome) {
        if let Some(step) = &reply.step {
            step.outcome(outcome.name());
        }
        let is_wrong = outcome == Outcome::Delivered && crate::planted::is("rejected-delivered");
        let outcome = if is_wrong { Outcome::Rejected(Rejection::NotAvailable) } else { outcome };
        match outcome {
            Outcome::Rejected(rejection @ Rejection::NotAvailable) => {
                self.shared.trails.refused(&reply.session.device, id, &rejection);
                self.shared.strangers.refused(&reply.session.device);
                self.shared.pace.refuse(reply, id, rejection);
            }
            Outcome::Rejected(ref rejection) => {
                self.shared.trails.refused(&reply.session.device, id, rejection);
                reply.session.answer(outcome, id, reply.to);
            }
            Outcome::Delivered | Outcome::Stored | Outcome::Dropped => {
                let (from, last) = (&reply.session.device, reply.session.reached());
                self.shared.strangers.reached(from, &self.address, last, self.now.instant);
                reply.session.answer(outcome, id, reply.to);
            }
        }
    }

    /// Feeds a result back to the machine.
    pub(super) fn finished(&mut self, (epoch, finished): (u64, Finished)) {
        match &finished {
            Finished::Forgotten(_, _, Ok(erased)) => self.shared.metrics.left_mailbox("acknowledged", erased.messages),
            Finished::DroppedDevice(_, Ok(erased)) => {
                self.shared.metrics.left_mailbox("device-removed", erased.messages);
            }
            _ => {}
        }
        if epoch != self.epoch {
            self.finished_late(finished);
            return;
        }
        if let Some(error) = finished.uncertain() {
            tracing::info!(%error, "what is known of an account is given up");
            self.reset(error.reason());
            self.finished_late(finished);
            return;
        }
        let now = self.now;
        let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused: None };
        match finished {
            Finished::Put(ticket, Ok(outcome)) => {
                self.machine.put_done(ticket, &outcome, now, &mut world, &mut self.out);
            }
            // It was uncertain.
            Finished::Put(_, Err(_)) => {}
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
            Finished::DroppedAccount(account, Ok(())) => self.dropped_account(account),
            // Whoever owns it now hears of it too.
            Finished::DroppedAccount(_, Err(StoreError::Fenced)) => {}
            Finished::DroppedAccount(account, Err(error)) => {
                tracing::warn!(%account, %error, "what a withdrawn account has left could not be erased yet");
                if !self.takes_nothing {
                    let wait = tokio::time::sleep(DROP_AGAIN);
                    self.read(wait.map(move |()| (epoch, Finished::DropAccount(account))));
                }
            }
            Finished::DropAccount(account) => self.out.push(Output::DropAccount { account }),
            Finished::LookedUp => self.screen_waiting(),
            Finished::Released(wanted, result) => owning::tell(wanted, &result),
        }
    }

    /// A result of before everything was forgotten: of use only for those who wait for it.
    fn finished_late(&mut self, finished: Finished) {
        match finished {
            Finished::Verified(key, reply, _, Ok(true)) => self.answer(reply, key.id, Outcome::Stored),
            Finished::Verified(key, reply, rejection, Ok(false)) => {
                self.answer(reply, key.id, Outcome::Rejected(rejection));
            }
            Finished::Verified(_, reply, _, Err(_)) => self.fail(&reply),
            Finished::LookedUp => self.screen_waiting(),
            Finished::Released(wanted, result) => owning::tell(wanted, &result),
            Finished::Put(..)
            | Finished::Forgotten(..)
            | Finished::DroppedDevice(..)
            | Finished::Recounted(..)
            | Finished::Page(..)
            | Finished::DroppedAccount(..)
            | Finished::DropAccount(_) => {}
        }
    }

    /// Has the device's provider told that something waits.
    fn wake(&self, id: DeviceId, urgent: bool, trace: Option<TraceContext>) {
        let Some(record) = self.machine.record() else { return };
        let Some(device) = record.device(id).filter(|device| !device.push_token.is_empty()) else { return };
        let wake = Wake { token: device.push_token.clone(), urgent, trace };
        self.shared.pusher.wake(&record.provider, record.account, id, wake);
    }
}

/// Before what an account has left is erased again.
const DROP_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

impl Finished {
    /// The write may have happened or not, or another replica owns the account: what is known of it may be wrong. A put
    /// that has happened although it was not told so has a place in the order that readings have passed.
    fn uncertain(&self) -> Option<StoreError> {
        let error = match self {
            // Also one that certainly has not: those behind it were given up with it.
            Self::Put(_, result) => result.as_ref().err(),
            Self::Forgotten(_, _, result) | Self::DroppedDevice(_, result) => {
                result.as_ref().err().filter(|error| !error.is_certain())
            }
            _ => None,
        };
        error.cloned()
    }
}
