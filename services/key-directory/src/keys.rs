//! Public keys that devices hand in, and the checks that they pass before anybody relies on them.
//!
//! A key of a type in this module is well-formed: [`EcPublicKey`] is canonical and in the prime-order group,
//! [`KyberPublicKey`] has all its coefficients in range, and a [`VerifiedPrekeys`] carries only keys whose signatures
//! verify under the identity key that came with them. The checks of a batch are in `upload`.

mod upload;

use std::fmt;

use bytes::Bytes;
use libsignal_protocol::PublicKey;

pub use upload::{BadKeys, MAX_BATCH, VerifiedPrekeys, verify_enlistment, verify_publication};

/// Why bytes are not a key, a key id or a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// EC public keys are 33 bytes, type byte 0x05 first.
    #[error("must be 33 bytes that begin with 0x05")]
    EcForm,
    /// Another spelling of a key, a point on the twist, or a point of low order.
    #[error("is not a canonical point of prime order")]
    EcPoint,
    /// Kyber-1024 public keys are 1569 bytes, type byte 0x08 first.
    #[error("must be 1569 bytes that begin with 0x08")]
    KyberForm,
    /// A coefficient is not below 3329.
    #[error("has a coefficient out of range")]
    KyberCoefficient,
    /// Key ids are 1..=2^24-1.
    #[error("must be between 1 and 16777215")]
    Id,
    /// Signatures are 64 bytes.
    #[error("must be 64 bytes")]
    SignatureLength,
    /// Registration ids are 1..=16380.
    #[error("must be between 1 and 16380")]
    RegistrationId,
}

/// An X25519 public key as Signal serialises it: type byte 0x05, then 32 bytes, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EcPublicKey([u8; Self::LENGTH]);

impl EcPublicKey {
    /// Bytes of a serialised key.
    pub const LENGTH: usize = 33;

    /// The key that these bytes spell, in the one canonical spelling.
    ///
    /// # Errors
    /// [`KeyError::EcForm`] and [`KeyError::EcPoint`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        // libsignal tolerates trailing bytes; here one key has one spelling.
        let exact: [u8; Self::LENGTH] = bytes.try_into().map_err(|_| KeyError::EcForm)?;
        let key = PublicKey::deserialize(&exact).map_err(|_| KeyError::EcForm)?;
        if !key.is_canonical() {
            return Err(KeyError::EcPoint);
        }
        Ok(Self(exact))
    }

    /// A key that was checked when it was stored; `None` when the length is wrong.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The serialised key.
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// True if `signature` is this key's XEdDSA signature over `message`.
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        PublicKey::deserialize(&self.0).is_ok_and(|key| key.verify_signature(message, &signature.0))
    }
}

impl fmt::Debug for EcPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EcPublicKey(..)")
    }
}

/// A Kyber-1024 public key as Signal serialises it: type byte 0x08, then 1568 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KyberPublicKey(Bytes);

impl KyberPublicKey {
    /// Bytes of a serialised key.
    pub const LENGTH: usize = 1569;
    const TYPE: u8 = 0x08;
    /// Four polynomials of 256 coefficients of 12 bits.
    const COEFFICIENT_BYTES: usize = 4 * 256 * 12 / 8;
    const MODULUS: u16 = 3329;

    /// The key that these bytes spell. libsignal checks the length alone, so the check of FIPS 203, section 7.2
    /// (each coefficient below the modulus) is made here.
    ///
    /// # Errors
    /// [`KeyError::KyberForm`] and [`KeyError::KyberCoefficient`].
    pub fn parse(bytes: &Bytes) -> Result<Self, KeyError> {
        if bytes.len() != Self::LENGTH || bytes[0] != Self::TYPE {
            return Err(KeyError::KyberForm);
        }
        let in_range = bytes[1..=Self::COEFFICIENT_BYTES].chunks_exact(3).all(|three| {
            let low = u16::from(three[0]) | (u16::from(three[1] & 0x0f) << 8);
            let high = u16::from(three[1] >> 4) | (u16::from(three[2]) << 4);
            low < Self::MODULUS && high < Self::MODULUS
        });
        if !in_range {
            return Err(KeyError::KyberCoefficient);
        }
        Ok(Self(bytes.clone()))
    }

    /// A key that was checked when it was stored; `None` when the length is wrong.
    pub fn from_stored(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == Self::LENGTH).then(|| Self(Bytes::from(bytes)))
    }

    /// The serialised key.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for KyberPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KyberPublicKey(..)")
    }
}

/// An XEdDSA signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// The signature with these bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Signature {
    type Error = KeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, KeyError> {
        bytes.try_into().map(Self).map_err(|_| KeyError::SignatureLength)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// The number by which a device finds the private half of a prekey: 1..=2^24-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrekeyId(u32);

impl PrekeyId {
    /// The largest id.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for PrekeyId {
    type Error = KeyError;

    fn try_from(number: u32) -> Result<Self, KeyError> {
        if (1..=Self::MAX).contains(&number) { Ok(Self(number)) } else { Err(KeyError::Id) }
    }
}

/// The number by which Signal notices that a device was set up anew: 1..=16380.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegistrationId(u32);

impl RegistrationId {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for RegistrationId {
    type Error = KeyError;

    fn try_from(number: u32) -> Result<Self, KeyError> {
        if (1..=16_380).contains(&number) { Ok(Self(number)) } else { Err(KeyError::RegistrationId) }
    }
}

/// A prekey that the identity key has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPrekey<K> {
    /// Chosen by the device.
    pub id: PrekeyId,
    /// The public half.
    pub key: K,
    /// By the identity key, over the serialised public half, type byte included.
    pub signature: Signature,
}

/// A one-time EC prekey; Signal does not sign these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcPrekey {
    /// Chosen by the device.
    pub id: PrekeyId,
    /// The public half.
    pub key: EcPublicKey,
}

#[cfg(test)]
mod tests {
    use libsignal_protocol::{KeyPair, kem};
    use rand::TryRngCore as _;
    use rand::rngs::OsRng;

    use super::*;

    #[test]
    fn ec_keys_have_one_spelling_and_prime_order() {
        let good = KeyPair::generate(&mut OsRng.unwrap_err()).public_key.serialize();
        assert_eq!(EcPublicKey::parse(&good).unwrap().as_bytes()[..], good[..]);
        assert_eq!(EcPublicKey::parse(&good[1..]), Err(KeyError::EcForm), "32 bytes without type");
        assert_eq!(EcPublicKey::parse(&[&good[..], &[0]].concat()), Err(KeyError::EcForm), "trailing byte");
        let mut other_type = good.clone();
        other_type[0] = 0x08;
        assert_eq!(EcPublicKey::parse(&other_type), Err(KeyError::EcForm));
        let mut high_bit = good;
        high_bit[32] |= 0x80;
        assert_eq!(EcPublicKey::parse(&high_bit), Err(KeyError::EcPoint));
        for low in crate::testing::low_order_points() {
            let serialised = [&[0x05][..], &low].concat();
            assert_eq!(EcPublicKey::parse(&serialised), Err(KeyError::EcPoint), "{low:02x?}");
        }
        let mut p_plus_nine = [0xff; 33];
        (p_plus_nine[0], p_plus_nine[1], p_plus_nine[32]) = (0x05, 0xf6, 0x7f);
        assert_eq!(EcPublicKey::parse(&p_plus_nine), Err(KeyError::EcPoint), "the base point plus the modulus");
    }

    #[test]
    fn kyber_keys_have_their_length_and_coefficients_in_range() {
        let pair = kem::KeyPair::generate(kem::KeyType::Kyber1024, &mut OsRng.unwrap_err());
        let good = Bytes::from(pair.public_key.serialize().into_vec());
        assert_eq!(KyberPublicKey::parse(&good).unwrap().as_bytes(), &good);
        assert_eq!(KyberPublicKey::parse(&good.slice(..1568)), Err(KeyError::KyberForm));
        assert_eq!(KyberPublicKey::parse(&Bytes::new()), Err(KeyError::KyberForm));
        // 3329 = 0xd01 in the first place, then in the last place of the vector.
        let mut low = good.to_vec();
        (low[1], low[2]) = (0x01, (low[2] & 0xf0) | 0x0d);
        assert_eq!(KyberPublicKey::parse(&low.into()), Err(KeyError::KyberCoefficient));
        let mut high = good.to_vec();
        (high[1535], high[1536]) = ((high[1535] & 0x0f) | 0x10, 0xd0);
        assert_eq!(KyberPublicKey::parse(&high.into()), Err(KeyError::KyberCoefficient));
        // The seed behind the vector may hold any bytes.
        let mut seed = good.to_vec();
        seed[1537..].fill(0xff);
        assert!(KyberPublicKey::parse(&seed.into()).is_ok());
    }

    #[test]
    fn ids_have_bounds() {
        for number in [0, 1 << 24, u32::MAX] {
            assert_eq!(PrekeyId::try_from(number), Err(KeyError::Id));
        }
        assert_eq!(PrekeyId::try_from((1 << 24) - 1).unwrap().get(), 16_777_215);
        assert_eq!(RegistrationId::try_from(0), Err(KeyError::RegistrationId));
        assert_eq!(RegistrationId::try_from(16_381), Err(KeyError::RegistrationId));
    }
}
