//! `withdraw`: the user leaves the network. The account's sessions are ended by way of routing.

use causeway_runtime::grpc;
use causeway_stanza::{IqError, ResponseBody};

use super::{Asker, Requests};

pub(super) async fn carry_out(requests: &Requests, asker: &Asker) -> Result<ResponseBody, IqError> {
    let answer =
        requests.accounts.clone().withdraw(grpc::call(asker.account()?)).await.map_err(|s| requests.failed(&s))?;
    requests.done(answer.into_inner())
}
