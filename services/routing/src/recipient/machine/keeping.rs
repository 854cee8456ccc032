//! The mailbox's side: what is written, what that means for messages, and when a message has its outcome.
//!
//! A message is written once, for all devices that have not acknowledged it by then, in one put. So one that is found in
//! a mailbox later, by a process that remembers nothing of it, is safe for all of its devices. And puts go out in the
//! order of acceptance, so that a reading never passes over a message that is still to come.

use std::collections::BTreeSet;
use std::sync::Arc;

use causeway_identity::{AccountId, DeviceId};

use super::{Machine, Now, Output, Pending, RETRY, State, UnderWay, Unwritten, World};
use crate::mailbox::{DeviceUsage, Put, PutOutcome, Usage};
use crate::message::{Class, Enc, Header, MessageKey, Outcome, Seq, weight};
use crate::recipient::device::{Device, Mode, Ticket};
use crate::recipient::window::Kept;
use crate::trails::Settled;

impl<R> Machine<R> {
    /// The window of a message is over: what has not been acknowledged is written, or was not in time.
    pub(super) fn window_over(&mut self, key: &MessageKey, out: &mut Vec<Output<R>>) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        if pending.header.class == Class::Ephemeral {
            for part in pending.parts.iter_mut().filter(|part| part.state == State::Live) {
                part.state = State::Missed;
            }
            self.settle(key, out);
        } else {
            self.write(key, out);
        }
    }

    /// Writes a message, after those before it that are to be written too.
    pub(super) fn write(&mut self, key: &MessageKey, out: &mut Vec<Output<R>>) {
        let Some(seq) = self.pending.get(key).map(|pending| pending.header.seq) else { return };
        self.write_upto(seq, out);
    }

    /// Writes everything that is to be written sooner or later.
    pub(super) fn write_all_waiting(&mut self, out: &mut Vec<Output<R>>) {
        let last = self.unwritten.iter().rev().find(|unwritten| unwritten.waits).map(|unwritten| unwritten.seq);
        if let Some(last) = last {
            self.write_upto(last, out);
        }
    }

    /// Writes the message with this place in the order, those before it that wait to be written, and what else must not
    /// come behind them.
    ///
    /// A message is given to the store only after every earlier one of its sender that has no outcome, also if that one
    /// may yet be acknowledged in time. Were the later one kept alone, and the earlier one lost with this process or in a
    /// put that fails, then its sender would repeat it, and devices would get it last. Written before, it breaks the
    /// [`Chain`](crate::mailbox::Chain) of the later one if it fails.
    fn write_upto(&mut self, upto: Seq, out: &mut Vec<Output<R>>) {
        if let Some(first) = self.unwritten.front()
            && first.seq == upto
        {
            let key = first.key;
            self.write_one(&key, out);
            return;
        }
        let mut senders: BTreeSet<(AccountId, DeviceId)> = BTreeSet::new();
        let mut in_reverse: Vec<MessageKey> = Vec::new();
        let known = self.unwritten.partition_point(|unwritten| unwritten.seq <= upto);
        for Unwritten { seq, key, waits } in self.unwritten.range(..known).rev() {
            let sender = (key.account, key.device);
            if *seq == upto || *waits {
                senders.insert(sender);
            }
            if senders.contains(&sender) {
                in_reverse.push(*key);
            }
        }
        for key in in_reverse.iter().rev() {
            self.write_one(key, out);
        }
    }

    fn write_one(&mut self, key: &MessageKey, out: &mut Vec<Output<R>>) {
        let Some(account) = self.account else { return };
        let Some(pending) = self.pending.get_mut(key).filter(|pending| pending.put.is_none()) else { return };
        let seq = pending.header.seq;
        if let Ok(at) = self.unwritten.binary_search_by_key(&seq, |unwritten| unwritten.seq) {
            self.unwritten.remove(at);
        }
        let mut parts: Vec<Enc> = Vec::with_capacity(pending.parts.len());
        for part in &mut pending.parts {
            if matches!(part.state, State::Live | State::Waiting) {
                part.state = State::Writing;
                parts.push(part.enc.clone());
            }
        }
        if parts.is_empty() {
            return;
        }
        self.last_ticket = Ticket(self.last_ticket.0 + 1);
        let ticket = self.last_ticket;
        pending.put = Some(ticket);
        let header = Arc::clone(&pending.header);
        let weights: Vec<(DeviceId, usize)> = parts.iter().map(|enc| (enc.device, weight(enc))).collect();
        for (id, weight) in &weights {
            let device = self.devices.or_default(*id);
            device.puts.push_back(ticket);
            device.reserved.sub(Usage::one(*weight));
            device.kept.add(Usage::one(*weight));
            if let Some(since) = &mut device.recount {
                since.add(Usage::one(*weight));
            }
            if let Some(delivery) = device.served.as_mut().and_then(|served| served.window.at(seq)) {
                delivery.kept = Kept::Writing;
            }
        }
        let (urgent, trace) = (header.class == Class::Call, header.trace);
        self.puts.push_back((ticket, UnderWay { key: *key, seq, urgent, trace, parts: weights }));
        out.push(Output::Put { ticket, put: Put { account, chain: self.chain.clone(), header, parts } });
        if crate::planted::is("ack-before-durable") {
            self.stored(key, out);
        }
    }

    /// A put has come to its end. One that failed does not come here: everything is loaded anew then.
    pub(crate) fn put_done(
        &mut self,
        ticket: Ticket,
        outcome: &PutOutcome,
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) {
        let Ok(at) = self.puts.binary_search_by_key(&ticket, |(ticket, _)| *ticket) else { return };
        let Some((_, UnderWay { key, seq, urgent, trace, parts })) = self.puts.remove(at) else { return };
        // That it was full cannot be, since there was room when the message was accepted; were it so, nothing was kept.
        let repeats = match outcome {
            PutOutcome::Stored { repeats } => Some(repeats),
            PutOutcome::Full => None,
        };
        for (id, weight) in &parts {
            let Some(device) = self.devices.get_mut(id) else { continue };
            let Ok(at) = device.puts.binary_search(&ticket) else { continue };
            device.puts.remove(at);
            if repeats.is_none_or(|repeats| repeats.contains(id)) {
                device.kept.sub(Usage::one(*weight));
            }
            let Some(served) = &mut device.served else {
                if repeats.is_some() {
                    out.push(Output::Wake { device: *id, urgent, trace });
                }
                continue;
            };
            if let Some(delivery) = served.window.at(seq)
                && delivery.kept == Kept::Writing
            {
                delivery.kept = if repeats.is_some() { Kept::Yes } else { Kept::No };
                if repeats.is_none() {
                    device.reserved.add(Usage::one(*weight));
                }
            }
            if let Mode::Behind(behind) = &mut served.mode {
                if repeats.is_some() {
                    behind.note_stored(seq)
                } else {
                    behind.note_lost(seq)
                }
                if !served.window.is_half_free() {
                    behind.let_go();
                }
            }
        }
        if let (Some(account), Some(_)) = (self.account, repeats) {
            out.push(Output::Kept { account, seq, devices: parts.iter().map(|(id, _)| *id).collect() });
        }
        if self.is_pending(&key, seq) {
            if repeats.is_some() {
                self.stored(&key, out);
            } else {
                self.not_stored(&key, out);
            }
        }
        for (id, _) in &parts {
            self.joined(*id, now, world, out);
            self.tidy(*id);
        }
    }

    fn stored(&mut self, key: &MessageKey, out: &mut Vec<Output<R>>) {
        if let Some(pending) = self.pending.get_mut(key) {
            for part in pending.parts.iter_mut().filter(|part| part.state == State::Writing) {
                part.state = State::Stored;
            }
        }
        self.settle(key, out);
    }

    /// A put has failed. If all of its devices have acknowledged meanwhile, that does not matter.
    fn not_stored(&mut self, key: &MessageKey, out: &mut Vec<Output<R>>) {
        if self.pending.get(key).is_some_and(|pending| pending.any(State::Writing)) {
            self.fail(key, out);
        } else {
            self.settle(key, out);
        }
    }

    /// What was ordered by [`Output::Forget`]; `None` when it did not happen, which is made up for later.
    pub(crate) fn forgotten(
        &mut self,
        id: DeviceId,
        upto: Seq,
        erased: Option<Usage>,
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        device.forgets = device.forgets.saturating_sub(1);
        match erased {
            Some(usage) => device.kept.sub(usage),
            None => {
                device.unforgotten = device.unforgotten.max(Some(upto));
                self.try_again_at(now.instant + RETRY);
            }
        }
        self.joined(id, now, world, out);
        self.tidy(id);
    }

    /// What was ordered by [`Output::DropDevice`]; `None` when it did not happen, which is made up for later.
    pub(crate) fn dropped(&mut self, id: DeviceId, erased: Option<Usage>, now: Now) {
        match (erased, self.devices.get_mut(&id)) {
            (Some(usage), Some(device)) => device.kept.sub(usage),
            (Some(_), None) => {}
            (None, _) => {
                self.undropped.insert(id);
                self.try_again_at(now.instant + RETRY);
            }
        }
        self.tidy(id);
    }

    /// Orders again what the mailbox has failed to erase.
    pub(super) fn erase_again(&mut self, out: &mut Vec<Output<R>>) {
        let (Some(account), Some(record)) = (self.account, self.record.clone()) else { return };
        for id in std::mem::take(&mut self.undropped) {
            let keep = record.device(id).map(|device| device.registration);
            out.push(Output::DropDevice { account, device: id, keep });
        }
        for (id, device) in self.devices.iter_mut() {
            if let Some(upto) = device.unforgotten.take() {
                device.forgets += 1;
                out.push(Output::Forget { account, device: *id, upto });
            }
        }
    }

    /// What was asked for by [`Output::Recount`]; `None` when the mailbox did not answer.
    pub(crate) fn recounted(&mut self, account: AccountId, usage: Option<&[DeviceUsage]>) {
        if self.account != Some(account) {
            return;
        }
        let ids: Vec<DeviceId> = self.devices.keys().copied().collect();
        for id in ids {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            let Some(since) = device.recount.take() else { continue };
            if let Some(usage) = usage {
                let known = usage.iter().find(|known| known.device == id);
                device.kept = known.map(|known| known.usage).unwrap_or_default();
                device.kept.add(since);
            }
            self.tidy(id);
        }
    }

    /// Changes how far a message is for a device, if it has no outcome yet.
    pub(super) fn mark(&mut self, key: &MessageKey, id: DeviceId, next: impl FnOnce(State) -> State) {
        if let Some(pending) = self.pending.get_mut(key) {
            pending.set(id, next);
        }
    }

    /// Answers a message if its outcome is certain now.
    pub(super) fn settle(&mut self, key: &MessageKey, out: &mut Vec<Output<R>>) {
        let Some(pending) = self.pending.get(key) else { return };
        let outcome = if pending.parts.iter().all(|part| part.state == State::Acknowledged) {
            Outcome::Delivered
        } else if pending.header.class == Class::Ephemeral {
            if !pending.any(State::Missed) && !pending.any(State::Gone) {
                return;
            }
            Outcome::Dropped
        } else if pending.any(State::Live) {
            return;
        } else if pending.any(State::Waiting) {
            self.write(key, out);
            return;
        } else if pending.any(State::Writing) {
            return;
        } else if pending.any(State::Stored) {
            Outcome::Stored
        } else {
            // A device has been removed under way, and no other copy is in a mailbox: neither outcome would be true.
            self.fail(key, out);
            return;
        };
        let Some(pending) = self.pending.remove(key) else { return };
        self.forget_unwritten(pending.header.seq);
        self.forget_windows();
        self.remember(*key, &outcome);
        let how = match outcome {
            Outcome::Delivered => Settled::Acknowledged,
            Outcome::Dropped => Settled::Dropped,
            Outcome::Stored | Outcome::Rejected(_) => Settled::Waiting,
        };
        self.settled(&pending, how, out);
        let answer = |reply| Output::Answer { reply, id: key.id, outcome: outcome.clone() };
        out.extend(pending.replies.into_iter().map(answer));
    }

    /// Tells that a message which has just been taken out of what is pending is settled.
    pub(super) fn settled(&self, pending: &Pending<R>, how: Settled, out: &mut Vec<Output<R>>) {
        if let Some(account) = self.account {
            let Header { seq, class, .. } = *pending.header;
            out.push(Output::Settled { account, seq, class, how });
        }
    }

    /// Gives a message up without an outcome. Its repeat is a new message here; what devices were given of it stays
    /// with them.
    fn fail(&mut self, key: &MessageKey, out: &mut Vec<Output<R>>) {
        let Some(pending) = self.pending.remove(key) else { return };
        self.settled(&pending, Settled::Unanswered, out);
        let seq = pending.header.seq;
        self.forget_unwritten(seq);
        self.forget_windows();
        for part in pending.parts.iter().filter(|part| part.state == State::Waiting) {
            let Some(Device { served, reserved, .. }) = self.devices.get_mut(&part.enc.device) else { continue };
            reserved.sub(Usage::one(weight(&part.enc)));
            if let Some(Mode::Behind(behind)) = served.as_mut().map(|served| &mut served.mode) {
                behind.note_lost(seq);
            }
        }
        for part in &pending.parts {
            self.tidy(part.enc.device);
        }
        out.extend(pending.replies.into_iter().map(|reply| Output::Fail { reply }));
    }
}
