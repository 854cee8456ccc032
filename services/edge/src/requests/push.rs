//! `push`: where to ring this device.

use causeway_proto::directory::v1::SetPushRequest;
use causeway_runtime::grpc;
use causeway_stanza::{IqError, PushToken, ResponseBody};

use super::{Asker, Requests};

pub(super) async fn carry_out(
    requests: &Requests,
    asker: &Asker,
    token: Option<PushToken>,
) -> Result<ResponseBody, IqError> {
    let device = asker.device()?;
    let request = SetPushRequest {
        account_id: device.account_bytes(),
        device_id: device.id.get(),
        token: token.map(PushToken::into_bytes).unwrap_or_default(),
    };
    let answer = requests.accounts.clone().set_push(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    requests.done(answer.into_inner())
}
