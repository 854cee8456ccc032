//! `GET` and `HEAD /v1/blobs/{id}`.

use axum::body::Body;
use axum::http::{HeaderMap, Method};
use axum::response::Response;

use super::Host;
use crate::blobs::BlobId;
use crate::error::MediaError;
use crate::http::answer::{self, Refusal};
use crate::http::range::Wanted;
use crate::http::transfers::Party;
use crate::metrics::Direction;
use crate::relay::checked::{Checked, Expected};

impl Host {
    pub(super) async fn get(&self, id: BlobId, method: &Method, headers: &HeaderMap) -> Result<Response, Refusal> {
        let size = self.0.blobs.size(id).await.map_err(|error| away(&error))?.ok_or(Refusal::NotFound)?;
        let wanted = Wanted::of(headers, size).map_err(|_| Refusal::Range(Some(size)))?;
        if method == Method::HEAD {
            return Ok(answer::blob(size, &wanted, Body::empty()));
        }
        let transfer = self.0.transfers.begin(Direction::Serve, Party::Anyone).ok_or(Refusal::Busy)?;
        let reading =
            self.0.blobs.read(id, wanted.part()).await.map_err(|error| away(&error))?.ok_or(Refusal::NotFound)?;
        // The digest was checked when the blob was written.
        let expected = Expected { len: wanted.len(size), sha256: None };
        let body = Checked::new(reading.stream, expected, transfer).into_body().await.map_err(|_| Refusal::Busy)?;
        Ok(answer::blob(size, &wanted, body))
    }
}

/// The store's failure, for the client and the log.
pub(super) fn away(error: &MediaError) -> Refusal {
    tracing::warn!(%error, "the object store failed");
    Refusal::Busy
}
