//! Login: is this device who it says it is?

use causeway_identity::{Address, DeviceId, NoiseKey};
use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::login_response::Outcome;
use causeway_proto::wire::v1::FailureReason;

use crate::directory::Directory;
use crate::error::{BadField, CallError};
use crate::store::Who;

pub(super) async fn run(directory: &Directory, request: pb::LoginRequest) -> Result<pb::LoginResponse, CallError> {
    let address: Address = request.address.parse().map_err(|error| BadField::new("address", &error))?;
    let noise_key =
        NoiseKey::try_from(request.noise_key.as_ref()).map_err(|error| BadField::new("noise_key", &error))?;
    let refused = |reason: FailureReason| Ok(pb::LoginResponse { outcome: Some(Outcome::Refused(reason.into())) });

    let Ok(device_id) = DeviceId::new(request.device_id) else { return refused(FailureReason::DeviceUnknown) };
    let record = directory.store.record(&Who::Address(address)).await?;
    let Some((record, device)) = record.as_ref().and_then(|record| Some((record, record.device(device_id)?))) else {
        return refused(FailureReason::DeviceUnknown);
    };
    if device.noise_key != noise_key {
        return refused(FailureReason::DeviceKey);
    }
    let Some(counts) = directory.store.key_counts(record.account, device_id).await? else {
        return refused(FailureReason::DeviceUnknown);
    };
    let low = directory.config.prekeys_low;
    let logged_in = pb::LoggedIn {
        account_id: record.account.as_bytes().to_vec().into(),
        registration_id: device.registration_id.get(),
        device_count: u32::try_from(record.devices.len()).unwrap_or(u32::MAX),
        prekeys_low: counts.ec < low || counts.kyber < low,
    };
    Ok(pb::LoginResponse { outcome: Some(Outcome::LoggedIn(logged_in)) })
}
