//! The attacks of RFC 8725 and of the usual playbooks, each with the one reason that it must get.

use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use serde_json::json;

use super::minted::*;
use super::*;

fn refused(token: &str, keys: &KeySet) -> TokenError {
    check(token, keys).expect_err(token)
}

#[test]
fn a_good_token_of_each_algorithm_is_proof() {
    for provider in [ada(), Provider::p256("k1"), Provider::rsa("k1", aws_lc_rs::rsa::KeySize::Rsa2048)] {
        let token = provider.mint(&claims());
        let head = peek(&token).unwrap();
        assert_eq!((head.issuer.as_str(), head.kid.as_str()), (ISSUER, "k1"));
        let verified = check(&token, &provider.keys()).unwrap();
        assert_eq!(verified.address().as_str(), "ada@birdy.example");
        assert_eq!(verified.jti(), "token-1");
        assert_eq!(verified.noise_key(), noise_key());
        assert_eq!((verified.issued_at(), verified.expires_at()), (at(NOW), at(NOW + 3600)));
        assert_eq!(format!("{verified:?} {head:?}"), "Verified(..) TokenHead(..)");
        // The same keys after a trip through the directory.
        let again = KeySet::from_jwks(&provider.keys().to_jwks()).unwrap();
        assert_eq!(again.to_jwks(), provider.keys().to_jwks());
        assert!(check(&token, &again).is_ok());
        assert_eq!(refused(&token, &KeySet::default()), TokenError::Signature);
    }
    let token = ada().with_header(&[("typ", json!("causeway+jwt"))]);
    assert!(check(&token, &ada().keys()).is_ok());
    // Members that mean nothing here are no reason to refuse.
    let token = ada().with_claims(&[("name", json!("Ada")), ("scope", json!(["a", { "b": 1.5 }]))]);
    assert!(check(&token, &ada().keys()).is_ok());
}

#[test]
fn reasons_are_the_wires_own() {
    let reasons: std::collections::BTreeSet<i32> = TokenError::ALL.iter().map(|error| error.reason() as i32).collect();
    assert_eq!(reasons, (1..=7).collect());
    assert_eq!(FailureReason::from(TokenError::Binding), FailureReason::TokenBinding);
}

/// AUTH-14.
#[test]
fn no_algorithm_but_the_keys_own_is_taken() {
    let rsa = Provider::rsa("k1", aws_lc_rs::rsa::KeySize::Rsa2048);
    for provider in [ada(), Provider::p256("k1"), rsa] {
        let keys = provider.keys();
        for alg in
            ["none", "None", "nOnE", "NONE", "", "eddsa", "Ed25519", "ES384", "PS256", "RS512", "HS256", "EdDSA\0"]
        {
            let header = changed(provider.header(), &[("alg", json!(alg))]);
            let signed = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
            assert_eq!(refused(&format!("{signed}."), &keys), TokenError::Signature, "{alg}");
            assert_eq!(refused(&provider.mint_with(&header, &claims()), &keys), TokenError::Signature, "{alg}");
        }
        for other in ["EdDSA", "ES256", "RS256"] {
            let token = provider.with_header(&[("alg", json!(other))]);
            assert_eq!(check(&token, &keys).is_ok(), other == provider.alg, "{other}");
        }
        for alg in [json!(null), json!(1), json!(["EdDSA"]), json!({ "alg": "EdDSA" })] {
            let mut header = provider.header();
            header["alg"] = alg;
            assert_eq!(refused(&provider.mint_with(&header, &claims()), &keys), TokenError::Malformed);
        }
        let mut secrets = provider.public_in_all_forms();
        secrets.extend([Vec::new(), b"secret".to_vec(), vec![0; 32]]);
        for secret in secrets {
            for (alg, hash) in
                [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
            {
                let header = changed(provider.header(), &[("alg", json!(alg))]);
                let signed = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
                let tag = hmac::sign(&hmac::Key::new(hash, &secret), signed.as_bytes());
                assert_eq!(refused(&format!("{signed}.{}", b64(tag)), &keys), TokenError::Signature);
                // The same bytes under the right name of the algorithm.
                let signed = format!("{}.{}", b64(provider.header().to_string()), b64(claims().to_string()));
                let tag = hmac::sign(&hmac::Key::new(hash, &secret), signed.as_bytes());
                assert_eq!(refused(&format!("{signed}.{}", b64(tag)), &keys), TokenError::Signature);
            }
        }
    }
}

/// AUTH-14, AUTH-26.
#[test]
fn what_is_no_compact_token_is_malformed() {
    let provider = ada();
    let keys = provider.keys();
    let good = provider.mint(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("a token has three parts") };
    let signed = format!("{head}.{body}");
    let cases = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        head.to_owned(),
        signed.clone(),
        format!(".{body}.{signature}"),
        format!("{head}..{signature}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{good}.x.y"),
        format!("{head}.{body}.{signature}.{head}.{body}"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{head}.{body}\r\n.{signature}"),
        format!("{head}.\t{body}.{signature}"),
        format!("Bearer {good}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{head}=.{body}.{signature}"),
        format!("{signed}.+{}", &signature[1..]),
        format!("{signed}./{}", &signature[1..]),
        format!("{signed}.%2D{}", &signature[1..]),
        format!("{signed}.\u{212a}{}", &signature[1..]),
        good.replace('.', "\u{3002}"),
        json!({ "protected": head, "payload": body, "signature": signature }).to_string(),
        json!({ "payload": body, "signatures": [{ "protected": head, "signature": signature }] }).to_string(),
        provider.mint_text("[]", "{}"),
        provider.mint_text("", &claims().to_string()),
        provider.mint_text(&format!("{} {{}}", provider.header()), &claims().to_string()),
        provider.mint_text(&provider.header().to_string(), "ada"),
        provider.mint_text(&provider.header().to_string(), "[]"),
        provider.mint_text(&provider.header().to_string(), "null"),
        provider.mint_text(&provider.header().to_string(), &format!("{}{}", claims(), claims())),
        provider.mint_text(&format!("\u{feff}{}", provider.header()), &claims().to_string()),
        provider.mint(&json!(provider.mint(&claims()))),
        "A".repeat(1024 * 1024),
        format!("{}.{}.{}", "A".repeat(400_000), "A".repeat(400_000), "A".repeat(200_000)),
        ".".repeat(4096),
    ];
    for token in cases {
        let shown: String = token.chars().take(80).collect();
        assert_eq!(check(&token, &keys), Err(TokenError::Malformed), "{shown}");
        assert_eq!(peek(&token), Err(TokenError::Malformed), "{shown}");
    }
}

/// AUTH-26: the last character of an unpadded group carries bits that must be zero.
#[test]
fn each_part_has_one_spelling() {
    let provider = ada();
    let keys = provider.keys();
    // 64 bytes of signature end in a character with four bits to spare.
    let good = provider.mint(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let last = signature.chars().next_back().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let index = alphabet.find(last).unwrap();
    assert_eq!(index % 16, 0);
    for spare in 1..16 {
        let other = alphabet.as_bytes()[index + spare] as char;
        let token = format!("{signed}.{}{other}", &signature[..signature.len() - 1]);
        assert_eq!(refused(&token, &keys), TokenError::Malformed);
    }
    // Header and payload, where the signature covers the text: signed, but still no token.
    let header = provider.header().to_string();
    for padding in 0..3 {
        let body = format!("{}{}", claims(), " ".repeat(padding));
        for encode in [|text: &str| URL_SAFE.encode(text), |text: &str| STANDARD_NO_PAD.encode(text)] {
            let (head, body) = (encode(&header), encode(&body));
            let canonical = head == b64(&header) && body == encode(&body) && !body.contains('=');
            if canonical || !(head.contains(['=', '+', '/']) || body.contains(['=', '+', '/'])) {
                continue;
            }
            let signed = format!("{head}.{body}");
            let token = format!("{signed}.{}", b64(provider.sign(signed.as_bytes())));
            assert_eq!(refused(&token, &keys), TokenError::Malformed);
        }
    }
}

/// AUTH-26.
#[test]
fn headers_that_change_the_meaning_are_refused() {
    let provider = ada();
    let keys = provider.keys();
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("cty", json!("jwt")),
        ("enc", json!("A256GCM")),
        ("typ", json!("at+jwt")),
        ("typ", json!("dpop+jwt")),
        ("typ", json!("logout+jwt")),
        ("typ", json!("jwt")),
        ("typ", json!("JWS")),
        ("typ", json!("")),
        ("typ", json!(["JWT"])),
        ("typ", ABSENT),
        ("alg", ABSENT),
        ("kid", ABSENT),
        ("kid", json!("")),
        ("kid", json!(1)),
        ("kid", json!(["k1"])),
        ("kid", json!({ "k1": 1 })),
        ("kid", json!("k".repeat(257))),
        ("kid", json!("k".repeat(64 * 1024))),
    ] {
        let token = provider.with_header(&[(name, value.clone())]);
        assert_eq!(refused(&token, &keys), TokenError::Malformed, "{name} {}", value.to_string().len());
    }
    // crit with null, which the helper above would leave out.
    let header = provider.header().to_string().replacen('{', "{\"crit\":null,", 1);
    assert_eq!(refused(&provider.mint_text(&header, &claims().to_string()), &keys), TokenError::Malformed);
}

/// Two readers must not see two tokens in one.
#[test]
fn repeated_members_are_refused() {
    let provider = ada();
    let keys = provider.keys();
    let header = provider.header().to_string();
    let payload = claims().to_string();
    for (name, first) in [
        ("iss", "\"https://id.other.example\""),
        ("sub", "\"bo\""),
        ("aud", "\"x\""),
        ("exp", "1"),
        ("iat", "1"),
        ("jti", "\"x\""),
        ("cnf", "{}"),
        ("s\\u0075b", "\"bo\""),
    ] {
        let before = payload.replacen('{', &format!("{{\"{name}\":{first},"), 1);
        let after = format!("{},\"{name}\":{first}}}", payload.strip_suffix('}').unwrap());
        for doubled in [before, after] {
            assert_eq!(refused(&provider.mint_text(&header, &doubled), &keys), TokenError::Malformed, "{doubled}");
        }
    }
    for extra in ["\"alg\":\"none\"", "\"kid\":\"k1\"", "\"typ\":\"JWT\"", "\"\\u0061lg\":\"EdDSA\""] {
        let doubled = header.replacen('{', &format!("{{{extra},"), 1);
        assert_eq!(refused(&provider.mint_text(&doubled, &payload), &keys), TokenError::Malformed, "{doubled}");
    }
    let nested = payload.replace("\"cnf\":{", "\"cnf\":{\"kid\":\"x\",");
    assert_eq!(refused(&provider.mint_text(&header, &nested), &keys), TokenError::Malformed);
}

/// AUTH-15: keys never come from the token. That nothing is fetched follows from the crate: it has no I/O.
#[test]
fn keys_that_come_with_the_token_are_ignored() {
    let provider = ada();
    let attacker = Provider::ed25519("k1", 2);
    for (name, value) in [
        ("jwk", attacker.jwk()),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("jku", json!("https://id.birdy.example/redirect?to=https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/cert.pem")),
        ("x5c", json!([STANDARD.encode(b"certificate")])),
    ] {
        let forged = attacker.with_header(&[(name, value.clone())]);
        assert_eq!(refused(&forged, &provider.keys()), TokenError::Signature);
        assert_eq!(refused(&forged, &KeySet::default()), TokenError::Signature);
        // With the right signature the member changes nothing either.
        assert!(check(&provider.with_header(&[(name, value)]), &provider.keys()).is_ok());
    }
}

/// AUTH-16.
#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let provider = ada();
    for kid in [
        "../../../../dev/null",
        "/dev/null",
        "file:///etc/passwd",
        "k1' OR '1'='1",
        "k1\0",
        "K1",
        "k1 ",
        "other-providers-kid",
        "$(sleep 10)",
        "https://attacker.example/key",
        "k\u{131}",
    ] {
        let token = provider.with_header(&[("kid", json!(kid))]);
        assert_eq!(refused(&token, &provider.keys()), TokenError::Signature, "{kid}");
        assert_eq!(peek(&token).unwrap().kid, kid);
    }
    let other = Provider::ed25519("k1", 2);
    for pair in [[&provider, &other], [&other, &provider], [&provider, &provider]] {
        let document = json!({ "keys": pair.map(Provider::jwk) }).to_string();
        let keys = KeySet::from_jwks(&document).unwrap();
        assert!(keys.is_empty());
        assert_eq!(refused(&provider.mint(&claims()), &keys), TokenError::Signature);
    }
}

/// AUTH-18.
#[test]
fn times_have_sixty_seconds_of_grace_and_a_token_at_most_a_day() {
    let provider = ada();
    let keys = provider.keys();
    let with = |iat: u64, exp: u64, nbf: Option<u64>| {
        let nbf = nbf.map_or(ABSENT, |nbf| json!(nbf));
        check(&provider.with_claims(&[("iat", json!(iat)), ("exp", json!(exp)), ("nbf", nbf)]), &keys).err()
    };
    assert_eq!(with(NOW - 3600, NOW - 61, None), Some(TokenError::Expired));
    assert_eq!(with(NOW - 3600, NOW - 60, None), Some(TokenError::Expired));
    assert_eq!(with(NOW - 3600, NOW - 59, None), None);
    assert_eq!(with(NOW + 61, NOW + 3600, None), Some(TokenError::NotYetValid));
    assert_eq!(with(NOW + 60, NOW + 3600, None), None);
    assert_eq!(with(NOW + 59, NOW + 3600, None), None);
    assert_eq!(with(NOW, NOW + 3600, Some(NOW + 61)), Some(TokenError::NotYetValid));
    assert_eq!(with(NOW, NOW + 3600, Some(NOW + 59)), None);
    assert_eq!(with(NOW, NOW + 3600, Some(0)), None);
    assert_eq!(with(NOW, NOW + 86_400, None), None);
    assert_eq!(with(NOW, NOW + 86_401, None), Some(TokenError::Malformed));
    assert_eq!(with(0, NOW + 1, None), Some(TokenError::Malformed));
    assert_eq!(with(NOW, NOW, None), Some(TokenError::Malformed));
    assert_eq!(with(NOW, NOW - 1, None), Some(TokenError::Malformed));
    assert_eq!(with(NOW * 1000, NOW * 1000 + 3600, None), Some(TokenError::Malformed));
    assert_eq!(with(u64::MAX - 1, u64::MAX, None), Some(TokenError::Malformed));

    let good = provider.mint(&claims());
    assert_eq!(check_at(&good, &keys, UNIX_EPOCH - Duration::from_secs(1)), Err(TokenError::NotYetValid));
    assert_eq!(check_at(&good, &keys, at(u64::MAX / 4)), Err(TokenError::Expired));
}

#[test]
fn claims_must_be_there_and_of_the_right_type() {
    let provider = ada();
    let keys = provider.keys();
    for name in ["iat", "exp", "nbf"] {
        for value in [json!("1800000000"), json!(NOW as f64 + 0.5), json!(-1), json!([NOW]), json!(true), json!({})] {
            let token = provider.with_claims(&[(name, value.clone())]);
            assert_eq!(refused(&token, &keys), TokenError::Malformed, "{name} {value}");
        }
        for literal in ["1.8e9", "1800000000.0", "18446744073709551616", "1e400", "null"] {
            let payload = changed(claims(), &[(name, json!("@"))]).to_string().replace("\"@\"", literal);
            let token = provider.mint_text(&provider.header().to_string(), &payload);
            assert_eq!(refused(&token, &keys), TokenError::Malformed, "{name} {literal}");
        }
    }
    for name in ["iat", "exp", "sub", "jti"] {
        assert_eq!(refused(&provider.with_claims(&[(name, ABSENT)]), &keys), TokenError::Malformed, "{name}");
    }
    for value in [json!(""), json!(1), json!(["a"]), json!("j".repeat(257))] {
        assert_eq!(refused(&provider.with_claims(&[("jti", value)]), &keys), TokenError::Malformed);
    }
}

/// AUTH-19. An array may hold others beside ours, up to eight (docs/protocol.md, section 4).
#[test]
fn the_audience_is_exactly_ours() {
    let provider = ada();
    let keys = provider.keys();
    for aud in [
        ABSENT,
        json!("other.example"),
        json!("home.exampl"),
        json!("home.example.org"),
        json!("xhome.example"),
        json!("Home.example"),
        json!("home.example "),
        json!("home.example/"),
        json!("https://home.example"),
        json!(""),
        json!(1),
        json!({ "home.example": true }),
        json!([]),
        json!(["other.example"]),
        json!([["home.example"]]),
        json!(["home.example", 1]),
        json!(["home.example", ["x"]]),
        json!(["1", "2", "3", "4", "5", "6", "7", "8", "home.example"]),
    ] {
        assert_eq!(refused(&provider.with_claims(&[("aud", aud.clone())]), &keys), TokenError::Audience, "{aud}");
    }
    for aud in [json!(["home.example"]), json!(["1", "2", "3", "4", "5", "6", "7", "home.example"])] {
        assert!(check(&provider.with_claims(&[("aud", aud)]), &keys).is_ok());
    }
}

/// AUTH-20.
#[test]
fn the_issuer_is_exactly_the_registered_one() {
    let provider = ada();
    let keys = provider.keys();
    for iss in [
        ABSENT,
        json!("https://id.other.example"),
        json!("https://id.birdy.example/"),
        json!("https://ID.birdy.example"),
        json!("HTTPS://id.birdy.example"),
        json!("https://id.birdy.example:443"),
        json!("https://user@id.birdy.example"),
        json!("https://id.birdy.example@attacker.example"),
        json!("https://id.birdy%2eexample"),
        json!("https://id.b\u{131}rdy.example"),
        json!("https://id.birdy.example\u{200b}"),
        json!("https://id.birdy.example\0"),
        json!("http://id.birdy.example"),
        json!(""),
        json!(1),
        json!([ISSUER]),
        json!({ "iss": ISSUER }),
    ] {
        assert_eq!(refused(&provider.with_claims(&[("iss", iss.clone())]), &keys), TokenError::Issuer, "{iss}");
    }
    // Another provider's key under our issuer's name.
    let other = Provider::ed25519("k1", 2);
    assert_eq!(refused(&other.mint(&claims()), &keys), TokenError::Signature);
}

/// AUTH-22.
#[test]
fn the_subject_is_a_local_part() {
    let provider = ada();
    let keys = provider.keys();
    for sub in [
        json!(""),
        json!("ada@other.example"),
        json!("ada/1"),
        json!("ada\n"),
        json!("ada\0"),
        json!("\u{202e}ada"),
        json!("a\u{200b}da"),
        json!(" ada"),
        json!("ada\u{a0}"),
        json!("a".repeat(129)),
        json!(7),
        json!(["ada"]),
        json!({}),
        json!(true),
    ] {
        assert_eq!(refused(&provider.with_claims(&[("sub", sub.clone())]), &keys), TokenError::Malformed, "{sub}");
    }
    let address = |sub: &str| check(&provider.with_claims(&[("sub", json!(sub))]), &keys).unwrap().address().clone();
    assert_eq!(address("jos\u{e9}"), address("jose\u{301}"));
    assert_eq!(address(&"a".repeat(128)).local().len(), 128);
}

/// AUTH-23, AUTH-24.
#[test]
fn the_binding_is_the_connections_key_and_nothing_beside_it() {
    let provider = ada();
    let keys = provider.keys();
    let key = noise_key();
    let bytes = key.as_bytes();
    let kid = b64(bytes);
    let mut other = *bytes;
    other[0] ^= 1;
    let mut high_bit = *bytes;
    high_bit[31] |= 0x80;
    let mut spare_bits = kid.clone();
    assert_eq!(spare_bits.pop(), Some('k'));
    spare_bits.push('l');
    for cnf in [
        ABSENT,
        json!(kid),
        json!([{ "kid": kid }]),
        json!([]),
        json!({}),
        json!({ "kid": "" }),
        json!({ "kid": b64(other) }),
        json!({ "kid": b64(high_bit) }),
        json!({ "kid": b64([0; 32]) }),
        json!({ "kid": b64(&bytes[..31]) }),
        json!({ "kid": b64([bytes.as_slice(), &[0]].concat()) }),
        json!({ "kid": URL_SAFE.encode(bytes) }),
        json!({ "kid": format!(" {kid}") }),
        json!({ "kid": spare_bits }),
        json!({ "kid": hex::encode(bytes) }),
        json!({ "kid": [kid] }),
        json!({ "kid": 1 }),
        json!({ "KID": kid }),
        json!({ "jkt": kid }),
        json!({ "kid": kid, "jkt": kid }),
        json!({ "kid": kid, "jwk": { "kty": "OKP", "crv": "X25519", "x": kid } }),
        json!({ "jwk": { "kty": "OKP", "crv": "X25519", "x": kid } }),
        json!({ "kid": kid, "": null }),
    ] {
        assert_eq!(refused(&provider.with_claims(&[("cnf", cnf.clone())]), &keys), TokenError::Binding, "{cnf}");
    }
    // Standard base64 where it differs from base64url.
    let dashed = NoiseKey::new([0x7b; 32].map(|byte: u8| byte | 0x80).map(|byte| byte & 0x7f | 0x3e)).unwrap();
    let domain: Domain = "birdy.example".parse().unwrap();
    let expected = Expected { issuer: ISSUER, provider: &domain, audience: AUDIENCE, noise_key: dashed, now: at(NOW) };
    let standard = STANDARD_NO_PAD.encode(dashed.as_bytes());
    assert!(standard.contains(['+', '/']));
    let token = provider.with_claims(&[("cnf", json!({ "kid": standard }))]);
    assert_eq!(verify(&token, &keys, &expected), Err(TokenError::Binding));
    // A stolen token over the thief's own connection.
    assert_eq!(verify(&provider.mint(&claims()), &keys, &expected), Err(TokenError::Binding));
}

/// The first reason in the documented order wins, and nothing but issuer and key name counts before the signature.
#[test]
fn an_unsigned_claim_never_gives_the_reason() {
    let provider = ada();
    let stranger = Provider::ed25519("k1", 2);
    let keys = provider.keys();
    let all_wrong = [("sub", json!("")), ("exp", json!(1)), ("aud", json!("other.example")), ("cnf", json!({}))];
    assert_eq!(refused(&stranger.with_claims(&all_wrong), &keys), TokenError::Signature);
    let mut with_issuer = all_wrong.to_vec();
    with_issuer.push(("iss", json!("https://id.other.example")));
    assert_eq!(refused(&stranger.with_claims(&with_issuer), &keys), TokenError::Issuer);
    assert_eq!(refused(&provider.with_claims(&all_wrong), &keys), TokenError::Malformed);
    let expired = [("iat", json!(1)), ("exp", json!(2)), ("aud", json!("x")), ("cnf", json!({}))];
    assert_eq!(refused(&provider.with_claims(&expired), &keys), TokenError::Expired);
    assert_eq!(refused(&provider.with_claims(&expired[2..]), &keys), TokenError::Audience);
    assert_eq!(refused(&provider.with_claims(&expired[3..]), &keys), TokenError::Binding);
}

#[test]
fn a_token_may_have_four_kibibytes_and_not_one_byte_more() {
    let provider = ada();
    let keys = provider.keys();
    let sized = |filler: usize| provider.with_claims(&[("filler", json!("x".repeat(filler)))]);
    let most = (2000..4000).take_while(|filler| sized(*filler).len() <= 4096).last().unwrap();
    let (fits, exceeds) = (sized(most), sized(most + 1));
    assert!(fits.len() >= 4094 && exceeds.len() > 4096);
    assert!(check(&fits, &keys).is_ok());
    assert_eq!(refused(&exceeds, &keys), TokenError::Malformed);
}
