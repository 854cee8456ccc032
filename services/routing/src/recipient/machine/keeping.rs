//! The mailbox's side: what is written, what that means for messages, and when a message has its outcome.

use std::sync::Arc;

use causeway_identity::{AccountId, DeviceId};

use super::{Machine, Now, Output, Part, State, UnderWay, World};
use crate::mailbox::{DeviceUsage, Put, PutOutcome, StoreError, Usage};
use crate::message::{Class, Enc, Envelope, Header, MessageKey, Outcome, Seq, weight};
use crate::recipient::device::{Device, Mode, Ticket};
use crate::recipient::window::Kept;

impl<R> Machine<R> {
    /// Queues a message for devices that have not been given it.
    pub(super) fn keep_accepted(
        &mut self,
        account: AccountId,
        header: &Arc<Header>,
        parts: Vec<Enc>,
        out: &mut Vec<Output<R>>,
    ) {
        let ticket = self.put(account, header, parts.clone(), out);
        for enc in parts {
            let Some(Device { served: Some(served), .. }) = self.devices.get_mut(&enc.device) else { continue };
            if let Mode::Behind(behind) = &mut served.mode {
                behind.note_put(ticket, &Envelope { header: Arc::clone(header), enc });
            }
        }
    }

    /// Queues a message that a session was given and has not acknowledged, now that the session is over.
    pub(super) fn keep_given(
        &mut self,
        account: AccountId,
        id: DeviceId,
        envelope: Envelope,
        out: &mut Vec<Output<R>>,
    ) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.reserved.sub(Usage::one(envelope.weight()));
        }
        // A message that was given up and came again is another one here.
        if self.pending.get(&envelope.header.key).is_some_and(|pending| pending.header.seq == envelope.header.seq) {
            self.mark(&envelope.header.key, id, |part| part.state.after_live(State::Writing));
        }
        self.put(account, &envelope.header, vec![envelope.enc], out);
    }

    /// The window of a message is over: what has not been acknowledged is written.
    pub(super) fn window_over(&mut self, key: &MessageKey, seq: Seq, out: &mut Vec<Output<R>>) {
        let Some(account) = self.account else { return };
        let Some(pending) = self.pending.get_mut(key).filter(|pending| pending.header.seq == seq) else { return };
        let unacknowledged = pending.parts.iter_mut().filter(|part| part.state == State::Live);
        if pending.header.class == Class::Ephemeral {
            unacknowledged.for_each(|part| part.state = State::Missed);
            self.settle(key, out);
            return;
        }
        let parts: Vec<Enc> = unacknowledged
            .map(|part| {
                part.state = State::Writing;
                part.enc.clone()
            })
            .collect();
        let header = Arc::clone(&pending.header);
        if parts.is_empty() {
            return;
        }
        for enc in &parts {
            let Some(device) = self.devices.get_mut(&enc.device) else { continue };
            device.reserved.sub(Usage::one(weight(enc)));
            if let Some(delivery) = device.served.as_mut().and_then(|served| served.window.at(seq)) {
                delivery.kept = Kept::Writing(Envelope { header: Arc::clone(&header), enc: enc.clone() });
            }
        }
        self.put(account, &header, parts, out);
    }

    fn put(
        &mut self,
        account: AccountId,
        header: &Arc<Header>,
        parts: Vec<Enc>,
        out: &mut Vec<Output<R>>,
    ) -> Ticket {
        self.last_ticket = Ticket(self.last_ticket.0 + 1);
        let ticket = self.last_ticket;
        let weights: Vec<(DeviceId, usize)> = parts.iter().map(|enc| (enc.device, weight(enc))).collect();
        for (id, weight) in &weights {
            let device = self.devices.entry(*id).or_default();
            device.puts.insert(ticket);
            device.kept.add(Usage::one(*weight));
            if let Some(since) = &mut device.recount {
                since.add(Usage::one(*weight));
            }
        }
        self.puts.insert(ticket, UnderWay { key: header.key, seq: header.seq, parts: weights });
        out.push(Output::Put { ticket, put: Put { account, header: Arc::clone(header), parts } });
        ticket
    }

    /// A put is over.
    pub(crate) fn put_done(
        &mut self,
        ticket: Ticket,
        result: &Result<PutOutcome, StoreError>,
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) {
        let Some(UnderWay { key, seq, parts }) = self.puts.remove(&ticket) else { return };
        // That it was full cannot be, since there was room when the message was accepted; were it so, nothing was kept.
        let repeats = match result {
            Ok(PutOutcome::Stored { repeats }) => Some(repeats),
            Ok(PutOutcome::Full) | Err(_) => None,
        };
        let stored = repeats.is_some();
        for (id, weight) in &parts {
            let Some(device) = self.devices.get_mut(id) else { continue };
            if !device.puts.remove(&ticket) {
                continue;
            }
            if repeats.is_none_or(|repeats| repeats.contains(id)) {
                device.kept.sub(Usage::one(*weight));
            }
            match &mut device.served {
                Some(served) => {
                    if let Some(delivery) = served.window.at(seq) {
                        delivery.kept = match std::mem::replace(&mut delivery.kept, Kept::Yes) {
                            Kept::Writing(envelope) if !stored => {
                                device.reserved.add(Usage::one(*weight));
                                Kept::No(envelope)
                            }
                            Kept::Writing(_) => Kept::Yes,
                            as_before => as_before,
                        };
                    }
                    if let Mode::Behind(behind) = &mut served.mode {
                        behind.note_done(ticket, stored);
                    }
                }
                None if stored => out.push(Output::Wake { device: *id }),
                None => {}
            }
        }
        if self.pending.get(&key).is_some_and(|pending| pending.header.seq == seq) {
            if stored {
                for (id, _) in &parts {
                    self.mark(&key, *id, |part| if part.state == State::Writing { State::Stored } else { part.state });
                }
                self.settle(&key, out);
            } else {
                self.fail_unless_acknowledged(&key, &parts, out);
            }
        }
        for (id, _) in &parts {
            self.joined(*id, now, world, out);
            self.tidy(*id);
        }
    }

    /// Copies could not be written. If their devices have acknowledged them meanwhile, that does not matter.
    fn fail_unless_acknowledged(&mut self, key: &MessageKey, parts: &[(DeviceId, usize)], out: &mut Vec<Output<R>>) {
        let lost = self.pending.get(key).is_some_and(|pending| {
            let lost = |part: &Part| {
                part.state == State::Writing && parts.iter().any(|(id, _)| *id == part.enc.device)
            };
            pending.parts.iter().any(lost)
        });
        if lost {
            self.fail(key, out);
        }
    }

    /// The mailbox has erased entries of a device.
    pub(crate) fn erased(&mut self, id: DeviceId, usage: Usage) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.kept.sub(usage);
        }
        self.tidy(id);
    }

    /// What was asked for by [`Output::Recount`]; `None` when the mailbox did not answer.
    pub(crate) fn recounted(&mut self, account: AccountId, usage: Option<&[DeviceUsage]>) {
        if self.account != Some(account) {
            return;
        }
        for (id, device) in &mut self.devices {
            let Some(since) = device.recount.take() else { continue };
            if let Some(usage) = usage {
                let known = usage.iter().find(|known| known.device == *id);
                device.kept = known.map(|known| known.usage).unwrap_or_default();
                device.kept.add(since);
            }
        }
    }

    /// Changes the state of a message for one device; false if the message has its outcome or is not for the device.
    pub(super) fn mark(&mut self, key: &MessageKey, id: DeviceId, state: impl FnOnce(&Part) -> State) -> bool {
        let part = self.pending.get_mut(key).and_then(|pending| {
            pending.parts.iter_mut().find(|part| part.enc.device == id)
        });
        let Some(part) = part else { return false };
        part.state = state(part);
        true
    }

    /// Answers a message whose outcome is certain now.
    pub(super) fn settle(&mut self, key: &MessageKey, out: &mut Vec<Output<R>>) {
        let Some(pending) = self.pending.get(key) else { return };
        let all = |state| pending.parts.iter().all(|part: &Part| part.state == state);
        let any = |state| pending.parts.iter().any(|part: &Part| part.state == state);
        let outcome = if all(State::Acknowledged) {
            Outcome::Delivered
        } else if pending.header.class == Class::Ephemeral {
            if !any(State::Missed) && !any(State::Gone) {
                return;
            }
            Outcome::Dropped
        } else if any(State::Live) || any(State::Writing) {
            return;
        } else if any(State::Stored) {
            Outcome::Stored
        } else {
            // A device has been removed under way, and no other copy is in a mailbox: neither outcome would be true.
            self.fail(key, out);
            return;
        };
        let Some(pending) = self.pending.remove(key) else { return };
        self.outcomes.remember(*key, outcome.clone());
        for reply in pending.replies {
            out.push(Output::Answer { reply, id: key.id, outcome: outcome.clone() });
        }
    }

    /// Gives a message up without an outcome. Its repeat is a new message here; what devices were given of it stays
    /// with them.
    fn fail(&mut self, key: &MessageKey, out: &mut Vec<Output<R>>) {
        if let Some(pending) = self.pending.remove(key) {
            out.extend(pending.replies.into_iter().map(|reply| Output::Fail { reply }));
        }
    }
}
