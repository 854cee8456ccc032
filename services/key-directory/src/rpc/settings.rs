//! The rate at which devices change what the directory keeps of their accounts: consent, push tokens, devices.

use causeway_identity::{AccountId, DeviceId};

use super::Refused;
use crate::directory::Directory;
use crate::error::CallError;
use crate::store::Who;

/// Counts one change by this device. One that is not enlisted passes: the store refuses it, and only then is it clear that
/// what it may have done before, such as removing itself, is confirmed.
pub(super) async fn may_change(
    directory: &Directory,
    account: AccountId,
    by: DeviceId,
) -> Result<Result<(), Refused>, CallError> {
    let record = directory.store.record(&Who::Account(account)).await?;
    let enlisted = record.filter(|record| record.device(by).is_some());
    Ok(enlisted.map_or(Ok(()), |record| directory.limits.change_settings(&record)).map_err(Refused::from))
}
