//! `Peers.Release`: another routing wants to own an account.

use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Address};
use causeway_proto::routing::v1::peers_server::Peers;
use causeway_proto::routing::v1::{ReleaseRequest, ReleaseResponse};
use tonic::{Request, Response, Status};

use crate::recipients::Recipients;

/// Serves peers; cheap to clone.
#[derive(Clone)]
pub(crate) struct PeersService {
    pub(crate) recipients: Arc<Recipients>,
}

/// Whoever asks has given up long before.
const PATIENCE: Duration = Duration::from_secs(10);

#[tonic::async_trait]
impl Peers for PeersService {
    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let request = request.into_inner();
        let account = AccountId::try_from(&request.account_id[..])
            .map_err(|_| Status::invalid_argument("account_id is no account id"))?;
        let address: Address =
            request.address.parse().map_err(|_| Status::invalid_argument("address is no address"))?;
        let released = self.recipients.release(&address, account);
        match tokio::time::timeout(PATIENCE, released).await {
            Ok(Ok(())) => Ok(Response::new(ReleaseResponse {})),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_elapsed) => Err(Status::deadline_exceeded("the account is still in use")),
        }
    }
}
