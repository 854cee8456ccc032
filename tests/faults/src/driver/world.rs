//! Everything that the clients of a run share.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use anyhow::Context as _;
use causeway_identity::{AccountId, Address, DeviceId};
use causeway_stanza::RegistrationId;
use tokio::sync::{Mutex, mpsc, watch};

use super::providers::Provider;
use crate::client::canary::Secret;
use crate::client::dial::Deployment;
use crate::client::light::Command;
use crate::ledger::Ledger;
use crate::workload::media::Stored;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Talk, go away, come back.
    Load,
    /// Finish what is open, and stay until nothing is left.
    Drain,
    /// Leave.
    Stop,
}

/// A run's clients and what they know of each other.
pub struct World {
    /// The deployment.
    pub net: Deployment,
    /// What bodies and ids are made of.
    pub secret: Secret,
    /// What randomness is made of.
    pub seed: u64,
    /// Where everything is written down.
    pub ledger: Ledger,
    /// The providers; the first is the operator's.
    pub providers: Vec<Provider>,
    /// The accounts.
    pub accounts: Vec<Account>,
    /// What is going on.
    pub phase: watch::Sender<Phase>,
    /// Counts for the progress line.
    pub counts: Counts,
    devices: RwLock<Vec<Option<Arc<Enlisted>>>>,
    next_device: AtomicU32,
    media: RwLock<Vec<Arc<Stored>>>,
}

/// An account.
pub struct Account {
    /// Its number.
    pub number: u32,
    /// Its provider's number.
    pub provider: u32,
    /// Local part of its address.
    pub user: String,
    /// Its address.
    pub address: Address,
    /// Its devices are the SDK's.
    pub sdk: bool,
    /// Held by whoever changes something about the account.
    pub changing: Mutex<()>,
    id: OnceLock<AccountId>,
    devices: RwLock<Vec<Arc<Enlisted>>>,
}

/// A device on an account.
pub struct Enlisted {
    /// Its number.
    pub number: u32,
    /// Its account.
    pub account: u32,
    /// The id that the server gave it.
    pub id: DeviceId,
    /// Its registration.
    pub registration: RegistrationId,
    /// Tells it what to do.
    pub commands: mpsc::Sender<Command>,
    /// It is being removed, or was.
    pub leaving: std::sync::atomic::AtomicBool,
}

/// What has happened so far, for the progress line.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages submitted.
    pub submitted: AtomicU64,
    /// Of these, `delivered`.
    pub delivered: AtomicU64,
    /// `stored`.
    pub stored: AtomicU64,
    /// `dropped`.
    pub dropped: AtomicU64,
    /// `rejected`.
    pub rejected: AtomicU64,
    /// Messages that never were submitted, because their sender had too many.
    pub shed: AtomicU64,
    /// Submitted again.
    pub again: AtomicU64,
    /// Deliveries on the wire.
    pub wire: AtomicU64,
    /// Messages shown.
    pub app: AtomicU64,
    /// Sessions open now.
    pub sessions: AtomicU64,
    /// Sessions opened.
    pub logins: AtomicU64,
    /// Devices that have finished.
    pub drained: AtomicU64,
    /// Media stored.
    pub uploads: AtomicU64,
    /// Media fetched, byte for byte.
    pub downloads: AtomicU64,
}

impl Counts {
    /// Messages that are `delivered` or `stored`.
    pub fn acknowledged(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed) + self.stored.load(Ordering::Relaxed)
    }
}

impl World {
    /// An empty one.
    pub fn new(
        net: Deployment,
        seed: u64,
        ledger: Ledger,
        providers: Vec<Provider>,
        accounts: Vec<Account>,
    ) -> Arc<Self> {
        Arc::new(Self {
            net,
            secret: Secret::new(seed),
            seed,
            ledger,
            providers,
            accounts,
            phase: watch::Sender::new(Phase::Load),
            counts: Counts::default(),
            devices: RwLock::default(),
            next_device: AtomicU32::new(0),
            media: RwLock::default(),
        })
    }

    /// An account.
    ///
    /// # Errors
    /// There is none with this number.
    pub fn account(&self, number: u32) -> anyhow::Result<&Account> {
        self.accounts.get(number as usize).with_context(|| format!("no account {number}"))
    }

    /// An account's provider.
    ///
    /// # Errors
    /// There is none with this number.
    pub fn provider(&self, account: &Account) -> anyhow::Result<&Provider> {
        self.providers.get(account.provider as usize).context("no such provider")
    }

    /// Whether messages may go from one account to another at all: one of them is at home.
    pub fn is_route(&self, from: &Account, to: &Account) -> bool {
        from.number != to.number && (from.provider == 0 || to.provider == 0) && from.sdk == to.sdk
    }

    /// A number for a device to be.
    pub fn new_device(&self) -> u32 {
        self.next_device.fetch_add(1, Ordering::Relaxed)
    }

    /// A device has enlisted: others write to it from now on.
    pub fn add(&self, account: &Account, id: AccountId, device: &Arc<Enlisted>) {
        let _first = account.id.set(id);
        {
            let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
            let place = device.number as usize;
            if devices.len() <= place {
                devices.resize(place + 1, None);
            }
            devices[place] = Some(Arc::clone(device));
        }
        account.devices.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(device));
    }

    /// A medium is stored: others fetch it from now on.
    pub fn stored(&self, medium: Arc<Stored>) {
        self.media.write().unwrap_or_else(PoisonError::into_inner).push(medium);
    }

    /// All that is stored.
    pub fn media(&self) -> Vec<Arc<Stored>> {
        self.media.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A device, also of the past.
    pub fn device(&self, number: u32) -> Option<Arc<Enlisted>> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        devices.get(number as usize).cloned().flatten()
    }
}

impl Account {
    /// A new one without devices.
    pub fn new(number: u32, provider: u32, user: String, address: Address, sdk: bool) -> Self {
        Self {
            number,
            provider,
            user,
            address,
            sdk,
            changing: Mutex::default(),
            id: OnceLock::new(),
            devices: RwLock::default(),
        }
    }

    /// Its devices.
    pub fn devices(&self) -> Vec<Arc<Enlisted>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The internal id that the server gave it.
    pub fn id(&self) -> Option<AccountId> {
        self.id.get().copied()
    }

    /// A device is no more: nobody writes to it from now on.
    pub fn remove(&self, device: u32) {
        self.devices.write().unwrap_or_else(PoisonError::into_inner).retain(|other| other.number != device);
    }
}
