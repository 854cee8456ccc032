//! `devices`: the account's own devices, and removing one. The session of a removed device is ended by way of routing.

use causeway_identity::DeviceId;
use causeway_proto::directory::v1::{RemoveDeviceRequest, devices_response};
use causeway_proto::wire::v1 as pb;
use causeway_runtime::grpc;
use causeway_stanza::{Device, Devices, IqError, ResponseBody, StanzaError};

use super::{Asker, Requests};

pub(super) async fn list(requests: &Requests, asker: &Asker) -> Result<ResponseBody, IqError> {
    let answer =
        requests.accounts.clone().devices(grpc::call(asker.account()?)).await.map_err(|s| requests.failed(&s))?;
    match answer.into_inner().outcome {
        Some(devices_response::Outcome::Devices(devices)) => {
            read(devices).map(ResponseBody::Devices).ok_or_else(|| requests.nonsense())
        }
        Some(devices_response::Outcome::Refused(refusal)) => Err(requests.refused(&refusal)),
        None => Err(requests.nonsense()),
    }
}

fn read(devices: pb::Devices) -> Option<Devices> {
    let devices: Result<Vec<Device>, StanzaError> = devices.devices.into_iter().map(Device::try_from).collect();
    Devices::try_from(devices.ok()?).ok()
}

pub(super) async fn remove(requests: &Requests, asker: &Asker, device: DeviceId) -> Result<ResponseBody, IqError> {
    let from = asker.device()?;
    let request = RemoveDeviceRequest {
        account_id: from.account_bytes(),
        device_id: device.get(),
        from_device_id: from.id.get(),
    };
    let answer = requests.accounts.clone().remove_device(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    requests.done(answer.into_inner())
}
