//! The answers, all with the same fixed headers. A refusal's body is one word of a closed list and never says more than
//! its status, so that nothing can be probed by it.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::range::Wanted;

/// A refusal, or the failure of a transfer before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The ticket is missing, forged, expired, used up or for something else.
    Ticket,
    /// No such path or blob.
    NotFound,
    /// Another method than the path has.
    Method(&'static str),
    /// More than one range, none that can be satisfied, or another unit. Carries the size if it may be known.
    Range(Option<u64>),
    /// The body was shorter than the ticket says.
    TooShort,
    /// The body was longer than the ticket says.
    TooLong,
    /// The body has another digest than the ticket says.
    Digest,
    /// The client was too slow.
    TooSlow,
    /// Too many transfers, or the store is away.
    Busy,
    /// The provider's host answered with something else than the ciphertext.
    Upstream,
    /// The provider's host was too slow.
    UpstreamTooSlow,
}

impl Refusal {
    /// The status and the word.
    const fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::Ticket => (StatusCode::FORBIDDEN, "ticket\n"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found\n"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method\n"),
            Self::Range(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "range\n"),
            Self::TooShort => (StatusCode::BAD_REQUEST, "too-short\n"),
            Self::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "too-long\n"),
            Self::Digest => (StatusCode::UNPROCESSABLE_ENTITY, "digest\n"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too-slow\n"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy\n"),
            Self::Upstream => (StatusCode::BAD_GATEWAY, "upstream\n"),
            Self::UpstreamTooSlow => (StatusCode::GATEWAY_TIMEOUT, "upstream-too-slow\n"),
        }
    }

    /// Metric label: the word without its line end.
    pub(crate) fn reason(self) -> &'static str {
        self.parts().1.trim_end()
    }

    /// The whole answer.
    pub(crate) fn answer(self) -> Response {
        let (status, word) = self.parts();
        let mut answer = fixed(status, Body::from(word), "text/plain; charset=utf-8");
        let headers = answer.headers_mut();
        match self {
            Self::Method(allowed) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Range(Some(size)) => {
                headers.insert(CONTENT_RANGE, text(&format!("bytes */{size}")));
            }
            Self::Busy => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        answer
    }
}

/// The ciphertext, or a part of it.
pub(crate) fn blob(size: u64, wanted: &Wanted, body: Body) -> Response {
    let status = if wanted.is_partial() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut answer = fixed(status, body, "application/octet-stream");
    let headers = answer.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(wanted.len(size)));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    if let Wanted::Part(part) = wanted {
        headers.insert(CONTENT_RANGE, text(&format!("bytes {}-{}/{size}", part.start, part.end - 1)));
    }
    answer
}

/// The blob is stored.
pub(crate) fn stored() -> Response {
    fixed(StatusCode::CREATED, Body::empty(), "text/plain; charset=utf-8")
}

fn fixed(status: StatusCode, body: Body, content_type: &'static str) -> Response {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("digits and a few ASCII signs are a header value")
}
