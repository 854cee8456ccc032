//! Signing keys: one file each, the newest signs.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_identity::token::Algorithm;
use causeway_runtime::secret_file;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::error::SandboxError;

const ENDING: &str = "pk8";

/// All keys that the provider publishes, oldest first.
pub(crate) struct SigningKeys {
    folder: PathBuf,
    keys: Vec<SigningKey>,
}

impl SigningKeys {
    /// Reads the keys in `folder`, or makes the first one.
    pub(crate) fn open(folder: &Path, alg: Algorithm) -> Result<Self, SandboxError> {
        let failed = |source| SandboxError::Folder { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == ENDING) {
                keys.push(SigningKey::read(&path)?);
            }
        }
        keys.sort_by_key(|key| key.number);
        let mut all = Self { folder: folder.to_owned(), keys };
        if all.keys.is_empty() {
            all.add(alg)?;
        }
        Ok(all)
    }

    /// Makes the key that signs from now on. Blocks: an RSA key takes its time.
    pub(crate) fn add(&mut self, alg: Algorithm) -> Result<(), SandboxError> {
        let number = self.keys.last().map_or(1, |newest| newest.number.saturating_add(1));
        let secret = make(alg)?;
        let path = self.folder.join(format!("{number:06}.{}.{ENDING}", alg.name()));
        secret_file::create(&path, &secret)?;
        self.keys.push(SigningKey::read(&path)?);
        Ok(())
    }

    /// Forgets all but the newest.
    pub(crate) fn retire_old(&mut self) -> Result<(), SandboxError> {
        while self.keys.len() > 1 {
            let path = &self.keys[0].path;
            std::fs::remove_file(path).map_err(|source| SandboxError::Folder { path: path.clone(), source })?;
            self.keys.remove(0);
        }
        Ok(())
    }

    /// The key that signs.
    pub(crate) fn newest(&self) -> Result<&SigningKey, SandboxError> {
        self.keys.last().ok_or(SandboxError::Crypto)
    }

    /// The public halves, as a JWKS document.
    pub(crate) fn jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().map(SigningKey::jwk).collect::<Vec<_>>() })
    }
}

/// One key.
pub(crate) struct SigningKey {
    number: u32,
    path: PathBuf,
    kid: String,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Reads `<number>.<alg>.pk8`.
    fn read(path: &Path) -> Result<Self, SandboxError> {
        let unusable = || SandboxError::Key(path.to_owned());
        let stem = path.file_stem().and_then(|name| name.to_str()).ok_or_else(unusable)?;
        let (number, alg) = stem.split_once('.').ok_or_else(unusable)?;
        let number = number.parse().map_err(|_| unusable())?;
        let secret = secret_file::read(path)?;
        let pair = match alg {
            "EdDSA" => Ed25519KeyPair::from_pkcs8(&secret).map(Pair::Ed25519).ok(),
            "ES256" => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &secret).map(Pair::P256).ok(),
            "RS256" => RsaKeyPair::from_pkcs8(&secret).map(Pair::Rsa).ok(),
            _ => None,
        };
        let pair = pair.ok_or_else(unusable)?;
        // Named after the key, so that a new folder never gives an old name to a new key.
        let kid = hex::encode(&digest(&SHA256, pair.public()).as_ref()[..8]);
        Ok(Self { number, path: path.to_owned(), kid, pair })
    }

    /// Its name in tokens and in the key set.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// What it signs with.
    pub(crate) const fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ed25519(_) => Algorithm::EdDsa,
            Pair::P256(_) => Algorithm::Es256,
            Pair::Rsa(_) => Algorithm::Rs256,
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SandboxError> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| SandboxError::Crypto)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .map_err(|_| SandboxError::Crypto)?;
                Ok(signature)
            }
        }
    }

    fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()) }),
            Pair::P256(pair) => {
                // SEC 1: 04, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y) })
            }
            Pair::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({ "kty": "RSA", "n": b64(n), "e": b64(e) })
            }
        };
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm().name());
        jwk["kid"] = json!(self.kid);
        jwk
    }
}

impl Pair {
    fn public(&self) -> &[u8] {
        match self {
            Self::Ed25519(pair) => pair.public_key().as_ref(),
            Self::P256(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        }
    }
}

/// A new secret key in PKCS #8.
fn make(alg: Algorithm) -> Result<Zeroizing<Vec<u8>>, SandboxError> {
    let random = SystemRandom::new();
    let made = match alg {
        Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&random).map(|document| document.as_ref().to_vec()),
        Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map(|document| document.as_ref().to_vec()),
        Algorithm::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048)
            .and_then(|pair| pair.as_der())
            .map(|document: Pkcs8V1Der<'_>| document.as_ref().to_vec()),
    };
    made.map(Zeroizing::new).map_err(|_| SandboxError::Crypto)
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
