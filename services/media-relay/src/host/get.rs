//! `GET` and `HEAD /v1/blobs/{id}`.

use axum::body::Body;
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;

use super::Host;
use crate::blobs::BlobId;
use crate::error::MediaError;
use crate::http::Peer;
use crate::http::answer::{self, Refusal};
use crate::http::range::Wanted;
use crate::http::transfers::Party;
use crate::metrics::Direction;
use crate::relay::checked::{Checked, Expected};

impl Host {
    pub(super) async fn get(&self, id: BlobId, request: &Parts) -> Result<Response, Refusal> {
        let peer = request.extensions.get::<Peer>().copied();
        if peer.is_some_and(|peer| !self.0.absent.allows(peer, self.0.clock.now_ms())) {
            return Err(Refusal::Busy);
        }
        // Before the store is asked for anything: whoever guesses names, or sends HEAD, is held to the same share of the room.
        let mut transfer = self.0.transfers.begin(Direction::Serve, Party::Anyone).ok_or(Refusal::Busy)?;
        let asked = transfer.wait(self.0.blobs.size(id)).await.map_err(|_too_slow| Refusal::Busy)?;
        let Some(size) = asked.map_err(|error| away(&error))? else {
            if let Some(peer) = peer {
                self.0.absent.count(peer, self.0.clock.now_ms());
            }
            transfer.ended("absent");
            return Err(Refusal::NotFound);
        };
        let wanted = Wanted::of(&request.headers, size).map_err(|_| Refusal::Range(Some(size)))?;
        if request.method == Method::HEAD {
            transfer.ended("complete");
            return Ok(answer::blob(size, &wanted, Body::empty()));
        }
        let opened = transfer.wait(self.0.blobs.read(id, wanted.part())).await.map_err(|_too_slow| Refusal::Busy)?;
        let reading = opened.map_err(|error| away(&error))?.ok_or(Refusal::NotFound)?;
        // The digest was checked when the blob was written.
        let expected = Expected { len: wanted.len(size), sha256: None };
        let body = Checked::new(reading.stream, expected, transfer).into_body().await.map_err(|_| Refusal::Busy)?;
        Ok(answer::blob(size, &wanted, body))
    }
}

/// The store's failure, for the client and the log.
pub(super) fn away(error: &MediaError) -> Refusal {
    tracing::warn!(error = without_names(&error.to_string()), "the object store failed");
    Refusal::Busy
}

/// The text without names of blobs, each of which is the right to read one.
fn without_names(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut digits = String::new();
    // A space at the end, so that the last run of digits ends too.
    for character in text.chars().chain([' ']) {
        if character.is_ascii_hexdigit() {
            digits.push(character);
            continue;
        }
        told.push_str(if digits.len() >= 32 { "<blob>" } else { &digits });
        digits.clear();
        told.push(character);
    }
    told.truncate(told.len() - 1);
    told
}

#[cfg(test)]
mod tests {
    use super::without_names;

    #[test]
    fn a_log_names_no_blob() {
        let name = "0123456789abcdef".repeat(2);
        let told = without_names(&format!("Error performing GET http://s3/b/blobs/01/{name} in 10ms: 503"));
        assert_eq!(told, "Error performing GET http://s3/b/blobs/01/<blob> in 10ms: 503");
        assert_eq!(without_names(&name), "<blob>");
        assert_eq!(without_names("dead"), "dead");
    }
}
