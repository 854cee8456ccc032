//! RemoveDevice: one of one's own; its keys go with it. Confirmed when no routing delivers to it any more.

use std::sync::Arc;

use causeway_identity::DeviceId;
use causeway_proto::directory::v1 as pb;

use super::{Refused, account_id, device_id, settings};
use crate::directory::Directory;
use crate::error::CallError;
use crate::store::Removed;

pub(super) async fn run(
    directory: &Arc<Directory>,
    request: pb::RemoveDeviceRequest,
) -> Result<Result<pb::Done, Refused>, CallError> {
    let (account, by) = (account_id(&request.account_id)?, device_id(request.from_device_id)?);
    // The number comes from the client: one that names no device is as good as one that nobody has.
    let Ok(device) = DeviceId::new(request.device_id) else { return Ok(Err(Refused::not_available())) };
    if let Err(refused) = settings::may_change(directory, account, by).await? {
        return Ok(Err(refused));
    }
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move {
        let written = directory.store.remove_device(account, by, device, directory.clock.now_ms()).await?;
        directory.changes.publish_all(&written.logged).confirm().await;
        Ok(match written.outcome {
            Removed::Done => Ok(pb::Done {}),
            Removed::NoDevice => Err(Refused::not_available()),
            Removed::NotEnlisted => Err(Refused::not_enlisted()),
        })
    })
    .await
}
