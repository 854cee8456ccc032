//! Keys that the directory accepts. All devices publish the same: nobody decrypts with them, and what the server does with a
//! device's keys does not depend on those of others.

use anyhow::Context as _;
use bytes::Bytes;
use causeway_stanza::{Blob, EcPrekey, Enlist, List, RegistrationId, SignedPrekey};
use libsignal_protocol::{IdentityKeyPair, KeyPair, kem};
use rand::TryRngCore as _;
use rand::rngs::OsRng;

/// What devices enlist with.
pub(crate) struct Keys {
    bare: Enlist,
    full: Enlist,
}

impl Keys {
    /// One-time keys of each kind in a full supply: as many as a device may publish.
    pub(crate) const SUPPLY: usize = 100;

    /// New ones.
    pub(crate) fn generate() -> anyhow::Result<Self> {
        let mut rng = OsRng.unwrap_err();
        let identity = IdentityKeyPair::generate(&mut rng);
        let mut next = 0;
        let mut number = || {
            next += 1;
            next
        };
        let sign = |id: u32, key: Vec<u8>| -> anyhow::Result<SignedPrekey> {
            let signature = identity.private_key().calculate_signature(&key, &mut OsRng.unwrap_err())?;
            Ok(SignedPrekey { id, public_key: blob(key)?, signature: blob(signature.into_vec())? })
        };
        let kyber = || kem::KeyPair::generate(kem::KeyType::Kyber1024, &mut OsRng.unwrap_err());
        let kyber = || kyber().public_key.serialize().into_vec();
        let ec = || KeyPair::generate(&mut OsRng.unwrap_err()).public_key.serialize().into_vec();
        let bare = Enlist {
            registration: RegistrationId::new(4_711).ok().context("a registration id")?,
            identity_key: blob(identity.identity_key().serialize().into_vec())?,
            signed_prekey: sign(number(), ec())?,
            last_resort_kyber: sign(number(), kyber())?,
            ec_prekeys: List::new(),
            kyber_prekeys: List::new(),
        };
        let ec_prekeys: Vec<_> = (0..Self::SUPPLY)
            .map(|_| Ok(EcPrekey { id: number(), public_key: blob(ec())? }))
            .collect::<anyhow::Result<_>>()?;
        let kyber_prekeys: Vec<_> =
            (0..Self::SUPPLY).map(|_| sign(number(), kyber())).collect::<anyhow::Result<_>>()?;
        let full = Enlist {
            ec_prekeys: List::try_from(ec_prekeys).ok().context("a list")?,
            kyber_prekeys: List::try_from(kyber_prekeys).ok().context("a list")?,
            ..bare.clone()
        };
        Ok(Self { bare, full })
    }

    /// Without one-time keys, or with a full supply.
    pub(super) fn enlist(&self, supplied: bool) -> Enlist {
        if supplied { self.full.clone() } else { self.bare.clone() }
    }

    pub(super) fn registration(&self) -> RegistrationId {
        self.bare.registration
    }
}

fn blob<const MAX: usize>(bytes: Vec<u8>) -> anyhow::Result<Blob<0, MAX>> {
    Blob::try_from(Bytes::from(bytes)).ok().context("a key that is too long")
}
