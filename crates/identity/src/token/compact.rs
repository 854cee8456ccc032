//! JWS in its compact form (RFC 7515, section 7.1), as strictly as a token needs it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::json::{Json, Object};
use super::{KeySet, TokenError};

/// Longest token in bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 4096;
/// Longest `kid` in bytes.
pub(super) const MAX_KID_BYTES: usize = 256;

/// Header members that change what the rest means; a token has none of them. `jku`, `x5u`, `jwk` and `x5c` are not
/// among them: they are ignored, since keys never come from a token.
const REFUSED_MEMBERS: [&str; 5] = ["crit", "b64", "zip", "cty", "enc"];

/// A JWS taken apart. Nothing of it is to be believed before [`Compact::verified`].
pub(super) struct Compact<'t> {
    header: Object,
    /// Kept beside the header so that it is there by type.
    alg: String,
    kid: String,
    /// What the signature is over: header, dot, payload, as received.
    signed: &'t str,
    payload: Vec<u8>,
    /// In base64url, known to be canonical.
    signature: &'t str,
}

impl<'t> Compact<'t> {
    /// Takes `token` apart.
    ///
    /// # Errors
    /// [`TokenError::Malformed`].
    pub(super) fn parse(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (head, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header = Json::object(&decode(head)?).ok_or(TokenError::Malformed)?;
        // A further dot is no base64url and fails here, so that JWE with its five parts ends here too.
        let payload = decode(body)?;
        decode(signature)?;
        if REFUSED_MEMBERS.iter().any(|name| header.contains_key(*name)) {
            return Err(TokenError::Malformed);
        }
        let alg = text_member(&header, "alg").ok_or(TokenError::Malformed)?.to_owned();
        let kid = text_member(&header, "kid").ok_or(TokenError::Malformed)?.to_owned();
        if kid.is_empty() || kid.len() > MAX_KID_BYTES {
            return Err(TokenError::Malformed);
        }
        Ok(Self { header, alg, kid, signed, payload, signature })
    }

    /// The key's name. Not verified.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// The declared type. Not verified.
    pub(super) fn typ(&self) -> Option<&str> {
        text_member(&self.header, "typ")
    }

    /// The payload before the signature is checked: only to find out whose keys to check it with.
    pub(super) fn unverified(&self) -> &[u8] {
        &self.payload
    }

    /// The payload, once the key that the header names has proven it.
    ///
    /// # Errors
    /// [`TokenError::Signature`], also for a key that is not there and an algorithm that is not that key's.
    pub(super) fn verified(&self, keys: &KeySet) -> Result<&[u8], TokenError> {
        let key = keys.get(&self.kid).ok_or(TokenError::Signature)?;
        // The key says which algorithm is right; the header only gets to agree.
        if key.algorithm().name() != self.alg || !key.verifies(self.signed.as_bytes(), self.signature) {
            return Err(TokenError::Signature);
        }
        Ok(&self.payload)
    }
}

/// Decodes base64url without padding, in its one canonical spelling.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)
}

fn text_member<'o>(object: &'o Object, name: &str) -> Option<&'o str> {
    object.get(name).and_then(Json::as_text)
}
