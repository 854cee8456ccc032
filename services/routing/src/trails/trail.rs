//! One message's way: a small record, which grows with its checkpoints up to a bound.

use std::fmt;
use std::sync::Arc;

use causeway_identity::{DeviceId, MessageId};

use crate::message::{Class, Header, MessageKey, Sender, Seq};

/// Names a delivery trace to people: 16 random bytes, which say nothing about the message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TraceId([u8; 16]);

impl TraceId {
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How a message that was under way is not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Every device has acknowledged it.
    Acknowledged,
    /// It is in the mailbox, for at least one device.
    Waiting,
    /// It was ephemeral, and not every device was there.
    Dropped,
    /// Nothing true could be said: its sender repeats it, and it is a new message then.
    Unanswered,
    /// The account has left.
    Withdrawn,
}

impl Settled {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 5] =
        [Self::Acknowledged, Self::Waiting, Self::Dropped, Self::Unanswered, Self::Withdrawn];

    /// For metrics and for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Waiting => "waiting",
            Self::Dropped => "dropped",
            Self::Unanswered => "unanswered",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// What its sender has been told.
    const fn told(self) -> &'static str {
        match self {
            Self::Acknowledged => "delivered",
            Self::Waiting => "stored",
            Self::Dropped => "dropped",
            Self::Unanswered | Self::Withdrawn => "nothing",
        }
    }
}

/// A checkpoint. Numbers are device ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// For so many devices.
    Accepted(u8),
    /// The message asks the recipient to send an earlier one again.
    RetryAsked,
    Queued(u8),
    PushSent(u8),
    PushAnswered(u8, PushResult),
    /// From the mailbox, or as it came.
    Handed(u8, bool),
    Acknowledged(u8),
    /// Its sender was told.
    Told(Settled),
    Expired(u8),
    /// It was ephemeral, and this device was not there.
    Dropped(u8),
    Removed(u8),
    Withdrawn,
    /// Another replica goes on with the account.
    Elsewhere,
}

/// Who may see a checkpoint beside the operator: the provider of this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Sender,
    Recipient,
}

impl What {
    pub(super) const fn side(self) -> Side {
        match self {
            Self::Accepted(_) | Self::RetryAsked | Self::Told(_) => Side::Sender,
            _ => Side::Recipient,
        }
    }

    /// Its name in `causeway.routing.v1.Checkpoint`, the device if it is about one, and a word more.
    pub(super) fn words(self) -> (&'static str, u32, String) {
        let device = |name, device: u8| (name, u32::from(device), String::new());
        match self {
            Self::Accepted(devices) => ("accepted", 0, format!("for {devices}")),
            Self::RetryAsked => ("retry-asked", 0, String::new()),
            Self::Queued(id) => device("queued", id),
            Self::PushSent(id) => device("push-sent", id),
            Self::PushAnswered(id, result) => ("push-answered", u32::from(id), result.name().to_owned()),
            Self::Handed(id, waited) => {
                let path = if waited { "mailbox" } else { "live" };
                ("handed", u32::from(id), path.to_owned())
            }
            Self::Acknowledged(id) => device("acknowledged", id),
            Self::Told(settled) => ("told", 0, settled.told().to_owned()),
            Self::Expired(id) => device("expired", id),
            Self::Dropped(id) => device("dropped", id),
            Self::Removed(id) => device("device-removed", id),
            Self::Withdrawn => ("withdrawn", 0, String::new()),
            Self::Elsewhere => ("elsewhere", 0, String::new()),
        }
    }
}

/// How a provider has answered a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PushResult(u8);

impl PushResult {
    /// Those that there are; the last stands for any other.
    const NAMES: [&'static str; 5] = ["taken", "refused", "gone", "nowhere", "failed"];

    pub(super) fn of(name: &str) -> Self {
        let known = Self::NAMES.iter().position(|known| *known == name);
        Self(known.and_then(|at| u8::try_from(at).ok()).unwrap_or(4))
    }

    fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

/// A checkpoint and its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// Milliseconds after the trail began.
    after_ms: u32,
    pub(super) what: What,
}

/// Enough for 16 devices that are each handed a message once from the mailbox, and some webhooks.
const MARKS: usize = 56;
/// Of these for webhooks, which may come again and again.
const PUSH_MARKS: u8 = 8;
/// As many as most messages have: accepted, handed to one device, acknowledged, told.
const FIRST_MARKS: usize = 4;

/// One message's way.
pub(super) struct Trail {
    pub(super) id: TraceId,
    pub(super) seq: Seq,
    pub(super) key: MessageKey,
    pub(super) class: Class,
    /// `None`: accepted by another replica, or before a restart.
    pub(super) from: Option<Arc<Sender>>,
    began_ms: u64,
    expires_ms: u64,
    /// The devices that it is for, as far as is known; a bit each.
    addressed: u128,
    /// Those for which it has reached its end.
    ended: u128,
    /// Those for which the mailbox has it.
    queued: u128,
    settled: Option<Settled>,
    pushes: u8,
    count: u8,
    first: [Mark; FIRST_MARKS],
    /// Those behind the first.
    more: Vec<Mark>,
    /// There was no room for so many more.
    pub(super) left_out: u32,
}

impl Trail {
    pub(super) fn new(id: TraceId, header: &Header, now_ms: u64) -> Self {
        Self {
            id,
            seq: header.seq,
            key: header.key,
            class: header.class,
            from: None,
            began_ms: now_ms,
            expires_ms: header.expires_ms,
            addressed: 0,
            ended: 0,
            queued: 0,
            settled: None,
            pushes: 0,
            count: 0,
            first: [Mark { after_ms: 0, what: What::Withdrawn }; FIRST_MARKS],
            more: Vec::new(),
            left_out: 0,
        }
    }

    /// When it began here, in Unix milliseconds.
    pub(super) fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// The checkpoints with their times in Unix milliseconds.
    pub(super) fn marks(&self) -> impl Iterator<Item = (u64, What)> + '_ {
        let marks = self.first.iter().take(usize::from(self.count)).chain(&self.more);
        marks.map(|mark| (self.began_ms + u64::from(mark.after_ms), mark.what))
    }

    pub(super) fn accepted(&mut self, devices: &[DeviceId], asks_again: bool) {
        self.addressed = devices.iter().fold(0, |all, device| all | bit(*device).1);
        let number = u8::try_from(devices.len()).unwrap_or(u8::MAX);
        self.mark(What::Accepted(number), self.began_ms);
        if asks_again {
            self.mark(What::RetryAsked, self.began_ms);
        }
    }

    pub(super) fn settled(&mut self, how: Settled, now_ms: u64) {
        self.settled = Some(how);
        match how {
            Settled::Dropped => {
                for device in devices(self.addressed & !self.ended) {
                    self.mark(What::Dropped(device), now_ms);
                }
                self.ended = self.addressed;
            }
            Settled::Unanswered | Settled::Withdrawn => self.ended = self.addressed,
            Settled::Acknowledged | Settled::Waiting => {}
        }
        if how == Settled::Withdrawn {
            self.mark(What::Withdrawn, now_ms);
        }
        self.mark(What::Told(how), now_ms);
    }

    pub(super) fn queued(&mut self, device: DeviceId, now_ms: u64) {
        let (number, bit) = bit(device);
        self.queued |= bit;
        self.mark(What::Queued(number), now_ms);
    }

    pub(super) fn handed(&mut self, device: DeviceId, from_mailbox: bool, now_ms: u64) {
        let (number, bit) = bit(device);
        self.addressed |= bit;
        self.mark(What::Handed(number, from_mailbox), now_ms);
    }

    /// It has reached its end for a device, if it has not before.
    pub(super) fn ended(&mut self, device: DeviceId, what: What, now_ms: u64) {
        let bit = bit(device).1;
        if self.addressed & !self.ended & bit != 0 {
            self.ended |= bit;
            self.mark(what, now_ms);
        }
    }

    /// The same for all devices that are left.
    pub(super) fn ended_for_all(&mut self, what: What, now_ms: u64) {
        // What is under way is told when it is settled.
        if self.settled.is_none_or(|settled| settled == Settled::Waiting) && self.addressed & !self.ended != 0 {
            self.ended = self.addressed;
            self.mark(what, now_ms);
        }
    }

    /// A webhook for a device for which it waits.
    pub(super) fn pushed(&mut self, device: DeviceId, what: What, now_ms: u64) {
        if self.queued & !self.ended & bit(device).1 == 0 {
            return;
        }
        if self.pushes < PUSH_MARKS {
            self.pushes += 1;
            self.mark(what, now_ms);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// The mailbox erases what has expired.
    pub(super) fn expire(&mut self, now_ms: u64) {
        if self.expires_ms > now_ms || self.settled.is_some_and(|settled| settled != Settled::Waiting) {
            return;
        }
        for device in devices(self.queued & self.addressed & !self.ended) {
            self.mark(What::Expired(device), now_ms);
        }
        self.ended |= self.queued;
    }

    fn mark(&mut self, what: What, now_ms: u64) {
        let after_ms = u32::try_from(now_ms.saturating_sub(self.began_ms)).unwrap_or(u32::MAX);
        let mark = Mark { after_ms, what };
        if let Some(free) = self.first.get_mut(usize::from(self.count)) {
            *free = mark;
            self.count += 1;
        } else if self.more.len() < MARKS - FIRST_MARKS {
            self.more.push(mark);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

/// A message that was not accepted.
pub(super) struct Refused {
    pub(super) id: TraceId,
    pub(super) message: MessageId,
    pub(super) from: Arc<Sender>,
    pub(super) why: &'static str,
    pub(super) at_ms: u64,
}

/// A device's number and its bit. The directory gives numbers from 1 to 127; any other has none.
pub(super) fn bit(device: DeviceId) -> (u8, u128) {
    match u8::try_from(device.get()) {
        Ok(number @ 0..128) => (number, 1 << number),
        _ => (0, 0),
    }
}

fn devices(bits: u128) -> impl Iterator<Item = u8> {
    (1..128_u8).filter(move |number| bits & (1 << number) != 0)
}
