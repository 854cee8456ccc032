//! Sessions: attach, give, acknowledge, catch up, end.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId};

use super::{Attaching, Machine, Newest, Now, Output, RETRY, State, World};
use crate::mailbox::{Page, PageRequest, StoreError, Usage};
use crate::message::{Class, Ending, Envelope, MessageKey, Seq, weight};
use crate::recipient::device::{Behind, Device, Mode, Served};
use crate::recipient::window::{Delivery, Kept, Window};
use crate::records::Record;
use crate::session::SessionKey;

/// Where a session that attaches stands beside the newest one of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A newer one has come before it.
    Before,
    /// It is an earlier attachment of that session.
    Overtaken,
    /// It is a later attachment of that session.
    Same,
    /// It is the newest.
    Behind,
}

/// How soon to read again what could not be read.
const READ_AGAIN: Duration = Duration::from_secs(2);
/// Entries of one reading.
const PAGE_MESSAGES: usize = 128;

impl<R> Machine<R> {
    /// A device is here. An older session of it ends. It gets what waits for it first, then what comes.
    pub(crate) fn attach(
        &mut self,
        attaching: &Attaching,
        record: &Arc<Record>,
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) {
        let Attaching { session, device: id, registration, .. } = *attaching;
        self.reconcile(record, out);
        if record.device(id).is_none_or(|device| device.registration != registration) {
            out.push(Output::End { session, reason: Ending::DeviceRemoved });
            return;
        }
        let place = self.place(attaching);
        match place {
            Place::Before => {
                out.push(Output::End { session, reason: Ending::Replaced });
                return;
            }
            // Its session has attached again meanwhile.
            Place::Overtaken => {
                out.push(Output::Moved { session });
                return;
            }
            Place::Same => self.end_moved(id, out),
            Place::Behind => self.end_served(id, Some(Ending::Replaced), out),
        }
        let number = self.number(attaching, place, now);
        // What it could not be given so far goes to the mailbox first, to be read from there in order.
        self.write_all_waiting(out);
        let device = self.devices.or_default(id);
        let behind = Behind::joining(self.last_ticket);
        device.served = Some(Served {
            session,
            number,
            registration,
            window: Window::new(self.policy.session_messages, self.policy.session_bytes),
            cursor: Seq::default(),
            announced: false,
            mode: Mode::Behind(behind),
        });
        self.joined(id, now, world, out);
    }

    /// Where a session that attaches stands beside the newest one that is known. The order of logins tells it; where that
    /// is not known, one that has attached here for the first time is newer than whatever comes with a number from
    /// elsewhere, since this replica has owned the account from then on, and else numbers tell.
    ///
    /// By the order of logins only a session that is here goes before an earlier one. If it has left, or is between two
    /// attachments, the earlier one harms nobody: the later one wins when it comes again. So a number that is greater than
    /// it should be is forgotten with its session.
    fn place(&self, attaching: &Attaching) -> Place {
        let Some(newest) = self.newest.get(&attaching.device) else { return Place::Behind };
        if let (Some(login), Some(before)) = (attaching.login, newest.login)
            && login.source == before.source
            && !crate::planted::is("late-attach-wins")
        {
            return match login.number.cmp(&before.number) {
                Ordering::Less if self.is_served(attaching.device) => Place::Before,
                Ordering::Less | Ordering::Greater => Place::Behind,
                Ordering::Equal if login.attachment < before.attachment => Place::Overtaken,
                Ordering::Equal => Place::Same,
            };
        }
        match attaching.number {
            0 => Place::Behind,
            number if number == newest.number => Place::Behind,
            number if newest.fresh || newest.number > number => Place::Before,
            _ => Place::Behind,
        }
    }

    /// The number of a session that attaches behind all others: the one that it has, or one that is greater than all before.
    fn number(&mut self, attaching: &Attaching, place: Place, now: Now) -> u64 {
        let Attaching { device: id, number, login, .. } = *attaching;
        let before = self.newest.get(&id).copied();
        let greatest = before.map(|newest| newest.number).max(self.hints.get(&id).copied().filter(|_| number == 0));
        let next = greatest.map_or(0, |greatest| greatest.saturating_add(1));
        let newest = match (number, before) {
            (0, _) => Newest { number: now.unix_us.max(next), fresh: true, login },
            (_, Some(newest)) if place == Place::Same || newest.number == number => Newest { login, ..newest },
            // What was taken for newer here is not.
            (number, _) => Newest { number: number.max(next), fresh: false, login },
        };
        self.newest.insert(id, newest);
        newest.number
    }

    fn is_served(&self, id: DeviceId) -> bool {
        self.devices.get(&id).is_some_and(|device| device.served.is_some())
    }

    /// A later attachment of a session comes: the earlier one is over, which is not told as its end.
    fn end_moved(&mut self, id: DeviceId, out: &mut Vec<Output<R>>) {
        if let Some(served) = self.devices.get(&id).and_then(|device| device.served.as_ref()) {
            out.push(Output::Moved { session: served.session });
        }
        self.end_served(id, None, out);
    }

    /// What is told of the devices' sessions at other owners: a session that attaches for the first time gets a greater
    /// number, whatever the clocks say.
    pub(crate) fn hint(&mut self, newest: &BTreeMap<DeviceId, u64>) {
        self.hints = newest.iter().map(|(id, number)| (*id, *number)).collect();
    }

    /// Begins with a session once the mailbox has everything that came before it, then goes on with it.
    pub(super) fn joined(&mut self, id: DeviceId, now: Now, world: &mut impl World, out: &mut Vec<Output<R>>) {
        let Some(Device { served: Some(served), puts, forgets, .. }) = self.devices.get_mut(&id) else { return };
        if let Mode::Behind(behind) = &mut served.mode
            && behind.is_joining()
        {
            behind.join(puts.front().copied(), *forgets);
        }
        self.advance(id, now, world, out);
    }

    /// A session has left.
    pub(crate) fn detach(&mut self, session: SessionKey, out: &mut Vec<Output<R>>) {
        if let Some(id) = self.device_of(session) {
            self.end_served(id, None, out);
        }
    }

    /// A session has acknowledged everything up to `tag`.
    pub(crate) fn processed(
        &mut self,
        session: SessionKey,
        tag: u64,
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) {
        let (Some(id), Some(account)) = (self.device_of(session), self.account) else { return };
        let Some(Device { served: Some(served), reserved, forgets, .. }) = self.devices.get_mut(&id) else { return };
        if !served.window.was_sent(tag) && !crate::planted::is("wrong-ack-accepted") {
            self.end_served(id, Some(Ending::BadAck), out);
            return;
        }
        let mut in_mailbox = None;
        let mut acknowledged = std::mem::take(&mut self.acknowledging);
        while let Some(delivery) = served.window.pop_upto(tag) {
            match delivery.kept {
                Kept::Writing | Kept::Yes => in_mailbox = Some(delivery.seq),
                Kept::No => reserved.sub(Usage::one(delivery.weight)),
                Kept::Never => {}
            }
            acknowledged.push(delivery.key);
            out.push(Output::Acknowledged { account, seq: delivery.seq, device: id });
        }
        if let Some(upto) = in_mailbox {
            *forgets += 1;
            out.push(Output::Forget { account, device: id, upto });
        }
        for key in acknowledged.drain(..) {
            self.acknowledged(&key, id);
            self.settle(&key, out);
        }
        self.acknowledging = acknowledged;
        self.advance(id, now, world, out);
    }

    /// A device has acknowledged a message. A repeat of it that waits for this device need not be given to it any more.
    fn acknowledged(&mut self, key: &MessageKey, id: DeviceId) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        let seq = pending.header.seq;
        let waiting = pending.parts.iter().find(|part| part.enc.device == id && part.state == State::Waiting);
        let weight = waiting.map(|part| weight(&part.enc));
        pending.set(id, |_| State::Acknowledged);
        let (Some(weight), Some(device)) = (weight, self.devices.get_mut(&id)) else { return };
        device.reserved.sub(Usage::one(weight));
        if let Some(Mode::Behind(behind)) = device.served.as_mut().map(|served| &mut served.mode) {
            behind.note_lost(seq);
        }
    }

    /// Gives a message to a device's session, if it is there and has everything before; says how far the message is.
    pub(super) fn fan_out(
        &mut self,
        envelope: &Envelope,
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) -> State {
        let ephemeral = envelope.header.class == Class::Ephemeral;
        let weight = envelope.weight();
        if ephemeral && !self.devices.contains_key(&envelope.enc.device) {
            return State::Missed;
        }
        let device = self.devices.or_default(envelope.enc.device);
        let kept_and_given = device.served.as_ref().is_some_and(|served| served.window.has_kept(&envelope.header.key));
        if kept_and_given && !ephemeral {
            // A repeat of what is not remembered any more: the device has been given it and the mailbox has it.
            return State::Stored;
        }
        let mut link_full = false;
        if let Some(served) = &mut device.served
            && matches!(served.mode, Mode::Live)
            && served.window.has_room(weight)
        {
            if world.reserve(served.session, weight) {
                let kept = if ephemeral { Kept::Never } else { Kept::No };
                if !ephemeral {
                    device.reserved.add(Usage::one(weight));
                }
                out.push(give(served, envelope.clone(), kept, false));
                return State::Live;
            }
            link_full = true;
        }
        if ephemeral {
            return State::Missed;
        }
        if device.served.is_none()
            && self.newest.contains_key(&envelope.enc.device)
            && crate::planted::is("presence-trusted")
        {
            return State::Stored;
        }
        device.reserved.add(Usage::one(weight));
        if let Some(served) = &mut device.served {
            if matches!(served.mode, Mode::Live) {
                served.mode = Mode::Behind(Behind::from_now_on());
            }
            if let Mode::Behind(behind) = &mut served.mode {
                behind.note(envelope);
            }
        }
        if link_full {
            self.try_again_at(now.instant + RETRY);
        }
        State::Waiting
    }

    /// What was asked for by [`Output::Page`].
    pub(crate) fn page_read(
        &mut self,
        session: SessionKey,
        result: Result<Page, StoreError>,
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) {
        let Some(id) = self.device_of(session) else { return };
        let Some(Device { served: Some(served), kept, .. }) = self.devices.get_mut(&id) else { return };
        let Mode::Behind(behind) = &mut served.mode else { return };
        behind.reading = false;
        if !std::mem::replace(&mut served.announced, true) {
            let (session, number) = (served.session, served.number);
            out.push(Output::Attached { session, waiting: kept.messages, number });
        }
        let Ok(page) = result else {
            self.try_again_at(now.instant + READ_AGAIN);
            return;
        };
        let mut all_given = true;
        for envelope in page.entries {
            if envelope.header.seq <= served.cursor {
                continue;
            }
            let weight = envelope.weight();
            if !served.window.has_room(weight) || !world.reserve(served.session, weight) {
                all_given = false;
                break;
            }
            out.push(give(served, envelope, Kept::Yes, true));
        }
        if !all_given {
            // The window or the link is full: an acknowledgement or the time lets it go on.
            self.try_again_at(now.instant + RETRY);
            return;
        }
        if let Mode::Behind(behind) = &mut served.mode
            && page.end
        {
            behind.end_reading();
        }
        self.advance(id, now, world, out);
    }

    /// Gives a session that is behind what it can take.
    pub(super) fn advance(&mut self, id: DeviceId, now: Now, world: &mut impl World, out: &mut Vec<Output<R>>) {
        let Some(account) = self.account else { return };
        let Some(Device { served: Some(served), .. }) = self.devices.get_mut(&id) else { return };
        let Mode::Behind(behind) = &mut served.mode else { return };
        if behind.is_joining() || behind.reading {
            return;
        }
        if behind.synced {
            self.catch_up(id, now, world, out);
            return;
        }
        if behind.waits_for_puts() || !served.window.is_half_free() {
            return;
        }
        if !world.has_room(served.session) {
            self.try_again_at(now.instant + RETRY);
            return;
        }
        behind.begin_reading();
        let (messages, bytes) = served.window.room();
        let request = PageRequest {
            account,
            device: id,
            registration: served.registration,
            after: served.cursor,
            messages: messages.clamp(1, PAGE_MESSAGES),
            bytes: bytes.max(1),
            now_ms: now.unix_ms(),
        };
        out.push(Output::Page { session: served.session, request });
    }

    /// Gives a session what is ahead of it in memory.
    fn catch_up(&mut self, id: DeviceId, now: Now, world: &mut impl World, out: &mut Vec<Output<R>>) {
        loop {
            let Some(Device { served: Some(served), .. }) = self.devices.get_mut(&id) else { return };
            let Mode::Behind(behind) = &mut served.mode else { return };
            let Some((envelope, committed)) = behind.next_ahead(served.cursor) else {
                served.mode = Mode::Live;
                return;
            };
            if envelope.header.expires_ms <= now.unix_ms() {
                behind.drop_front();
                continue;
            }
            let weight = envelope.weight();
            if !served.window.has_room(weight) {
                return;
            }
            if !world.reserve(served.session, weight) {
                self.try_again_at(now.instant + RETRY);
                return;
            }
            let envelope = envelope.clone();
            behind.drop_front();
            let (key, seq) = (envelope.header.key, envelope.header.seq);
            let pending = self.pending.get_mut(&key).filter(|pending| pending.header.seq == seq);
            let kept = match pending {
                _ if committed => Kept::Yes,
                // It has not been sent to the mailbox: its device may still acknowledge it in time.
                Some(pending) if pending.put.is_none() => {
                    pending.set(id, |state| if state == State::Waiting { State::Live } else { state });
                    Kept::No
                }
                _ => Kept::Writing,
            };
            out.push(give(served, envelope, kept, true));
        }
    }

    /// Ends a device's session, if it has one: with a reason, it is told so; without, it has left. What is neither
    /// acknowledged nor in the mailbox goes there.
    pub(super) fn end_served(&mut self, id: DeviceId, reason: Option<Ending>, out: &mut Vec<Output<R>>) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let Some(served) = device.served.take() else { return };
        if let Some(reason) = reason {
            out.push(Output::End { session: served.session, reason });
        }
        for delivery in served.window.into_deliveries() {
            let pending = self.is_pending(&delivery.key, delivery.seq);
            match delivery.kept {
                Kept::No if pending && self.is_to_be_written(&delivery.key, id) => self.write(&delivery.key, out),
                // It was given up, so its sender was told nothing, and comes again; or the device has acknowledged
                // another copy of it.
                Kept::No => {
                    if let Some(device) = self.devices.get_mut(&id) {
                        device.reserved.sub(Usage::one(delivery.weight));
                    }
                }
                Kept::Never if pending => {
                    self.mark(&delivery.key, id, |state| if state == State::Live { State::Missed } else { state });
                    self.settle(&delivery.key, out);
                }
                Kept::Never | Kept::Writing | Kept::Yes => {}
            }
        }
        self.tidy(id);
    }

    /// The device is not on the account's list, or is another one under the same id: its session ends, and what was for
    /// it is erased.
    pub(super) fn remove(&mut self, id: DeviceId, account: AccountId, keep: Option<u32>, out: &mut Vec<Output<R>>) {
        self.newest.remove(&id);
        let Some(device) = self.devices.get_mut(&id) else { return };
        let stays = device.served.as_ref().is_some_and(|served| Some(served.registration) == keep);
        if !stays {
            if let Some(served) = device.served.take() {
                out.push(Output::End { session: served.session, reason: Ending::DeviceRemoved });
            }
            device.reserved = Usage::default();
            let mut affected: BTreeMap<Seq, MessageKey> = BTreeMap::new();
            for (key, pending) in &mut self.pending {
                if pending.lose(id, keep) {
                    affected.insert(pending.header.seq, *key);
                }
            }
            for key in affected.values() {
                self.settle(key, out);
            }
        }
        // Behind the puts that are under way, so that it takes them too.
        out.push(Output::DropDevice { account, device: id, keep });
    }

    fn is_to_be_written(&self, key: &MessageKey, id: DeviceId) -> bool {
        let parts = self.pending.get(key).map(|pending| &pending.parts[..]).unwrap_or_default();
        parts.iter().any(|part| part.enc.device == id && matches!(part.state, State::Live | State::Waiting))
    }

    fn device_of(&self, session: SessionKey) -> Option<DeviceId> {
        self.sessions().find(|(_, attached)| *attached == session).map(|(id, _)| id)
    }
}

/// Hands a message to a session for which room has been taken.
fn give<R>(served: &mut Served, envelope: Envelope, kept: Kept, from_mailbox: bool) -> Output<R> {
    let (seq, key, weight) = (envelope.header.seq, envelope.header.key, envelope.weight());
    served.cursor = seq;
    let tag = served.window.push(Delivery { seq, key, weight, kept });
    Output::Deliver { session: served.session, tag, envelope, from_mailbox }
}
