//! `PUT /v1/blobs/{id}`.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::http::HeaderMap;
use axum::response::Response;
use futures::StreamExt as _;

use super::Host;
use super::get::away;
use crate::blobs::{BlobId, PutError};
use crate::http::answer::{self, Refusal};
use crate::http::transfers::Party;
use crate::metrics::{Direction, metrics};
use crate::tickets::{Grant, Presented, Right, TicketRefused};

/// After a refusal this much of the body is still read, so that a client that is busy sending gets to see the answer.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);

impl Host {
    pub(super) async fn put(&self, id: BlobId, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
        let announced = body.size_hint().exact();
        let mut body = body.into_data_stream();
        let stored = self.receive(id, headers, announced, &mut body).await;
        if let Err(refusal) = stored {
            tracing::debug!(reason = refusal.reason(), "upload refused");
            let _enough = tokio::time::timeout(LINGER, linger(&mut body)).await;
        }
        stored.map(|()| answer::stored())
    }

    async fn receive(
        &self,
        id: BlobId,
        headers: &HeaderMap,
        announced: Option<u64>,
        body: &mut BodyDataStream,
    ) -> Result<(), Refusal> {
        let refused = |refused: TicketRefused| {
            metrics().ticket_refused(refused.reason());
            if refused == TicketRefused::Uncounted { Refusal::Busy } else { Refusal::Ticket }
        };
        let ticket = self.granted(id, headers).map_err(refused)?;
        let Grant { account, size, sha256, .. } = ticket.grant;
        match announced {
            Some(bytes) if bytes > size => return Err(Refusal::TooLong),
            Some(bytes) if bytes < size => return Err(Refusal::TooShort),
            _ => {}
        }
        let mut transfer = self.0.transfers.begin(Direction::Upload, Party::Account(account)).ok_or(Refusal::Busy)?;
        if let Err(uncounted) = self.0.tickets.count(&ticket).await {
            let refusal = refused(uncounted);
            transfer.ended(refusal.reason());
            return Err(refusal);
        }
        let mut put = self.0.blobs.put(id, size, sha256).await.map_err(|error| away(&error))?;
        loop {
            match transfer.wait(body.next()).await {
                Ok(Some(Ok(chunk))) => {
                    transfer.moved(chunk.len());
                    put.write(chunk).await.map_err(refusal)?;
                }
                Ok(None) => break,
                // The client broke off; nobody reads the answer.
                Ok(Some(Err(_))) => return Err(Refusal::TooShort),
                Err(_) => {
                    transfer.ended("too-slow");
                    return Err(Refusal::TooSlow);
                }
            }
        }
        let committed = put.commit().await.map_err(refusal);
        transfer.ended(committed.map_or_else(Refusal::reason, |()| "complete"));
        committed
    }

    fn granted(&self, id: BlobId, headers: &HeaderMap) -> Result<Presented, TicketRefused> {
        let ticket = self.0.tickets.verify(headers)?;
        match ticket.grant.right {
            Right::Upload(blob) if blob == id => Ok(ticket),
            _ => Err(TicketRefused::OtherRight),
        }
    }
}

fn refusal(error: PutError) -> Refusal {
    match error {
        PutError::TooLong => Refusal::TooLong,
        PutError::TooShort => Refusal::TooShort,
        PutError::Digest => Refusal::Digest,
        PutError::Store(error) => away(&error.into()),
    }
}

async fn linger(body: &mut BodyDataStream) {
    let mut read = 0;
    while let Some(Ok(chunk)) = body.next().await {
        read += chunk.len();
        if read > LINGER_BYTES {
            break;
        }
    }
}
