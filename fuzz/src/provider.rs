//! A provider with one Ed25519 key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_identity::token::ed25519_jwk;
use causeway_identity::{Domain, Expected, KeySet, NoiseKey};

pub const ISSUER: &str = "https://id.birdy.example";
pub const AUDIENCE: &str = "home.example";
const NOW_S: u64 = 1_800_000_000;

pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW_S)
}

pub struct Provider {
    pair: Ed25519KeyPair,
    domain: Domain,
    pub keys: KeySet,
    pub noise_key: NoiseKey,
}

impl Default for Provider {
    fn default() -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("any 32 bytes are a seed");
        let public: [u8; 32] = pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes");
        let jwks = serde_json::json!({ "keys": [ed25519_jwk("k1", &public)] }).to_string();
        let mut base = [0; 32];
        base[0] = 9;
        Self {
            pair,
            domain: "birdy.example".parse().expect("a domain"),
            keys: KeySet::from_jwks(&jwks).expect("a good key set"),
            noise_key: NoiseKey::new(base).expect("the base point is a key"),
        }
    }
}

impl Provider {
    pub fn expected(&self) -> Expected<'_> {
        Expected { issuer: ISSUER, provider: &self.domain, audience: AUDIENCE, noise_key: self.noise_key, now: now() }
    }

    /// A token with this header and these claims, whatever they are, and a good signature.
    pub fn mint(&self, header: &[u8], claims: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub fn header(&self) -> String {
        serde_json::json!({ "typ": "JWT", "alg": "EdDSA", "kid": "k1" }).to_string()
    }

    pub fn claims(&self) -> serde_json::Value {
        serde_json::json!({
            "iss": ISSUER, "sub": "ada", "aud": AUDIENCE, "iat": NOW_S - 10, "exp": NOW_S + 3600, "jti": "token-1",
            "cnf": { "kid": URL_SAFE_NO_PAD.encode(self.noise_key.as_bytes()) },
        })
    }
}
