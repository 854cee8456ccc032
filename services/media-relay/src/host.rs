//! The host role: `PUT /v1/blobs/{id}` by ticket, `GET` and `HEAD /v1/blobs/{id}` for everybody who knows the id.
//!
//! A provider runs this role for its own users, either as the service or by [`Host::build`] inside a server of its own:
//!
//! ```no_run
//! # async fn example(account: causeway_identity::AccountId) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use causeway_media_relay::host::{Host, HostConfig};
//! use causeway_media_relay::tickets::Tickets;
//! use causeway_runtime::clock::{SharedClock, SystemClock};
//!
//! let clock: SharedClock = Arc::new(SystemClock);
//! let tickets = Arc::new(Tickets::open("media/ticket.key".as_ref(), clock.clone())?);
//! let config = HostConfig { public_base: "https://media.birdy.example".parse()?, ..HostConfig::default() };
//! let host = Host::build(config, tickets, clock).await?;
//! let app = host.router(); // to be served at the public base
//! let ticket = host.upload_ticket(account, 1_000, [0; 32])?; // to be handed to the user's client
//! # Ok(()) }
//! ```

mod absent;
mod get;
mod put;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use causeway_identity::AccountId;
use causeway_runtime::clock::SharedClock;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use url::Url;

use self::absent::Absent;
use crate::blobs::{BlobId, Blobs, BucketConfig, Swept};
use crate::error::{MediaError, RequestError};
use crate::http::answer::Refusal;
use crate::http::transfers::{TransferLimits, Transfers};
use crate::metrics::{Direction, metrics};
use crate::quota::Quota;
use crate::tickets::{Grant, Right, Tickets};

/// Where blobs are, below the public base.
const PATH: &str = "/v1/blobs/";

/// Settings of a host role.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// URL under which the router is served, without query; its path, if any, is stripped before the router sees it.
    pub public_base: Url,
    /// Folder of the blobs; made if it is absent.
    pub data_dir: PathBuf,
    /// The bucket that holds them instead.
    pub bucket: Option<BucketConfig>,
    /// How long an upload ticket is good for.
    pub ticket_ttl: Duration,
    /// Largest ciphertext in bytes.
    pub max_blob_bytes: u64,
    /// Transfers at one time; further ones get 503. Fetches get half of them.
    pub max_transfers: u32,
    /// Uploads of one account at one time; further ones get 503.
    pub max_transfers_per_account: u32,
    /// A transfer that is slower, in bytes a second on average over 30 s of waiting for the peer, is cut off; 0 demands
    /// nothing.
    pub min_bytes_per_s: u32,
    /// A transfer in which nothing moves for this long is cut off.
    pub idle_timeout: Duration,
    /// A transfer that takes longer is cut off.
    pub transfer_timeout: Duration,
    /// Bytes for which one account gets tickets in a day (UTC).
    pub daily_upload_bytes: u64,
    /// The sweep deletes blobs older than this.
    pub retention: Duration,
}

impl Default for HostConfig {
    /// Loopback, `media` in the current folder, and the service's default bounds.
    fn default() -> Self {
        let service = crate::MediaConfig::default();
        Self {
            public_base: Url::parse("http://127.0.0.1:7446").expect("a constant URL parses"),
            data_dir: PathBuf::from("media"),
            bucket: None,
            ticket_ttl: Duration::from_secs(service.ticket_ttl_s),
            max_blob_bytes: service.max_blob_bytes,
            max_transfers: service.max_transfers,
            max_transfers_per_account: service.max_transfers_per_account,
            min_bytes_per_s: service.min_bytes_per_s,
            idle_timeout: service.idle(),
            transfer_timeout: service.total(),
            daily_upload_bytes: service.daily_upload_bytes,
            retention: Duration::from_secs(u64::from(service.retention_days) * 86_400),
        }
    }
}

impl HostConfig {
    /// What transfers are held to.
    pub(crate) fn transfers(&self) -> TransferLimits {
        TransferLimits {
            max: self.max_transfers,
            max_per_account: self.max_transfers_per_account,
            min_bytes_per_s: self.min_bytes_per_s,
            idle: self.idle_timeout,
            total: self.transfer_timeout,
        }
    }
}

/// What a client needs for one upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadTicket {
    /// Where to PUT to.
    pub url: String,
    /// Goes into the header `Authorization: Causeway <ticket>`.
    pub ticket: String,
    /// Where recipients' relays fetch the blob.
    pub public_url: String,
    /// Unix milliseconds.
    pub expires_ms: u64,
}

/// The host role; cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    blobs: Blobs,
    tickets: Arc<Tickets>,
    transfers: Transfers,
    quota: Quota,
    absent: Absent,
    clock: SharedClock,
    config: HostConfig,
    prefix: String,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Host {
    /// Opens the blobs.
    ///
    /// # Errors
    /// [`MediaError::File`], [`MediaError::Secret`] and [`MediaError::Store`] when the folder or bucket cannot be used.
    pub async fn build(config: HostConfig, tickets: Arc<Tickets>, clock: SharedClock) -> Result<Self, MediaError> {
        let transfers = Transfers::new(config.transfers());
        Self::sharing(config, tickets, clock, transfers).await
    }

    /// The same, with room for transfers that another role shares.
    pub(crate) async fn sharing(
        config: HostConfig,
        tickets: Arc<Tickets>,
        clock: SharedClock,
        transfers: Transfers,
    ) -> Result<Self, MediaError> {
        let blobs = match &config.bucket {
            Some(bucket) => Blobs::in_bucket(bucket).await?,
            None => {
                let folder = config.data_dir.clone();
                tokio::task::spawn_blocking(move || Blobs::in_folder(&folder)).await.map_err(|error| {
                    MediaError::File { path: config.data_dir.clone(), source: std::io::Error::other(error) }
                })??
            }
        };
        let prefix = format!("{}{PATH}", config.public_base.as_str().trim_end_matches('/'));
        let quota = Quota::new(config.daily_upload_bytes);
        let absent = Absent::default();
        Ok(Self(Arc::new(Inner { blobs, tickets, transfers, quota, absent, clock, config, prefix })))
    }

    /// Answers below [`HostConfig::public_base`]: `/v1/blobs/{id}`, and 404 elsewhere.
    pub fn router(&self) -> Router {
        async fn answer(State(host): State<Host>, request: Request) -> Response {
            host.answer(request).await
        }
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// The right to upload one ciphertext of `size` bytes with this digest, under a new name.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn upload_ticket(&self, account: AccountId, size: u64, sha256: [u8; 32]) -> Result<UploadTicket, RequestError> {
        let Inner { config, quota, clock, tickets, prefix, .. } = &*self.0;
        if size == 0 {
            return Err(RequestError::Field { field: "size", problem: "must not be 0" });
        }
        if size > config.max_blob_bytes {
            return Err(RequestError::TooLarge { max: config.max_blob_bytes });
        }
        let blob = BlobId::random(&mut OsRng.unwrap_err());
        let grant = Grant { account, size, sha256, right: Right::Upload(blob) };
        let sealed = tickets.issue(&grant, config.ticket_ttl)?;
        // Last, because it is for a day: what is refused otherwise costs none of it.
        quota.take(account, size, clock.now_ms())?;
        metrics().ticket_issued(Direction::Upload);
        let url = format!("{prefix}{blob}");
        Ok(UploadTicket { public_url: url.clone(), url, ticket: sealed.ticket, expires_ms: sealed.expires_ms })
    }

    /// What all public URLs of this host begin with: a provider registers it as a media prefix.
    pub fn media_prefix(&self) -> &str {
        &self.0.prefix
    }

    /// Removes what killed uploads left behind and what is past its retention.
    ///
    /// # Errors
    /// [`MediaError::File`] and [`MediaError::Store`].
    pub async fn sweep(&self) -> Result<Swept, MediaError> {
        let Inner { blobs, clock, transfers, config, .. } = &*self.0;
        // A live upload writes at least once in a transfer's time.
        let swept = blobs.sweep(clock.now(), transfers.total(), config.retention).await?;
        metrics().swept("orphan", swept.orphans);
        metrics().swept("expired", swept.expired);
        Ok(swept)
    }

    /// The blob that `url` names, if it is one of this host.
    pub(crate) fn own_blob(&self, url: &Url) -> Option<BlobId> {
        url.as_str().strip_prefix(self.media_prefix())?.parse().ok()
    }

    /// The blobs themselves.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let Some(id) = request.uri().path().strip_prefix(PATH).and_then(|name| name.parse().ok()) else {
            return Refusal::NotFound.answer();
        };
        let (parts, body) = request.into_parts();
        let answered = match parts.method {
            Method::GET | Method::HEAD => self.get(id, &parts).await,
            Method::PUT => self.put(id, &parts.headers, body).await,
            _ => Err(Refusal::Method("GET, HEAD, PUT")),
        };
        answered.unwrap_or_else(Refusal::answer)
    }
}

/// True for paths that the host role answers.
pub(crate) fn owns(path: &str) -> bool {
    path.starts_with(PATH)
}
