//! Where messages wait until their devices have them, and who may write there (docs/replicas.md). To add a backend: a
//! sibling file that implements [`Mailbox`] and passes every test of `suite`, and if several processes may share it, of
//! `shared_suite`.
//!
//! Every operation names the account first, so that the tables distribute by it.

mod codes;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod memory;
pub(crate) mod postgres;
#[cfg(test)]
pub(crate) mod shared_suite;
pub(crate) mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId};
use futures::future::BoxFuture;

use crate::message::{Enc, Envelope, Header, MessageKey, Seq};

/// A queued operation's result, once it is durable. Dropping it does not undo the operation.
pub(crate) type Commit<T> = BoxFuture<'static, Result<T, StoreError>>;

/// Durable queues, one a device.
///
/// The operations `claim`, `release`, `put`, `forget`, `drop_device`, `drop_account`, `expire` and `usage` are queued
/// when the method returns. Those of one account take effect in the order of the calls, whether or not anybody waits for
/// their results.
///
/// `put`, `forget`, `drop_device` and `drop_account` write for the replica that has claimed the account; of any other's
/// nothing happens, and the result is [`StoreError::Fenced`]. A backend of one process need not look.
pub(crate) trait Mailbox: Send + Sync + 'static {
    /// Makes the replica the owner of an account if nobody is, or if its owner's lease has ended. The replica's own
    /// lease must hold, else [`StoreError::Fenced`]. What the usage counts is final: nothing that was asked for before the
    /// claim, by whichever replica and also by this one, takes effect after it, not even what was told as
    /// [`StoreError::Unknown`].
    fn claim(&self, replica: ReplicaId, account: AccountId) -> Commit<Claimed>;

    /// Gives an account up, behind everything that was queued for it before. It is no error if it was not the replica's.
    fn release(&self, replica: ReplicaId, account: AccountId) -> Commit<()>;

    /// Keeps a message for the devices that `put` names, all or none. Durable when this resolves. What a device has
    /// already from the same sender device under the same id is not kept a second time.
    ///
    /// Puts of one [`Chain`] happen in their order without a gap: an error breaks the chain, and of the puts behind it
    /// nothing happens, however long they have been queued.
    fn put(&self, replica: ReplicaId, put: Put) -> Commit<PutOutcome>;

    /// Erases a device's entries up to and including `upto`; tells what that was. To forget twice is no error.
    fn forget(&self, replica: ReplicaId, account: AccountId, device: DeviceId, upto: Seq) -> Commit<Usage>;

    /// Erases a device's entries but those for registration `keep`; tells what that was.
    fn drop_device(&self, replica: ReplicaId, account: AccountId, device: DeviceId, keep: Option<u32>)
    -> Commit<Usage>;

    /// Erases everything of an account.
    fn drop_account(&self, replica: ReplicaId, account: AccountId) -> Commit<()>;

    /// Erases at most `limit` entries that have expired at `now_ms`; tells how many. Whoever owns their accounts.
    fn expire(&self, now_ms: u64, limit: u32) -> Commit<u64>;

    /// What waits for each device of an account that has entries, counting all operations queued before.
    fn usage(&self, account: AccountId) -> Commit<Vec<DeviceUsage>>;

    /// True if any device of the account has an entry from this sender device under this id. Sees at least what has
    /// been reported durable before the call.
    fn holds(&self, account: AccountId, key: MessageKey) -> Commit<bool>;

    /// A device's entries after `after`, in order; see [`PageRequest`]. Sees at least what has been reported durable
    /// before the call.
    fn page(&self, request: PageRequest) -> Commit<Page>;

    /// Says that the replica lives, and will for as long as it `lasts`, by the store's clock. The first call registers
    /// it. A lease that has ended, or that was given up, is never renewed: [`StoreError::Fenced`].
    fn renew(&self, replica: &Replica, lasts: Duration) -> Commit<()>;

    /// Ends the replica's lease: everything that it owns is free.
    fn leave(&self, replica: ReplicaId) -> Commit<()>;

    /// The replicas whose leases hold.
    fn replicas(&self) -> Commit<Vec<Replica>>;

    /// What waits in all of it, of all replicas. Costs a look at every device that has entries.
    fn depth(&self) -> Commit<Depth>;

    /// Operations that wait to be done.
    fn queued(&self) -> usize;

    /// Takes nothing more, and resolves when everything that is queued was done or given up. A backend that does so when
    /// it is dropped need not.
    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// One start of one routing process; 16 random bytes, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReplicaId([u8; 16]);

impl ReplicaId {
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A routing process, and where the others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    /// Of its gRPC service `Peers`; empty if it has no others.
    pub(crate) url: String,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// Nobody else writes this account's mailbox until it is released or this replica's lease ends.
    Ours {
        /// What waits for each of its devices.
        usage: Vec<DeviceUsage>,
        /// Who owned it until now: also the replica itself, and also one whose lease has ended. `None`: nobody, since it
        /// was released last.
        before: Option<ReplicaId>,
    },
    /// A replica whose lease holds has it.
    Held(Replica),
}

/// Puts that depend on each other: what comes later must not be there without what came earlier, or devices would get it
/// first. Clones are the same chain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain(Arc<AtomicBool>);

impl Chain {
    /// One of its puts did not happen, or nobody knows.
    pub(crate) fn break_off(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire) && !crate::planted::is("chain-goes-on")
    }

    /// For a put of a broken chain.
    pub(crate) fn error() -> StoreError {
        StoreError::Failed("an earlier message was not kept".to_owned())
    }
}

/// A message to keep.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) account: AccountId,
    pub(crate) chain: Chain,
    pub(crate) header: Arc<Header>,
    /// One a device.
    pub(crate) parts: Vec<Enc>,
}

/// What became of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutOutcome {
    /// Kept, for each of its devices.
    Stored {
        /// Devices that had it already.
        repeats: Vec<DeviceId>,
    },
    /// Nothing was kept, because it does not fit the bounds of one of the devices.
    Full,
}

/// What waits in a whole mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) waiting: Usage,
    /// When the oldest chat message was accepted, in Unix milliseconds; other classes do not wait for long.
    pub(crate) oldest_ms: Option<u64>,
}

/// Messages and their weight in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Usage {
    pub(crate) fn one(bytes: usize) -> Self {
        Self { messages: 1, bytes: bytes as u64 }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub(crate) fn sub(&mut self, other: Self) {
        self.messages = self.messages.saturating_sub(other.messages);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// What waits for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceUsage {
    pub(crate) device: DeviceId,
    pub(crate) usage: Usage,
    /// The last entry.
    pub(crate) last: Seq,
}

/// Which entries to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageRequest {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    /// Entries for other registrations are left out: they were for a device that is no more.
    pub(crate) registration: u32,
    pub(crate) after: Seq,
    /// At most so many entries, at least 1.
    pub(crate) messages: usize,
    /// Ends behind the entry with which the weight reaches this.
    pub(crate) bytes: usize,
    /// Entries that have expired by then are left out.
    pub(crate) now_ms: u64,
}

/// A part of a device's queue.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Envelope>,
    /// There was nothing behind it.
    pub(crate) end: bool,
}

/// Bounds of each device's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// Why an operation did not happen; nothing of it did, unless a variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// Too much is queued before it.
    #[error("the mailbox has too much to write")]
    Busy,
    /// The mailbox has been closed. What was queued before may have happened.
    #[error("the mailbox is closed")]
    Closed,
    /// The disk, or what is on it, or the way to it failed: it did not happen.
    #[error("the mailbox failed: {0}")]
    Failed(String),
    /// It may have happened, or may happen yet.
    #[error("the mailbox did not say what became of it: {0}")]
    Unknown(String),
    /// The account is not, or not any more, the replica's; or the replica's lease has ended.
    #[error("another replica may have taken over")]
    Fenced,
}

impl StoreError {
    /// It did not happen, and the account is whose it was.
    pub(crate) const fn is_certain(&self) -> bool {
        match self {
            Self::Busy | Self::Failed(_) => true,
            Self::Closed | Self::Unknown(_) | Self::Fenced => false,
        }
    }

    /// Stable name for metrics.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Closed => "closed",
            Self::Failed(_) => "failed",
            Self::Unknown(_) => "unknown",
            Self::Fenced => "fenced",
        }
    }
}
