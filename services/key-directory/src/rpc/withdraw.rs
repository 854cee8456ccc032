//! Withdraw: the account leaves the network and is erased. Confirmed when no routing acts on it any more.

use std::sync::Arc;

use causeway_proto::directory::v1 as pb;

use super::{Refused, account_id, device_id};
use crate::changes::{Change, What};
use crate::directory::Directory;
use crate::error::CallError;
use crate::store::Who;

pub(super) async fn run(
    directory: &Arc<Directory>,
    request: pb::AccountRef,
) -> Result<Result<pb::Done, Refused>, CallError> {
    let (account, by) = (account_id(&request.account_id)?, device_id(request.device_id)?);
    let Some(record) = directory.store.record(&Who::Account(account)).await? else {
        return Ok(Err(Refused::not_enlisted()));
    };
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move {
        if !directory.store.withdraw(account, by, directory.clock.now_ms()).await? {
            return Ok(Err(Refused::not_enlisted()));
        }
        let change = Change::Record { address: record.address, account, what: What::Withdrawn };
        directory.changes.publish(&change).confirm().await;
        Ok(Ok(pb::Done {}))
    })
    .await
}
