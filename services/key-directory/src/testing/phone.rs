//! Keys as a phone makes them.

use bytes::Bytes;
use causeway_proto::wire::v1 as wire;
use libsignal_protocol::{IdentityKeyPair, KeyPair, kem};
use rand::rngs::OsRng;
use rand::{Rng as _, TryRngCore as _};

/// A device with real Signal keys.
pub(crate) struct Phone {
    identity: IdentityKeyPair,
    pub(crate) noise_key: Bytes,
    registration_id: u32,
}

impl Phone {
    pub(crate) fn new() -> Self {
        let mut rng = OsRng.unwrap_err();
        Self {
            identity: IdentityKeyPair::generate(&mut rng),
            // An X25519 public key without Signal's type byte is what Noise calls one.
            noise_key: Bytes::copy_from_slice(KeyPair::generate(&mut rng).public_key.public_key_bytes()),
            registration_id: rng.random_range(1..=16_380),
        }
    }

    pub(crate) fn identity_key(&self) -> Bytes {
        self.identity.identity_key().serialize().into_vec().into()
    }

    /// One-time EC keys have ids from 1, Kyber keys from 2; the last-resort key is Kyber key 1.
    pub(crate) fn enlist(&self, ec: u32, kyber: u32) -> wire::Enlist {
        wire::Enlist {
            registration_id: self.registration_id,
            identity_key: self.identity_key(),
            signed_prekey: Some(self.signed_prekey(1)),
            last_resort_kyber: Some(self.kyber_prekey(1)),
            ec_prekeys: (1..=ec).map(|id| self.ec_prekey(id)).collect(),
            kyber_prekeys: (2..2 + kyber).map(|id| self.kyber_prekey(id)).collect(),
        }
    }

    /// A publication of one-time keys alone.
    pub(crate) fn publish(&self, ec: &[u32], kyber: &[u32]) -> wire::KeysPublish {
        wire::KeysPublish {
            identity_key: self.identity_key(),
            signed_prekey: None,
            last_resort_kyber: None,
            ec_prekeys: ec.iter().map(|id| self.ec_prekey(*id)).collect(),
            kyber_prekeys: kyber.iter().map(|id| self.kyber_prekey(*id)).collect(),
        }
    }

    pub(crate) fn ec_prekey(&self, id: u32) -> wire::EcPrekey {
        wire::EcPrekey { id, public_key: ec_key() }
    }

    pub(crate) fn signed_prekey(&self, id: u32) -> wire::SignedPrekey {
        let public_key = ec_key();
        wire::SignedPrekey { id, signature: self.sign(&public_key), public_key }
    }

    pub(crate) fn signed_without_type_byte(&self, id: u32) -> wire::SignedPrekey {
        let public_key = ec_key();
        wire::SignedPrekey { id, signature: self.sign(&public_key[1..]), public_key }
    }

    pub(crate) fn kyber_prekey(&self, id: u32) -> wire::SignedPrekey {
        let pair = kem::KeyPair::generate(kem::KeyType::Kyber1024, &mut OsRng.unwrap_err());
        let public_key = Bytes::from(pair.public_key.serialize().into_vec());
        wire::SignedPrekey { id, signature: self.sign(&public_key), public_key }
    }

    fn sign(&self, message: &[u8]) -> Bytes {
        let signature = self.identity.private_key().calculate_signature(message, &mut OsRng.unwrap_err());
        signature.expect("a generated key signs").into_vec().into()
    }
}

fn ec_key() -> Bytes {
    KeyPair::generate(&mut OsRng.unwrap_err()).public_key.serialize().into_vec().into()
}
