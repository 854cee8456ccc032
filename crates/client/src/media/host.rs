//! Where tickets come from: the operator, over the client's session, or the user's own provider, over its HTTP API.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use url::Url;

use super::error::MediaError;
use super::http;
use crate::client::Client;
use crate::token::TokenSource;

/// Longest answer of a provider's ticket service in bytes.
const MAX_ANSWER: usize = 16 * 1024;
/// Longest ticket in bytes, as the protocol has it.
const MAX_TICKET: usize = 2_048;

/// The right to put one ciphertext.
#[derive(Clone, PartialEq, Eq)]
pub struct UploadTicket {
    /// Where to PUT to.
    pub url: String,
    /// For the header `Authorization: Causeway <ticket>`.
    pub ticket: String,
    /// What recipients name when they fetch it.
    pub public_url: String,
}

/// The right to get one ciphertext.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Where to GET from.
    pub url: String,
    /// For the header `Authorization: Causeway <ticket>`.
    pub ticket: String,
}

/// Shows nothing: a ticket is a right.
impl std::fmt::Debug for UploadTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UploadTicket")
    }
}

/// Shows nothing: a ticket is a right.
impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket")
    }
}

/// A media host that takes this user's uploads. [`Client`] is one for users of the home provider, [`ProviderHost`] for
/// those of other providers.
#[async_trait]
pub trait MediaHost: Send + Sync {
    /// A place for a ciphertext of `size` bytes with this SHA-256. Asked again when an upload took longer than its ticket.
    ///
    /// # Errors
    /// [`MediaError`]; no further attempt is made then.
    async fn upload_ticket(&self, size: u64, sha256: [u8; 32]) -> Result<UploadTicket, MediaError>;
}

/// The operator's relay. [`Client`] is one.
#[async_trait]
pub trait MediaRelay: Send + Sync {
    /// The right to fetch the ciphertext at `url`. Asked again when a download took longer than its ticket.
    ///
    /// # Errors
    /// [`MediaError`]; no further attempt is made then.
    async fn download_ticket(&self, url: &str, size: u64, sha256: [u8; 32]) -> Result<Ticket, MediaError>;
}

/// The operator's host, for users of the home provider.
#[async_trait]
impl MediaHost for Client {
    async fn upload_ticket(&self, size: u64, sha256: [u8; 32]) -> Result<UploadTicket, MediaError> {
        let ticket = self.media_upload_ticket(size, sha256).await?;
        let url = ticket.url.as_str().to_owned();
        let public_url = ticket.public_url.map_or_else(|| url.clone(), |public| public.as_str().to_owned());
        Ok(UploadTicket { url, ticket: ticket.ticket.as_str().to_owned(), public_url })
    }
}

#[async_trait]
impl MediaRelay for Client {
    async fn download_ticket(&self, url: &str, size: u64, sha256: [u8; 32]) -> Result<Ticket, MediaError> {
        let ticket = self.media_download_ticket(url, size, sha256).await?;
        Ok(Ticket { url: ticket.url.as_str().to_owned(), ticket: ticket.ticket.as_str().to_owned() })
    }
}

/// A provider's own ticket service, as Causeway's media host expects it: `POST` with `Authorization: Bearer <token>` and
/// the JSON object `{"size": bytes, "sha256": "hex"}`, answered by `{"url", "ticket", "public_url", "expires_ms"}`.
/// A provider with another API implements [`MediaHost`] for it.
#[derive(Clone)]
pub struct ProviderHost {
    http: reqwest::Client,
    endpoint: Url,
    tokens: Arc<dyn TokenSource>,
    noise_public: [u8; 32],
}

impl std::fmt::Debug for ProviderHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderHost").finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Wanted {
    size: u64,
    sha256: String,
}

#[derive(Deserialize)]
struct Given {
    url: String,
    ticket: String,
    public_url: String,
}

impl ProviderHost {
    /// Asks `endpoint` with tokens from `tokens`, made for the device with the key `noise_public`
    /// ([`Client::noise_public`]).
    ///
    /// # Errors
    /// [`MediaError::Url`] for an endpoint that is neither `https` nor `http` on this machine, [`MediaError::Setup`].
    pub fn new(endpoint: &str, tokens: Arc<dyn TokenSource>, noise_public: [u8; 32]) -> Result<Self, MediaError> {
        let http = http::client(&super::MediaBounds::default())?;
        Ok(Self { http, endpoint: http::protected(endpoint)?, tokens, noise_public })
    }
}

#[async_trait]
impl MediaHost for ProviderHost {
    async fn upload_ticket(&self, size: u64, sha256: [u8; 32]) -> Result<UploadTicket, MediaError> {
        let token = self.tokens.token(self.noise_public).await.map_err(|_| MediaError::Provider("no token"))?;
        let wanted = Wanted { size, sha256: hex::encode(sha256) };
        let body = serde_json::to_vec(&wanted).map_err(|_| MediaError::Provider("unwritable request"))?;
        let answer = self
            .http
            .post(self.endpoint.clone())
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .map_err(|_| MediaError::Provider("not reachable"))?;
        if !answer.status().is_success() {
            return Err(MediaError::Refused(answer.status().as_u16()));
        }
        let bytes = http::small_body(answer, MAX_ANSWER).await.ok_or(MediaError::Provider("broken answer"))?;
        let given: Given = serde_json::from_slice(&bytes).map_err(|_| MediaError::Provider("not a ticket"))?;
        if given.ticket.len() > MAX_TICKET {
            return Err(MediaError::Provider("not a ticket"));
        }
        Ok(UploadTicket { url: given.url, ticket: given.ticket, public_url: given.public_url })
    }
}
