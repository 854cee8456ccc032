//! Requests for media tickets.

use bytes::Bytes;
use causeway_proto::wire::v1 as pb;

use crate::bounded::Text;
use crate::error::{At, Problem, StanzaError};

/// A URL, bounded but not judged here.
pub type Url = Text<1, 2048>;

/// SHA-256 of a whole ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

/// Asks for a place for one ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaUpload {
    /// Bytes of ciphertext, not 0.
    pub size: u64,
    /// Of the ciphertext.
    pub sha256: Sha256,
}

/// Asks for the right to fetch one ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaDownload {
    /// On the sender's provider's media host.
    pub url: Url,
    /// Bytes of ciphertext, not 0.
    pub size: u64,
    /// Of the ciphertext.
    pub sha256: Sha256,
}

/// The right to put or get one ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaTicket {
    /// Where to PUT to, or to GET from.
    pub url: Url,
    /// For the header `Authorization: Causeway <ticket>`.
    pub ticket: Text<1, 2048>,
    /// Unix milliseconds.
    pub expires_ms: u64,
    /// With an upload: what recipients name in `media-download`.
    pub public_url: Option<Url>,
}

impl TryFrom<Bytes> for Sha256 {
    type Error = Problem;

    fn try_from(bytes: Bytes) -> Result<Self, Problem> {
        bytes[..].try_into().map(Self).map_err(|_| Problem::Length)
    }
}

impl From<Sha256> for Bytes {
    fn from(hash: Sha256) -> Self {
        Self::copy_from_slice(&hash.0)
    }
}

fn not_zero(size: u64) -> Result<u64, StanzaError> {
    if size == 0 { Err(Problem::Range).at("size") } else { Ok(size) }
}

impl TryFrom<pb::MediaUpload> for MediaUpload {
    type Error = StanzaError;

    fn try_from(upload: pb::MediaUpload) -> Result<Self, StanzaError> {
        Ok(Self { size: not_zero(upload.size)?, sha256: Sha256::try_from(upload.sha256).at("sha256")? })
    }
}

impl From<MediaUpload> for pb::MediaUpload {
    fn from(upload: MediaUpload) -> Self {
        Self { size: upload.size, sha256: upload.sha256.into() }
    }
}

impl TryFrom<pb::MediaDownload> for MediaDownload {
    type Error = StanzaError;

    fn try_from(download: pb::MediaDownload) -> Result<Self, StanzaError> {
        Ok(Self {
            url: Url::try_from(download.url).at("url")?,
            size: not_zero(download.size)?,
            sha256: Sha256::try_from(download.sha256).at("sha256")?,
        })
    }
}

impl From<MediaDownload> for pb::MediaDownload {
    fn from(download: MediaDownload) -> Self {
        Self { url: download.url.into(), size: download.size, sha256: download.sha256.into() }
    }
}

impl TryFrom<pb::MediaTicket> for MediaTicket {
    type Error = StanzaError;

    fn try_from(ticket: pb::MediaTicket) -> Result<Self, StanzaError> {
        let public_url = if ticket.public_url.is_empty() { None } else { Some(ticket.public_url) };
        Ok(Self {
            url: Url::try_from(ticket.url).at("url")?,
            ticket: Text::try_from(ticket.ticket).at("ticket")?,
            expires_ms: ticket.expires_ms,
            public_url: public_url.map(Url::try_from).transpose().at("public_url")?,
        })
    }
}

impl From<MediaTicket> for pb::MediaTicket {
    fn from(ticket: MediaTicket) -> Self {
        Self {
            url: ticket.url.into(),
            ticket: ticket.ticket.into(),
            expires_ms: ticket.expires_ms,
            public_url: ticket.public_url.map(String::from).unwrap_or_default(),
        }
    }
}
