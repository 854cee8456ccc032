//! Signatures in other spellings, of other things, and by other keys.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::minted::*;
use super::*;

/// RFC 8037, appendix A.4, and RFC 7515, appendix A.3: made by neither us nor our library.
#[test]
fn examples_of_the_rfcs_verify() {
    let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let ec = json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let ed_jws = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                  hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let ec_jws = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19\
                  yb290Ijp0cnVlfQ.\
                  DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    for (mut jwk, jws) in [(ed, ed_jws), (ec, ec_jws)] {
        jwk["kid"] = json!("k");
        let keys = KeySet::from_jwks(&json!({ "keys": [jwk] }).to_string()).unwrap();
        let (signed, signature) = jws.rsplit_once('.').unwrap();
        let key = keys.get("k").unwrap();
        assert!(key.verifies(signed.as_bytes(), signature));
        assert!(!key.verifies(format!("{signed}A").as_bytes(), signature));
        // As tokens they are nothing: no kid, no typ.
        assert_eq!(peek(jws), Err(TokenError::Malformed));
    }
}

#[test]
fn a_signature_of_another_key_of_the_same_set_is_refused() {
    let (first, second) = (Provider::ed25519("k1", 1), Provider::ed25519("k2", 2));
    let both = KeySet::from_jwks(&json!({ "keys": [first.jwk(), second.jwk()] }).to_string()).unwrap();
    assert!(check(&second.mint(&claims()), &both).is_ok());
    assert_eq!(check(&second.with_header(&[("kid", json!("k1"))]), &both), Err(TokenError::Signature));
    // The parts of two good tokens, mixed.
    let (one, two) = (first.mint(&claims()), first.with_claims(&[("sub", json!("bo"))]));
    let (one_signed, one_signature) = one.rsplit_once('.').unwrap();
    let (two_signed, two_signature) = two.rsplit_once('.').unwrap();
    assert_eq!(check(&format!("{one_signed}.{two_signature}"), &both), Err(TokenError::Signature));
    assert_eq!(check(&format!("{two_signed}.{one_signature}"), &both), Err(TokenError::Signature));
}

/// S + L is the same number to a verifier that does not reduce.
#[test]
fn a_malleated_ed25519_signature_is_refused() {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let provider = ada();
    let good = provider.mint(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut carry = 0_u16;
    for (byte, add) in bytes[32..].iter_mut().zip(L) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    assert_eq!(carry, 0);
    assert_eq!(check(&format!("{signed}.{}", b64(bytes)), &provider.keys()), Err(TokenError::Signature));
}

#[test]
fn other_encodings_and_paddings_of_a_right_key_are_refused() {
    let signed = |provider: &Provider| format!("{}.{}", b64(provider.header().to_string()), b64(claims().to_string()));
    let ec = Provider::p256("k1");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &ec.pkcs8()).unwrap();
    let der = pair.sign(&SystemRandom::new(), signed(&ec).as_bytes()).unwrap();
    assert_eq!(check(&format!("{}.{}", signed(&ec), b64(der)), &ec.keys()), Err(TokenError::Signature));

    let rsa = Provider::rsa("k1", aws_lc_rs::rsa::KeySize::Rsa2048);
    let pair = RsaKeyPair::from_pkcs8(&rsa.pkcs8()).unwrap();
    let paddings: [&'static dyn aws_lc_rs::signature::RsaEncoding; 2] = [&RSA_PSS_SHA256, &RSA_PKCS1_SHA512];
    for padding in paddings {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &SystemRandom::new(), signed(&rsa).as_bytes(), &mut signature).unwrap();
        assert_eq!(check(&format!("{}.{}", signed(&rsa), b64(signature)), &rsa.keys()), Err(TokenError::Signature));
    }
}

/// Who knows a good ES256 signature can write its twin (r, n - s). It proves the same claims for the same connection,
/// so that replay protection must go by `jti`, never by the token's text.
#[test]
fn the_twin_of_an_ecdsa_signature_says_nothing_new() {
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let provider = Provider::p256("k1");
    let good = provider.mint(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0_i16;
    for (byte, from) in bytes[32..].iter_mut().zip(N).rev() {
        let digit = i16::from(from) - i16::from(*byte) - borrow;
        borrow = i16::from(digit < 0);
        *byte = digit.rem_euclid(256).to_le_bytes()[0];
    }
    let twin = format!("{signed}.{}", b64(bytes));
    assert_ne!(twin, good);
    assert_eq!(check(&twin, &provider.keys()), check(&good, &provider.keys()));
}

/// Signatures that are algebraically special, or that of something else.
#[test]
fn special_signatures_do_not_verify() {
    for provider in [ada(), Provider::p256("k1")] {
        let keys = provider.keys();
        let good = provider.mint(&claims());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let real = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let mut swapped = real[32..].to_vec();
        swapped.extend_from_slice(&real[..32]);
        let mut order = vec![0; 32];
        order[31] = 1;
        for special in [
            Vec::new(),
            vec![0; 64],
            vec![0xff; 64],
            vec![0; 63],
            vec![0; 65],
            swapped,
            [order.as_slice(), order.as_slice()].concat(),
            real[..63].to_vec(),
            [real.as_slice(), &[0]].concat(),
            [&[0], real.as_slice()].concat(),
        ] {
            assert_eq!(check(&format!("{signed}.{}", b64(special)), &keys), Err(TokenError::Signature));
        }
    }
}
