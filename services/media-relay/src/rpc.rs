//! The gRPC service `causeway.media.v1.Tickets`: a file per call.

mod download;
mod upload;

use causeway_identity::AccountId;
use causeway_proto::media::v1::tickets_server::{Tickets, TicketsServer};
use causeway_proto::media::v1::{DownloadRequest, Ticket, UploadRequest};
use causeway_runtime::grpc;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::error::RequestError;
use crate::host::Host;
use crate::relay::Relay;

/// The service over both roles.
pub(crate) fn router(host: Host, relay: Relay) -> grpc::Router {
    let service = TicketsServer::new(Service { host, relay }).max_decoding_message_size(64 * 1024);
    grpc::server().add_service(service)
}

#[derive(Debug)]
struct Service {
    host: Host,
    relay: Relay,
}

#[tonic::async_trait]
impl Tickets for Service {
    async fn upload(&self, request: Request<UploadRequest>) -> Result<Response<Ticket>, Status> {
        upload::upload(&self.host, request.into_inner()).map(Response::new).map_err(status)
    }

    async fn download(&self, request: Request<DownloadRequest>) -> Result<Response<Ticket>, Status> {
        download::download(&self.relay, request.into_inner()).map(Response::new).map_err(status)
    }
}

/// Every refusal has one status: `INVALID_ARGUMENT` (a field), `OUT_OF_RANGE` (too large), `RESOURCE_EXHAUSTED` (quota or rate,
/// with `retry-after-ms` in the metadata).
fn status(error: RequestError) -> Status {
    let message = error.to_string();
    match error {
        RequestError::Field { .. } => Status::invalid_argument(message),
        RequestError::TooLarge { .. } => Status::out_of_range(message),
        RequestError::Quota { retry_after } => {
            let mut status = Status::resource_exhausted(message);
            let ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            status.metadata_mut().insert("retry-after-ms", MetadataValue::from(ms));
            status
        }
    }
}

fn account(bytes: &[u8]) -> Result<AccountId, RequestError> {
    AccountId::try_from(bytes).map_err(|_| RequestError::Field { field: "account_id", problem: "must be 16 bytes" })
}

fn sha256(bytes: &[u8]) -> Result<[u8; 32], RequestError> {
    bytes.try_into().map_err(|_| RequestError::Field { field: "sha256", problem: "must be 32 bytes" })
}
