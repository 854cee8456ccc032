//! Login: is this device who it says it is?

use causeway_identity::{Address, DeviceId, NoiseKey};
use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::login_response::Outcome;
use causeway_proto::wire::v1::FailureReason;

use crate::directory::Directory;
use crate::error::{BadField, CallError};

pub(super) async fn run(directory: &Directory, request: pb::LoginRequest) -> Result<pb::LoginResponse, CallError> {
    let address: Address = request.address.parse().map_err(|error| BadField::new("address", &error))?;
    let noise_key =
        NoiseKey::try_from(request.noise_key.as_ref()).map_err(|error| BadField::new("noise_key", &error))?;
    let refused = |reason: FailureReason| Ok(pb::LoginResponse { outcome: Some(Outcome::Refused(reason.into())) });

    let Ok(device_id) = DeviceId::new(request.device_id) else { return refused(FailureReason::DeviceUnknown) };
    let known = directory.store.known_device(&address, device_id, directory.config.prekeys_low).await?;
    let Some(known) = known else { return refused(FailureReason::DeviceUnknown) };
    if known.noise_key != noise_key {
        return refused(FailureReason::DeviceKey);
    }
    let logged_in = pb::LoggedIn {
        account_id: known.account.as_bytes().to_vec().into(),
        registration_id: known.registration_id.get(),
        device_count: known.devices,
        prekeys_low: known.is_low,
    };
    Ok(pb::LoginResponse { outcome: Some(Outcome::LoggedIn(logged_in)) })
}
