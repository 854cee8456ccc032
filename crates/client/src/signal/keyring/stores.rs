//! libsignal's store traits over plain maps. An entry that is `None` was looked for and is not there.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use libsignal_protocol::{
    Direction, IdentityChange, IdentityKey, IdentityKeyPair, IdentityKeyStore, KyberPreKeyId, KyberPreKeyRecord,
    KyberPreKeyStore, PreKeyId, PreKeyRecord, PreKeyStore, ProtocolAddress, PublicKey, SessionRecord, SessionStore,
    SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord, SignedPreKeyStore,
};

use super::IdentityEvent;
use crate::signal::{SignalError, signal_address};
use crate::store::{Change, PrekeyFamily, SignalAddress, UsedBaseKey};

type Result<T> = std::result::Result<T, SignalProtocolError>;

/// Sessions by device.
#[derive(Default)]
pub(super) struct Sessions {
    records: BTreeMap<SignalAddress, Option<SessionRecord>>,
    changed: BTreeSet<SignalAddress>,
}

impl Sessions {
    pub(super) fn is_loaded(&self, device: SignalAddress) -> bool {
        self.records.contains_key(&device)
    }

    pub(super) fn put_loaded(&mut self, device: SignalAddress, record: Option<SessionRecord>) {
        self.records.insert(device, record);
    }

    pub(super) fn get(&self, device: SignalAddress) -> Option<&SessionRecord> {
        self.records.get(&device)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, device: SignalAddress) -> Option<&mut SessionRecord> {
        let record = self.records.get_mut(&device)?.as_mut()?;
        self.changed.insert(device);
        Some(record)
    }

    pub(super) fn take_changes(&mut self) -> std::result::Result<Vec<Change>, SignalError> {
        let mut changes = Vec::new();
        for device in std::mem::take(&mut self.changed) {
            if let Some(Some(record)) = self.records.get(&device) {
                changes.push(Change::PutSession(device, record.serialize()?));
            }
        }
        Ok(changes)
    }
}

#[async_trait(?Send)]
impl SessionStore for Sessions {
    async fn load_session(&self, address: &ProtocolAddress) -> Result<Option<SessionRecord>> {
        Ok(self.get(signal_address(address)?).cloned())
    }

    async fn store_session(&mut self, address: &ProtocolAddress, record: &SessionRecord) -> Result<()> {
        let device = signal_address(address)?;
        self.records.insert(device, Some(record.clone()));
        self.changed.insert(device);
        Ok(())
    }
}

/// Identity keys by device. The first one is believed; a later one is believed too, and reported.
pub(super) struct Identities {
    own: IdentityKeyPair,
    registration_id: u32,
    keys: BTreeMap<SignalAddress, Option<IdentityKey>>,
    changed: BTreeSet<SignalAddress>,
    replaced: BTreeSet<SignalAddress>,
}

/// What [`Identities::restore`] goes back to.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    key: Option<IdentityKey>,
    changed: bool,
    replaced: bool,
}

impl Identities {
    pub(super) fn new(own: IdentityKeyPair, registration_id: u32) -> Self {
        Self { own, registration_id, keys: BTreeMap::new(), changed: BTreeSet::new(), replaced: BTreeSet::new() }
    }

    pub(super) fn put_loaded(&mut self, device: SignalAddress, key: Option<IdentityKey>) {
        self.keys.insert(device, key);
    }

    pub(super) fn get(&self, device: SignalAddress) -> Option<IdentityKey> {
        self.keys.get(&device).copied().flatten()
    }

    pub(super) fn mark(&self, device: SignalAddress) -> Mark {
        Mark {
            key: self.get(device),
            changed: self.changed.contains(&device),
            replaced: self.replaced.contains(&device),
        }
    }

    pub(super) fn restore(&mut self, device: SignalAddress, mark: Mark) {
        self.keys.insert(device, mark.key);
        if !mark.changed {
            self.changed.remove(&device);
        }
        if !mark.replaced {
            self.replaced.remove(&device);
        }
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        let keys = changed.into_iter().filter_map(|device| Some((device, self.get(device)?)));
        keys.map(|(device, key)| Change::PutIdentity(device, key.serialize().into_vec())).collect()
    }

    pub(super) fn take_events(&mut self) -> Vec<IdentityEvent> {
        std::mem::take(&mut self.replaced).into_iter().map(|device| IdentityEvent { device }).collect()
    }
}

#[async_trait(?Send)]
impl IdentityKeyStore for Identities {
    async fn get_identity_key_pair(&self) -> Result<IdentityKeyPair> {
        Ok(self.own)
    }

    async fn get_local_registration_id(&self) -> Result<u32> {
        Ok(self.registration_id)
    }

    async fn save_identity(&mut self, address: &ProtocolAddress, identity: &IdentityKey) -> Result<IdentityChange> {
        let device = signal_address(address)?;
        let known = self.get(device);
        if known == Some(*identity) {
            return Ok(IdentityChange::NewOrUnchanged);
        }
        self.keys.insert(device, Some(*identity));
        self.changed.insert(device);
        if known.is_some() {
            self.replaced.insert(device);
        }
        Ok(IdentityChange::from_changed(known.is_some()))
    }

    async fn is_trusted_identity(&self, _: &ProtocolAddress, _: &IdentityKey, _: Direction) -> Result<bool> {
        Ok(true)
    }

    async fn get_identity(&self, address: &ProtocolAddress) -> Result<Option<IdentityKey>> {
        Ok(self.get(signal_address(address)?))
    }
}

/// One-time EC prekeys. A used one is gone.
#[derive(Default)]
pub(super) struct EcKeys {
    keys: BTreeMap<u32, Option<PreKeyRecord>>,
    removed: Vec<u32>,
}

impl EcKeys {
    pub(super) fn is_loaded(&self, id: u32) -> bool {
        self.keys.contains_key(&id)
    }

    pub(super) fn put_loaded(&mut self, id: u32, key: Option<PreKeyRecord>) {
        self.keys.insert(id, key);
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let removed = std::mem::take(&mut self.removed);
        removed.into_iter().map(|id| Change::RemovePrekey(PrekeyFamily::Ec, id)).collect()
    }
}

#[async_trait(?Send)]
impl PreKeyStore for EcKeys {
    async fn get_pre_key(&self, id: PreKeyId) -> Result<PreKeyRecord> {
        self.keys.get(&id.into()).cloned().flatten().ok_or(SignalProtocolError::InvalidPreKeyId)
    }

    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> Result<()> {
        self.keys.insert(id.into(), Some(record.clone()));
        Ok(())
    }

    async fn remove_pre_key(&mut self, id: PreKeyId) -> Result<()> {
        self.keys.insert(id.into(), None);
        self.removed.push(id.into());
        Ok(())
    }
}

/// Signed EC prekeys.
#[derive(Default)]
pub(super) struct SignedKeys {
    keys: BTreeMap<u32, Option<SignedPreKeyRecord>>,
}

impl SignedKeys {
    pub(super) fn is_loaded(&self, id: u32) -> bool {
        self.keys.contains_key(&id)
    }

    pub(super) fn put_loaded(&mut self, id: u32, key: Option<SignedPreKeyRecord>) {
        self.keys.insert(id, key);
    }
}

#[async_trait(?Send)]
impl SignedPreKeyStore for SignedKeys {
    async fn get_signed_pre_key(&self, id: SignedPreKeyId) -> Result<SignedPreKeyRecord> {
        self.keys.get(&id.into()).cloned().flatten().ok_or(SignalProtocolError::InvalidSignedPreKeyId)
    }

    async fn save_signed_pre_key(&mut self, id: SignedPreKeyId, record: &SignedPreKeyRecord) -> Result<()> {
        self.keys.insert(id.into(), Some(record.clone()));
        Ok(())
    }
}

/// Kyber prekeys. A used one-time key is gone; a last-resort key opens one session with each base key.
#[derive(Default)]
pub(super) struct KyberKeys {
    keys: BTreeMap<u32, Option<(KyberPreKeyRecord, bool)>>,
    used: BTreeSet<UsedBaseKey>,
    removed: Vec<u32>,
    newly_used: Vec<UsedBaseKey>,
}

impl KyberKeys {
    pub(super) fn is_loaded(&self, id: u32) -> bool {
        self.keys.contains_key(&id)
    }

    pub(super) fn put_loaded(&mut self, id: u32, key: Option<(KyberPreKeyRecord, bool)>) {
        self.keys.insert(id, key);
    }

    pub(super) fn put_used(&mut self, key: UsedBaseKey) {
        self.used.insert(key);
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let removed = std::mem::take(&mut self.removed).into_iter();
        let mut changes: Vec<_> = removed.map(|id| Change::RemovePrekey(PrekeyFamily::Kyber, id)).collect();
        changes.extend(std::mem::take(&mut self.newly_used).into_iter().map(Change::UseBaseKey));
        changes
    }
}

#[async_trait(?Send)]
impl KyberPreKeyStore for KyberKeys {
    async fn get_kyber_pre_key(&self, id: KyberPreKeyId) -> Result<KyberPreKeyRecord> {
        let key = self.keys.get(&id.into()).cloned().flatten();
        key.map(|(record, _)| record).ok_or(SignalProtocolError::InvalidKyberPreKeyId)
    }

    async fn save_kyber_pre_key(&mut self, id: KyberPreKeyId, record: &KyberPreKeyRecord) -> Result<()> {
        self.keys.insert(id.into(), Some((record.clone(), false)));
        Ok(())
    }

    async fn mark_kyber_pre_key_used(
        &mut self,
        id: KyberPreKeyId,
        signed: SignedPreKeyId,
        base_key: &PublicKey,
    ) -> Result<()> {
        let Some(Some((_, last_resort))) = self.keys.get(&id.into()) else {
            return Err(SignalProtocolError::InvalidKyberPreKeyId);
        };
        if !last_resort {
            self.keys.insert(id.into(), None);
            self.removed.push(id.into());
            return Ok(());
        }
        let key = UsedBaseKey { kyber: id.into(), signed: signed.into(), base_key: base_key.serialize().into_vec() };
        if !self.used.insert(key.clone()) {
            return Err(SignalProtocolError::InvalidArgument("base key used before".to_owned()));
        }
        self.newly_used.push(key);
        Ok(())
    }
}
