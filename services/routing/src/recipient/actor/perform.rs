//! Carries out what the machine says, in order.

use futures::FutureExt as _;

use super::{Actor, Finished, Senses};
use crate::message::Ending;
use crate::recipient::machine::Output;
use crate::recipient::ReplyTo;

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
            Output::Answer { reply, id, outcome } => reply.session.answer(outcome, id, reply.to),
            Output::Fail { reply } => self.fail(&reply),
            Output::Put { ticket, put } => {
                let done = mailbox.put(put);
                self.results.push(Box::pin(done.map(move |result| Finished::Put(ticket, result))));
            }
            Output::Forget { account, device, upto } => {
                let done = mailbox.forget(account, device, upto);
                self.results.push(Box::pin(done.map(move |result| Finished::Erased(device, result))));
            }
            Output::DropDevice { account, device, keep } => {
                let done = mailbox.drop_device(account, device, keep);
                self.results.push(Box::pin(done.map(move |result| Finished::Erased(device, result))));
            }
            Output::DropAccount { account } => {
                let done = mailbox.drop_account(account);
                self.results.push(Box::pin(done.map(Finished::Dropped)));
            }
            Output::Recount { account } => {
                let done = mailbox.usage(account);
                self.results.push(Box::pin(done.map(move |result| Finished::Recounted(account, result))));
            }
            Output::Page { session, request } => {
                let done = mailbox.page(request);
                self.results.push(Box::pin(done.map(move |result| Finished::Page(session, result))));
            }
            Output::Wake { device } => self.wake(device),
        }
    }

    /// Feeds a result back to the machine.
    pub(super) fn finished(&mut self, finished: Finished) {
        let now = self.now();
        let mut world = Senses { sessions: &self.sessions, limits: &self.shared.limits };
        match finished {
            Finished::Put(ticket, result) => {
                self.machine.put_done(ticket, &result, now, &mut world, &mut self.out);
            }
            // What could not be erased comes once more, to be acknowledged once more.
            Finished::Erased(device, result) => self.machine.erased(device, result.unwrap_or_default()),
            Finished::Recounted(account, result) => self.machine.recounted(account, result.as_deref().ok()),
            Finished::Page(session, result) => {
                if let Err(error) = &result {
                    self.shared.metrics.store_failed(error);
                    tracing::error!(%error, "a mailbox could not be read; it is tried again");
                }
                self.machine.page_read(session, result, now, &mut world, &mut self.out);
            }
            Finished::Dropped(result) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "what an account left behind stays until it expires");
                }
            }
        }
    }

    /// Has the device's provider told that something waits.
    fn wake(&self, id: causeway_identity::DeviceId) {
        let Some(record) = self.machine.record() else { return };
        let Some(device) = record.device(id).filter(|device| !device.push_token.is_empty()) else { return };
        self.shared.pusher.wake(record.account, id, &record.provider, &device.push_token);
    }
}
