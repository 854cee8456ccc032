//! Claim: prekey bundles of an address's devices. Consent first, then the rate, then the keys.

use std::sync::Arc;

use causeway_identity::DeviceId;
use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use causeway_proto::wire::v1::ErrorCode;

use super::discover::{Reachable, reachable};
use super::{Refused, account_id, device_id};
use crate::accounts::Record;
use crate::directory::Directory;
use crate::error::CallError;
use crate::keys::{EcPublicKey, KyberPublicKey, SignedPrekey};
use crate::store::Bundle;

pub(super) async fn run(
    directory: &Arc<Directory>,
    request: pb::ClaimRequest,
) -> Result<Result<wire::KeyBundles, Refused>, CallError> {
    let (from, from_device) = (account_id(&request.from_account_id)?, device_id(request.from_device_id)?);
    let named = match named_devices(&request.devices) {
        Ok(named) => named,
        Err(refused) => return Ok(Err(refused)),
    };
    let Reachable { from, to } = match reachable(directory, from, from_device, &request.address).await? {
        Ok(reachable) => reachable,
        Err(refused) => return Ok(Err(refused)),
    };
    let one_time = match directory.limits.claim(&from, &to) {
        Ok(one_time) => one_time,
        Err(too_fast) => return Ok(Err(too_fast.into())),
    };
    let own = from.account == to.account;
    let wanted = |device: &DeviceId| (named.is_empty() || named.contains(device)) && !(own && *device == from_device);
    let devices: Vec<DeviceId> = to.devices.iter().map(|device| device.id).filter(wanted).collect();
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move { Ok(Ok(take(&directory, &to, &devices, one_time).await?)) }).await
}

fn named_devices(numbers: &[u32]) -> Result<Vec<DeviceId>, Refused> {
    if numbers.len() > DeviceId::MAX_PER_ACCOUNT {
        return Err(Refused::because(ErrorCode::BadRequest, "devices: at most 16 are allowed"));
    }
    let ids: Result<Vec<DeviceId>, _> = numbers.iter().map(|number| DeviceId::new(*number)).collect();
    ids.map_err(|error| Refused::because(ErrorCode::BadRequest, &format!("devices: {error}")))
}

async fn take(
    directory: &Directory,
    to: &Record,
    devices: &[DeviceId],
    one_time: bool,
) -> Result<wire::KeyBundles, CallError> {
    let claimed = directory.store.claim(to.account, devices, one_time, directory.config.prekeys_low).await?;
    // Who runs low is not confirmed: nobody relies on it.
    drop(directory.changes.publish_all(&claimed.logged));
    for bundle in &claimed.outcome {
        directory.metrics.bundle_claimed(bundle.taken.0, bundle.taken.1);
    }
    Ok(wire::KeyBundles {
        account_id: to.account.as_bytes().to_vec().into(),
        bundles: claimed.outcome.into_iter().map(to_proto).collect(),
    })
}

fn to_proto(bundle: Bundle) -> wire::KeyBundle {
    let ec = |key: &EcPublicKey| key.as_bytes().to_vec().into();
    let signed_kyber = |prekey: SignedPrekey<KyberPublicKey>| wire::SignedPrekey {
        id: prekey.id.get(),
        public_key: prekey.key.as_bytes().clone(),
        signature: prekey.signature.as_bytes().to_vec().into(),
    };
    wire::KeyBundle {
        device: bundle.device.get(),
        registration_id: bundle.registration_id.get(),
        identity_key: ec(&bundle.identity_key),
        signed_prekey: Some(wire::SignedPrekey {
            id: bundle.signed.id.get(),
            public_key: ec(&bundle.signed.key),
            signature: bundle.signed.signature.as_bytes().to_vec().into(),
        }),
        ec_prekey: bundle.ec.map(|prekey| wire::EcPrekey { id: prekey.id.get(), public_key: ec(&prekey.key) }),
        kyber_prekey: Some(signed_kyber(bundle.kyber)),
    }
}
