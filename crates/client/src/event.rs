//! What a client tells its application.

use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceAddress, DeviceId, MessageId};
use causeway_stanza::{EndReason, FailureReason, Inbox, MessageClass, ProviderKind, Rejection};

use crate::content::Content;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A message arrived. Kept until the event is [`done`](crate::Event::done).
    Message(Message),
    /// Another device of this user sent a message. Kept until done.
    SentElsewhere(SentElsewhere),
    /// A message arrived that this device cannot read, and which it asked its sender for again. Kept until done.
    Undecryptable(Undecryptable),
    /// Somebody's identity key is not what it was: show it before trusting what follows. Kept until done.
    IdentityChanged(IdentityChanged),
    /// What became of a message that this client sent; also to be had from [`outcome`](crate::Client::outcome).
    Outcome(Outcome),
    /// A session is open.
    Connected(Connected),
    /// The session is over; the client connects again by itself.
    Disconnected(Disconnected),
    /// The device list of this user, or of a conversation partner, is not what it was.
    DevicesChanged {
        /// Whose.
        address: Address,
    },
    /// Another device of this user changed the consent settings.
    ConsentChanged,
    /// Somebody asks to be accepted as a contact.
    ContactRequest {
        /// Who.
        from: Address,
    },
    /// The application did not read for so long that this many events were dropped. Never one that is kept until done.
    Lagged {
        /// How many.
        lost: u64,
    },
    /// The client has stopped for good; nothing follows.
    Ended(Ended),
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its id; together with the sender's account and device it is never seen twice.
    pub id: MessageId,
    /// Who sent it, and from which device.
    pub from: DeviceAddress,
    /// The sender's internal account id, for logs.
    pub account: AccountId,
    /// Where it comes from and which promises hold for it; said by the server.
    pub origin: Origin,
    /// How it was sent.
    pub class: MessageClass,
    /// The sender's clock, Unix milliseconds.
    pub sent_at_ms: u64,
    /// When the server accepted it, Unix milliseconds.
    pub accepted_at_ms: u64,
    /// What it says.
    pub content: Content,
    /// Earlier [`Undecryptable`] messages that this one stands for.
    pub resolves: Vec<MessageId>,
}

/// Where a message comes from (docs/protocol.md, section 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Domain of the sender's provider.
    pub provider: String,
    /// The operator's own messenger, or another.
    pub kind: ProviderKind,
    /// `signal`, or the registered name of another approved protocol.
    pub protocol: String,
    /// Where this user wants such messages shown.
    pub inbox: Inbox,
}

/// A message that another device of this user sent.
#[derive(Debug, Clone, PartialEq)]
pub struct SentElsewhere {
    /// The id that the recipient got.
    pub id: MessageId,
    /// The device that sent it.
    pub device: DeviceId,
    /// To whom.
    pub to: Address,
    /// That device's clock, Unix milliseconds.
    pub sent_at_ms: u64,
    /// What it says.
    pub content: Content,
}

/// A message that this device cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecryptable {
    /// Its id, which a later [`Message`] names in `resolves`.
    pub id: MessageId,
    /// Who sent it, and from which device.
    pub from: DeviceAddress,
    /// The sender's internal account id, for logs.
    pub account: AccountId,
    /// When the server accepted it, Unix milliseconds.
    pub accepted_at_ms: u64,
    /// Why.
    pub reason: UndecryptableReason,
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndecryptableReason {
    /// The keys for it are not, or no longer, here; the sender was asked to send it again.
    Keys,
    /// It was decrypted, but what is inside is not a message by the rules; nothing more will come.
    Malformed,
    /// It is of a kind of encryption that this version does not have.
    Unsupported,
}

/// Somebody's keys are not what they were. Also said of this user's own address: a device that the user did not add is the
/// provider's doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityChanged {
    /// Whose.
    pub address: Address,
    /// The device that is new beside the known ones, or whose key is another; `None`: the address belongs to another
    /// account than before, or has none of its known devices any more.
    pub device: Option<DeviceId>,
}

/// What became of a sent message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The message.
    pub id: MessageId,
    /// To whom.
    pub to: Address,
    /// What became of it.
    pub result: SendResult,
    /// From `send` to the answer.
    pub latency: Duration,
}

/// How sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendResult {
    /// Every device of the recipient has it.
    Delivered,
    /// Safe in a mailbox for at least one device; the others have it.
    Stored,
    /// It was ephemeral and nobody was there for it.
    Dropped,
    /// Nobody got it.
    Rejected(RejectReason),
}

impl SendResult {
    /// Whether the recipient has it or will get it.
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Delivered | Self::Stored)
    }
}

/// Why nobody got a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The server says so. `devices` and `rate-limited` are mended and waited for first; they come here when that has
    /// been tried often enough.
    Server(Rejection),
    /// It could not be handed over before its deadline.
    Expired,
    /// The recipient's keys, as the server gave them, are not acceptable: a signature does not verify.
    BadKeys,
    /// The recipient's device changed its identity before it could be sent again.
    IdentityChanged,
}

/// A session is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// False: only [`enlist`](crate::Client::enlist) is possible.
    pub enlisted: bool,
    /// Messages that wait on the server for this device.
    pub waiting: u64,
    /// How far this machine's clock is ahead of the server's, in milliseconds; negative: behind.
    pub clock_ahead_ms: i64,
    /// The known server key was used (Noise IK): one round trip less.
    pub resumed: bool,
}

/// The session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnected {
    /// Why, or why the attempt to connect failed.
    pub reason: DisconnectReason,
    /// The next attempt comes after this.
    pub retry_in: Duration,
    /// How far this machine's clock is ahead of what the server said last, in milliseconds; negative: behind. When a
    /// certificate or a token seems to be over, or not to hold yet, this may be why. Of a server that could not be
    /// verified it is a hint at most.
    pub clock_ahead_ms: Option<i64>,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The server is not there, or the network is not.
    Network(String),
    /// It took too long.
    Timeout,
    /// The server is not who it must be; the token was not sent.
    Certificate(causeway_identity::CertificateError),
    /// The handshake failed.
    Handshake(String),
    /// The provider gave no token.
    Token(String),
    /// The server refused the login.
    Login(FailureReason),
    /// The server ended the session.
    Server(EndReason),
    /// The server said something that is not of the protocol.
    Protocol(String),
    /// The server asks to come back later.
    Overloaded,
}

/// Why a client has stopped for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The application called `shutdown`, or dropped every handle.
    Shutdown,
    /// This device was removed from the account. Start again with an empty store.
    DeviceRemoved,
    /// The account left the network. Start again with an empty store.
    Withdrawn,
    /// A newer session of the same device took over: two programs use one device's state.
    Replaced,
    /// The server will refuse every further attempt of this device.
    Login(FailureReason),
    /// The provider's tokens are those of another user than the configured address.
    OtherAddress,
    /// The local store failed; nothing was lost, but nothing more can be done.
    Store,
}
