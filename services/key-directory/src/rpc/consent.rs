//! Consent: what a user allows. A change is confirmed when no routing acts on what was before.

use std::sync::Arc;

use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use causeway_proto::wire::v1::ErrorCode;

use super::{Refused, account_id};
use crate::changes::{Change, What};
use crate::consent::Consent;
use crate::directory::Directory;
use crate::error::CallError;
use crate::store::Who;

pub(super) async fn get(
    directory: &Directory,
    request: pb::AccountRef,
) -> Result<Result<wire::ConsentSettings, Refused>, CallError> {
    let account = account_id(&request.account_id)?;
    let record = directory.store.record(&Who::Account(account)).await?;
    Ok(record.map(|record| record.consent.to_proto()).ok_or_else(Refused::not_enlisted))
}

pub(super) async fn set(
    directory: &Arc<Directory>,
    request: pb::SetConsentRequest,
) -> Result<Result<wire::ConsentSettings, Refused>, CallError> {
    let account = account_id(&request.account_id)?;
    let consent = match Consent::try_from(request.settings) {
        Ok(consent) => consent,
        Err(bad) => return Ok(Err(Refused::because(ErrorCode::BadRequest, &bad))),
    };
    let Some(record) = directory.store.record(&Who::Account(account)).await? else {
        return Ok(Err(Refused::not_enlisted()));
    };
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move {
        if !directory.store.set_consent(account, &consent).await? {
            return Ok(Err(Refused::not_enlisted()));
        }
        let change = Change::Record { address: record.address, account, what: What::Consent };
        directory.changes.publish(&change).confirm().await;
        Ok(Ok(consent.to_proto()))
    })
    .await
}
