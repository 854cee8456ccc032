//! Tokens over HTTP.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::token::TokenSource;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// A [`TokenSource`] for providers whose service takes a POST of `{"user", "noise_key"}` (JSON, the key as unpadded
/// base64url) and answers with `{"token"}`, as the `sandbox` does. A real provider also wants to know that it is the user
/// who asks, in its own way, and then has a `TokenSource` of its own.
#[derive(Debug, Clone)]
pub struct ProviderTokens {
    http: reqwest::Client,
    url: String,
    user: String,
}

#[derive(Serialize)]
struct Question<'q> {
    user: &'q str,
    noise_key: String,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

impl ProviderTokens {
    /// Asks at `url` for tokens of `user`, the local part of the address.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(url: &str, user: &str) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { http, url: url.to_owned(), user: user.to_owned() })
    }
}

#[async_trait]
impl TokenSource for ProviderTokens {
    async fn token(&self, noise_public: [u8; 32]) -> Result<String, Box<dyn Error + Send + Sync>> {
        let question = Question { user: &self.user, noise_key: URL_SAFE_NO_PAD.encode(noise_public) };
        let request = self.http.post(&self.url).header("content-type", "application/json");
        let mut answer = request.body(serde_json::to_vec(&question)?).send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err("the answer is too large to be a token".into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(serde_json::from_slice::<Answer>(&body)?.token)
    }
}
