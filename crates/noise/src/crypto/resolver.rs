//! What snow computes with: aws-lc-rs in place of its own primitives, and randomness that was drawn by the caller.
//!
//! Everything stays on one library, and the tests compare it with snow's own, byte for byte.

use std::sync::Arc;

use rand::CryptoRng;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use super::agreement::{Agreement, KeyPair};
use super::cipher::Aead;
use super::hash::Sha256;

/// The private half of a handshake's ephemeral key: drawn once, used once.
pub(crate) struct Ephemeral(Zeroizing<[u8; 32]>);

impl Ephemeral {
    pub(crate) fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut private = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *private);
        Self(private)
    }
}

/// Gives snow what one handshake needs.
pub(crate) struct Resolver {
    static_key: Arc<KeyPair>,
    ephemeral: Ephemeral,
}

impl Resolver {
    pub(crate) const fn new(static_key: Arc<KeyPair>, ephemeral: Ephemeral) -> Self {
        Self { static_key, ephemeral }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn(Some(self.ephemeral.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(Agreement::new(Arc::clone(&self.static_key)))),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(Sha256::default())),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        Some(Box::new(Aead::new(choice)?))
    }
}

/// 32 bytes of randomness that can be had once: a handshake makes one ephemeral key.
pub(crate) struct Drawn(Option<Zeroizing<[u8; 32]>>);

impl Random for Drawn {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let drawn = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != drawn.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&*drawn);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_is_given_once_and_only_whole() {
        let mut drawn = Drawn(Some(Zeroizing::new([7; 32])));
        let mut bytes = [0; 32];
        drawn.try_fill_bytes(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 32]);
        assert!(drawn.try_fill_bytes(&mut bytes).is_err());
        assert!(Drawn(Some(Zeroizing::new([7; 32]))).try_fill_bytes(&mut [0; 31]).is_err());
    }
}
