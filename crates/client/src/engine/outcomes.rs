//! What becomes of sent messages: the server's answers, and how a wrong list of devices is mended.

use std::time::Duration;

use causeway_identity::{Address, DeviceId, MessageId};
use causeway_stanza::{DeviceMismatch, Fate, MessageClass, Rejected, Rejection};
use tokio::time::Instant;

use super::lanes::{Claim, InFlight, Waiting, pause};
use super::{Engine, Reply};
use crate::content;
use crate::error::ClientError;
use crate::event::{EventKind, IdentityChanged, Outcome, RejectReason, SendResult};
use crate::random;
use crate::signal::SignalError;
use crate::store::{InboxItem, Outgoing, Peer, Purpose};

/// A message whose list of devices was mended this often is given up.
const MAX_REPAIRS: u32 = 5;
/// Longest a call signal is worth sending.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

impl Engine {
    /// The server says what became of a message.
    pub(super) async fn outcome(&mut self, outcome: causeway_stanza::Outcome) -> Result<(), SignalError> {
        let Some(flying) = self.outbox.land(outcome.id, &outcome.to) else { return Ok(()) };
        let result = match outcome.fate {
            Fate::Delivered => SendResult::Delivered,
            Fate::Stored => SendResult::Stored,
            Fate::Dropped => SendResult::Dropped,
            Fate::Rejected(Rejected::Devices(mismatch)) => return self.mend(flying, &mismatch).await,
            Fate::Rejected(Rejected::RateLimited { retry_after_ms }) => {
                if let Some(lane) = self.outbox.lane(&outcome.to) {
                    lane.pushed_back();
                    lane.not_before =
                        Some(Instant::now() + pause(if retry_after_ms == 0 { 1000 } else { retry_after_ms }));
                }
                self.outbox.put_back(flying.waiting);
                return Ok(());
            }
            Fate::Rejected(Rejected::NotAvailable) => rejected(Rejection::NotAvailable),
            Fate::Rejected(Rejected::TooLarge) => rejected(Rejection::TooLarge),
            Fate::Rejected(Rejected::RequestPending) => rejected(Rejection::RequestPending),
        };
        if let Some(lane) = self.outbox.lane(&outcome.to) {
            lane.taken();
        }
        if let Some(session) = &mut self.session {
            session.window += 1;
        }
        self.finish(&flying.waiting, flying.outgoing, result).await
    }

    /// The list of devices was not the directory's: learn, and try again when all that is in flight has come back.
    async fn mend(&mut self, flying: InFlight, mismatch: &DeviceMismatch) -> Result<(), SignalError> {
        let InFlight { waiting, mut outgoing, .. } = flying;
        outgoing.repairs += 1;
        if outgoing.repairs > MAX_REPAIRS {
            return self.finish(&waiting, outgoing, rejected(Rejection::Devices)).await;
        }
        let to = outgoing.to.clone();
        self.put_outgoing(outgoing);
        self.outbox.put_back(waiting);
        let Some(lane) = self.outbox.lane(&to) else { return Ok(()) };
        lane.mending = true;
        lane.pushed_back();
        let unknown = mismatch.missing.iter().chain(mismatch.stale.iter());
        match self.peer(&to).await? {
            Some(Peer { address, account, devices: Some(mut devices) }) => {
                let before: Vec<_> = devices.iter().map(|device| device.id).collect();
                devices.retain(|device| !mismatch.extra.contains(&device.id));
                let unchanged = mismatch.missing.is_empty() && devices.len() == before.len();
                if !unchanged {
                    self.devices_changed(&address, &before, devices.iter().map(|device| device.id));
                }
                self.put_peer(Peer { address, account, devices: Some(devices) });
                if let Some(lane) = self.outbox.lane(&to) {
                    unknown.for_each(|device| lane.claim.add(*device));
                }
            }
            _ => {
                if let Some(lane) = self.outbox.lane(&to) {
                    lane.claim = Claim::All;
                }
            }
        }
        Ok(())
    }

    /// The list of somebody's devices is another one now. If none is left that was known, nothing ties the address to
    /// whom it was before.
    pub(super) fn devices_changed(
        &mut self,
        address: &Address,
        before: &[DeviceId],
        now: impl Iterator<Item = DeviceId>,
    ) {
        let now: Vec<DeviceId> = now.collect();
        self.turn.passes.push(EventKind::DevicesChanged { address: address.clone() });
        if !before.is_empty() && !now.iter().any(|device| before.contains(device)) {
            let change = IdentityChanged { address: address.clone(), device: None };
            self.put_inbox(InboxItem::IdentityChanged(change));
        } else {
            self.report_new_devices(address, before, &now);
        }
    }

    /// A device that joins somebody's known ones speaks with a key that nobody has vouched for but the provider.
    pub(super) fn report_new_devices(&mut self, address: &Address, before: &[DeviceId], now: &[DeviceId]) {
        for device in now.iter().filter(|device| !before.contains(device)) {
            let change = IdentityChanged { address: address.clone(), device: Some(*device) };
            self.put_inbox(InboxItem::IdentityChanged(change));
        }
    }

    /// A message has its outcome.
    pub(super) async fn finish(
        &mut self,
        waiting: &Waiting,
        mut outgoing: Outgoing,
        result: SendResult,
    ) -> Result<(), SignalError> {
        self.outbox.finish(&waiting.header);
        outgoing.result = Some(result);
        outgoing.finished_ms = self.now_ms();
        // Which devices were addressed matters if one of them cannot read it; the ciphertexts do not.
        outgoing.sealed.iter_mut().for_each(|sealed| sealed.ciphertext.clear());
        self.put_outgoing(outgoing.clone());
        if outgoing.purpose != Purpose::Message {
            return Ok(());
        }
        let told = outgoing.class == MessageClass::Chat && result.is_accepted() && outgoing.to != self.config.address;
        if told {
            self.tell_own_devices(&outgoing).await?;
        }
        let mut outcome = describe(&outgoing, result);
        if let Some(since) = waiting.since {
            outcome.latency = since.elapsed();
        }
        for reply in self.waiters.remove(&outgoing.id).into_iter().flatten() {
            let outcome = outcome.clone();
            self.turn.reply(move || drop(reply.send(Ok(outcome))));
        }
        self.turn.passes.push(EventKind::Outcome(outcome));
        Ok(())
    }

    /// The user's other devices show what this one sent.
    async fn tell_own_devices(&mut self, sent: &Outgoing) -> Result<(), SignalError> {
        let own = self.config.address.clone();
        let alone = self.peer(&own).await?.and_then(|peer| peer.devices).is_none_or(|devices| devices.is_empty());
        if !alone {
            let id = random::message_id(&mut self.random);
            let sync = content::seal_sync(id, self.now_ms(), &sent.to, &sent.content);
            self.enqueue(id, own, MessageClass::Chat, Purpose::Sync, sync);
        }
        Ok(())
    }

    /// Gives up what is not worth sending any more. `all`: chat messages too.
    pub(super) async fn expire(&mut self, all: bool) -> Result<(), SignalError> {
        let now_ms = self.now_ms();
        let timing = self.config.timing;
        let expired = |waiting: &&Waiting| {
            let deadline = match waiting.header.class {
                MessageClass::Ephemeral => timing.ephemeral_deadline,
                MessageClass::Call => CALL_DEADLINE,
                MessageClass::Chat if all => timing.send_deadline,
                MessageClass::Chat => return false,
            };
            Duration::from_millis(now_ms.saturating_sub(waiting.header.created_ms)) >= deadline
        };
        let over: Vec<_> = self.outbox.queued().filter(expired).cloned().collect();
        for waiting in over {
            let result = match waiting.header.class {
                MessageClass::Ephemeral => SendResult::Dropped,
                _ => SendResult::Rejected(RejectReason::Expired),
            };
            self.give_up(&waiting, result).await?;
        }
        Ok(())
    }

    /// The application asks what became of a message.
    pub(super) async fn tell_outcome(
        &mut self,
        id: MessageId,
        reply: Reply<Option<Outcome>>,
    ) -> Result<(), SignalError> {
        let outcome = self.known_outcome(id).await?;
        self.turn.reply(|| drop(reply.send(outcome)));
        Ok(())
    }

    /// The application waits for it.
    pub(super) async fn await_outcome(&mut self, id: MessageId, reply: Reply<Outcome>) -> Result<(), SignalError> {
        match self.known_outcome(id).await? {
            Ok(Some(outcome)) => self.turn.reply(|| drop(reply.send(Ok(outcome)))),
            Ok(None) => {
                let waiters = self.waiters.entry(id).or_default();
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(reply);
            }
            Err(error) => self.turn.reply(|| drop(reply.send(Err(error)))),
        }
        Ok(())
    }

    async fn known_outcome(&self, id: MessageId) -> Result<Result<Option<Outcome>, ClientError>, SignalError> {
        let outgoing = self.outgoing(id).await?.filter(|outgoing| outgoing.purpose == Purpose::Message);
        Ok(match outgoing {
            Some(outgoing) => Ok(outgoing.result.map(|result| describe(&outgoing, result))),
            None => Err(ClientError::UnknownMessage(id)),
        })
    }
}

fn rejected(reason: Rejection) -> SendResult {
    SendResult::Rejected(RejectReason::Server(reason))
}

fn describe(outgoing: &Outgoing, result: SendResult) -> Outcome {
    let latency = Duration::from_millis(outgoing.finished_ms.saturating_sub(outgoing.created_ms));
    Outcome { id: outgoing.id, to: outgoing.to.clone(), result, latency }
}
