//! `discover`: does an address accept messages from this user?

use causeway_identity::Address;
use causeway_proto::directory::v1::DiscoverRequest;
use causeway_runtime::grpc;
use causeway_stanza::{IqError, ResponseBody};

use super::{Asker, Requests};

pub(super) async fn carry_out(requests: &Requests, asker: &Asker, address: &Address) -> Result<ResponseBody, IqError> {
    let from = asker.device()?;
    let request = DiscoverRequest {
        from_account_id: from.account_bytes(),
        address: address.as_str().to_owned(),
        from_device_id: from.id.get(),
    };
    let answer = requests.accounts.clone().discover(grpc::call(request)).await.map_err(|s| requests.failed(&s))?;
    requests.done(answer.into_inner())
}
