//! Refetch: a token named a key that an edge does not know.

use causeway_proto::directory::v1 as pb;

use super::watch::to_proto;
use crate::directory::Directory;
use crate::error::CallError;

pub(super) async fn run(directory: &Directory, request: pb::RefetchTokenKeys) -> Result<pb::ProviderKeys, CallError> {
    let keys = directory.token_keys.refetch(&request.issuer, &request.kid).await;
    keys.map(to_proto).ok_or_else(|| CallError::NotFound("issuer: no provider has it".to_owned()))
}
