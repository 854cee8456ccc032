//! Making keys, publishing them, and reading those of others.

use std::time::SystemTime;

use causeway_identity::DeviceId;
use causeway_stanza as stanza;
use causeway_stanza::{List, RegistrationId};
use libsignal_protocol::{
    GenericSignedPreKey as _, IdentityKey, IdentityKeyPair, KeyPair, KyberPreKeyId, KyberPreKeyRecord, PreKeyBundle,
    PreKeyId, PreKeyRecord, PublicKey, SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord, Timestamp, kem,
};
use rand::Rng as _;
use zeroize::Zeroizing;

use super::SignalError;
use crate::clock;
use crate::random::Random;
use crate::store::{DeviceRecord, Prekey, PrekeyFamily, StoreError};

/// One-time keys of each family that a device keeps on the server.
pub(crate) const BATCH: usize = 100;
/// Prekey ids are below this.
const ID_END: u32 = 1 << 24;

/// Keys of a device that is about to enlist: itself, and the prekeys that go with it.
pub(crate) fn new_device(
    noise_private: Zeroizing<[u8; 32]>,
    now: SystemTime,
    random: &mut Random,
) -> Result<(DeviceRecord, Vec<Prekey>), SignalError> {
    let identity = IdentityKeyPair::generate(random);
    let mut device = DeviceRecord {
        noise_private,
        identity: Zeroizing::new(identity.serialize().into_vec()),
        registration_id: random.random_range(1..=RegistrationId::MAX),
        enlisted: None,
        server_key: None,
        next_prekey_id: random.random_range(1..ID_END),
    };
    let mut prekeys = signed_keys(&mut device, now, random)?;
    prekeys.extend(one_time_keys(&mut device, BATCH, BATCH, now, random)?);
    Ok((device, prekeys))
}

/// A signed EC prekey and a last-resort Kyber prekey.
pub(crate) fn signed_keys(
    device: &mut DeviceRecord,
    now: SystemTime,
    random: &mut Random,
) -> Result<Vec<Prekey>, SignalError> {
    let identity = own_identity(device)?;
    let made_ms = clock::ms(now);
    let id = take_id(device);
    let pair = KeyPair::generate(random);
    let signature = identity.private_key().calculate_signature(&pair.public_key.serialize(), random).map_err(curve)?;
    let record =
        SignedPreKeyRecord::new(SignedPreKeyId::from(id), Timestamp::from_epoch_millis(made_ms), &pair, &signature);
    let signed = prekey(PrekeyFamily::Signed, id, false, record.serialize()?, made_ms);
    Ok(vec![signed, kyber_key(device, &identity, true, made_ms, random)?])
}

/// One-time keys.
pub(crate) fn one_time_keys(
    device: &mut DeviceRecord,
    ec: usize,
    kyber: usize,
    now: SystemTime,
    random: &mut Random,
) -> Result<Vec<Prekey>, SignalError> {
    let identity = own_identity(device)?;
    let made_ms = clock::ms(now);
    let mut keys = Vec::with_capacity(ec + kyber);
    for _ in 0..ec {
        let id = take_id(device);
        let record = PreKeyRecord::new(PreKeyId::from(id), &KeyPair::generate(random));
        keys.push(prekey(PrekeyFamily::Ec, id, false, record.serialize()?, made_ms));
    }
    for _ in 0..kyber {
        keys.push(kyber_key(device, &identity, false, made_ms, random)?);
    }
    Ok(keys)
}

fn kyber_key(
    device: &mut DeviceRecord,
    identity: &IdentityKeyPair,
    last_resort: bool,
    made_ms: u64,
    random: &mut Random,
) -> Result<Prekey, SignalError> {
    let id = take_id(device);
    let pair = kem::KeyPair::generate(kem::KeyType::Kyber1024, random);
    let signature = identity.private_key().calculate_signature(&pair.public_key.serialize(), random).map_err(curve)?;
    let record =
        KyberPreKeyRecord::new(KyberPreKeyId::from(id), Timestamp::from_epoch_millis(made_ms), &pair, &signature);
    Ok(prekey(PrekeyFamily::Kyber, id, last_resort, record.serialize()?, made_ms))
}

fn prekey(family: PrekeyFamily, id: u32, last_resort: bool, record: Vec<u8>, made_ms: u64) -> Prekey {
    let record = Zeroizing::new(record);
    Prekey { family, id, last_resort, record, made_ms, published: false, replaced_ms: None }
}

fn take_id(device: &mut DeviceRecord) -> u32 {
    let id = device.next_prekey_id.clamp(1, ID_END - 1);
    device.next_prekey_id = if id + 1 == ID_END { 1 } else { id + 1 };
    id
}

fn own_identity(device: &DeviceRecord) -> Result<IdentityKeyPair, SignalError> {
    Ok(IdentityKeyPair::try_from(&device.identity[..]).map_err(|_| StoreError::Corrupt("identity"))?)
}

/// Names of prekeys that a request carries.
pub(crate) type Published = Vec<(PrekeyFamily, u32)>;

/// The request that enlists this device with these prekeys, the newest signed ones among them.
pub(crate) fn enlistment(
    device: &DeviceRecord,
    prekeys: &[Prekey],
) -> Result<(stanza::Enlist, Published), SignalError> {
    let (publish, published) = publication(device, prekeys)?;
    let missing = || SignalError::Store(StoreError::Corrupt("prekeys"));
    let enlist = stanza::Enlist {
        registration: RegistrationId::new(device.registration_id).map_err(|_| StoreError::Corrupt("device"))?,
        identity_key: publish.identity_key,
        signed_prekey: publish.signed_prekey.ok_or_else(missing)?,
        last_resort_kyber: publish.last_resort_kyber.ok_or_else(missing)?,
        ec_prekeys: publish.ec_prekeys,
        kyber_prekeys: publish.kyber_prekeys,
    };
    Ok((enlist, published))
}

/// The request that publishes these prekeys: at most [`BATCH`] of each one-time family, and the newest signed ones.
pub(crate) fn publication(
    device: &DeviceRecord,
    prekeys: &[Prekey],
) -> Result<(stanza::KeysPublish, Published), SignalError> {
    let identity = own_identity(device)?;
    let (mut ec, mut kyber) = (Vec::new(), Vec::new());
    let (mut signed, mut last_resort) = (None, None);
    let mut published = Vec::new();
    let mut oldest_first: Vec<_> = prekeys.iter().collect();
    oldest_first.sort_by_key(|key| key.made_ms);
    for key in oldest_first {
        match key.family {
            PrekeyFamily::Ec if ec.len() < BATCH => {
                let record = PreKeyRecord::deserialize(&key.record)?;
                ec.push(stanza::EcPrekey {
                    id: key.id,
                    public_key: blob(record.public_key()?.serialize().into_vec())?,
                });
            }
            PrekeyFamily::Signed => {
                let record = SignedPreKeyRecord::deserialize(&key.record)?;
                let public_key = record.public_key()?.serialize().into_vec();
                signed = Some(signed_prekey(key.id, public_key, record.signature()?)?);
            }
            PrekeyFamily::Kyber if key.last_resort || kyber.len() < BATCH => {
                let record = KyberPreKeyRecord::deserialize(&key.record)?;
                let public_key = record.public_key()?.serialize().into_vec();
                let prekey = signed_prekey(key.id, public_key, record.signature()?)?;
                if key.last_resort { last_resort = Some(prekey) } else { kyber.push(prekey) }
            }
            PrekeyFamily::Ec | PrekeyFamily::Kyber => continue,
        }
        published.push((key.family, key.id));
    }
    let list = || SignalError::Store(StoreError::Corrupt("prekeys"));
    let publish = stanza::KeysPublish {
        identity_key: blob(identity.identity_key().serialize().into_vec())?,
        signed_prekey: signed,
        last_resort_kyber: last_resort,
        ec_prekeys: List::try_from(ec).map_err(|_| list())?,
        kyber_prekeys: List::try_from(kyber).map_err(|_| list())?,
    };
    Ok((publish, published))
}

fn signed_prekey(id: u32, public_key: Vec<u8>, signature: Vec<u8>) -> Result<stanza::SignedPrekey, SignalError> {
    Ok(stanza::SignedPrekey { id, public_key: blob(public_key)?, signature: blob(signature)? })
}

fn blob<const MAX: usize>(bytes: Vec<u8>) -> Result<stanza::Blob<0, MAX>, SignalError> {
    stanza::Blob::try_from(bytes::Bytes::from(bytes)).map_err(|_| StoreError::Corrupt("prekey").into())
}

/// Another device's keys, as the directory handed them out.
pub(crate) struct Bundle(stanza::KeyBundle);

impl From<stanza::KeyBundle> for Bundle {
    fn from(bundle: stanza::KeyBundle) -> Self {
        Self(bundle)
    }
}

impl Bundle {
    /// The device that they are of.
    pub(crate) fn device(&self) -> DeviceId {
        self.0.device
    }

    /// Its registration id.
    pub(crate) fn registration_id(&self) -> u32 {
        self.0.registration.get()
    }

    /// As libsignal takes it. Only Kyber-1024 is accepted, so that nobody can offer less.
    pub(crate) fn for_libsignal(&self, device: DeviceId) -> Result<PreKeyBundle, SignalError> {
        let bundle = &self.0;
        let device = u8::try_from(device.get()).ok().and_then(|id| libsignal_protocol::DeviceId::new(id).ok());
        let ec = match &bundle.ec_prekey {
            Some(key) => {
                Some((PreKeyId::from(key.id), PublicKey::deserialize(key.public_key.as_bytes()).map_err(curve)?))
            }
            None => None,
        };
        let kyber = kem::PublicKey::deserialize(bundle.kyber_prekey.public_key.as_bytes())?;
        if kyber.key_type() != kem::KeyType::Kyber1024 {
            return Err(SignalProtocolError::BadKEMKeyType(0).into());
        }
        Ok(PreKeyBundle::new(
            bundle.registration.get(),
            device.ok_or(SignalError::Device)?,
            ec,
            SignedPreKeyId::from(bundle.signed_prekey.id),
            PublicKey::deserialize(bundle.signed_prekey.public_key.as_bytes()).map_err(curve)?,
            bundle.signed_prekey.signature.as_bytes().to_vec(),
            KyberPreKeyId::from(bundle.kyber_prekey.id),
            kyber,
            bundle.kyber_prekey.signature.as_bytes().to_vec(),
            IdentityKey::decode(bundle.identity_key.as_bytes())?,
        )?)
    }
}

fn curve<E: Into<SignalProtocolError>>(error: E) -> SignalError {
    SignalError::Signal(error.into())
}
