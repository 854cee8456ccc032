//! Values as columns hold them, and back.

use causeway_identity::{AccountId, DeviceId, ProviderId};
use causeway_postgres::{FromSql, Row};

use crate::store::StoreError;
use crate::store::stored::{Listed, StoredPrekey, StoredProvider, corrupt};

/// A column as PostgreSQL gives it.
pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(corrupt("row"))
}

/// A number that is not negative.
pub(super) fn number<'r, S: FromSql<'r>, T: TryFrom<S>>(row: &'r Row, column: usize) -> Result<T, StoreError> {
    T::try_from(get(row, column)?).map_err(corrupt("number"))
}

pub(super) fn listed<T: Listed>(row: &Row, column: usize) -> Result<T, StoreError> {
    T::from_number(get::<i16>(row, column)?.into()).ok_or(StoreError::Corrupt("value of a list"))
}

pub(super) fn account_id(row: &Row, column: usize) -> Result<AccountId, StoreError> {
    AccountId::try_from(get::<&[u8]>(row, column)?).map_err(corrupt("account id"))
}

pub(super) fn device_id(row: &Row, column: usize) -> Result<DeviceId, StoreError> {
    DeviceId::new(number::<i32, u32>(row, column)?).map_err(corrupt("device id"))
}

/// Three columns: id, key, signature.
pub(super) fn prekey(row: &Row, first: usize) -> Result<StoredPrekey, StoreError> {
    Ok(StoredPrekey { id: number::<i32, u32>(row, first)?, key: get(row, first + 1)?, signature: get(row, first + 2)? })
}

/// The columns of a provider, as all statements give them.
pub(super) fn provider(row: &Row) -> Result<StoredProvider, StoreError> {
    Ok(StoredProvider {
        id: ProviderId::try_from(get::<&[u8]>(row, 0)?).map_err(corrupt("provider id"))?,
        domain: get(row, 1)?,
        issuer: get(row, 2)?,
        kind: listed(row, 3)?,
        status: listed(row, 4)?,
        revision: number::<i64, u64>(row, 5)?,
        registered_ms: number::<i64, u64>(row, 6)?,
        settings: get(row, 7)?,
    })
}

/// An account's id as a value.
pub(super) fn account(account: &AccountId) -> &[u8] {
    account.as_bytes()
}

/// A device's id as a value; ids are below 2^31.
pub(super) fn device(device: DeviceId) -> i32 {
    small(device.get())
}

/// Numbers that are far below 2^31: ids of devices, prekeys and registrations, counts of keys.
pub(super) fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Unix milliseconds and counters: below 2^63 for the next 292 million years.
pub(super) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
