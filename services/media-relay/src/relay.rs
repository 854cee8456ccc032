//! The relay role: `GET /v1/relay` with a download ticket fetches the ciphertext from the provider's media host that the
//! ticket names and streams it through.
//!
//! The provider's host learns nothing of the client: the request is made anew, with nothing of the client's in it but
//! the range. The client learns nothing of the host's answer but the bytes. What the operator's own host role stores is
//! read from there directly.

pub(crate) mod checked;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use causeway_fetch::{ByteRange, FetchError, FetchedBody, Fetcher, HostSet};
use causeway_identity::AccountId;
use url::{Position, Url};

use self::checked::{Checked, Expected};
use crate::blobs::BlobId;
use crate::config::MediaConfig;
use crate::error::{MediaError, RequestError};
use crate::host::Host;
use crate::http::answer::{self, Refusal};
use crate::http::range::Wanted;
use crate::http::transfers::{Party, Transfer, Transfers};
use crate::metrics::{Direction, metrics};
use crate::tickets::{Grant, MAX_URL_BYTES, Right, Sealed, TicketRefused, Tickets};

/// Where downloads are.
pub(crate) const PATH: &str = "/v1/relay";

/// The relay role; cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fetcher: Fetcher,
    tickets: Arc<Tickets>,
    transfers: Transfers,
    host: Host,
    url: String,
    ticket_ttl: Duration,
    max_bytes: u64,
}

impl Relay {
    /// Sets up the guarded client.
    pub(crate) fn build(
        config: &MediaConfig,
        public_base: &Url,
        ticket_ttl: Duration,
        tickets: Arc<Tickets>,
        transfers: Transfers,
        host: Host,
    ) -> Result<Self, MediaError> {
        let fetcher = Fetcher::new(config.fetch.clone())?;
        let url = format!("{}{PATH}", public_base.as_str().trim_end_matches('/'));
        let max_bytes = config.max_blob_bytes;
        Ok(Self(Arc::new(Inner { fetcher, tickets, transfers, host, url, ticket_ttl, max_bytes })))
    }

    /// Where clients present their download tickets.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The right to fetch `url`, which the edge has found under a registered media prefix. What the guarded client would
    /// never fetch gets no ticket.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn download_ticket(
        &self,
        account: AccountId,
        url: &str,
        size: u64,
        sha256: [u8; 32],
    ) -> Result<Sealed, RequestError> {
        let Inner { tickets, ticket_ttl, max_bytes, .. } = &*self.0;
        if size == 0 {
            return Err(RequestError::Field { field: "size", problem: "must not be 0" });
        }
        if size > *max_bytes {
            return Err(RequestError::TooLarge { max: *max_bytes });
        }
        let url = self.fetchable(url)?;
        let sealed = tickets.issue(&Grant { account, size, sha256, right: Right::Download(url) }, *ticket_ttl)?;
        metrics().ticket_issued(Direction::Relay);
        Ok(sealed)
    }

    fn fetchable(&self, text: &str) -> Result<Url, RequestError> {
        let wrong = |problem| RequestError::Field { field: "url", problem };
        if text.len() > MAX_URL_BYTES {
            return Err(wrong("longer than 1024 bytes"));
        }
        let url = Url::parse(text).map_err(|_| wrong("no absolute URL"))?;
        if self.0.host.own_blob(&url).is_some() {
            return Ok(url);
        }
        let hosts = host_of(&url).ok_or_else(|| wrong("the host cannot be fetched from"))?;
        self.0.fetcher.check_url(text, &hosts).map_err(|_| wrong("cannot be fetched: https on a registered host only"))
    }

    /// Answers one request to [`PATH`].
    pub(crate) async fn answer(&self, request: &Parts) -> Response {
        if request.method != Method::GET {
            return Refusal::Method("GET").answer();
        }
        self.download(&request.headers).await.unwrap_or_else(Refusal::answer)
    }

    async fn download(&self, headers: &HeaderMap) -> Result<Response, Refusal> {
        let refused = |refused: TicketRefused| {
            metrics().ticket_refused(refused.reason());
            Refusal::Ticket
        };
        let ticket = self.0.tickets.verify(headers).map_err(refused)?;
        let Grant { account, size, sha256, right: Right::Download(url) } = &ticket.grant else {
            return Err(refused(TicketRefused::OtherRight));
        };
        let (size, sha256) = (*size, *sha256);
        let wanted = Wanted::of(headers, size).map_err(|_| Refusal::Range(Some(size)))?;
        let mut transfer = self.0.transfers.begin(Direction::Relay, Party::Account(*account)).ok_or(Refusal::Busy)?;
        if let Err(used_up) = self.0.tickets.count(&ticket).await {
            transfer.ended(Refusal::Ticket.reason());
            return Err(refused(used_up));
        }
        // A part cannot be checked here; the client checks the segments in it.
        let whole = wanted.part().is_none_or(|part| part == (0..size));
        let expected = Expected { len: wanted.len(size), sha256: whole.then_some(sha256) };
        let body = match self.0.host.own_blob(url) {
            Some(blob) => self.own(blob, size, &wanted, expected, transfer).await?,
            None => match self.fetch(url, size, &wanted, &mut transfer).await {
                Ok(fetched) => Checked::new(fetched.stream, expected, transfer).into_body().await?,
                Err(refusal) => {
                    transfer.ended(refusal.reason());
                    return Err(refusal);
                }
            },
        };
        Ok(answer::blob(size, &wanted, body))
    }

    async fn own(
        &self,
        blob: BlobId,
        size: u64,
        wanted: &Wanted,
        expected: Expected,
        transfer: Transfer,
    ) -> Result<Body, Refusal> {
        let blobs = self.0.host.blobs();
        let failed = |error: MediaError| {
            tracing::warn!(%error, "the object store failed");
            Refusal::Busy
        };
        if blobs.size(blob).await.map_err(failed)? != Some(size) {
            return Err(Refusal::Upstream);
        }
        let reading = blobs.read(blob, wanted.part()).await.map_err(failed)?.ok_or(Refusal::Upstream)?;
        Ok(Checked::new(reading.stream, expected, transfer).into_body().await?)
    }

    async fn fetch(
        &self,
        url: &Url,
        size: u64,
        wanted: &Wanted,
        transfer: &mut Transfer,
    ) -> Result<FetchedBody, Refusal> {
        // The ticket is ours: the edge has checked that the URL's host is registered.
        let hosts = host_of(url).ok_or(Refusal::Upstream)?;
        let range = wanted.part().map(|part| ByteRange { first: part.start, last: Some(part.end - 1) });
        let fetched = transfer
            .wait(self.0.fetcher.get_stream(url.as_str(), &hosts, range))
            .await
            .map_err(|_| Refusal::UpstreamTooSlow)?
            .map_err(|error| {
                tracing::debug!(reason = error.reason(), "a media host cannot be fetched from");
                if error == FetchError::Timeout { Refusal::UpstreamTooSlow } else { Refusal::Upstream }
            })?;
        if is_answer(&fetched, size, wanted) { Ok(fetched) } else { Err(Refusal::Upstream) }
    }
}

/// True if the host's headers announce the wanted bytes of a blob of `size`.
fn is_answer(fetched: &FetchedBody, size: u64, wanted: &Wanted) -> bool {
    let length = fetched.content_length.is_none_or(|length| length == wanted.len(size));
    let total = fetched.content_range.and_then(|range| range.total).is_none_or(|total| total == size);
    let status = if wanted.is_partial() { 206 } else { 200 };
    length && total && fetched.status == status
}

fn host_of(url: &Url) -> Option<HostSet> {
    HostSet::parse([&url[Position::BeforeHost..Position::AfterPort]]).ok()
}
