//! Tokens with which providers vouch for their users (docs/protocol.md, section 4).
//!
//! [`peek`] tells whose keys to use; [`verify`] checks everything and is the only maker of [`Verified`]. The checks come
//! in this order, and the first that fails gives the reason:
//! 1. structure: length, compact form, header, payload a JSON object, nothing repeated (`token-malformed`);
//! 2. `iss` is the issuer whose keys these are (`token-issuer`);
//! 3. the key exists, is for this algorithm and made the signature (`token-signature`);
//! 4. `sub`, `jti`, `iat`, `exp`, `nbf` are there, well-formed, and span at most 24 hours (`token-malformed`);
//! 5. the time (`token-expired`, `token-not-yet-valid`);
//! 6. `aud` names this deployment (`token-audience`);
//! 7. `cnf` names the connection's Noise key (`token-binding`).
//!
//! Before step 3 nothing but `iss` and `kid` is looked at, and these only to choose the key.

mod compact;
mod json;
mod keys;
mod roca;
pub mod traces;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod chance;
#[cfg(test)]
mod key_sets;
#[cfg(test)]
mod minted;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod wycheproof;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causeway_proto::wire::v1::FailureReason;

use self::compact::Compact;
use self::json::{Json, Object};
pub use self::keys::{Algorithm, KeySet, KeySetError, MAX_JWKS_BYTES, MAX_JWKS_KEYS, ed25519_jwk};
use crate::address::{Address, Domain};
use crate::noise_key::NoiseKey;

/// Clocks may differ by this much.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Longest time between `iat` and `exp`.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The types that a token's header may declare.
const TYPES: [&str; 2] = ["JWT", "causeway+jwt"];
const MAX_AUDIENCES: usize = 8;
const MAX_JTI_BYTES: usize = 256;
/// The end of the year 9999; later times are mistakes (milliseconds, for instance).
const MAX_UNIX_SECONDS: u64 = 253_402_300_799;

/// Why a token opens no session. Each is one [`FailureReason`] of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or a claim other than `iss`, `aud` and `cnf` is missing, repeated or of the wrong kind.
    #[error("the token is malformed")]
    Malformed,
    /// No key of this name, another algorithm than the key's, or the signature does not hold.
    #[error("the token's signature does not verify")]
    Signature,
    /// `exp` lies more than the skew back.
    #[error("the token has expired")]
    Expired,
    /// `iat` or `nbf` lies more than the skew ahead.
    #[error("the token is not yet valid")]
    NotYetValid,
    /// `aud` is missing, of the wrong kind, too long, or does not name this deployment.
    #[error("the token is for another audience")]
    Audience,
    /// `iss` is missing or of the wrong kind, or is not the expected issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// `cnf` is missing, of the wrong form, or names another Noise key than the connection's.
    #[error("the token is bound to another key")]
    Binding,
}

impl TokenError {
    /// Every variant.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::Signature,
        Self::Expired,
        Self::NotYetValid,
        Self::Audience,
        Self::Issuer,
        Self::Binding,
    ];

    /// What the client is told.
    pub const fn reason(self) -> FailureReason {
        match self {
            Self::Malformed => FailureReason::TokenMalformed,
            Self::Signature => FailureReason::TokenSignature,
            Self::Expired => FailureReason::TokenExpired,
            Self::NotYetValid => FailureReason::TokenNotYetValid,
            Self::Audience => FailureReason::TokenAudience,
            Self::Issuer => FailureReason::TokenIssuer,
            Self::Binding => FailureReason::TokenBinding,
        }
    }
}

impl From<TokenError> for FailureReason {
    fn from(error: TokenError) -> Self {
        error.reason()
    }
}

/// What a token claims about who signed it: enough to find the keys, to be believed by nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHead {
    /// `iss`, as it stands in the token.
    pub issuer: String,
    /// `kid`, 1 to 256 bytes.
    pub kid: String,
}

/// Hides both: they are the sender's to choose and have no place in a log.
impl fmt::Debug for TokenHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHead(..)")
    }
}

/// Reads issuer and key name of an unverified token.
///
/// # Errors
/// [`TokenError::Malformed`], and [`TokenError::Issuer`] if there is no issuer.
pub fn peek(token: &str) -> Result<TokenHead, TokenError> {
    let (compact, payload) = parse(token)?;
    let issuer = issuer(&payload)?.to_owned();
    Ok(TokenHead { issuer, kid: compact.kid().to_owned() })
}

/// What a token must fit.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The registered issuer whose keys are used, compared byte for byte.
    pub issuer: &'a str,
    /// The domain of that provider: accounts of its tokens are there and nowhere else.
    pub provider: &'a Domain,
    /// The deployment's audience, compared byte for byte.
    pub audience: &'a str,
    /// The client's static key, proven by the Noise handshake.
    pub noise_key: NoiseKey,
    /// Now.
    pub now: SystemTime,
}

/// Proof that a provider's token was checked for this connection. Only [`verify`] makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    address: Address,
    jti: String,
    noise_key: NoiseKey,
    issued_s: u64,
    expires_s: u64,
}

impl Verified {
    /// The account that the provider vouches for.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The token's own id, 1 to 256 bytes, unique at its issuer.
    pub fn jti(&self) -> &str {
        &self.jti
    }

    /// The key that the token is bound to and the connection has proven.
    pub const fn noise_key(&self) -> NoiseKey {
        self.noise_key
    }

    /// When it was issued.
    pub fn issued_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.issued_s)
    }

    /// When it expires, without skew.
    pub fn expires_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.expires_s)
    }
}

/// Shows nothing of the account.
impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verified(..)")
    }
}

/// Checks `token` against the keys of the issuer that [`peek`] named, in the order of this module's description.
///
/// # Errors
/// [`TokenError`], the first that applies.
pub fn verify(token: &str, keys: &KeySet, expected: &Expected<'_>) -> Result<Verified, TokenError> {
    let (compact, payload) = parse(token)?;
    if issuer(&payload)? != expected.issuer {
        return Err(TokenError::Issuer);
    }
    compact.verified(keys)?;
    // From here on `payload` is what the provider signed.
    let claims = Claims::read(&payload, expected.provider)?;
    claims.times.check_time(expected.now)?;
    check_audience(&payload, expected.audience)?;
    check_binding(&payload, expected.noise_key)?;
    Ok(Verified {
        address: claims.address,
        jti: claims.jti,
        noise_key: expected.noise_key,
        issued_s: claims.times.iat,
        expires_s: claims.times.exp,
    })
}

fn parse(token: &str) -> Result<(Compact<'_>, Object), TokenError> {
    parse_as(token, &TYPES)
}

fn parse_as<'t>(token: &'t str, types: &[&str]) -> Result<(Compact<'t>, Object), TokenError> {
    let compact = Compact::parse(token)?;
    if !compact.typ().is_some_and(|typ| types.contains(&typ)) {
        return Err(TokenError::Malformed);
    }
    let payload = Json::object(compact.unverified()).ok_or(TokenError::Malformed)?;
    Ok((compact, payload))
}

fn issuer(payload: &Object) -> Result<&str, TokenError> {
    payload.get("iss").and_then(Json::as_text).ok_or(TokenError::Issuer)
}

struct Claims {
    address: Address,
    jti: String,
    times: Times,
}

impl Claims {
    fn read(payload: &Object, provider: &Domain) -> Result<Self, TokenError> {
        let text = |name: &str| payload.get(name).and_then(Json::as_text).ok_or(TokenError::Malformed);
        let address = Address::new(text("sub")?, provider).map_err(|_| TokenError::Malformed)?;
        let jti = text("jti")?.to_owned();
        if jti.is_empty() || jti.len() > MAX_JTI_BYTES {
            return Err(TokenError::Malformed);
        }
        Ok(Self { address, jti, times: Times::read(payload, MAX_LIFETIME)? })
    }
}

/// When a token is good.
struct Times {
    iat: u64,
    exp: u64,
    nbf: Option<u64>,
}

impl Times {
    fn read(payload: &Object, longest: Duration) -> Result<Self, TokenError> {
        let time = |name: &str| match payload.get(name).and_then(Json::as_integer) {
            Some(seconds) if seconds <= MAX_UNIX_SECONDS => Ok(seconds),
            _ => Err(TokenError::Malformed),
        };
        let (iat, exp) = (time("iat")?, time("exp")?);
        let nbf = if payload.contains_key("nbf") { Some(time("nbf")?) } else { None };
        let lifetime = exp.checked_sub(iat).ok_or(TokenError::Malformed)?;
        if lifetime == 0 || lifetime > longest.as_secs() {
            return Err(TokenError::Malformed);
        }
        Ok(Self { iat, exp, nbf })
    }

    fn check_time(&self, now: SystemTime) -> Result<(), TokenError> {
        // A clock before 1970 makes every token one of the future.
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let skew = CLOCK_SKEW.as_secs();
        if now >= self.exp.saturating_add(skew) {
            return Err(TokenError::Expired);
        }
        let starts = self.nbf.map_or(self.iat, |nbf| nbf.max(self.iat));
        if starts > now.saturating_add(skew) {
            return Err(TokenError::NotYetValid);
        }
        Ok(())
    }
}

fn check_audience(payload: &Object, audience: &str) -> Result<(), TokenError> {
    let ours = match payload.get("aud") {
        Some(Json::Text(text)) => text == audience,
        Some(Json::Array(entries)) if entries.len() <= MAX_AUDIENCES => {
            let texts: Option<Vec<&str>> = entries.iter().map(Json::as_text).collect();
            texts.is_some_and(|texts| texts.contains(&audience))
        }
        _ => false,
    };
    if ours { Ok(()) } else { Err(TokenError::Audience) }
}

/// `cnf` must be exactly `{"kid": <the key>}` (RFC 7800, section 3.4): a second member could mean another key to
/// another reader.
fn check_binding(payload: &Object, noise_key: NoiseKey) -> Result<(), TokenError> {
    let cnf = payload.get("cnf").and_then(Json::as_object).ok_or(TokenError::Binding)?;
    let kid = cnf.get("kid").and_then(Json::as_text).ok_or(TokenError::Binding)?;
    let bound = compact::decode(kid).map_err(|_| TokenError::Binding)?;
    if cnf.len() != 1 || bound != noise_key.as_bytes() {
        return Err(TokenError::Binding);
    }
    Ok(())
}
