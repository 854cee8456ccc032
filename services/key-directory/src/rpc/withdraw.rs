//! Withdraw: the account leaves the network and is erased. Confirmed when no routing acts on it any more.

use std::sync::Arc;

use causeway_proto::directory::v1 as pb;

use super::{Refused, account_id, device_id, settings};
use crate::directory::Directory;
use crate::error::CallError;

pub(super) async fn run(
    directory: &Arc<Directory>,
    request: pb::AccountRef,
) -> Result<Result<pb::Done, Refused>, CallError> {
    let (account, by) = (account_id(&request.account_id)?, device_id(request.device_id)?);
    if let Err(refused) = settings::may_change(directory, account, by).await? {
        return Ok(Err(refused));
    }
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move {
        let written = directory.store.withdraw(account, by, directory.clock.now_ms()).await?;
        directory.changes.publish_all(&written.logged).confirm().await;
        Ok(if written.outcome { Ok(pb::Done {}) } else { Err(Refused::not_enlisted()) })
    })
    .await
}
