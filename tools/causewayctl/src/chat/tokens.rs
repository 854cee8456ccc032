//! Tokens from the provider's own service, as the sandbox and the demo have it: a POST with user and Noise key.

use std::error::Error;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use causeway_client::TokenSource;
use serde::{Deserialize, Serialize};
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Asks `token_url` whenever a token is needed.
#[derive(Clone)]
pub(crate) struct ProviderTokens {
    http: reqwest::Client,
    url: Url,
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
    pub(crate) fn new(url: Url, user: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("HTTP client")?;
        Ok(Self { http, url, user: user.to_owned() })
    }
}

#[async_trait]
impl TokenSource for ProviderTokens {
    async fn token(&self, noise_public: [u8; 32]) -> Result<String, Box<dyn Error + Send + Sync>> {
        let noise_key = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, noise_public);
        let question = serde_json::to_vec(&Question { user: &self.user, noise_key })?;
        let answer = self.http.post(self.url.clone()).header("content-type", "application/json").body(question);
        let mut answer = answer.send().await?.error_for_status()?;
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
