//! Discover: does this address accept messages from the account? Yes, or the one `not-available`.

use causeway_identity::{AccountId, Address, DeviceId};
use causeway_proto::directory::v1 as pb;

use super::{Refused, account_id, device_id};
use crate::accounts::Record;
use crate::directory::Directory;
use crate::error::CallError;
use crate::store::Who;

pub(super) async fn run(
    directory: &Directory,
    request: pb::DiscoverRequest,
) -> Result<Result<pb::Done, Refused>, CallError> {
    let (from, by) = (account_id(&request.from_account_id)?, device_id(request.from_device_id)?);
    Ok(reachable(directory, from, by, &request.address).await?.map(|_| pb::Done {}))
}

/// Who asks, and the record behind an address that accepts messages from them.
pub(super) struct Reachable {
    pub(super) from: Record,
    pub(super) to: Record,
}

/// Whatever is in the way, the answer is one; who finds nobody too often must wait.
pub(super) async fn reachable(
    directory: &Directory,
    from: AccountId,
    by: DeviceId,
    address: &str,
) -> Result<Result<Reachable, Refused>, CallError> {
    // Both at once, and also when the text is no address, so that the store's time tells nothing.
    let who = address.parse::<Address>().map_or(Who::Account(AccountId::from_bytes([0; 16])), Who::Address);
    let [from, to] = directory.store.two_records(&Who::Account(from), &who).await?;
    let Some(from) = from.filter(|from| from.device(by).is_some()) else {
        return Ok(Err(Refused::not_enlisted()));
    };
    if let Err(too_fast) = directory.limits.look_up(&from) {
        return Ok(Err(too_fast.into()));
    }
    let open = to.filter(|to| from.reaches(to) && !to.devices.is_empty());
    if open.is_some() {
        directory.limits.hit(&from);
    } else {
        directory.limits.missed(&from);
    }
    Ok(open.map(|to| Reachable { from, to }).ok_or_else(Refused::not_available))
}
