//! Enlistment and prekeys. Lengths are bounded here; whether a key or a signature is any good, the directory judges
//! (`bad-keys`), so that a client learns which one is wrong instead of losing its session.

use std::fmt;

use causeway_identity::{AccountId, Address, DeviceId};
use causeway_proto::wire::v1 as pb;

use crate::bounded::{Blob, List};
use crate::error::{At, Problem, StanzaError, required};
use crate::login::id_bytes;
use crate::message::{DeviceIds, read_devices, write_devices};

/// A public key as Signal serialises it, or something that pretends to be one.
pub type PublicKey = Blob<0, 2048>;
/// A signature, or something that pretends to be one.
pub type Signature = Blob<0, 256>;
/// One-time keys of one kind in one request. The directory takes 100 and answers `bad-keys` to more; what is beyond
/// this bound too is no stanza.
pub type OneTime<T> = List<T, 256>;

/// The number that tells one installation of a device id from the next: 1..=16380.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrationId(u32);

impl RegistrationId {
    /// The largest one.
    pub const MAX: u32 = 16_380;

    /// The registration id with this number.
    ///
    /// # Errors
    /// [`Problem::Range`] for 0 and above 16380.
    pub const fn new(number: u32) -> Result<Self, Problem> {
        if number == 0 || number > Self::MAX { Err(Problem::Range) } else { Ok(Self(number)) }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A prekey with the identity key's signature over it: a signed EC prekey, or a Kyber one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPrekey {
    /// The device's number for it.
    pub id: u32,
    /// The key.
    pub public_key: PublicKey,
    /// XEdDSA by the identity key over the serialised public key.
    pub signature: Signature,
}

/// A one-time EC prekey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcPrekey {
    /// The device's number for it.
    pub id: u32,
    /// The key.
    pub public_key: PublicKey,
}

/// Opts the user in to the network and registers this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enlist {
    /// Random.
    pub registration: RegistrationId,
    /// The device's Signal identity.
    pub identity_key: PublicKey,
    /// EC signed prekey.
    pub signed_prekey: SignedPrekey,
    /// Handed out when one-time Kyber keys are used up.
    pub last_resort_kyber: SignedPrekey,
    /// One-time EC keys.
    pub ec_prekeys: OneTime<EcPrekey>,
    /// One-time Kyber keys.
    pub kyber_prekeys: OneTime<SignedPrekey>,
}

/// Replaces or tops up prekeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysPublish {
    /// Must be the enlisted one.
    pub identity_key: PublicKey,
    /// `None`: unchanged.
    pub signed_prekey: Option<SignedPrekey>,
    /// `None`: unchanged.
    pub last_resort_kyber: Option<SignedPrekey>,
    /// Added to what is there.
    pub ec_prekeys: OneTime<EcPrekey>,
    /// Added to what is there.
    pub kyber_prekeys: OneTime<SignedPrekey>,
}

/// One-time keys that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyCounts {
    /// EC ones.
    pub ec: u32,
    /// Kyber ones.
    pub kyber: u32,
}

/// Asks for bundles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysClaim {
    /// Whose.
    pub address: Address,
    /// Of which devices; empty: all.
    pub devices: DeviceIds,
}

/// Bundles for an account's devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBundles {
    /// The claimed account: the name in its Signal addresses.
    pub account: AccountId,
    /// One a device.
    pub bundles: List<KeyBundle, { DeviceId::MAX_PER_ACCOUNT }>,
}

/// What a sender needs to set up a Signal session with one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBundle {
    /// The device.
    pub device: DeviceId,
    /// Its registration id.
    pub registration: RegistrationId,
    /// Its Signal identity.
    pub identity_key: PublicKey,
    /// Its EC signed prekey.
    pub signed_prekey: SignedPrekey,
    /// A one-time EC key; `None` when they are used up.
    pub ec_prekey: Option<EcPrekey>,
    /// A one-time Kyber key, or the last-resort one.
    pub kyber_prekey: SignedPrekey,
}

impl TryFrom<pb::SignedPrekey> for SignedPrekey {
    type Error = StanzaError;

    fn try_from(key: pb::SignedPrekey) -> Result<Self, StanzaError> {
        Ok(Self {
            id: key.id,
            public_key: PublicKey::try_from(key.public_key).at("public_key")?,
            signature: Signature::try_from(key.signature).at("signature")?,
        })
    }
}

impl From<SignedPrekey> for pb::SignedPrekey {
    fn from(key: SignedPrekey) -> Self {
        Self { id: key.id, public_key: key.public_key.into(), signature: key.signature.into() }
    }
}

impl TryFrom<pb::EcPrekey> for EcPrekey {
    type Error = StanzaError;

    fn try_from(key: pb::EcPrekey) -> Result<Self, StanzaError> {
        Ok(Self { id: key.id, public_key: PublicKey::try_from(key.public_key).at("public_key")? })
    }
}

impl From<EcPrekey> for pb::EcPrekey {
    fn from(key: EcPrekey) -> Self {
        Self { id: key.id, public_key: key.public_key.into() }
    }
}

impl TryFrom<pb::Enlist> for Enlist {
    type Error = StanzaError;

    fn try_from(enlist: pb::Enlist) -> Result<Self, StanzaError> {
        let last_resort = required("last_resort_kyber", enlist.last_resort_kyber)?;
        Ok(Self {
            registration: RegistrationId::new(enlist.registration_id).at("registration_id")?,
            identity_key: PublicKey::try_from(enlist.identity_key).at("identity_key")?,
            signed_prekey: required("signed_prekey", enlist.signed_prekey)?.try_into().at("signed_prekey")?,
            last_resort_kyber: last_resort.try_into().at("last_resort_kyber")?,
            ec_prekeys: List::read("ec_prekeys", enlist.ec_prekeys, EcPrekey::try_from)?,
            kyber_prekeys: List::read("kyber_prekeys", enlist.kyber_prekeys, SignedPrekey::try_from)?,
        })
    }
}

impl From<Enlist> for pb::Enlist {
    fn from(enlist: Enlist) -> Self {
        Self {
            registration_id: enlist.registration.get(),
            identity_key: enlist.identity_key.into(),
            signed_prekey: Some(enlist.signed_prekey.into()),
            last_resort_kyber: Some(enlist.last_resort_kyber.into()),
            ec_prekeys: enlist.ec_prekeys.write(pb::EcPrekey::from),
            kyber_prekeys: enlist.kyber_prekeys.write(pb::SignedPrekey::from),
        }
    }
}

impl TryFrom<pb::KeysPublish> for KeysPublish {
    type Error = StanzaError;

    fn try_from(publish: pb::KeysPublish) -> Result<Self, StanzaError> {
        Ok(Self {
            identity_key: PublicKey::try_from(publish.identity_key).at("identity_key")?,
            signed_prekey: publish.signed_prekey.map(SignedPrekey::try_from).transpose().at("signed_prekey")?,
            last_resort_kyber: publish
                .last_resort_kyber
                .map(SignedPrekey::try_from)
                .transpose()
                .at("last_resort_kyber")?,
            ec_prekeys: List::read("ec_prekeys", publish.ec_prekeys, EcPrekey::try_from)?,
            kyber_prekeys: List::read("kyber_prekeys", publish.kyber_prekeys, SignedPrekey::try_from)?,
        })
    }
}

impl From<KeysPublish> for pb::KeysPublish {
    fn from(publish: KeysPublish) -> Self {
        Self {
            identity_key: publish.identity_key.into(),
            signed_prekey: publish.signed_prekey.map(pb::SignedPrekey::from),
            last_resort_kyber: publish.last_resort_kyber.map(pb::SignedPrekey::from),
            ec_prekeys: publish.ec_prekeys.write(pb::EcPrekey::from),
            kyber_prekeys: publish.kyber_prekeys.write(pb::SignedPrekey::from),
        }
    }
}

impl From<pb::KeyCounts> for KeyCounts {
    fn from(counts: pb::KeyCounts) -> Self {
        Self { ec: counts.ec, kyber: counts.kyber }
    }
}

impl From<KeyCounts> for pb::KeyCounts {
    fn from(counts: KeyCounts) -> Self {
        Self { ec: counts.ec, kyber: counts.kyber }
    }
}

impl TryFrom<pb::KeysClaim> for KeysClaim {
    type Error = StanzaError;

    fn try_from(claim: pb::KeysClaim) -> Result<Self, StanzaError> {
        Ok(Self {
            address: claim.address.parse::<Address>().at("address")?,
            devices: read_devices("devices", claim.devices)?,
        })
    }
}

impl From<KeysClaim> for pb::KeysClaim {
    fn from(claim: KeysClaim) -> Self {
        Self { address: claim.address.to_string(), devices: write_devices(claim.devices) }
    }
}

impl TryFrom<pb::KeyBundles> for KeyBundles {
    type Error = StanzaError;

    fn try_from(bundles: pb::KeyBundles) -> Result<Self, StanzaError> {
        Ok(Self {
            account: AccountId::try_from(&bundles.account_id[..]).at("account_id")?,
            bundles: List::read("bundles", bundles.bundles, KeyBundle::try_from)?
                .distinct("bundles", |bundle: &KeyBundle| bundle.device)?,
        })
    }
}

impl From<KeyBundles> for pb::KeyBundles {
    fn from(bundles: KeyBundles) -> Self {
        Self { account_id: id_bytes(bundles.account.as_bytes()), bundles: bundles.bundles.write(pb::KeyBundle::from) }
    }
}

impl TryFrom<pb::KeyBundle> for KeyBundle {
    type Error = StanzaError;

    fn try_from(bundle: pb::KeyBundle) -> Result<Self, StanzaError> {
        Ok(Self {
            device: DeviceId::new(bundle.device).at("device")?,
            registration: RegistrationId::new(bundle.registration_id).at("registration_id")?,
            identity_key: PublicKey::try_from(bundle.identity_key).at("identity_key")?,
            signed_prekey: required("signed_prekey", bundle.signed_prekey)?.try_into().at("signed_prekey")?,
            ec_prekey: bundle.ec_prekey.map(EcPrekey::try_from).transpose().at("ec_prekey")?,
            kyber_prekey: required("kyber_prekey", bundle.kyber_prekey)?.try_into().at("kyber_prekey")?,
        })
    }
}

impl From<KeyBundle> for pb::KeyBundle {
    fn from(bundle: KeyBundle) -> Self {
        Self {
            device: bundle.device.get(),
            registration_id: bundle.registration.get(),
            identity_key: bundle.identity_key.into(),
            signed_prekey: Some(bundle.signed_prekey.into()),
            ec_prekey: bundle.ec_prekey.map(pb::EcPrekey::from),
            kyber_prekey: Some(bundle.kyber_prekey.into()),
        }
    }
}
