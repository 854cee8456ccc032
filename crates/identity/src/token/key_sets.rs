//! What a provider may publish as its keys, and what is left out.

use serde_json::{Value, json};

use super::minted::*;
use super::*;

#[test]
fn unusable_keys_are_left_out_of_a_set() {
    let (ed, ec) = (ada(), Provider::p256("k1"));
    let rsa = Provider::rsa("k1", aws_lc_rs::rsa::KeySize::Rsa2048);
    let usable = |jwk: &Value| !KeySet::from_jwks(&json!({ "keys": [jwk] }).to_string()).unwrap().is_empty();
    for provider in [&ed, &ec, &rsa] {
        assert!(usable(&provider.jwk()));
        for fits in [
            json!({ "use": "sig" }),
            json!({ "alg": provider.alg }),
            json!({ "key_ops": ["verify"] }),
            json!({ "use": "sig", "key_ops": ["sign", "verify"], "x5c": ["x"], "extra": {} }),
        ] {
            let mut jwk = provider.jwk();
            jwk.as_object_mut().unwrap().extend(fits.as_object().unwrap().clone());
            assert!(usable(&jwk), "{fits}");
        }
        for unfit in [
            json!({ "use": "enc" }),
            json!({ "use": null }),
            json!({ "use": ["sig"] }),
            json!({ "key_ops": ["encrypt"] }),
            json!({ "key_ops": [] }),
            json!({ "key_ops": "verify" }),
            json!({ "alg": "PS256" }),
            json!({ "alg": "ECDH-ES" }),
            json!({ "alg": "none" }),
            json!({ "alg": null }),
            json!({ "kid": "" }),
            json!({ "kid": 1 }),
            json!({ "kid": "k".repeat(257) }),
            json!({ "kty": "oct", "k": "AAAA" }),
            json!({ "kty": "okp" }),
            json!({ "kty": 1 }),
            json!({ "d": "AAAA" }),
            json!({ "crv": "P-384" }),
            json!({ "crv": "Ed448" }),
            json!({ "crv": "secp256k1" }),
        ] {
            let mut jwk = provider.jwk();
            jwk.as_object_mut().unwrap().extend(unfit.as_object().unwrap().clone());
            assert!(!usable(&jwk), "{unfit}");
        }
    }
    let with = |provider: &Provider, name: &str, value: String| {
        let mut jwk = provider.jwk();
        jwk[name] = json!(value);
        usable(&jwk)
    };
    assert!(!with(&ed, "x", b64([0; 32])), "low order");
    assert!(!with(&ed, "x", b64([1; 31])));
    assert!(!with(&ec, "x", b64([0; 32])), "off the curve");
    assert!(!with(&ec, "y", b64([0xff; 32])), "out of range");
    assert!(!with(&ec, "y", b64([1; 33])));
    for exponent in [&[1][..], &[3], &[0, 1, 0, 1], &[1, 0, 0], &[1, 0, 0, 0, 0, 1], &[2, 0, 0, 0, 1], &[]] {
        assert!(!with(&rsa, "e", b64(exponent)), "{exponent:?}");
    }
    assert!(with(&rsa, "e", b64([1, 0xff, 0xff, 0xff, 0xff])), "the largest");
    for modulus in [
        vec![0xff; 255],
        vec![0xff; 1025],
        [vec![0], vec![0xff; 256]].concat(),
        [vec![0xff; 255], vec![0xfe]].concat(),
        Vec::new(),
    ] {
        assert!(!with(&rsa, "n", b64(&modulus)), "{}", modulus.len());
    }
    let n = rsa.jwk()["n"].as_str().unwrap().to_owned();
    assert!(!with(&rsa, "n", format!("{n}=")));
    assert!(with(&rsa, "n", n));
}

#[test]
fn a_key_set_is_bounded_and_strict() {
    let jwk = |n: usize| json!({ "kty": "OKP", "crv": "Ed25519", "kid": format!("k{n}"), "x": ada().jwk()["x"] });
    let set = |count: usize| KeySet::from_jwks(&json!({ "keys": (0..count).map(jwk).collect::<Vec<_>>() }).to_string());
    assert_eq!(set(64).unwrap().len(), 64);
    assert_eq!(set(65).unwrap_err(), KeySetError::TooManyKeys);
    assert!(set(0).unwrap().is_empty());
    let large = json!({ "keys": [], "filler": "x".repeat(64 * 1024) }).to_string();
    assert_eq!(KeySet::from_jwks(&large).unwrap_err(), KeySetError::TooLarge);
    for text in ["", "[]", "{}", "null", "{\"keys\":{}}", "{\"keys\":[1]}", "{\"keys\":[],\"keys\":[]}", "<html>"] {
        assert_eq!(KeySet::from_jwks(text).unwrap_err(), KeySetError::Malformed, "{text}");
    }
    let doubled = json!({ "keys": [jwk(1)] }).to_string().replace("\"kid\"", "\"kid\":\"k1\",\"kid\"");
    assert_eq!(KeySet::from_jwks(&doubled).unwrap_err(), KeySetError::Malformed);
    let keys = set(2).unwrap();
    assert!(keys.contains("k0") && keys.contains("k1") && !keys.contains("k2"));
    assert_eq!(format!("{keys:?}"), "KeySet(2 keys)");
}

/// AUTH-31, the part that has no network: a rotation is a new set.
#[test]
fn a_rotation_lets_the_new_key_in_and_the_old_one_out() {
    let (old, new) = (Provider::ed25519("k1", 1), Provider::ed25519("k2", 2));
    let both = KeySet::from_jwks(&json!({ "keys": [old.jwk(), new.jwk()] }).to_string()).unwrap();
    for (keys, old_fits, new_fits) in [(old.keys(), true, false), (both, true, true), (new.keys(), false, true)] {
        for (provider, fits) in [(&old, old_fits), (&new, new_fits)] {
            let result = check(&provider.mint(&claims()), &keys).err();
            assert_eq!(result, (!fits).then_some(TokenError::Signature));
        }
    }
}
