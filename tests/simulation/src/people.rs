//! Who takes part: accounts, their devices, keys and tokens. All of it follows from numbers.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_identity::token::ed25519_jwk;
use causeway_identity::{AccountId, Address, DeviceId};
use causeway_noise::StaticKey;
use serde_json::json;

use crate::clock::BEGIN_S;

/// The deployment's name.
pub(crate) const DEPLOYMENT: &str = "sim.example";
/// Providers' names; the first is home.
pub(crate) const PROVIDERS: [&str; 2] = ["home.example", "birdy.example"];

/// A device of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Person {
    /// Counts accounts from 0; even ones are home.
    pub(crate) account: u8,
    /// From 1.
    pub(crate) device: u8,
}

/// The address of an account.
pub(crate) fn address(account: u8) -> Address {
    let text = format!("u{account}@{}", provider(account));
    text.parse().expect("it has the form of an address")
}

/// The provider of an account.
pub(crate) fn provider(account: u8) -> &'static str {
    PROVIDERS[usize::from(account % 2)]
}

pub(crate) fn account_id(account: u8) -> AccountId {
    AccountId::from_bytes([account + 1; 16])
}

impl Person {
    pub(crate) fn device_id(self) -> DeviceId {
        DeviceId::new(self.device.into()).expect("devices count from 1")
    }

    pub(crate) fn registration(self) -> u32 {
        100 + u32::from(self.device)
    }

    pub(crate) fn noise_key(self) -> StaticKey {
        let mut key = [7; 32];
        (key[0], key[1]) = (self.account, self.device);
        StaticKey::from_bytes(key)
    }

    /// A token that lasts longer than the simulation.
    pub(crate) fn token(self) -> String {
        let claims = json!({
            "iss": issuer(provider(self.account)),
            "sub": format!("u{}", self.account),
            "aud": DEPLOYMENT,
            "iat": BEGIN_S - 60,
            "exp": BEGIN_S + 3_600,
            "jti": format!("token-{}-{}", self.account, self.device),
            "cnf": { "kid": URL_SAFE_NO_PAD.encode(self.noise_key().public()) },
        });
        let header = json!({ "typ": "JWT", "alg": "EdDSA", "kid": "k1" });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let body = format!("{}.{}", encode(&header), encode(&claims));
        let signature = signer(provider(self.account)).sign(body.as_bytes());
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Who issues a provider's tokens.
pub(crate) fn issuer(provider: &str) -> String {
    format!("https://id.{provider}")
}

/// A provider's token keys.
pub(crate) fn jwks(provider: &str) -> String {
    let public: [u8; 32] = signer(provider).public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes");
    json!({ "keys": [ed25519_jwk("k1", &public)] }).to_string()
}

fn signer(provider: &str) -> Ed25519KeyPair {
    let seed = [u8::try_from(provider.len()).unwrap_or(0); 32];
    Ed25519KeyPair::from_seed_unchecked(&seed).expect("every seed makes a key")
}
