//! Wycheproof's cases for JWS, JWK, ECDSA on P-256 (r || s), RSA-2048 with SHA-256, and Ed25519, through the verifier's
//! own signature layer. Their payloads are no claims, so the layers above are tested elsewhere.
//!
//! A case that is refused although it is valid must be in the list of those that do not apply, with its reason; a case
//! that is accepted must be valid.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::compact::Compact;
use super::minted::b64;
use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum NotApplicable {
    /// HS256, HS384, HS512: a key that both sides know vouches for nobody.
    Symmetric,
    /// RS384, RS512, PS256, PS384, PS512, ES512: sound, but not among a token's three.
    OtherAlgorithm,
    /// RSA with public exponent 3.
    SmallExponent,
    /// PKCS #1 with the NULL left out of the algorithm's name, which Wycheproof leaves open.
    MissingNull,
}

/// The usable part of a file.
fn groups(file: &str) -> Vec<Value> {
    let parsed: Value = serde_json::from_str(file).unwrap();
    parsed["testGroups"].as_array().unwrap().clone()
}

/// What a provider would publish of these keys.
fn published(keys: &Value) -> KeySet {
    let entries = keys.get("keys").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![keys.clone()]);
    let public: Vec<Value> = entries
        .into_iter()
        .map(|mut jwk| {
            let members = jwk.as_object_mut().unwrap();
            // A symmetric key stays as it is: published, it must be of no use to anybody.
            if members["kty"] != "oct" {
                members.retain(|name, _| !["d", "p", "q", "dp", "dq", "qi"].contains(&name.as_str()));
            }
            jwk
        })
        .collect();
    KeySet::from_jwks(&json!({ "keys": public }).to_string()).unwrap()
}

/// Counts cases, and fails at the first that goes wrong.
#[derive(Default)]
struct Tally {
    accepted: usize,
    refused: usize,
    not_applicable: BTreeMap<NotApplicable, usize>,
}

impl Tally {
    fn count(&mut self, case: &Value, accepted: bool, why_not: Option<NotApplicable>) {
        match (case["result"].as_str().unwrap(), accepted, why_not) {
            ("valid", true, _) => self.accepted += 1,
            ("invalid", false, _) => self.refused += 1,
            ("valid" | "acceptable", false, Some(reason)) => *self.not_applicable.entry(reason).or_default() += 1,
            _ => panic!("accepted: {accepted}, {case}"),
        }
    }

    fn total(&self) -> usize {
        self.accepted + self.refused + self.not_applicable.values().sum::<usize>()
    }
}

fn run_jws(file: &str) -> Tally {
    let mut tally = Tally::default();
    for group in groups(file) {
        let key = group.get("public").unwrap_or(&group["private"]);
        let keys = published(key);
        for case in group["tests"].as_array().unwrap() {
            // The cases in JSON serialisation are objects; as text they are what a client could send.
            let token = case["jws"].as_str().map_or_else(|| case["jws"].to_string(), str::to_owned);
            let accepted = Compact::parse(&token).and_then(|compact| compact.verified(&keys).map(<[u8]>::len)).is_ok();
            tally.count(case, accepted, why_not(key));
        }
    }
    tally
}

/// By the key, since some of the symmetric cases have headers that only a lenient reader can read.
fn why_not(key: &Value) -> Option<NotApplicable> {
    match key["keys"].get(0).unwrap_or(key)["alg"].as_str()? {
        "HS256" | "HS384" | "HS512" => Some(NotApplicable::Symmetric),
        // "ES521" is Wycheproof's name for the P-521 key of an ES512 signature.
        "RS384" | "RS512" | "PS256" | "PS384" | "PS512" | "ES521" => Some(NotApplicable::OtherAlgorithm),
        _ => None,
    }
}

#[test]
fn jws() {
    let tally = run_jws(include_str!("../../wycheproof/json_web_signature_test.json"));
    assert_eq!(tally.total(), 401);
    assert_eq!((tally.accepted, tally.refused), (10, 355));
    assert_eq!(
        tally.not_applicable.into_iter().collect::<Vec<_>>(),
        [(NotApplicable::Symmetric, 10), (NotApplicable::OtherAlgorithm, 26)]
    );
}

#[test]
fn jwk() {
    let tally = run_jws(include_str!("../../wycheproof/json_web_key_test.json"));
    assert_eq!(tally.total(), 26);
    assert_eq!((tally.accepted, tally.refused), (1, 21));
    assert_eq!(tally.not_applicable.into_iter().collect::<Vec<_>>(), [(NotApplicable::Symmetric, 4)]);
}

/// Runs the cases of a file of plain signatures under the keys that `jwk` makes of each group.
fn run_signatures(
    file: &str,
    jwk: impl Fn(&Value) -> Value,
    why_not: impl Fn(&Value, &Value) -> Option<NotApplicable>,
) -> Tally {
    let mut tally = Tally::default();
    for group in groups(file) {
        let mut key = jwk(&group);
        key["kid"] = json!("k");
        let keys = published(&key);
        for case in group["tests"].as_array().unwrap() {
            let message = hex::decode(case["msg"].as_str().unwrap()).unwrap();
            let signature = b64(hex::decode(case["sig"].as_str().unwrap()).unwrap());
            let accepted = keys.get("k").is_some_and(|key| key.verifies(&message, &signature));
            tally.count(case, accepted, why_not(&group, case));
        }
    }
    tally
}

#[test]
fn ecdsa() {
    let jwk = |group: &Value| {
        let point = hex::decode(group["publicKey"]["uncompressed"].as_str().unwrap()).unwrap();
        json!({ "kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]) })
    };
    let file = include_str!("../../wycheproof/ecdsa_secp256r1_sha256_p1363_test.json");
    let tally = run_signatures(file, jwk, |_, _| None);
    assert_eq!((tally.total(), tally.accepted, tally.refused), (262, 173, 89));
}

#[test]
fn rsa() {
    let why_not = |group: &Value, case: &Value| match group["keyJwk"]["e"].as_str() {
        Some("Aw") => Some(NotApplicable::SmallExponent),
        _ if case["flags"][0] == "MissingNull" => Some(NotApplicable::MissingNull),
        _ => None,
    };
    let file = include_str!("../../wycheproof/rsa_signature_2048_sha256_test.json");
    let tally = run_signatures(file, |group| group["keyJwk"].clone(), why_not);
    assert_eq!((tally.total(), tally.refused), (259, 249));
    assert_eq!(tally.accepted, 7);
    assert_eq!(
        tally.not_applicable.into_iter().collect::<Vec<_>>(),
        [(NotApplicable::SmallExponent, 2), (NotApplicable::MissingNull, 1)]
    );
}

#[test]
fn ed25519() {
    let jwk = |group: &Value| group["publicKeyJwk"].clone();
    let tally = run_signatures(include_str!("../../wycheproof/ed25519_test.json"), jwk, |_, _| None);
    assert_eq!((tally.total(), tally.accepted, tally.refused), (151, 88, 63));
}
