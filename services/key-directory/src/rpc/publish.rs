//! Publish: new prekeys of an enlisted device.

use std::sync::Arc;

use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use causeway_proto::wire::v1::ErrorCode;

use super::{Refused, account_id, device_id};
use crate::directory::Directory;
use crate::error::{BadField, CallError};
use crate::keys::verify_publication;
use crate::store::{Published, Who};

pub(super) async fn run(
    directory: &Arc<Directory>,
    request: pb::PublishRequest,
) -> Result<Result<wire::KeyCounts, Refused>, CallError> {
    let (account, device) = (account_id(&request.account_id)?, device_id(request.device_id)?);
    let keys = request.keys.ok_or_else(|| BadField::new("keys", "is missing"))?;
    let record = directory.store.record(&Who::Account(account)).await?;
    let Some(record) = record.filter(|record| record.device(device).is_some()) else {
        return Ok(Err(Refused::not_enlisted()));
    };
    // Before the signatures are checked, which is what costs.
    if let Err(too_fast) = directory.limits.publish(&record, device) {
        return Ok(Err(too_fast.into()));
    }
    let verified = match directory.verify(move || verify_publication(&keys)).await? {
        Ok(verified) => verified,
        Err(bad) => return Ok(Err(Refused::because(ErrorCode::BadKeys, &bad))),
    };
    Ok(match directory.store.publish(account, device, &verified).await? {
        Published::Done(counts) => Ok(wire::KeyCounts { ec: counts.ec, kyber: counts.kyber }),
        Published::OtherIdentity => {
            let detail = "identity_key: is not the enlisted one; a new identity is a new device";
            Err(Refused::because(ErrorCode::BadKeys, detail))
        }
        Published::NoDevice => Err(Refused::not_enlisted()),
    })
}
