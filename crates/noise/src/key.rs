//! The static key that a client or server is known by.

use std::fmt;
use std::sync::Arc;

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::crypto::KeyPair;

/// An X25519 public key as it stands on the wire. A key that becomes somebody's name must first be checked to be
/// canonical and of high order (`NoiseKey` of the identity crate): the handshake refuses only what makes a shared
/// secret zero.
pub type PublicKey = [u8; 32];

/// An X25519 private key; wiped when dropped, and without a printing form.
pub struct StaticKey(Arc<KeyPair>);

impl StaticKey {
    /// A new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut private = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *private);
        Self::from_bytes(private)
    }

    /// The key with these 32 bytes; any 32 bytes are an X25519 private key.
    pub fn from_bytes(private: impl Into<Zeroizing<[u8; 32]>>) -> Self {
        Self(Arc::new(KeyPair::new(private.into())))
    }

    /// The 32 private bytes, for the store that keeps them.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.private().clone()
    }

    /// The public key.
    pub fn public(&self) -> &PublicKey {
        self.0.public()
    }

    /// The pair for handshakes, which share it.
    pub(crate) const fn pair(&self) -> &Arc<KeyPair> {
        &self.0
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_store_and_has_no_printing_form() {
        let key = StaticKey::from_bytes([7; 32]);
        assert_eq!(StaticKey::from_bytes(key.to_bytes()).public(), key.public());
        assert_eq!(format!("{key:?}"), "StaticKey(..)");
    }
}
