//! The client.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response};
use url::Url;

use crate::body::{Announced, Bounded, ByteRange, FetchedBody, check_encoding};
use crate::config::FetchConfig;
use crate::error::FetchError;
use crate::hosts::{HostSet, Name};
use crate::metrics::Asked;
use crate::resolve::{ForbiddenAddress, Guarded, Lookup, System};

/// All that hosts learn about who asks.
const USER_AGENT: &str = "causeway/1";
const MAX_URL_BYTES: usize = 2048;
const MAX_HEADER_BYTES: u32 = 16 * 1024;
const IDLE_CONNECTIONS: usize = 8;
/// What a host may send of one answer ahead of its reader.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// The same for all answers of a connection: large, so that readers that stopped do not hold up the others.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Fetches from registered hosts only; see the crate's description. Cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
    config: Arc<FetchConfig>,
}

/// How a host took what was posted. Its body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// The status, never a redirect.
    pub status: u16,
    /// When to try again, if the host says so in seconds; at most a day.
    pub retry_after: Option<Duration>,
}

impl Posted {
    /// True for 200 to 299.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

impl Fetcher {
    /// A client with these bounds.
    ///
    /// # Errors
    /// [`FetchError::Config`], and [`FetchError::Setup`] if the system has no TLS root certificates.
    pub fn new(config: FetchConfig) -> Result<Self, FetchError> {
        Self::with_lookup(config, Arc::new(System))
    }

    pub(crate) fn with_lookup(config: FetchConfig, lookup: Arc<dyn Lookup>) -> Result<Self, FetchError> {
        config.check()?;
        let resolver = Arc::new(Guarded {
            lookup,
            allow_loopback: config.allow_loopback_http,
            private: config.private_networks(),
            private_hosts: config.private_hosts(),
        });
        let builder = || {
            Client::builder()
                .user_agent(USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .no_proxy()
                .https_only(!config.allow_loopback_http)
                .dns_resolver(Arc::clone(&resolver))
                .connect_timeout(config.connect_timeout())
                .read_timeout(config.idle_timeout())
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .http2_max_header_list_size(MAX_HEADER_BYTES)
                .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
                .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        };
        let client = match builder().build() {
            Ok(client) => client,
            // A bare machine without CA certificates can still run a demo over loopback; https fails there.
            Err(_) if config.allow_loopback_http => {
                builder().tls_certs_only([]).build().map_err(|_| FetchError::Setup)?
            }
            Err(_) => return Err(FetchError::Setup),
        };
        Ok(Self { client, config: Arc::new(config) })
    }

    /// Checks a URL as every request does, without sending anything: for URLs that are registered.
    ///
    /// # Errors
    /// [`FetchError::Url`], [`FetchError::Scheme`], [`FetchError::Address`], [`FetchError::Host`].
    pub fn check_url(&self, text: &str, hosts: &HostSet) -> Result<Url, FetchError> {
        // The URL standard drops tabs and line breaks; whoever reads the text elsewhere may not.
        if text.len() > MAX_URL_BYTES || text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(FetchError::Url);
        }
        let url = Url::parse(text).map_err(|_| FetchError::Url)?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(FetchError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(FetchError::Url);
        }
        let loopback_http = self.config.allow_loopback_http && url.scheme() == "http";
        match (Name::of(&url), url.host()) {
            (Some(Name::Domain(_)), _) if url.scheme() != "https" => return Err(FetchError::Scheme),
            (Some(Name::Domain(_)), _) => {}
            (Some(Name::Localhost | Name::Loopback(_)), _) if loopback_http => {}
            (None, Some(url::Host::Domain(_))) => return Err(FetchError::Host),
            _ => return Err(FetchError::Address),
        }
        if hosts.covers(&url) { Ok(url) } else { Err(FetchError::Host) }
    }

    /// Checks hosts that are to be registered: this machine only where loopback is allowed.
    ///
    /// # Errors
    /// [`FetchError::Address`].
    pub fn check_hosts(&self, hosts: &HostSet) -> Result<(), FetchError> {
        if hosts.has_loopback() && !self.config.allow_loopback_http {
            return Err(FetchError::Address);
        }
        Ok(())
    }

    /// The body of a document, whole: status 200 and at most `max_bytes`. Whether it is JSON is for its reader to say.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get_json_bytes(&self, url: &str, hosts: &HostSet, max_bytes: usize) -> Result<Bytes, FetchError> {
        let url = self.check_url(url, hosts)?;
        let asked = Asked::get(&url);
        let request = self.client.get(url).timeout(self.config.total_timeout());
        let answer = send(asked, request.header(ACCEPT, HeaderValue::from_static("application/json"))).await?;
        if answer.status() != 200 {
            return Err(FetchError::Status(answer.status().as_u16()));
        }
        let announced = Announced::read(200, answer.headers(), None)?;
        if announced.length.is_some_and(|length| length > max_bytes as u64) {
            return Err(FetchError::TooLarge);
        }
        let mut pieces = bounded(answer, max_bytes as u64, announced.length);
        let mut whole = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            whole.extend_from_slice(&piece?);
        }
        Ok(whole.freeze())
    }

    /// The body of a file, or one part of it, as a stream. A host that does not know parts answers a request for one
    /// with the whole, status 200.
    ///
    /// # Errors
    /// [`FetchError`]; the stream may end with one too.
    pub async fn get_stream(
        &self,
        url: &str,
        hosts: &HostSet,
        range: Option<ByteRange>,
    ) -> Result<FetchedBody, FetchError> {
        let url = self.check_url(url, hosts)?;
        let asked = Asked::get(&url);
        let mut request = self.client.get(url).timeout(self.config.stream_timeout());
        if let Some(range) = range {
            let value = HeaderValue::try_from(range.to_string()).map_err(|_| FetchError::Range)?;
            request = request.header(RANGE, value);
        }
        let answer = send(asked, request).await?;
        let status = answer.status().as_u16();
        if !matches!(status, 200 | 206) {
            return Err(FetchError::Status(status));
        }
        let Announced { length, range } = Announced::read(status, answer.headers(), range)?;
        let most = self.config.max_stream_bytes;
        if length.is_some_and(|length| length > most) {
            return Err(FetchError::TooLarge);
        }
        Ok(FetchedBody {
            status,
            content_length: length,
            content_range: range,
            stream: bounded(answer, most, length).boxed(),
        })
    }

    /// Posts `body` with `headers`. Any status but a redirect is an outcome, for the caller to judge.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn post(
        &self,
        url: &str,
        hosts: &HostSet,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Posted, FetchError> {
        let url = self.check_url(url, hosts)?;
        let asked = Asked::post(&url);
        let request = self.client.post(url).timeout(self.config.total_timeout());
        let answer = send(asked, request.headers(headers).body(body)).await?;
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Posted {
            status: answer.status().as_u16(),
            retry_after: retry_after.map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER)),
        })
    }
}

async fn send(asked: Asked, request: RequestBuilder) -> Result<Response, FetchError> {
    let request = request.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let answer = request.send().await.map_err(|error| what_failed(&error));
    asked.answered(answer.as_ref().map(|answer| answer.status().as_u16()).map_err(FetchError::reason));
    let answer = answer?;
    if answer.status().is_redirection() {
        return Err(FetchError::Redirect);
    }
    check_encoding(answer.headers())?;
    Ok(answer)
}

fn bounded(
    answer: Response,
    most: u64,
    exactly: Option<u64>,
) -> Bounded<impl futures::Stream<Item = Result<Bytes, FetchError>> + Unpin + Send + 'static> {
    let pieces = answer.bytes_stream().map(|piece| piece.map_err(|error| what_failed(&error)));
    Bounded::new(pieces.boxed(), most, exactly)
}

/// Keeps the kind of failure and lets go of the text, which may quote the other side.
fn what_failed(error: &reqwest::Error) -> FetchError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<ForbiddenAddress>() {
            return FetchError::Address;
        }
        cause = inner.source();
    }
    if error.is_timeout() {
        FetchError::Timeout
    } else if error.is_connect() {
        FetchError::Connect
    } else {
        FetchError::Broken
    }
}
