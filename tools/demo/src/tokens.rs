//! Tokens of the demo's users, from their own provider. A provider's application asks its own service in its own way.

use std::error::Error;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_client::TokenSource;

const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct ProviderTokens {
    http: reqwest::Client,
    url: String,
    user: String,
}

impl ProviderTokens {
    pub(crate) fn new(url: &str, user: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("HTTP client")?;
        Ok(Self { http, url: url.to_owned(), user: user.to_owned() })
    }
}

#[async_trait]
impl TokenSource for ProviderTokens {
    async fn token(&self, noise_public: [u8; 32]) -> Result<String, Box<dyn Error + Send + Sync>> {
        let question = serde_json::json!({ "user": self.user, "noise_key": URL_SAFE_NO_PAD.encode(noise_public) });
        let request = self.http.post(&self.url).header("content-type", "application/json").body(question.to_string());
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        Ok(answer["token"].as_str().ok_or("the answer has no token")?.to_owned())
    }
}
