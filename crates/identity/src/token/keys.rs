//! A provider's public keys, from its JWKS document (RFC 7517).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as JwtAlgorithm, DecodingKey};

use super::compact::{MAX_KID_BYTES, decode};
use super::json::{Json, Object};
use super::roca;
use crate::ed25519;

/// Largest JWKS document in bytes.
pub const MAX_JWKS_BYTES: usize = 64 * 1024;
/// Most keys in a JWKS document, usable or not.
pub const MAX_JWKS_KEYS: usize = 64;

const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const RSA_EXPONENTS: std::ops::Range<u128> = 0x1_0001..1 << 33;
/// Members that only a private or a symmetric key has. A key that was published with its secret proves nothing.
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a document is not a key set. One key that is unusable is no error: it is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// More than [`MAX_JWKS_BYTES`].
    #[error("the key set is larger than {MAX_JWKS_BYTES} bytes")]
    TooLarge,
    /// Not a JSON object with an array `keys` of objects, or a member's name is repeated.
    #[error("the key set is not a JSON Web Key Set")]
    Malformed,
    /// More than [`MAX_JWKS_KEYS`].
    #[error("the key set has more than {MAX_JWKS_KEYS} keys")]
    TooManyKeys,
}

/// The algorithms that sign tokens. Each key has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA on P-256 with SHA-256, signature r || s (RFC 7518, section 3.4).
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3).
    Rs256,
}

impl Algorithm {
    /// As `alg` names it in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    const fn of_library(self) -> JwtAlgorithm {
        match self {
            Self::EdDsa => JwtAlgorithm::EdDSA,
            Self::Es256 => JwtAlgorithm::ES256,
            Self::Rs256 => JwtAlgorithm::RS256,
        }
    }
}

/// The usable keys of one provider, by `kid`. The default is empty and verifies nothing.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: BTreeMap<String, Key>,
}

impl KeySet {
    /// Reads a JWKS document. Left out are keys without a `kid` of 1 to 256 bytes, keys that are not Ed25519, P-256 or
    /// RSA of 2048 to 8192 bits with a public exponent from 65537, keys whose `use`, `key_ops` or `alg` is for
    /// something else, keys with a private part, malformed ones, and all keys that share a `kid` with another.
    ///
    /// # Errors
    /// [`KeySetError`], when the document as a whole cannot be used.
    pub fn from_jwks(document: &str) -> Result<Self, KeySetError> {
        if document.len() > MAX_JWKS_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let members = Json::object(document.as_bytes()).ok_or(KeySetError::Malformed)?;
        let entries = members.get("keys").and_then(Json::as_array).ok_or(KeySetError::Malformed)?;
        if entries.len() > MAX_JWKS_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let mut named = BTreeSet::new();
        let mut shared = BTreeSet::new();
        let mut keys = BTreeMap::new();
        for entry in entries {
            let jwk = entry.as_object().ok_or(KeySetError::Malformed)?;
            let Some(kid) = jwk.get("kid").and_then(Json::as_text) else { continue };
            if !named.insert(kid) {
                shared.insert(kid);
            }
            if kid.is_empty() || kid.len() > MAX_KID_BYTES {
                continue;
            }
            if let Some(key) = Key::from_jwk(jwk) {
                keys.insert(kid.to_owned(), key);
            }
        }
        // Which of two keys a name means would be the reader's choice, so it means none.
        keys.retain(|kid, _| !shared.contains(kid.as_str()));
        Ok(Self { keys })
    }

    /// The document of exactly the usable keys, in the order of their names: the same set gives the same text.
    pub fn to_jwks(&self) -> String {
        let keys: Vec<_> = self.keys.iter().map(|(kid, key)| key.to_jwk(kid)).collect();
        serde_json::json!({ "keys": keys }).to_string()
    }

    /// True if a token may name this key.
    pub fn contains(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// Number of usable keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True if no token can be verified.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn get(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}

/// One public key and the one algorithm that it is for.
#[derive(Clone)]
pub(super) struct Key {
    material: Material,
    decoding: DecodingKey,
}

/// The public parts in base64url, as they were published and found canonical.
#[derive(Clone)]
enum Material {
    Ed25519 { x: String },
    P256 { x: String, y: String },
    Rsa { n: String, e: String },
}

impl Key {
    fn from_jwk(jwk: &Object) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Json::as_text);
        if SECRET_MEMBERS.iter().any(|name| jwk.contains_key(*name)) || !is_for_verifying(jwk) {
            return None;
        }
        let key = match (text("kty")?, text("crv")) {
            ("OKP", Some("Ed25519")) => Self::ed25519(text("x")?)?,
            ("EC", Some("P-256")) => Self::p256(text("x")?, text("y")?)?,
            ("RSA", None) => Self::rsa(text("n")?, text("e")?)?,
            _ => return None,
        };
        let declared_fits = match jwk.get("alg") {
            None => true,
            Some(Json::Text(alg)) => {
                // RFC 9864 gives EdDSA over this curve a name of its own.
                alg == key.algorithm().name() || (alg == "Ed25519" && key.algorithm() == Algorithm::EdDsa)
            }
            Some(_) => false,
        };
        declared_fits.then_some(key)
    }

    fn ed25519(x: &str) -> Option<Self> {
        let point: [u8; 32] = decode(x).ok()?.try_into().ok()?;
        if !ed25519::is_fit(&point) {
            return None;
        }
        let decoding = DecodingKey::from_ed_components(x).ok()?;
        Some(Self { material: Material::Ed25519 { x: x.to_owned() }, decoding })
    }

    fn p256(x: &str, y: &str) -> Option<Self> {
        let (x_bytes, y_bytes) = (decode(x).ok()?, decode(y).ok()?);
        if x_bytes.len() != 32 || y_bytes.len() != 32 {
            return None;
        }
        let point = [&[4], x_bytes.as_slice(), y_bytes.as_slice()].concat();
        // Refuses coordinates out of range and points off the curve.
        aws_lc_rs::signature::ParsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, point).ok()?;
        let decoding = DecodingKey::from_ec_components(x, y).ok()?;
        Some(Self { material: Material::P256 { x: x.to_owned(), y: y.to_owned() }, decoding })
    }

    fn rsa(n: &str, e: &str) -> Option<Self> {
        let (modulus, exponent) = (decode(n).ok()?, decode(e).ok()?);
        // RFC 7518, section 6.3.1: no leading zero, so that one key has one spelling.
        let leading = *modulus.first()?;
        let bits = modulus.len() * 8 - leading.leading_zeros() as usize;
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        if leading == 0 || !RSA_MODULUS_BITS.contains(&bits) || !odd(&modulus) || roca::is_affected(&modulus) {
            return None;
        }
        // The top byte not 0: one spelling. FIPS 186-5 wants 2^16 < e; above 2^33 the library refuses to verify.
        let exponent_value = exponent.iter().take(9).fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
        if exponent.first() == Some(&0) || !RSA_EXPONENTS.contains(&exponent_value) || !odd(&exponent) {
            return None;
        }
        let decoding = DecodingKey::from_rsa_components(n, e).ok()?;
        Some(Self { material: Material::Rsa { n: n.to_owned(), e: e.to_owned() }, decoding })
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Ed25519 { .. } => Algorithm::EdDsa,
            Material::P256 { .. } => Algorithm::Es256,
            Material::Rsa { .. } => Algorithm::Rs256,
        }
    }

    /// Checks `signature` (base64url) over `message` under this key's own algorithm.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.decoding, self.algorithm().of_library()).unwrap_or(false)
    }

    fn to_jwk(&self, kid: &str) -> serde_json::Value {
        let alg = self.algorithm().name();
        match &self.material {
            Material::Ed25519 { x } => {
                serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": alg, "kid": kid, "x": x })
            }
            Material::P256 { x, y } => {
                serde_json::json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": alg, "kid": kid, "x": x, "y": y })
            }
            Material::Rsa { n, e } => {
                serde_json::json!({ "kty": "RSA", "use": "sig", "alg": alg, "kid": kid, "n": n, "e": e })
            }
        }
    }
}

/// What `use` and `key_ops` say, where they say anything (RFC 7517, sections 4.2 and 4.3).
fn is_for_verifying(jwk: &Object) -> bool {
    let use_fits = jwk.get("use").is_none_or(|value| value.as_text() == Some("sig"));
    let ops_fit = jwk
        .get("key_ops")
        .is_none_or(|value| value.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_text() == Some("verify"))));
    use_fits && ops_fit
}

/// The JWK of an Ed25519 public key with this name, for those who publish one.
pub fn ed25519_jwk(kid: &str, public: &[u8; 32]) -> serde_json::Value {
    let x = URL_SAFE_NO_PAD.encode(public);
    serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": x })
}
