//! Keys that the directory accepts at enlistment. Nobody decrypts with them: bodies are canaries.

use anyhow::Context as _;
use bytes::Bytes;
use causeway_stanza::{Blob, EcPrekey, Enlist, KeysPublish, List, RegistrationId, SignedPrekey};
use libsignal_protocol::{IdentityKeyPair, KeyPair, kem};
use rand::rngs::OsRng;
use rand::{Rng as _, TryRngCore as _};

/// One-time EC keys that a device publishes at a time.
const EC: u32 = 40;
/// One-time Kyber keys.
const KYBER: u32 = 4;

/// Whether a Kyber prekey is of the kind that is handed out more than once. Each batch has a signed prekey, then the
/// last-resort one, then the one-time keys.
pub const fn is_last_resort(id: u32) -> bool {
    id % (2 + EC + KYBER) == 2
}

/// A device's identity, and where its key numbers are.
pub struct Keys {
    identity: IdentityKeyPair,
    registration: RegistrationId,
    next: u32,
}

impl Keys {
    /// A new identity.
    ///
    /// # Errors
    /// None in practice.
    pub fn generate() -> anyhow::Result<Self> {
        let mut rng = OsRng.unwrap_err();
        let registration = rng.random_range(1..=RegistrationId::MAX);
        let registration = RegistrationId::new(registration).ok().context("a registration id")?;
        Ok(Self { identity: IdentityKeyPair::generate(&mut rng), registration, next: 1 })
    }

    /// Its registration id.
    pub fn registration(&self) -> RegistrationId {
        self.registration
    }

    /// What it enlists with.
    ///
    /// # Errors
    /// None in practice.
    pub fn enlist(&mut self) -> anyhow::Result<Enlist> {
        let publish = self.publish()?;
        Ok(Enlist {
            registration: self.registration,
            identity_key: publish.identity_key,
            signed_prekey: publish.signed_prekey.context("a signed prekey")?,
            last_resort_kyber: publish.last_resort_kyber.context("a last-resort prekey")?,
            ec_prekeys: publish.ec_prekeys,
            kyber_prekeys: publish.kyber_prekeys,
        })
    }

    /// The next batch of prekeys.
    ///
    /// # Errors
    /// None in practice.
    pub fn publish(&mut self) -> anyhow::Result<KeysPublish> {
        let mut rng = OsRng.unwrap_err();
        let signed = KeyPair::generate(&mut rng).public_key.serialize().into_vec();
        let signed = self.signed(signed)?;
        let last_resort = self.kyber()?;
        let mut ec = Vec::new();
        for _ in 0..EC {
            let public_key = KeyPair::generate(&mut rng).public_key.serialize().into_vec();
            ec.push(EcPrekey { id: self.take(), public_key: blob(public_key)? });
        }
        let kyber = (0..KYBER).map(|_| self.kyber()).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(KeysPublish {
            identity_key: blob(self.identity.identity_key().serialize().into_vec())?,
            signed_prekey: Some(signed),
            last_resort_kyber: Some(last_resort),
            ec_prekeys: List::try_from(ec).ok().context("a list")?,
            kyber_prekeys: List::try_from(kyber).ok().context("a list")?,
        })
    }

    fn kyber(&mut self) -> anyhow::Result<SignedPrekey> {
        let pair = kem::KeyPair::generate(kem::KeyType::Kyber1024, &mut OsRng.unwrap_err());
        let public_key = pair.public_key.serialize().into_vec();
        self.signed(public_key)
    }

    fn signed(&mut self, public_key: Vec<u8>) -> anyhow::Result<SignedPrekey> {
        let signature = self.identity.private_key().calculate_signature(&public_key, &mut OsRng.unwrap_err())?;
        Ok(SignedPrekey { id: self.take(), public_key: blob(public_key)?, signature: blob(signature.into_vec())? })
    }

    fn take(&mut self) -> u32 {
        let id = self.next;
        self.next = if id >= (1 << 24) - 1 { 1 } else { id + 1 };
        id
    }
}

fn blob<const MAX: usize>(bytes: Vec<u8>) -> anyhow::Result<Blob<0, MAX>> {
    Blob::try_from(Bytes::from(bytes)).ok().context("a key that is too long")
}
