//! A provider that mints tokens, good and bad, for the tests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;

pub(super) const ISSUER: &str = "https://id.birdy.example";
pub(super) const AUDIENCE: &str = "home.example";
pub(super) const NOW: u64 = 1_800_000_000;
/// In a list of changes: take the member out.
pub(super) const ABSENT: Value = Value::Null;

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A provider with one key, and all that is needed to make its tokens, good and bad.
pub(super) struct Provider {
    kid: &'static str,
    pub(super) alg: &'static str,
    key: SigningKey,
}

enum SigningKey {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Provider {
    pub(super) fn ed25519(kid: &'static str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Self { kid, alg: "EdDSA", key: SigningKey::Ed25519(pair) }
    }

    pub(super) fn p256(kid: &'static str) -> Self {
        Self {
            kid,
            alg: "ES256",
            key: SigningKey::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
        }
    }

    pub(super) fn rsa(kid: &'static str, size: aws_lc_rs::rsa::KeySize) -> Self {
        Self { kid, alg: "RS256", key: SigningKey::Rsa(RsaKeyPair::generate(size).unwrap()) }
    }

    /// The secret key, for signatures of other kinds.
    pub(super) fn pkcs8(&self) -> Vec<u8> {
        match &self.key {
            SigningKey::Ed25519(pair) => pair.to_pkcs8().unwrap().as_ref().to_vec(),
            SigningKey::P256(pair) => pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
            SigningKey::Rsa(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair).unwrap().as_ref().to_vec(),
        }
    }

    pub(super) fn jwk(&self) -> Value {
        match &self.key {
            SigningKey::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": b64(pair.public_key()) })
            }
            SigningKey::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "x": b64(&point[1..33]), "y": b64(&point[33..]) })
            }
            SigningKey::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({
                    "kty": "RSA", "kid": self.kid,
                    "n": b64(n.big_endian_without_leading_zero()), "e": b64(e.big_endian_without_leading_zero()),
                })
            }
        }
    }

    pub(super) fn keys(&self) -> KeySet {
        KeySet::from_jwks(&json!({ "keys": [self.jwk()] }).to_string()).unwrap()
    }

    /// The public key in the forms in which it might be taken for an HMAC secret.
    pub(super) fn public_in_all_forms(&self) -> Vec<Vec<u8>> {
        let (raw, der): (&[u8], PublicKeyX509Der<'_>) = match &self.key {
            SigningKey::Ed25519(pair) => (pair.public_key().as_ref(), pair.public_key().as_der().unwrap()),
            SigningKey::P256(pair) => (pair.public_key().as_ref(), pair.public_key().as_der().unwrap()),
            SigningKey::Rsa(pair) => (pair.public_key().as_ref(), pair.public_key().as_der().unwrap()),
        };
        let (raw, der) = (raw.to_vec(), der.as_ref().to_vec());
        let lines: Vec<String> = STANDARD
            .encode(&der)
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"));
        let jwk = self.jwk().to_string();
        vec![
            raw,
            der,
            pem.clone().into_bytes(),
            format!("{pem}\n").into_bytes(),
            jwk.clone().into_bytes(),
            format!("{jwk}\n").into_bytes(),
            self.keys().to_jwks().into_bytes(),
        ]
    }

    pub(super) fn header(&self) -> Value {
        json!({ "typ": "JWT", "alg": self.alg, "kid": self.kid })
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            SigningKey::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            SigningKey::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            SigningKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// Signs whatever texts are given as header and payload.
    pub(super) fn mint_text(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(payload));
        let signature = b64(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    pub(super) fn mint_with(&self, header: &Value, payload: &Value) -> String {
        self.mint_text(&header.to_string(), &payload.to_string())
    }

    pub(super) fn mint(&self, payload: &Value) -> String {
        self.mint_with(&self.header(), payload)
    }

    /// A good token but for these claims; null takes one out.
    pub(super) fn with_claims(&self, changes: &[(&str, Value)]) -> String {
        self.mint(&changed(claims(), changes))
    }

    /// A good token but for these header members; null takes one out.
    pub(super) fn with_header(&self, changes: &[(&str, Value)]) -> String {
        self.mint_with(&changed(self.header(), changes), &claims())
    }
}

pub(super) fn changed(mut object: Value, changes: &[(&str, Value)]) -> Value {
    for (name, value) in changes {
        let members = object.as_object_mut().unwrap();
        if *value == ABSENT {
            members.remove(*name);
        } else {
            members.insert((*name).to_owned(), value.clone());
        }
    }
    object
}

pub(super) fn noise_key() -> NoiseKey {
    NoiseKey::new([9; 32]).unwrap()
}

pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "ada", "aud": AUDIENCE, "iat": NOW, "exp": NOW + 3600, "jti": "token-1",
        "cnf": { "kid": b64(noise_key().as_bytes()) },
    })
}

pub(super) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) fn check_at(token: &str, keys: &KeySet, now: SystemTime) -> Result<Verified, TokenError> {
    let provider: Domain = "birdy.example".parse().unwrap();
    let expected = Expected { issuer: ISSUER, provider: &provider, audience: AUDIENCE, noise_key: noise_key(), now };
    verify(token, keys, &expected)
}

pub(super) fn check(token: &str, keys: &KeySet) -> Result<Verified, TokenError> {
    check_at(token, keys, at(NOW))
}

pub(super) fn ada() -> Provider {
    Provider::ed25519("k1", 1)
}
