//! Where log-in tokens come from: the provider's own service (docs/protocol.md, section 4).

use std::error::Error;
use std::future::Future;

use async_trait::async_trait;

/// Asks the provider's service for tokens of this user. Implemented by the application; an `async` closure from the key
/// to the token will do.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// A fresh token whose `cnf.kid` is the base64url of `noise_public`, the device's X25519 public key.
    ///
    /// # Errors
    /// Whatever keeps the provider from answering now; the client waits and asks again.
    async fn token(&self, noise_public: [u8; 32]) -> Result<String, Box<dyn Error + Send + Sync>>;
}

#[async_trait]
impl<F, T> TokenSource for F
where
    F: Fn([u8; 32]) -> T + Send + Sync + 'static,
    T: Future<Output = Result<String, Box<dyn Error + Send + Sync>>> + Send,
{
    async fn token(&self, noise_public: [u8; 32]) -> Result<String, Box<dyn Error + Send + Sync>> {
        self(noise_public).await
    }
}

/// When `token` expires, in seconds since the Unix epoch. Read without checking anything: it only tells when to ask for
/// the next one.
pub(crate) fn expires_s(token: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: u64,
    }
    let claims = token.split('.').nth(1)?;
    let json = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).ok()?;
    serde_json::from_slice::<Claims>(&json).ok().map(|claims| claims.exp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_read_from_the_claims() {
        // {"alg":"none"} . {"exp":1700000000}
        assert_eq!(expires_s("eyJhbGciOiJub25lIn0.eyJleHAiOjE3MDAwMDAwMDB9.x"), Some(1_700_000_000));
        for broken in ["", "a", "a.b.c", "e30.e30.e30"] {
            assert_eq!(expires_s(broken), None, "{broken}");
        }
    }
}
