//! `enlist`: the session's user joins the network with this device.

use bytes::Bytes;
use causeway_identity::{AccountId, DeviceId};
use causeway_proto::directory::v1::{EnlistRequest, enlist_response};
use causeway_runtime::grpc;
use causeway_stanza::{Enlist, IqError};

use super::{Asker, Requests};
use crate::login::Device;
use crate::session::Answer;

pub(super) async fn carry_out(requests: &Requests, asker: &Asker, enlist: Enlist) -> Result<Answer, IqError> {
    let registration_id = enlist.registration.get();
    let request = EnlistRequest {
        address: asker.user.address.as_str().to_owned(),
        provider_id: Bytes::copy_from_slice(asker.user.provider.id.as_bytes()),
        noise_key: Bytes::copy_from_slice(asker.user.noise_key.as_bytes()),
        enlist: Some(enlist.into()),
    };
    let answer = requests.accounts.clone().enlist(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    let enlisted = match answer.into_inner().outcome {
        Some(enlist_response::Outcome::Enlisted(enlisted)) => enlisted,
        Some(enlist_response::Outcome::Refused(refusal)) => return Err(requests.refused(&refusal)),
        None => return Err(requests.nonsense()),
    };
    let account = AccountId::try_from(&enlisted.account_id[..]).map_err(|_| requests.nonsense())?;
    let id = DeviceId::new(enlisted.device_id).map_err(|_| requests.nonsense())?;
    Ok(Answer::Enlisted(Device { account, id, registration_id }))
}
