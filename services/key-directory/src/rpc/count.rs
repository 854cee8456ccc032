//! Count: how many one-time prekeys a device has left.

use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;

use super::{Refused, account_id, device_id};
use crate::directory::Directory;
use crate::error::CallError;

pub(super) async fn run(
    directory: &Directory,
    request: pb::DeviceRef,
) -> Result<Result<wire::KeyCounts, Refused>, CallError> {
    let (account, device) = (account_id(&request.account_id)?, device_id(request.device_id)?);
    let counts = directory.store.key_counts(account, device).await?;
    Ok(counts.map(|counts| wire::KeyCounts { ec: counts.ec, kyber: counts.kyber }).ok_or_else(Refused::not_enlisted))
}
