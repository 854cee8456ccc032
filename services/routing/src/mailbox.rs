//! Where messages wait until their devices have them. To add a backend: a sibling file that implements [`Mailbox`] and
//! passes every test of `suite`.
//!
//! Every operation names the account first, so that the tables distribute by it.

pub(crate) mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::sync::Arc;

use causeway_identity::{AccountId, DeviceId};
use futures::future::BoxFuture;

use crate::message::{Enc, Envelope, Header, MessageKey, Seq};

/// A queued operation's result, once it is durable. Dropping it does not undo the operation.
pub(crate) type Commit<T> = BoxFuture<'static, Result<T, StoreError>>;

/// Durable queues, one a device.
///
/// The operations `put`, `forget`, `drop_device`, `drop_account`, `expire` and `usage` are queued when the method
/// returns and take effect in the order of the calls, whether or not anybody waits for their results.
pub(crate) trait Mailbox: Send + Sync + 'static {
    /// Keeps a message for the devices that `put` names, all or none. Durable when this resolves. What a device has
    /// already from the same sender device under the same id is not kept a second time.
    fn put(&self, put: Put) -> Commit<PutOutcome>;

    /// Erases a device's entries up to and including `upto`; tells what that was. To forget twice is no error.
    fn forget(&self, account: AccountId, device: DeviceId, upto: Seq) -> Commit<Usage>;

    /// Erases a device's entries but those for registration `keep`; tells what that was.
    fn drop_device(&self, account: AccountId, device: DeviceId, keep: Option<u32>) -> Commit<Usage>;

    /// Erases everything of an account.
    fn drop_account(&self, account: AccountId) -> Commit<()>;

    /// Erases at most `limit` entries that have expired at `now_ms`; tells how many.
    fn expire(&self, now_ms: u64, limit: u32) -> Commit<u64>;

    /// What waits for each device of an account that has entries, counting all operations queued before.
    fn usage(&self, account: AccountId) -> Commit<Vec<DeviceUsage>>;

    /// True if any device of the account has an entry from this sender device under this id. Sees at least what has
    /// been reported durable before the call.
    fn holds(&self, account: AccountId, key: MessageKey) -> Commit<bool>;

    /// A device's entries after `after`, in order; see [`PageRequest`]. Sees at least what has been reported durable
    /// before the call.
    fn page(&self, request: PageRequest) -> Commit<Page>;
}

/// A message to keep.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) account: AccountId,
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

/// Why an operation did not happen; nothing of it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// Too much is queued before it.
    #[error("the mailbox has too much to write")]
    Busy,
    /// The mailbox has been closed.
    #[error("the mailbox is closed")]
    Closed,
    /// The disk, or what is on it, failed.
    #[error("the mailbox failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// Stable name for metrics.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Closed => "closed",
            Self::Failed(_) => "failed",
        }
    }
}
