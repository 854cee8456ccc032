//! Devices: those of one's own account.

use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;

use super::{Refused, account_id, device_id};
use crate::directory::Directory;
use crate::error::CallError;
use crate::store::Who;

pub(super) async fn run(
    directory: &Directory,
    request: pb::AccountRef,
) -> Result<Result<wire::Devices, Refused>, CallError> {
    let (account, by) = (account_id(&request.account_id)?, device_id(request.device_id)?);
    let record = directory.store.record(&Who::Account(account)).await?;
    let Some(record) = record.filter(|record| record.device(by).is_some()) else {
        return Ok(Err(Refused::not_enlisted()));
    };
    let devices = record.devices.iter().map(|device| wire::Device {
        id: device.id.get(),
        registration_id: device.registration_id.get(),
        enlisted_ms: device.enlisted_ms,
    });
    Ok(Ok(wire::Devices { devices: devices.collect() }))
}
