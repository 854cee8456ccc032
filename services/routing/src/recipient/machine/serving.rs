//! Sessions: attach, give, acknowledge, catch up, end.

use std::sync::Arc;

use causeway_identity::{AccountId, DeviceId};

use super::{Machine, Now, Output, RETRY, State, World};
use crate::mailbox::{Page, PageRequest, StoreError, Usage};
use crate::message::{Class, Ending, Envelope, MessageKey, Seq};
use crate::recipient::device::{Behind, Device, Mode, Served};
use crate::recipient::window::{Delivery, Kept, Window};
use crate::records::Record;
use crate::session::SessionKey;

/// Entries of one reading.
const PAGE_MESSAGES: usize = 128;

impl<R> Machine<R> {
    /// A device is here. An older session of it ends. It gets what waits for it first, then what comes.
    #[expect(clippy::too_many_arguments, reason = "the inputs of one decision")]
    pub(crate) fn attach(
        &mut self,
        session: SessionKey,
        id: DeviceId,
        registration: u32,
        record: &Arc<Record>,
        now: Now,
        world: &mut impl World,
        out: &mut Vec<Output<R>>,
    ) {
        self.reconcile(record, out);
        if record.device(id).is_none_or(|device| device.registration != registration) {
            out.push(Output::End { session, reason: Ending::DeviceRemoved });
            return;
        }
        self.end_served(id, Some(Ending::Replaced), out);
        let device = self.devices.entry(id).or_default();
        let behind = Behind { joining: device.puts.last().copied(), ..Behind::default() };
        device.served = Some(Served {
            session,
            registration,
            window: Window::new(self.policy.session_messages, self.policy.session_bytes),
            cursor: Seq::default(),
            announced: false,
            mode: Mode::Behind(behind),
        });
        self.joined(id, now, world, out);
    }

    /// Goes on with a session once the mailbox has everything that came before it.
    pub(super) fn joined(&mut self, id: DeviceId, now: Now, world: &mut impl World, out: &mut Vec<Output<R>>) {
        let Some(Device { served: Some(served), kept, puts, .. }) = self.devices.get_mut(&id) else { return };
        let Mode::Behind(behind) = &mut served.mode else { return };
        if behind.joining.is_some_and(|last| puts.first().is_some_and(|first| *first <= last)) {
            return;
        }
        behind.joining = None;
        if !std::mem::replace(&mut served.announced, true) {
            out.push(Output::Attached { session: served.session, waiting: kept.messages });
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
        let Some(Device { served: Some(served), reserved, .. }) = self.devices.get_mut(&id) else { return };
        if !served.window.was_sent(tag) {
            self.end_served(id, Some(Ending::BadAck), out);
            return;
        }
        let mut in_mailbox = None;
        let mut acknowledged: Vec<MessageKey> = Vec::new();
        while let Some(delivery) = served.window.pop_upto(tag) {
            match delivery.kept {
                Kept::Writing(_) | Kept::Yes => in_mailbox = Some(delivery.seq),
                Kept::No(_) => reserved.sub(Usage::one(delivery.weight)),
                Kept::Never => {}
            }
            acknowledged.push(delivery.key);
        }
        if let Some(upto) = in_mailbox {
            out.push(Output::Forget { account, device: id, upto });
        }
        for key in acknowledged {
            if self.mark(&key, id, |_| State::Acknowledged) {
                self.settle(&key, out);
            }
        }
        self.advance(id, now, world, out);
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
        let otherwise = if ephemeral { State::Missed } else { State::Writing };
        let weight = envelope.weight();
        if ephemeral && !self.devices.contains_key(&envelope.enc.device) {
            return otherwise;
        }
        let device = self.devices.entry(envelope.enc.device).or_default();
        let Some(served) = &mut device.served else { return otherwise };
        if served.window.has_kept(&envelope.header.key) {
            // A repeat from before this process: the device has been given it and the mailbox has it.
            return if ephemeral { State::Missed } else { State::Stored };
        }
        if !matches!(served.mode, Mode::Live) {
            return otherwise;
        }
        let fits = served.window.has_room(weight);
        if fits && world.reserve(served.session, weight) {
            let kept = if ephemeral { Kept::Never } else { Kept::No(envelope.clone()) };
            if !ephemeral {
                device.reserved.add(Usage::one(weight));
            }
            out.push(give(served, envelope.clone(), kept, false));
            return State::Live;
        }
        if !ephemeral {
            // From here on everything is noted in `ahead`, so that nothing needs to be read yet.
            served.mode = Mode::Behind(Behind { synced: true, ..Behind::default() });
            if fits {
                self.try_again_at(now.instant + RETRY);
            }
        }
        otherwise
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
        let Some(Device { served: Some(served), .. }) = self.devices.get_mut(&id) else { return };
        let Mode::Behind(behind) = &mut served.mode else { return };
        behind.reading = false;
        let Ok(page) = result else {
            self.try_again_at(now.instant + RETRY);
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
            behind.at_end = true;
            behind.synced = !behind.gap;
        }
        self.advance(id, now, world, out);
    }

    /// Gives a session that is behind what it can take.
    pub(super) fn advance(&mut self, id: DeviceId, now: Now, world: &mut impl World, out: &mut Vec<Output<R>>) {
        let Some(account) = self.account else { return };
        let Some(Device { served: Some(served), .. }) = self.devices.get_mut(&id) else { return };
        let Mode::Behind(behind) = &mut served.mode else { return };
        if behind.joining.is_some() || behind.reading {
            return;
        }
        if behind.synced {
            match catch_up(served, now, world, out) {
                CaughtUp::Yes => served.mode = Mode::Live,
                CaughtUp::WindowFull => {}
                CaughtUp::LinkFull => self.try_again_at(now.instant + RETRY),
            }
            return;
        }
        let waits_for_puts = behind.at_end && !behind.unseen.is_empty();
        if waits_for_puts || !served.window.is_half_free() {
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

    /// Ends a device's session, if it has one: with a reason, it is told so; without, it has left. What is neither
    /// acknowledged nor in the mailbox goes there.
    pub(super) fn end_served(&mut self, id: DeviceId, reason: Option<Ending>, out: &mut Vec<Output<R>>) {
        let Some(account) = self.account else { return };
        let Some(served) = self.devices.get_mut(&id).and_then(|device| device.served.take()) else { return };
        if let Some(reason) = reason {
            out.push(Output::End { session: served.session, reason });
        }
        for delivery in served.window.into_deliveries() {
            match delivery.kept {
                Kept::No(envelope) => self.keep_given(account, id, envelope, out),
                Kept::Never => {
                    self.mark(&delivery.key, id, |part| part.state.after_live(State::Missed));
                    self.settle(&delivery.key, out);
                }
                Kept::Writing(_) | Kept::Yes => {}
            }
        }
        self.tidy(id);
    }

    /// The device is not on the account's list, or is another one under the same id: its session ends, and what was for
    /// it is erased.
    pub(super) fn remove(
        &mut self,
        id: DeviceId,
        account: AccountId,
        keep: Option<u32>,
        out: &mut Vec<Output<R>>,
    ) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let stays = device.served.as_ref().is_some_and(|served| Some(served.registration) == keep);
        if !stays {
            if let Some(served) = device.served.take() {
                out.push(Output::End { session: served.session, reason: Ending::DeviceRemoved });
            }
            device.reserved = Usage::default();
            let affected: Vec<MessageKey> = self.pending.keys().copied().collect();
            for key in affected {
                let gone = |part: &super::Part| {
                    let stays = keep == Some(part.enc.registration) || part.state == State::Acknowledged;
                    if stays { part.state } else { State::Gone }
                };
                if self.mark(&key, id, gone) {
                    self.settle(&key, out);
                }
            }
        }
        // Behind the puts that are under way, so that it takes them too.
        out.push(Output::DropDevice { account, device: id, keep });
    }

    fn device_of(&self, session: SessionKey) -> Option<DeviceId> {
        self.sessions().find(|(_, attached)| *attached == session).map(|(id, _)| id)
    }
}

enum CaughtUp {
    Yes,
    WindowFull,
    LinkFull,
}

/// Gives a session what is ahead of it in memory.
fn catch_up<R>(served: &mut Served, now: Now, world: &mut impl World, out: &mut Vec<Output<R>>) -> CaughtUp {
    loop {
        let Mode::Behind(behind) = &mut served.mode else { return CaughtUp::Yes };
        let Some(envelope) = behind.next_ahead(served.cursor) else { return CaughtUp::Yes };
        if envelope.header.expires_ms <= now.unix_ms() {
            behind.drop_front();
            continue;
        }
        let weight = envelope.weight();
        if !served.window.has_room(weight) {
            return CaughtUp::WindowFull;
        }
        if !world.reserve(served.session, weight) {
            return CaughtUp::LinkFull;
        }
        let envelope = envelope.clone();
        let committed = behind.ahead.front().is_some_and(|ahead| ahead.committed);
        behind.drop_front();
        let kept = if committed { Kept::Yes } else { Kept::Writing(envelope.clone()) };
        out.push(give(served, envelope, kept, true));
    }
}

/// Hands a message to a session for which room has been taken.
fn give<R>(served: &mut Served, envelope: Envelope, kept: Kept, from_mailbox: bool) -> Output<R> {
    let (seq, key, weight) = (envelope.header.seq, envelope.header.key, envelope.weight());
    served.cursor = seq;
    let tag = served.window.push(Delivery { seq, key, weight, kept });
    Output::Deliver { session: served.session, tag, envelope, from_mailbox }
}
