//! Tokens and key sets made by chance.

use proptest::prelude::*;

use super::minted::{Provider, b64, check, claims};
use super::*;

proptest! {
    #[test]
    fn any_text_is_refused_without_panic(text in "\\PC{0,200}") {
        prop_assert!(check(&text, &Provider::ed25519("k1", 1).keys()).is_err());
        let _any = KeySet::from_jwks(&text);
    }

    #[test]
    fn any_bytes_in_the_parts_are_refused_without_panic(
        head in prop::collection::vec(any::<u8>(), 0..80),
        body in prop::collection::vec(any::<u8>(), 0..80),
        signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let token = format!("{}.{}.{}", b64(head), b64(body), b64(signature));
        prop_assert!(check(&token, &Provider::ed25519("k1", 1).keys()).is_err());
        prop_assert!(peek(&token).is_err());
    }

    #[test]
    fn a_mutated_token_is_never_accepted(at in any::<prop::sample::Index>(), with in any::<char>(), kind in 0..4) {
        let provider = Provider::ed25519("k1", 1);
        let good = provider.mint(&claims());
        let mut characters: Vec<char> = good.chars().collect();
        let at = at.index(characters.len());
        match kind {
            0 => characters[at] = with,
            1 => characters.insert(at, with),
            2 => { characters.remove(at); }
            _ => characters.truncate(at),
        }
        let mutated: String = characters.into_iter().collect();
        prop_assert!(mutated == good || check(&mutated, &provider.keys()).is_err());
    }

    #[test]
    fn a_flipped_bit_of_any_part_is_never_accepted(part in 0_usize..3, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let provider = Provider::ed25519("k1", 1);
        let good = provider.mint(&claims());
        let mut parts: Vec<Vec<u8>> = good.split('.').map(|text| compact::decode(text).unwrap()).collect();
        let at = at.index(parts[part].len());
        parts[part][at] ^= 1_u8 << bit;
        let mutated = parts.iter().map(b64).collect::<Vec<_>>().join(".");
        prop_assert!(check(&mutated, &provider.keys()).is_err());
    }

    #[test]
    fn a_signed_token_with_any_claims_is_proof_only_if_they_are_right(
        name in prop::sample::select(vec!["iss", "sub", "aud", "iat", "exp", "jti", "cnf"]),
        value in any_json(),
    ) {
        let provider = Provider::ed25519("k1", 1);
        let mut payload = claims();
        payload[name] = value.clone();
        if let Ok(verified) = check(&provider.mint(&payload), &provider.keys()) {
            let text = value.as_str().map(str::to_owned);
            match name {
                "sub" => prop_assert!(text.is_some() && !verified.address().local().is_empty()),
                "jti" => prop_assert_eq!(text, Some(verified.jti().to_owned())),
                "iat" | "exp" => prop_assert!(value.is_u64()),
                _ => prop_assert_eq!(&value, &claims()[name]),
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map("[a-z]{0,4}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}
