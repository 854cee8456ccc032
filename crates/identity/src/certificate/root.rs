//! The deployment's root: an Ed25519 key that stays offline, and its public half, which clients pin.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::ed25519;

/// Marks the file of a secret key, so that it is never taken for the public one.
const SECRET_PREFIX: &str = "causeway-root-secret:";

/// Why text is not a root key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootKeyError {
    /// A public root key is one line, the base64 of 32 bytes.
    #[error("a root public key is one line of base64 that gives 32 bytes")]
    PublicForm,
    /// The bytes are an Ed25519 public key of low order, or not in canonical form.
    #[error("these 32 bytes are no usable Ed25519 public key")]
    NotAKey,
    /// A secret root key is one line: `causeway-root-secret:` and the base64 of 32 bytes.
    #[error("a root secret key is one line of the form {SECRET_PREFIX}<base64 of 32 bytes>")]
    SecretForm,
    /// A secret key was given where a public one belongs.
    #[error("this is the secret root key; the public one belongs here, and the secret one should stay offline")]
    SecretGiven,
}

/// The secret half: signs server certificates. Belongs offline.
pub struct RootKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

impl RootKey {
    /// The key of this seed: 32 bytes from a generator fit for keys.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
            .expect("every 32 bytes are the seed of an Ed25519 key (RFC 8032, section 5.1.5)");
        Self { seed, pair }
    }

    /// Reads what [`RootKey::to_text`] wrote; a newline at the end is allowed.
    ///
    /// # Errors
    /// [`RootKeyError::SecretForm`].
    pub fn from_text(text: &str) -> Result<Self, RootKeyError> {
        let encoded = one_line(text).strip_prefix(SECRET_PREFIX).ok_or(RootKeyError::SecretForm)?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| RootKeyError::SecretForm)?);
        let seed: [u8; 32] = bytes.as_slice().try_into().map_err(|_| RootKeyError::SecretForm)?;
        Ok(Self::from_seed(seed))
    }

    /// The line for the secret key's file (mode 0600), with its newline.
    pub fn to_text(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(STANDARD.encode(self.seed.as_slice()));
        Zeroizing::new(format!("{SECRET_PREFIX}{}\n", encoded.as_str()))
    }

    /// The half that clients pin.
    pub fn public(&self) -> RootPublicKey {
        let bytes = self.pair.public_key().as_ref();
        RootPublicKey(bytes.try_into().expect("an Ed25519 public key has 32 bytes"))
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

/// The public half of a deployment's root. As text: one line of standard base64 (44 characters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootPublicKey([u8; 32]);

impl RootPublicKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// [`RootKeyError::NotAKey`] for what is not canonical or of low order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, RootKeyError> {
        if !ed25519::is_fit(&bytes) {
            return Err(RootKeyError::NotAKey);
        }
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Names the key in certificates: the first 8 bytes of its SHA-256.
    pub fn id(&self) -> [u8; 8] {
        let hash = digest(&SHA256, &self.0);
        hash.as_ref()[..8].try_into().expect("SHA-256 has 32 bytes")
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

/// Reads one line of base64; a newline at the end is allowed.
impl FromStr for RootPublicKey {
    type Err = RootKeyError;

    fn from_str(text: &str) -> Result<Self, RootKeyError> {
        let line = one_line(text);
        if line.starts_with(SECRET_PREFIX) {
            return Err(RootKeyError::SecretGiven);
        }
        let bytes = STANDARD.decode(line).map_err(|_| RootKeyError::PublicForm)?;
        Self::from_bytes(bytes.try_into().map_err(|_| RootKeyError::PublicForm)?)
    }
}

impl fmt::Display for RootPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

fn one_line(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_files() {
        let root = RootKey::from_seed([7; 32]);
        let again = RootKey::from_text(&root.to_text()).unwrap();
        assert_eq!(again.public(), root.public());
        assert_eq!(format!("{}\n", root.public()).parse(), Ok(root.public()));
        assert_eq!(format!("{root:?}"), "RootKey(..)");
    }

    #[test]
    fn wrong_files_are_named() {
        let root = RootKey::from_seed([7; 32]);
        assert_eq!(root.to_text().parse::<RootPublicKey>(), Err(RootKeyError::SecretGiven));
        assert_eq!(RootKey::from_text(&root.public().to_string()).unwrap_err(), RootKeyError::SecretForm);
        assert_eq!("".parse::<RootPublicKey>(), Err(RootKeyError::PublicForm));
        assert_eq!(format!(" {}", root.public()).parse::<RootPublicKey>(), Err(RootKeyError::PublicForm));
        assert_eq!(STANDARD.encode([1; 31]).parse::<RootPublicKey>(), Err(RootKeyError::PublicForm));
        assert_eq!(STANDARD.encode([0; 32]).parse::<RootPublicKey>(), Err(RootKeyError::NotAKey));
    }
}
