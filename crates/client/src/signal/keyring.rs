//! The keys that one piece of work needs, in memory.

mod stores;

use std::time::SystemTime;

use bytes::Bytes;
use causeway_stanza::EncType;
use futures::FutureExt;
use libsignal_protocol::{
    CiphertextMessage, GenericSignedPreKey as _, IdentityKey, IdentityKeyPair, KyberPreKeyRecord, PreKeyRecord,
    PreKeySignalMessage, PublicKey, SessionRecord, SessionUsabilityRequirements, SignalMessage, SignalProtocolError,
    SignedPreKeyRecord, message_decrypt, message_encrypt, process_prekey_bundle,
};

use self::stores::{EcKeys, Identities, KyberKeys, Sessions, SignedKeys};
use super::{Bundle, SignalError, protocol_address};
use crate::random::Random;
use crate::store::{Change, DeviceRecord, PrekeyFamily, SignalAddress, Store, StoreError, UsedBaseKey};

/// Somebody's identity key was replaced by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdentityEvent {
    /// Whose.
    pub(crate) device: SignalAddress,
}

/// A working set: what was loaded, and what of it has changed. Dropping it undoes everything.
pub(crate) struct Keyring {
    identities: Identities,
    sessions: Sessions,
    ec: EcKeys,
    signed: SignedKeys,
    kyber: KyberKeys,
}

impl Keyring {
    /// An empty one for this device.
    pub(crate) fn new(device: &DeviceRecord) -> Result<Self, SignalError> {
        let own = IdentityKeyPair::try_from(&device.identity[..]).map_err(|_| StoreError::Corrupt("identity"))?;
        Ok(Self {
            identities: Identities::new(own, device.registration_id),
            sessions: Sessions::default(),
            ec: EcKeys::default(),
            signed: SignedKeys::default(),
            kyber: KyberKeys::default(),
        })
    }

    /// What has changed since it was made or last asked.
    pub(crate) fn take_changes(&mut self) -> Result<Vec<Change>, SignalError> {
        let mut changes = self.ec.take_changes();
        changes.extend(self.kyber.take_changes());
        changes.extend(self.identities.take_changes());
        changes.extend(self.sessions.take_changes()?);
        Ok(changes)
    }

    /// Whose identity keys were replaced since the last call.
    pub(crate) fn take_identity_events(&mut self) -> Vec<IdentityEvent> {
        self.identities.take_events()
    }

    /// Whether something can be encrypted for `to` without asking for its keys first.
    pub(crate) async fn can_encrypt(
        &mut self,
        store: &dyn Store,
        to: SignalAddress,
        now: SystemTime,
    ) -> Result<bool, SignalError> {
        self.load(store, to).await?;
        let needs = SessionUsabilityRequirements::NotStale | SessionUsabilityRequirements::EstablishedWithPqxdh;
        Ok(match self.sessions.get(to) {
            Some(session) => session.has_usable_sender_chain(now, needs)?,
            None => false,
        })
    }

    /// The identity key known for a device, serialised.
    pub(crate) async fn identity(
        &mut self,
        store: &dyn Store,
        of: SignalAddress,
    ) -> Result<Option<Vec<u8>>, SignalError> {
        self.load(store, of).await?;
        Ok(self.identities.get(of).map(|key| key.serialize().into_vec()))
    }

    /// Opens a new session from keys that the directory handed out. Signatures are checked.
    pub(crate) async fn open_session(
        &mut self,
        store: &dyn Store,
        with: SignalAddress,
        bundle: &Bundle,
        now: SystemTime,
        random: &mut Random,
    ) -> Result<(), SignalError> {
        self.load(store, with).await?;
        let address = protocol_address(with)?;
        let bundle = bundle.for_libsignal(with.device)?;
        let done = process_prekey_bundle(&address, &mut self.sessions, &mut self.identities, &bundle, now, random);
        Ok(ready(done)?)
    }

    /// Lets the next message to `with` go under a new session, if `ratchet_key` is of the present one: what was sent under
    /// it could not be read.
    pub(crate) async fn close_session(
        &mut self,
        store: &dyn Store,
        with: SignalAddress,
        ratchet_key: Option<&PublicKey>,
    ) -> Result<(), SignalError> {
        self.load(store, with).await?;
        let Some(session) = self.sessions.get_mut(with) else { return Ok(()) };
        let present = match ratchet_key {
            Some(key) => session.current_ratchet_key_matches(key)?,
            None => true,
        };
        if present {
            session.archive_current_state()?;
        }
        Ok(())
    }

    /// Encrypts padded content.
    pub(crate) async fn encrypt(
        &mut self,
        store: &dyn Store,
        to: SignalAddress,
        padded: &[u8],
        now: SystemTime,
        random: &mut Random,
    ) -> Result<(EncType, Bytes), SignalError> {
        self.load(store, to).await?;
        let address = protocol_address(to)?;
        let sealed = message_encrypt(padded, &address, &mut self.sessions, &mut self.identities, now, random);
        let sealed = ready(sealed)?;
        let kind = match &sealed {
            CiphertextMessage::PreKeySignalMessage(_) => EncType::Prekey,
            _ => EncType::Whisper,
        };
        Ok((kind, Bytes::copy_from_slice(sealed.serialize())))
    }

    /// Decrypts to padded content. On failure nothing has changed.
    pub(crate) async fn decrypt(
        &mut self,
        store: &dyn Store,
        from: SignalAddress,
        kind: EncType,
        ciphertext: &[u8],
        random: &mut Random,
    ) -> Result<Vec<u8>, SignalError> {
        self.load(store, from).await?;
        let address = protocol_address(from)?;
        let message = match kind {
            EncType::Whisper => CiphertextMessage::SignalMessage(SignalMessage::try_from(ciphertext)?),
            EncType::Prekey => {
                let message = PreKeySignalMessage::try_from(ciphertext)?;
                self.load_prekeys(store, &message).await?;
                CiphertextMessage::PreKeySignalMessage(message)
            }
            EncType::SenderKey | EncType::Plaintext => {
                return Err(SignalProtocolError::InvalidArgument("not a session message".to_owned()).into());
            }
        };
        let before = self.identities.mark(from);
        let opened = ready(message_decrypt(
            &message,
            &address,
            &mut self.sessions,
            &mut self.identities,
            &mut self.ec,
            &self.signed,
            &mut self.kyber,
            random,
        ));
        if opened.is_err() {
            self.identities.restore(from, before);
        }
        Ok(opened?)
    }

    async fn load(&mut self, store: &dyn Store, device: SignalAddress) -> Result<(), SignalError> {
        if self.sessions.is_loaded(device) {
            return Ok(());
        }
        let session = match store.session(device).await? {
            Some(record) => Some(SessionRecord::deserialize(&record).map_err(|_| StoreError::Corrupt("session"))?),
            None => None,
        };
        let identity = match store.identity(device).await? {
            Some(key) => Some(IdentityKey::decode(&key).map_err(|_| StoreError::Corrupt("identity key"))?),
            None => None,
        };
        self.sessions.put_loaded(device, session);
        self.identities.put_loaded(device, identity);
        Ok(())
    }

    /// Loads what a prekey message names. What is not there stays away: libsignal then says so, unless the message
    /// belongs to a session that is open already.
    async fn load_prekeys(&mut self, store: &dyn Store, message: &PreKeySignalMessage) -> Result<(), SignalError> {
        const CORRUPT: StoreError = StoreError::Corrupt("prekey");
        if let Some(id) = message.pre_key_id().map(u32::from)
            && !self.ec.is_loaded(id)
        {
            let key = store.prekey(PrekeyFamily::Ec, id).await?;
            let key = key.map(|key| PreKeyRecord::deserialize(&key.record).map_err(|_| CORRUPT)).transpose()?;
            self.ec.put_loaded(id, key);
        }
        let signed = u32::from(message.signed_pre_key_id());
        if !self.signed.is_loaded(signed) {
            let key = store.prekey(PrekeyFamily::Signed, signed).await?;
            let key = key.map(|key| SignedPreKeyRecord::deserialize(&key.record).map_err(|_| CORRUPT)).transpose()?;
            self.signed.put_loaded(signed, key);
        }
        let Some(kyber) = message.kyber_pre_key_id().map(u32::from) else { return Ok(()) };
        if !self.kyber.is_loaded(kyber) {
            let key = match store.prekey(PrekeyFamily::Kyber, kyber).await? {
                Some(key) => {
                    let record = KyberPreKeyRecord::deserialize(&key.record).map_err(|_| CORRUPT)?;
                    Some((record, key.last_resort))
                }
                None => None,
            };
            self.kyber.put_loaded(kyber, key);
        }
        let used = UsedBaseKey { kyber, signed, base_key: message.base_key().serialize().into_vec() };
        if store.base_key_used(&used).await? {
            self.kyber.put_used(used);
        }
        Ok(())
    }
}

/// The result of a future that only ever touches memory.
fn ready<T>(future: impl Future<Output = Result<T, SignalProtocolError>>) -> Result<T, SignalProtocolError> {
    future.now_or_never().expect("stores in memory answer at once")
}
