//! What several directories share in their store: the log of changes, and the register of those who read it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::changes::Change;

/// One registration of a directory: random, never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ReplicaId(pub(crate) [u8; 16]);

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Of the entry; 0 is before the first.
    pub(crate) number: u64,
    /// Tells it from another entry with this number, which a store can have that was restored to a time before it.
    pub(crate) tag: i64,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    /// `None`: cannot be read, or was trimmed.
    pub(crate) change: Option<Change>,
}

/// What is behind a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// Entries without a gap, as many as were asked for if there are so many.
    Entries(Vec<Entry>),
    /// The place is not in the log, or not what follows it.
    Gap,
}

/// A registered directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: ReplicaId,
    /// Another one with each renewal.
    pub(crate) renewals: u64,
    /// How long each renewal is good for.
    pub(crate) lasts: Duration,
    /// None of its followers acts on anything from before this change or an earlier one.
    pub(crate) confirmed: u64,
}

/// The store did not answer; a change may or may not have happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LogError(pub(crate) String);

/// The log and the register. Each method is one atomic step.
#[async_trait]
pub(crate) trait Log: Send + Sync + 'static {
    /// Adds a directory that has confirmed everything until now, and gives the end of the log. When this returns, it is
    /// lasting.
    async fn register(&self, id: ReplicaId, lasts: Duration) -> Result<Place, LogError>;

    /// At most `limit` entries behind a place.
    async fn read(&self, after: Place, limit: usize) -> Result<Read, LogError>;

    /// Renews a registration, and writes what it has confirmed if that is more. False: it has been ended.
    async fn renew(&self, id: ReplicaId, lasts: Duration, confirmed: u64) -> Result<bool, LogError>;

    /// All registrations.
    async fn peers(&self) -> Result<Vec<Peer>, LogError>;

    /// Ends a registration that was not renewed since it was seen so; false, and nothing happened: it was, or is no
    /// more. When this returns true, it is lasting.
    async fn end(&self, peer: &Peer) -> Result<bool, LogError>;

    /// Its own directory renews it no more, and is good for nothing after this time.
    async fn leave(&self, id: ReplicaId, lasts: Duration) -> Result<(), LogError>;

    /// Removes entries, but not the last one, that are older than `age`, or when more than `most` have been written
    /// since. Of those that stay but are older only the place is left.
    async fn trim(&self, age: Duration, most: u64) -> Result<(), LogError>;
}
