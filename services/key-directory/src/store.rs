//! What the directory keeps. [`Store`] is written in the words of the directory; its docs are the contract that every
//! backend keeps, and `suite` is the test of it, one function a sentence.
//!
//! A further backend is a file beside `sqlite.rs` that implements [`Store`] and passes `suite::run`; no other file
//! changes but the configuration that picks it.
//!
//! For all methods: when a change returns `Ok`, it is on disk; when it returns an error, it may or may not have
//! happened, so every change is safe to repeat. What followers of records must be told is committed with what changed,
//! and comes with the outcome. Each method is one atomic step: others see all of it or nothing. What a
//! caller is expected to handle is a value; an error means that the store could not answer.

mod postgres;
mod sqlite;
mod stored;
#[cfg(test)]
mod suite;

use async_trait::async_trait;
use causeway_identity::{AccountId, Address, DeviceId, Domain, NoiseKey, ProviderId};

pub use postgres::PostgresStore;
pub(crate) use postgres::change_log::PostgresLog;
#[cfg(test)]
pub(crate) use postgres::change_log::append;
pub use sqlite::{OpenError, SqliteStore};

pub use crate::changes::{Change, What};

use crate::accounts::{PushToken, Record};
use crate::consent::Consent;
use crate::keys::{EcPrekey, EcPublicKey, KyberPublicKey, RegistrationId, SignedPrekey, VerifiedPrekeys};
use crate::providers::{Provider, ProviderSettings, ProviderStatus, TokenKeySet};

/// One-time keys of one kind that a device can have in store; beyond it the oldest are dropped.
pub const MAX_STORED_PREKEYS: usize = 200;
/// A device's one-time keys are remembered for this many further hand-outs, so that publishing one again (a retry) does
/// not hand it out twice.
pub const REMEMBERED_PREKEYS: usize = 1_000;
/// The Noise key of a removed device, or of one of a withdrawn account, cannot enlist at its address for this long, in
/// milliseconds. A token that it enlisted with is good for no longer: it lasts 24 h from an `iat` that may be 60 s ahead,
/// and a session outlives it by less than 5 min (PROTOCOL.md, sections 3 and 4).
pub const RETIRED_MS: u64 = (24 * 60 + 6) * 60 * 1_000;
/// Noise keys that are remembered so for one address; beyond it the oldest are forgotten. At the default rate of
/// enlistment an address cannot have as many.
pub const MAX_RETIRED_KEYS: usize = 5_000;
/// Device ids are 1 to this, because libsignal's fit into seven bits.
pub const MAX_DEVICE_ID: u32 = 127;

/// Why the store could not answer. None of these names a key or an address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Too many changes wait; nothing happened.
    #[error("too many changes are waiting to be written")]
    Overloaded,
    /// The backend cannot be reached, or somebody else kept it busy; nothing happened.
    #[error("the store cannot be reached: {0}")]
    Away(String),
    /// The backend failed; a change may or may not have happened.
    #[error("the store failed: {0}")]
    Failed(String),
    /// What is stored is not what was written.
    #[error("the store holds a malformed {0}")]
    Corrupt(&'static str),
}

/// The outcome of a change, and what followers of records must be told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T> {
    /// What the method gives.
    pub outcome: T,
    /// Committed together with what changed.
    pub logged: Logged,
}

/// Changes that the store has committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "followers must be told"]
pub struct Logged {
    /// In order; empty if there is nothing to tell.
    pub changes: Vec<Change>,
    /// Number of the last of them in the store's log of changes; `None` from a store that one process has for itself,
    /// which keeps no log.
    pub number: Option<u64>,
}

impl<T> Written<T> {
    /// There is nothing to tell.
    pub fn silent(outcome: T) -> Self {
        Self { outcome, logged: Logged::default() }
    }

    /// Followers must be told of one change.
    pub fn told(outcome: T, change: Change) -> Self {
        Self { outcome, logged: Logged { changes: vec![change], number: None } }
    }
}

/// Whose record is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The account with this address now.
    Address(Address),
    /// The account with this id.
    Account(AccountId),
}

/// Outcome of [`Store::register_provider`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It is there now.
    Done,
    /// Another provider has this domain.
    DomainTaken,
    /// Another provider has this issuer.
    IssuerTaken,
    /// There are as many providers as there may be.
    Full,
}

/// Outcome of [`Store::update_provider`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Updated {
    /// As it is now, with a higher revision.
    Done(Box<Provider>),
    /// No provider has this domain.
    Unknown,
    /// The kind is not the registered one.
    OtherKind,
    /// Another provider has this issuer.
    IssuerTaken,
}

/// A device that asks to be enlisted; its keys are verified.
#[derive(Debug, Clone)]
pub struct Enlistment {
    /// Proven by a token.
    pub address: Address,
    /// Whose domain the address names.
    pub provider: ProviderId,
    /// Random; becomes the account's id if the address has no account.
    pub new_account: AccountId,
    /// Proven by the handshake.
    pub noise_key: NoiseKey,
    /// Chosen by the device.
    pub registration_id: RegistrationId,
    /// Signed and last-resort prekey are there.
    pub keys: VerifiedPrekeys,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// Outcome of [`Store::enlist`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enlisted {
    /// A device was added, and with it perhaps the account.
    Added {
        /// Of the account.
        account: AccountId,
        /// Of the new device.
        device: DeviceId,
    },
    /// The same device asked before: nothing changed.
    Before {
        /// Of the account.
        account: AccountId,
        /// Of the device.
        device: DeviceId,
    },
    /// This Noise key belongs to a device of the account with another identity or registration id.
    OtherKeys,
    /// This Noise key was that of a device of this address which was removed, or whose account was withdrawn, less than
    /// [`RETIRED_MS`] ago.
    Retired,
    /// The account has 16 devices.
    DeviceLimit,
}

/// How many one-time keys a device has in store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyCounts {
    /// EC keys.
    pub ec: u32,
    /// Kyber keys, the last-resort one not counted.
    pub kyber: u32,
}

/// What a login needs to know of an enlisted device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownDevice {
    /// Of the account.
    pub account: AccountId,
    /// The one key that may log in as this device.
    pub noise_key: NoiseKey,
    /// As the device chose it.
    pub registration_id: RegistrationId,
    /// Devices that the account has.
    pub devices: u32,
    /// It has fewer one-time keys of a kind than it should.
    pub is_low: bool,
}

/// Outcome of [`Store::publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// What the device has now.
    Done(KeyCounts),
    /// The device is enlisted with another identity key; nothing changed.
    OtherIdentity,
    /// There is no such device.
    NoDevice,
}

/// Outcome of [`Store::remove_device`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Done,
    /// The account has no such device.
    NoDevice,
    /// The device that asked is not of the account; nothing changed.
    NotEnlisted,
}

/// What somebody needs to open a session with a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The device.
    pub device: DeviceId,
    /// Its registration id.
    pub registration_id: RegistrationId,
    /// Its identity key.
    pub identity_key: EcPublicKey,
    /// Its signed prekey.
    pub signed: SignedPrekey<EcPublicKey>,
    /// A one-time key, never given to anybody else; `None` when they are used up, or were not asked for.
    pub ec: Option<EcPrekey>,
    /// A one-time key, never given to anybody else, or the last-resort one.
    pub kyber: SignedPrekey<KyberPublicKey>,
    /// What the device has left.
    pub left: KeyCounts,
    /// True if a one-time EC key, or a one-time Kyber key, was taken.
    pub taken: (bool, bool),
}

impl Bundle {
    /// True if with this bundle a kind of one-time keys fell below `low`, or its last key has gone; not in between.
    pub fn runs_low(&self, low: u32) -> bool {
        let fell = |taken: bool, left: u32| taken && (left + 1 == low || left == 0);
        fell(self.taken.0, self.left.ec) || fell(self.taken.1, self.left.kyber)
    }
}

/// What followers must be told of devices that run low.
fn low_prekeys(account: AccountId, address: &Address, bundles: &[Bundle], low: u32) -> Vec<Change> {
    let change = |bundle: &Bundle| {
        let what = What::PrekeysLow { device: bundle.device, left: bundle.left };
        Change::Record { address: address.clone(), account, what }
    };
    bundles.iter().filter(|bundle| bundle.runs_low(low)).map(change).collect()
}

/// A stretch of a store's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// A random name, renewed when the store is made usable after a restore.
    pub incarnation: String,
    /// Never falls within an incarnation, unless the store was put back to an earlier time.
    pub number: u64,
}

/// The directory's durable state; see the module for what holds for every method.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Adds a provider with its first token keys, unless `limit` providers exist already.
    async fn register_provider(
        &self,
        new: &Provider,
        keys: &TokenKeySet,
        limit: u32,
    ) -> Result<Written<Registered>, StoreError>;

    /// Replaces the settings of the provider with this domain, and its token keys by those fetched under them; the
    /// revision rises, id, status, kind and domain stay.
    async fn update_provider(
        &self,
        settings: &ProviderSettings,
        keys: &TokenKeySet,
    ) -> Result<Written<Updated>, StoreError>;

    /// Sets the status and gives the provider as it is now; `None`: no provider has this domain.
    async fn set_provider_status(
        &self,
        domain: &Domain,
        status: ProviderStatus,
    ) -> Result<Written<Option<Provider>>, StoreError>;

    /// The provider with this domain.
    async fn provider(&self, domain: &Domain) -> Result<Option<Provider>, StoreError>;

    /// At most `limit` providers in the order of their domains (byte order), after `after`.
    async fn providers(&self, after: Option<&Domain>, limit: u32) -> Result<Vec<Provider>, StoreError>;

    /// Keeps token keys that were fetched under `revision` of the settings, when those were kept that had been fetched
    /// at `before_ms`; false, and nothing kept, if the settings have changed since, or the keys: then the fetch may have
    /// begun before the one that others were kept of.
    async fn keep_token_keys(
        &self,
        provider: ProviderId,
        revision: u64,
        before_ms: u64,
        keys: &TokenKeySet,
    ) -> Result<bool, StoreError>;

    /// The token keys kept last; `None` if there is no such provider.
    async fn token_keys(&self, provider: ProviderId) -> Result<Option<TokenKeySet>, StoreError>;

    /// The account's record. By address: the account that has it now.
    async fn record(&self, who: &Who) -> Result<Option<Record>, StoreError>;

    /// Two records, each as [`Self::record`] gives it; not necessarily of one moment.
    async fn two_records(&self, one: &Who, other: &Who) -> Result<[Option<Record>; 2], StoreError> {
        let (one, other) = futures::try_join!(self.record(one), self.record(other))?;
        Ok([one, other])
    }

    /// The device with this id of the account that has this address now; `low` is how many one-time keys of each kind it
    /// should have at least.
    async fn known_device(
        &self,
        address: &Address,
        device: DeviceId,
        low: u32,
    ) -> Result<Option<KnownDevice>, StoreError>;

    /// Adds a device and, if the address has none, its account, with default consent. The same Noise key with the same
    /// identity and registration id again changes nothing and gives the same ids; followers are told again, as whoever
    /// asked may not have heard the first answer. Device ids that the account never
    /// used are given first, lowest first; then those whose device was removed longest ago. The key of a device that is
    /// no more is refused until [`RETIRED_MS`] are over.
    async fn enlist(&self, enlistment: &Enlistment) -> Result<Written<Enlisted>, StoreError>;

    /// Removes a device with all its keys, and retires its Noise key. `by` is the device of the account that asks.
    async fn remove_device(
        &self,
        account: AccountId,
        by: DeviceId,
        device: DeviceId,
        now_ms: u64,
    ) -> Result<Written<Removed>, StoreError>;

    /// Erases the account: address, devices, keys, consent. Its id is remembered and never given again; its devices'
    /// Noise keys are retired. `by` is the device of the account that asks; false, and nothing changed: there is no such
    /// account or device.
    async fn withdraw(&self, account: AccountId, by: DeviceId, now_ms: u64) -> Result<Written<bool>, StoreError>;

    /// Sets or drops a device's push token; false: there is no such device. What is stored already is not written and not
    /// logged again; a store without a log tells followers again, as whoever set it may not have told them yet.
    async fn set_push(
        &self,
        account: AccountId,
        device: DeviceId,
        token: Option<&PushToken>,
    ) -> Result<Written<bool>, StoreError>;

    /// Replaces the consent. `by` is the device of the account that asks; false, and nothing changed: there is no such
    /// account or device. What is stored already is treated as in [`Self::set_push`]: with everything that is in the log
    /// it is confirmed, too.
    async fn set_consent(
        &self,
        account: AccountId,
        by: DeviceId,
        consent: &Consent,
    ) -> Result<Written<bool>, StoreError>;

    /// Replaces the signed and the last-resort prekey where given, and adds one-time keys behind those in store. A
    /// one-time key that is in store, or among the last [`REMEMBERED_PREKEYS`] handed out, is passed over; a stored
    /// one-time key with the id of a new one is replaced by it. Beyond [`MAX_STORED_PREKEYS`] of a kind the oldest are
    /// dropped.
    async fn publish(
        &self,
        account: AccountId,
        device: DeviceId,
        keys: &VerifiedPrekeys,
    ) -> Result<Published, StoreError>;

    /// How many one-time keys are in store; `None`: there is no such device.
    async fn key_counts(&self, account: AccountId, device: DeviceId) -> Result<Option<KeyCounts>, StoreError>;

    /// A bundle for each of these devices that exists, in the order given, once for one that is named twice. From each, the one-time key of either kind
    /// that was uploaded first is taken; it is never given again, not even when this call's answer gets lost. Without
    /// `one_time`, none is taken, and the bundles are those of devices that have none left. Followers are told of each
    /// device that [runs low](Bundle::runs_low) with this.
    async fn claim(
        &self,
        account: AccountId,
        devices: &[DeviceId],
        one_time: bool,
        low: u32,
    ) -> Result<Written<Vec<Bundle>>, StoreError>;

    /// Begins another epoch, so that a copy that was made before is known as such when it is put back. To be called every
    /// now and then, and when the process leaves. Gives the new one, which is lasting then; `None` as for
    /// [`epoch`](Self::epoch).
    async fn turn_epoch(&self) -> Result<Option<Epoch>, StoreError>;

    /// Which epoch it seems to be: it need not last. `None`: the store finds out by itself, when it is opened, that it was put
    /// back.
    async fn epoch(&self) -> Result<Option<Epoch>, StoreError> {
        Ok(None)
    }

    /// Whether this is the store that was opened, and none that was put in its place since.
    async fn is_home(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// The store is known to have had an epoch as high as this. If it is at a lower one now, nobody opens it any more.
    async fn condemn(&self, _highest: u64) -> Result<(), StoreError> {
        Ok(())
    }

    /// Resolves when this store can never answer again, so that the process should leave.
    async fn lost(&self);
}
