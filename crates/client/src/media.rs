//! Media: encrypted on the sender's device, kept as ciphertext by the sender's provider, fetched by the recipient through
//! the operator's relay (docs/protocol.md, section 9).
//!
//! ```no_run
//! # use causeway_client::{Address, Client, Content, Media};
//! # use causeway_client::media::{MediaDetails, MediaTransfers};
//! # async fn example(client: Client, to: Address, received: Media) -> Result<(), Box<dyn std::error::Error>> {
//! let transfers = MediaTransfers::new(Default::default())?;
//! // A user of the home provider uploads to the operator, by way of the client; users of other providers give a
//! // `ProviderHost` of their own provider instead.
//! let file = tokio::fs::File::open("picture.png").await?;
//! let details = MediaDetails { mime_type: "image/png".into(), ..MediaDetails::default() };
//! let media = transfers.upload(&client, file, details).await?;
//! client.send(&to, Content::media(media)).await?;
//!
//! let mut copy = tokio::fs::File::create("copy.png").await?;
//! transfers.download(&client, &received, &mut copy).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Another way to get tickets is another implementation of [`MediaHost`] or [`MediaRelay`].

mod download;
mod encrypt;
mod error;
mod host;
mod http;
mod segments;
mod upload;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::content::MediaKind;

pub use self::error::MediaError;
pub use self::host::{MediaHost, MediaRelay, ProviderHost, Ticket, UploadTicket};

/// Bounds of what is transferred.
#[derive(Debug, Clone, Copy)]
pub struct MediaBounds {
    /// Largest plaintext in bytes, both ways: 100 MB.
    pub max_bytes: u64,
    /// A connection on which nothing moves for this long is given up: 30 s.
    pub idle_timeout: Duration,
    /// A whole upload or download, attempts and pauses included, takes at most this long: 30 min.
    pub total_timeout: Duration,
    /// So many attempts in a row that brought nothing new end a transfer: 6.
    pub attempts: u32,
    /// The pause after the first of these; it doubles with each further one, up to 64 times this: 250 ms.
    pub pause: Duration,
}

impl Default for MediaBounds {
    fn default() -> Self {
        Self {
            max_bytes: 100_000_000,
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(30 * 60),
            attempts: 6,
            pause: Duration::from_millis(250),
        }
    }
}

/// What a sender says about a file beside its bytes; goes into [`Media`](crate::Media) as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaDetails {
    /// What it is.
    pub kind: MediaKind,
    /// For example `image/png`, at most 128 bytes.
    pub mime_type: String,
    /// File name without a path, at most 255 bytes.
    pub name: String,
    /// Pixels; 0: unknown.
    pub width: u32,
    /// Pixels; 0: unknown.
    pub height: u32,
    /// Milliseconds; 0: unknown or none.
    pub duration_ms: u64,
    /// A small preview, at most 16 KiB; may be empty.
    pub thumbnail: Vec<u8>,
    /// Text that goes with it, at most 64 KiB.
    pub caption: String,
}

impl Default for MediaDetails {
    /// A file of unknown type without a name.
    fn default() -> Self {
        Self {
            kind: MediaKind::File,
            mime_type: "application/octet-stream".to_owned(),
            name: String::new(),
            width: 0,
            height: 0,
            duration_ms: 0,
            thumbnail: Vec::new(),
            caption: String::new(),
        }
    }
}

/// Uploads and downloads; cloning gives another handle.
#[derive(Debug, Clone)]
pub struct MediaTransfers {
    http: reqwest::Client,
    bounds: MediaBounds,
}

impl MediaTransfers {
    /// Sets up the HTTP client.
    ///
    /// # Errors
    /// [`MediaError::Setup`] when TLS cannot be set up.
    pub fn new(bounds: MediaBounds) -> Result<Self, MediaError> {
        Ok(Self { http: http::client(&bounds)?, bounds })
    }
}
