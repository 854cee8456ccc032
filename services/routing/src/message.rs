//! Messages as routing knows them: what a sender submits, what is kept for a device, what the sender is told.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use causeway_identity::{AccountId, Address, DeviceId, Domain, MessageId};
use causeway_runtime::telemetry::trace::TraceContext;

use crate::limits::Charge;

/// How urgent a message is and how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Kept until delivered.
    Chat,
    /// Delivered now or dropped.
    Ephemeral,
    /// Delivered now, kept for a minute.
    Call,
}

/// What kind of ciphertext it is; routing never looks inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EncType {
    Prekey,
    Whisper,
    SenderKey,
    Plaintext,
}

/// The device that sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) address: Address,
    pub(crate) provider: Domain,
}

/// One device's ciphertext.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Enc {
    pub(crate) device: DeviceId,
    pub(crate) registration: u32,
    pub(crate) kind: EncType,
    pub(crate) ciphertext: Bytes,
}

impl fmt::Debug for Enc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Enc({}, {} bytes)", self.device, self.ciphertext.len())
    }
}

/// A message as its sender submitted it.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: MessageId,
    pub(crate) from: Arc<Sender>,
    pub(crate) to: Address,
    pub(crate) class: Class,
    pub(crate) enc: Vec<Enc>,
    /// Its share of the memory for messages; given back when the last copy of the message has left.
    pub(crate) charge: Option<Charge>,
    /// Of the deciding, if the message is traced.
    pub(crate) trace: Option<TraceContext>,
}

impl Submission {
    pub(crate) fn key(&self) -> MessageKey {
        MessageKey { account: self.from.account, device: self.from.device, id: self.id }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.enc.iter().map(|enc| enc.ciphertext.len()).sum()
    }
}

/// An address exactly as a client wrote it, for the answer; never for a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AsWritten(pub(crate) String);

impl fmt::Debug for AsWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<address>")
    }
}

/// A message towards one recipient account: a repeat has the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MessageKey {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) id: MessageId,
}

/// Place of a message in the order of its recipient account: `max(last + 1, now in microseconds)`, given at acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Seq(pub(crate) u64);

/// What the copies of an accepted message for all devices have in common.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) seq: Seq,
    pub(crate) key: MessageKey,
    pub(crate) from: Address,
    pub(crate) class: Class,
    /// Time of acceptance, Unix milliseconds.
    pub(crate) ts_ms: u64,
    /// From then on it is not delivered any more, Unix milliseconds.
    pub(crate) expires_ms: u64,
    pub(crate) origin: Origin,
    #[expect(dead_code, reason = "held until the last copy of the message has left")]
    pub(crate) charge: Option<Charge>,
    /// Of the deciding, if the message is traced; not kept in a mailbox.
    pub(crate) trace: Option<TraceContext>,
}

/// Where a message comes from and in which inbox it belongs; the protocol is always Signal's in this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) provider: Domain,
    pub(crate) kind: Kind,
    pub(crate) inbox: Inbox,
}

/// What a provider is to this deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Home,
    ThirdParty,
}

/// Where a recipient's client shows a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inbox {
    Main,
    ThirdParty,
}

/// A message for one device.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) header: Arc<Header>,
    pub(crate) enc: Enc,
}

impl Envelope {
    /// What it weighs in queues and in the mailbox.
    pub(crate) fn weight(&self) -> usize {
        weight(&self.enc)
    }
}

/// Bytes that count against bounds: the ciphertext and an allowance for everything around it.
pub(crate) fn weight(enc: &Enc) -> usize {
    enc.ciphertext.len() + 256
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every addressed device has acknowledged it.
    Delivered,
    /// Durable in at least one mailbox, the rest acknowledged.
    Stored,
    /// It was ephemeral, and not every device was there for it.
    Dropped,
    Rejected(Rejection),
}

/// Why a message was not accepted; nothing of it has reached anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejection {
    Devices(Box<Mismatch>),
    NotAvailable,
    /// The sender's rate, or what is kept for all, is used up.
    RateLimited {
        retry_after_ms: u64,
    },
    /// The recipient's mailbox, or queue, is. On the wire it is the same.
    Full {
        retry_after_ms: u64,
    },
    TooLarge,
}

/// How the device list of a message differs from the recipient's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) missing: Vec<DeviceId>,
    pub(crate) extra: Vec<DeviceId>,
    pub(crate) stale: Vec<DeviceId>,
}

impl Mismatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.stale.is_empty()
    }
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A newer session of the same device took over.
    Replaced,
    /// The device is not, or not under this registration, on its account's list.
    DeviceRemoved,
    /// The account left.
    Withdrawn,
    /// It sent something that no edge lets through.
    BadStanza,
    /// It acknowledged a delivery that it never had.
    BadAck,
    /// Something of the server is away, or there is no room.
    Overloaded,
}
