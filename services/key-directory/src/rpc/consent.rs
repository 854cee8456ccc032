//! Consent: what a user allows. A change is confirmed when no routing acts on what was before.

use std::sync::Arc;

use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use causeway_proto::wire::v1::ErrorCode;

use super::{Refused, account_id, device_id, settings};
use crate::consent::Consent;
use crate::directory::Directory;
use crate::error::CallError;
use crate::store::Who;

pub(super) async fn get(
    directory: &Directory,
    request: pb::AccountRef,
) -> Result<Result<wire::ConsentSettings, Refused>, CallError> {
    let (account, by) = (account_id(&request.account_id)?, device_id(request.device_id)?);
    let record = directory.store.record(&Who::Account(account)).await?;
    let record = record.filter(|record| record.device(by).is_some());
    Ok(record.map(|record| record.consent.to_proto()).ok_or_else(Refused::not_enlisted))
}

pub(super) async fn set(
    directory: &Arc<Directory>,
    request: pb::SetConsentRequest,
) -> Result<Result<wire::ConsentSettings, Refused>, CallError> {
    let (account, by) = (account_id(&request.account_id)?, device_id(request.from_device_id)?);
    let consent = match Consent::try_from(request.settings) {
        Ok(consent) => consent,
        Err(bad) => return Ok(Err(Refused::because(ErrorCode::BadRequest, &bad))),
    };
    if let Err(refused) = settings::may_change(directory, account, by).await? {
        return Ok(Err(refused));
    }
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move {
        let written = directory.store.set_consent(account, by, &consent).await?;
        directory.changes.publish_all(&written.logged).confirm().await;
        Ok(if written.outcome { Ok(consent.to_proto()) } else { Err(Refused::not_enlisted()) })
    })
    .await
}
