//! Enlist: a device, and with the first one its account, joins the network.

use std::sync::Arc;

use causeway_identity::{AccountId, Address, NoiseKey, ProviderId};
use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use causeway_proto::wire::v1::ErrorCode;
use rand::TryRngCore as _;
use rand::rngs::OsRng;

use super::Refused;
use crate::directory::Directory;
use crate::error::{BadField, CallError};
use crate::keys::verify_enlistment;
use crate::providers::ProviderStatus;
use crate::store::{Enlisted, Enlistment};

pub(super) async fn run(
    directory: &Arc<Directory>,
    request: pb::EnlistRequest,
) -> Result<Result<wire::Enlisted, Refused>, CallError> {
    let address: Address = request.address.parse().map_err(|error| BadField::new("address", &error))?;
    let provider_id =
        ProviderId::try_from(request.provider_id.as_ref()).map_err(|error| BadField::new("provider_id", &error))?;
    let enlist = request.enlist.ok_or_else(|| BadField::new("enlist", "is missing"))?;
    let noise_key = match NoiseKey::try_from(request.noise_key.as_ref()) {
        Ok(key) => key,
        Err(error) => return Ok(Err(Refused::because(ErrorCode::BadKeys, &format!("noise key: {error}")))),
    };

    let domain = address.provider().parse().map_err(|error| BadField::new("address", &error))?;
    let provider = directory.store.provider(&domain).await?.filter(|provider| provider.id == provider_id);
    let provider = provider.ok_or_else(|| BadField::new("provider_id", "is not the provider of the address"))?;
    if provider.status != ProviderStatus::Live {
        return Ok(Err(Refused::not_available()));
    }
    // Before the signatures are checked, which is what costs.
    if let Err(too_fast) = directory.limits.enlist(&address, provider_id) {
        return Ok(Err(too_fast.into()));
    }
    let (registration_id, keys) = match directory.verify(move || verify_enlistment(&enlist)).await? {
        Ok(verified) => verified,
        Err(bad) => return Ok(Err(Refused::because(ErrorCode::BadKeys, &bad))),
    };
    let enlistment = Enlistment {
        address,
        provider: provider_id,
        new_account: new_account_id(),
        noise_key,
        registration_id,
        keys,
        now_ms: directory.clock.now_ms(),
    };
    Directory::to_the_end(add(Arc::clone(directory), enlistment)).await
}

async fn add(directory: Arc<Directory>, enlistment: Enlistment) -> Result<Result<wire::Enlisted, Refused>, CallError> {
    let written = directory.store.enlist(&enlistment).await?;
    // Confirmed, so that nobody who has learnt of the device from its bundle is told that it does not exist.
    directory.changes.publish_all(&written.logged).confirm().await;
    let (account, device) = match written.outcome {
        Enlisted::Added { account, device } | Enlisted::Before { account, device } => (account, device),
        Enlisted::OtherKeys => {
            let detail = "this Noise key is enlisted with another identity key or registration id";
            return Ok(Err(Refused::because(ErrorCode::AlreadyEnlisted, detail)));
        }
        // A token may come back with its device until it expires, but not when the device is no more.
        Enlisted::Retired => {
            return Ok(Err(Refused::because(ErrorCode::TokenRefused, "token-replayed")));
        }
        Enlisted::DeviceLimit => return Ok(Err(Refused::because(ErrorCode::DeviceLimit, ""))),
    };
    Ok(Ok(wire::Enlisted { account_id: account.as_bytes().to_vec().into(), device_id: device.get() }))
}

fn new_account_id() -> AccountId {
    let mut bytes = [0; 16];
    rand::RngCore::fill_bytes(&mut OsRng.unwrap_err(), &mut bytes);
    AccountId::from_bytes(bytes)
}
