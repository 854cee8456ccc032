//! Where a device keeps what must survive it: keys, sessions, messages on their way in and out.
//!
//! The contract: [`Store::commit`] applies all of its changes or none, and they are on disk when it returns. The client
//! holds one store and makes one call at a time. To add a backend: implement [`Store`] and pass it to `suite::run` in a
//! test. To add something to keep: a [`Change`], a verb to read it back, and a function in the suite.

mod memory;
mod outgoing;
mod rows;
mod sqlite;
#[cfg(test)]
mod suite;

use std::time::Duration;

use async_trait::async_trait;
use causeway_identity::{AccountId, Address, DeviceId, MessageId};
use zeroize::Zeroizing;

pub use memory::MemoryStore;
pub use outgoing::{Outgoing, OutgoingHeader, Purpose, SealedFor};
pub use sqlite::SqliteStore;

use crate::event::{IdentityChanged, Message, SentElsewhere, Undecryptable};

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another client of this one, uses the same file.
    #[error("the file is in use by another client")]
    InUse,
    /// The file is of a later version of this library.
    #[error("the file was written by a later version (schema {0})")]
    Newer(i64),
    /// Something in the store is not what was put there.
    #[error("the stored {0} cannot be read")]
    Corrupt(&'static str),
    /// The file could not be made or opened.
    #[error("file: {0}")]
    Io(#[from] std::io::Error),
    /// The database failed.
    #[error("database: {0}")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A device's durable state. Every verb reads what was committed last.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Applies the changes in their order, all or none; durable when it returns.
    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError>;

    /// The device's own keys and ids; `None`: a fresh store.
    async fn device(&self) -> Result<Option<DeviceRecord>, StoreError>;
    /// A prekey's private part.
    async fn prekey(&self, family: PrekeyFamily, id: u32) -> Result<Option<Prekey>, StoreError>;
    /// All prekeys that the server has not confirmed yet, one-time ones in order of their making.
    async fn unpublished_prekeys(&self) -> Result<Vec<Prekey>, StoreError>;
    /// When the newest signed prekey was made, Unix milliseconds.
    async fn signed_prekey_made_ms(&self) -> Result<Option<u64>, StoreError>;
    /// Whether this combination was used to open a session already.
    async fn base_key_used(&self, key: &UsedBaseKey) -> Result<bool, StoreError>;

    /// The Signal session with a device.
    async fn session(&self, with: SignalAddress) -> Result<Option<Vec<u8>>, StoreError>;
    /// The identity key of a device, 33 bytes.
    async fn identity(&self, of: SignalAddress) -> Result<Option<Vec<u8>>, StoreError>;
    /// What is known about the account at an address.
    async fn peer(&self, address: &Address) -> Result<Option<Peer>, StoreError>;

    /// Messages without an outcome, by rising `seq`, at most `limit` after `after`.
    async fn unfinished(&self, after: u64, limit: usize) -> Result<Vec<OutgoingHeader>, StoreError>;
    /// A message, finished or not.
    async fn outgoing(&self, id: MessageId) -> Result<Option<Outgoing>, StoreError>;
    /// The newest message to `to` whose id begins with these 6 bytes.
    async fn sent_to(&self, to: &Address, id_prefix: [u8; 6]) -> Result<Option<Outgoing>, StoreError>;
    /// How often a message was sent again to a device that could not read it.
    async fn resends(&self, id: MessageId, device: SignalAddress) -> Result<u32, StoreError>;

    /// Whether this message was received before: `Some(true)` if it could be read.
    async fn seen(&self, from: SignalAddress, id: MessageId) -> Result<Option<bool>, StoreError>;
    /// What the application has not confirmed, by rising `seq`, at most `limit` after `after`.
    async fn inbox(&self, after: u64, limit: usize) -> Result<Vec<InboxEntry>, StoreError>;
    /// How many entries [`Store::inbox`] has in all.
    async fn inbox_len(&self) -> Result<usize, StoreError>;
    /// The highest `seq` ever given to an outgoing message and to an inbox entry.
    async fn last_seqs(&self) -> Result<(u64, u64), StoreError>;
}

/// One step of a commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Replaces the device's own record.
    PutDevice(Box<DeviceRecord>),
    /// Adds or replaces a prekey.
    PutPrekey(Prekey),
    /// Removes a prekey and, of a last-resort one, the base keys seen with it.
    RemovePrekey(PrekeyFamily, u32),
    /// The server has all prekeys with these ids.
    PublishedPrekeys(Vec<(PrekeyFamily, u32)>),
    /// All signed and last-resort prekeys made before the newest are replaced since `at_ms`, unless they were before.
    ReplacedPrekeys {
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// A last-resort prekey opened a session with this combination.
    UseBaseKey(UsedBaseKey),
    /// Adds or replaces a session.
    PutSession(SignalAddress, Vec<u8>),
    /// Adds or replaces an identity key.
    PutIdentity(SignalAddress, Vec<u8>),
    /// Adds or replaces what is known about an account.
    PutPeer(Peer),
    /// Adds or replaces an outgoing message, by its `seq`.
    PutOutgoing(Box<Outgoing>),
    /// A message is sent once more to a device that could not read it.
    CountResend(MessageId, SignalAddress),
    /// A message was received; once read, it stays read.
    Seen {
        /// From which device.
        from: SignalAddress,
        /// Which message.
        id: MessageId,
        /// Now, Unix milliseconds.
        at_ms: u64,
        /// It could be read.
        read: bool,
    },
    /// Adds an entry for the application.
    PutInbox(Box<InboxEntry>),
    /// The application has confirmed an entry; again is no error.
    DoneInbox(u64),
    /// Forgets what is older or more than it need be. Never what is unfinished or not confirmed.
    Prune(Prune),
}

/// What [`Change::Prune`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Replaced prekeys go after this.
    pub prekeys: Duration,
    /// At most this many one-time prekeys of a family stay, the newest: the server hands out the oldest first, and those
    /// that were handed out long ago and never used are used no more.
    pub one_time_count: usize,
    /// Finished messages go after this.
    pub sent: Duration,
    /// At most this many finished messages stay.
    pub sent_count: usize,
    /// Received ids go after this.
    pub seen: Duration,
    /// At most this many received ids stay.
    pub seen_count: usize,
}

/// The name of a device in Signal sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignalAddress {
    /// Internal account id.
    pub account: AccountId,
    /// Device of it.
    pub device: DeviceId,
}

/// The device itself. Its keys are secret.
#[derive(Clone, PartialEq)]
pub struct DeviceRecord {
    /// X25519 private key that the device enlists and connects with.
    pub noise_private: Zeroizing<[u8; 32]>,
    /// Signal identity key pair, as libsignal serialises it.
    pub identity: Zeroizing<Vec<u8>>,
    /// Signal registration id.
    pub registration_id: u32,
    /// Account and device, once enlisted.
    pub enlisted: Option<SignalAddress>,
    /// The server's X25519 public key, once its certificate was verified.
    pub server_key: Option<[u8; 32]>,
    /// The next prekey gets this id (1..2^24).
    pub next_prekey_id: u32,
}

/// Shows ids only.
impl std::fmt::Debug for DeviceRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceRecord").field("enlisted", &self.enlisted).finish_non_exhaustive()
    }
}

/// Prekey ids are unique within a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrekeyFamily {
    /// One-time EC.
    Ec,
    /// Signed EC.
    Signed,
    /// Kyber-1024, one-time and last-resort.
    Kyber,
}

/// A prekey with its private part.
#[derive(Clone, PartialEq, Eq)]
pub struct Prekey {
    /// Which kind.
    pub family: PrekeyFamily,
    /// 1..2^24.
    pub id: u32,
    /// Kyber only: serves when the one-time keys are used up.
    pub last_resort: bool,
    /// As libsignal serialises it.
    pub record: Zeroizing<Vec<u8>>,
    /// Unix milliseconds.
    pub made_ms: u64,
    /// The server has it.
    pub published: bool,
    /// Unix milliseconds; signed and last-resort: a newer one is in use since.
    pub replaced_ms: Option<u64>,
}

/// Leaves out the key.
impl std::fmt::Debug for Prekey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prekey").field("family", &self.family).field("id", &self.id).finish_non_exhaustive()
    }
}

/// What opened a session with a last-resort prekey: must not do so twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsedBaseKey {
    /// The last-resort Kyber prekey.
    pub kyber: u32,
    /// The signed EC prekey.
    pub signed: u32,
    /// The initiator's base key, 33 bytes.
    pub base_key: Vec<u8>,
}

/// An account that this device talks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: Address,
    /// Its internal id.
    pub account: AccountId,
    /// Its devices as far as known; `None`: never asked.
    pub devices: Option<Vec<PeerDevice>>,
}

/// A device of a [`Peer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerDevice {
    /// Its id.
    pub id: DeviceId,
    /// Its Signal registration id.
    pub registration_id: u32,
}

/// Something for the application.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxEntry {
    /// Rises from 1 and is never used again.
    pub seq: u64,
    /// What.
    pub item: InboxItem,
}

/// The kinds of [`InboxEntry`].
#[derive(Debug, Clone, PartialEq)]
pub enum InboxItem {
    /// A message.
    Message(Message),
    /// A message of another device of this user.
    SentElsewhere(SentElsewhere),
    /// A message that cannot be read.
    Undecryptable(Undecryptable),
    /// Another identity key.
    IdentityChanged(IdentityChanged),
}
