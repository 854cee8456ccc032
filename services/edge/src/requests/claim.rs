//! `keys-claim`: bundles of somebody else's devices, or of one's own other ones.

use causeway_proto::directory::v1::{ClaimRequest, claim_response};
use causeway_runtime::grpc;
use causeway_stanza::{IqError, KeysClaim, ResponseBody};

use super::{Asker, Requests};

pub(super) async fn carry_out(requests: &Requests, asker: &Asker, claim: KeysClaim) -> Result<ResponseBody, IqError> {
    let device = asker.device()?;
    let request = ClaimRequest {
        from_account_id: device.account_bytes(),
        from_device_id: device.id.get(),
        address: claim.address.as_str().to_owned(),
        devices: claim.devices.iter().map(|device| device.get()).collect(),
    };
    let answer = requests.prekeys.clone().claim(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    match answer.into_inner().outcome {
        Some(claim_response::Outcome::Bundles(bundles)) => {
            bundles.try_into().map(ResponseBody::KeyBundles).map_err(|_| requests.nonsense())
        }
        Some(claim_response::Outcome::Refused(refusal)) => Err(requests.refused(&refusal)),
        None => Err(requests.nonsense()),
    }
}
