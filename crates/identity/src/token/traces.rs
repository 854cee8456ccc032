//! Trace tokens: with these a provider proves that it is the provider, to be shown the delivery traces of its own users
//! (docs/operating.md). They are signed with the keys that sign its users' tokens, and told apart from those by `typ`: neither
//! is ever taken for the other.

use std::time::{Duration, SystemTime};

use super::{Compact, KeySet, Object, Times, TokenError, check_audience, issuer, parse_as};

/// `typ` of their header.
pub const TYPE: &str = "causeway-traces+jwt";
/// Longest time between `iat` and `exp`.
pub const MAX_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Who claims to have signed a token: enough to find the keys, to be believed by nobody.
///
/// # Errors
/// [`TokenError::Malformed`], and [`TokenError::Issuer`] if there is no issuer.
pub fn peek_issuer(token: &str) -> Result<String, TokenError> {
    let (_, payload) = parse(token)?;
    Ok(issuer(&payload)?.to_owned())
}

/// Checks that the provider with this registered issuer and these keys has signed a trace token for this audience, and that
/// it is good now. It has `iss`, `aud`, `iat` and `exp`, perhaps `nbf`; anything else is ignored.
///
/// # Errors
/// [`TokenError`], the first that applies.
pub fn verify(
    token: &str,
    keys: &KeySet,
    expected_issuer: &str,
    audience: &str,
    now: SystemTime,
) -> Result<(), TokenError> {
    let (compact, payload) = parse(token)?;
    if issuer(&payload)? != expected_issuer {
        return Err(TokenError::Issuer);
    }
    compact.verified(keys)?;
    // From here on `payload` is what the provider signed.
    Times::read(&payload, MAX_LIFETIME)?.check_time(now)?;
    check_audience(&payload, audience)
}

fn parse(token: &str) -> Result<(Compact<'_>, Object), TokenError> {
    parse_as(token, &[TYPE])
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;
    use crate::token::ed25519_jwk;

    const ISSUER: &str = "https://id.birdy.example";

    fn signed(pair: &Ed25519KeyPair, typ: &str, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "typ": typ, "alg": "EdDSA", "kid": "k1" });
        let text = format!("{}.{}", encode(&header), encode(claims));
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(pair.sign(text.as_bytes())))
    }

    #[test]
    fn only_a_fresh_one_of_the_very_provider_for_this_deployment_is_good() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        let keys = KeySet::from_jwks(&json!({ "keys": [ed25519_jwk("k1", public)] }).to_string()).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        let check = |token: &str| verify(token, &keys, ISSUER, "causeway.local", now);
        let claims =
            |iss: &str, aud: &str, iat: u64, exp: u64| json!({ "iss": iss, "aud": aud, "iat": iat, "exp": exp });

        let good = signed(&pair, TYPE, &claims(ISSUER, "causeway.local", 9_990, 10_290));
        assert_eq!(peek_issuer(&good).unwrap(), ISSUER);
        check(&good).unwrap();
        // A user's token is none, and the other way round.
        let of_user = signed(&pair, "JWT", &claims(ISSUER, "causeway.local", 9_990, 10_290));
        assert_eq!(check(&of_user), Err(TokenError::Malformed));
        assert!(crate::token::peek(&good).is_err());
        for (token, error) in [
            (claims(ISSUER, "other.example", 9_990, 10_290), TokenError::Audience),
            (claims("https://id.other.example", "causeway.local", 9_990, 10_290), TokenError::Issuer),
            (claims(ISSUER, "causeway.local", 9_000, 9_900), TokenError::Expired),
            (claims(ISSUER, "causeway.local", 10_100, 10_290), TokenError::NotYetValid),
            (claims(ISSUER, "causeway.local", 9_990, 9_990 + 3_601), TokenError::Malformed),
        ] {
            assert_eq!(check(&signed(&pair, TYPE, &token)), Err(error));
        }
        let other = Ed25519KeyPair::generate().unwrap();
        let forged = signed(&other, TYPE, &claims(ISSUER, "causeway.local", 9_990, 10_290));
        assert_eq!(check(&forged), Err(TokenError::Signature));
    }
}
