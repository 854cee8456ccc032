//! Tokens (docs/protocol.md, section 4), as a provider mints them for its users.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_identity::token::{MAX_LIFETIME, traces};
use causeway_identity::{Address, Domain, NoiseKey};
use serde_json::{Value, json};

use crate::error::SandboxError;
use crate::keys::SigningKey;

/// What a token says.
pub(crate) struct Grant<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) domain: &'a Domain,
    pub(crate) audience: &'a str,
    pub(crate) user: &'a str,
    pub(crate) noise_key: &'a [u8; 32],
    pub(crate) now: SystemTime,
    pub(crate) ttl: Duration,
    /// 16 random bytes.
    pub(crate) id: [u8; 16],
}

/// A token, and the Unix second from which it is no longer good.
pub(crate) struct Minted {
    pub(crate) token: String,
    pub(crate) expires_s: u64,
}

pub(crate) fn mint(key: &SigningKey, grant: &Grant<'_>) -> Result<Minted, SandboxError> {
    let address = Address::new(grant.user, grant.domain).map_err(|_| SandboxError::User)?;
    let noise_key = NoiseKey::new(*grant.noise_key).map_err(|_| SandboxError::NoiseKey)?;
    let seconds = grant.ttl.as_secs();
    if !(1..=MAX_LIFETIME.as_secs()).contains(&seconds) {
        return Err(SandboxError::Lifetime);
    }
    let iat = grant.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expires_s = iat.saturating_add(seconds);
    let header = json!({ "typ": "JWT", "alg": key.algorithm().name(), "kid": key.kid() });
    let claims = json!({
        "iss": grant.issuer,
        "sub": address.local(),
        "aud": grant.audience,
        "iat": iat,
        "exp": expires_s,
        "jti": hex::encode(grant.id),
        "cnf": { "kid": URL_SAFE_NO_PAD.encode(noise_key.as_bytes()) },
    });
    Ok(Minted { token: sign(key, &header, &claims)?, expires_s })
}

/// A trace token, good for five minutes.
pub(crate) fn for_traces(
    key: &SigningKey,
    issuer: &str,
    audience: &str,
    now: SystemTime,
) -> Result<String, SandboxError> {
    let iat = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let header = json!({ "typ": traces::TYPE, "alg": key.algorithm().name(), "kid": key.kid() });
    sign(key, &header, &json!({ "iss": issuer, "aud": audience, "iat": iat, "exp": iat + 300 }))
}

fn sign(key: &SigningKey, header: &Value, claims: &Value) -> Result<String, SandboxError> {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

/// The Noise key that a token of ours names, before anything of it is verified.
pub(crate) fn named_noise_key(token: &str) -> Option<NoiseKey> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let bytes = URL_SAFE_NO_PAD.decode(claims["cnf"]["kid"].as_str()?).ok()?;
    bytes.as_slice().try_into().ok()
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
