//! SetPush: sets or drops a device's push token.

use std::sync::Arc;

use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1::ErrorCode;

use super::{Refused, account_id, device_id, settings};
use crate::accounts::PushToken;
use crate::directory::Directory;
use crate::error::CallError;

pub(super) async fn run(
    directory: &Arc<Directory>,
    request: pb::SetPushRequest,
) -> Result<Result<pb::Done, Refused>, CallError> {
    let (account, device) = (account_id(&request.account_id)?, device_id(request.device_id)?);
    let token = if request.token.is_empty() {
        None
    } else if let Some(token) = PushToken::new(request.token) {
        Some(token)
    } else {
        let detail = format!("token: at most {} bytes are allowed", PushToken::MAX_BYTES);
        return Ok(Err(Refused::because(ErrorCode::BadRequest, &detail)));
    };
    if let Err(refused) = settings::may_change(directory, account, device).await? {
        return Ok(Err(refused));
    }
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move {
        let written = directory.store.set_push(account, device, token.as_ref()).await?;
        // Not confirmed: a webhook to the older token wakes nobody, or the same device.
        drop(directory.changes.publish_all(&written.logged));
        Ok(if written.outcome { Ok(pb::Done {}) } else { Err(Refused::not_enlisted()) })
    })
    .await
}
