//! Values as columns hold them, and back.

use causeway_identity::{AccountId, ProviderId};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::consent::{InboxSetting, Reach};
use crate::providers::{ProviderKind, ProviderStatus};
use crate::store::stored::Listed;

/// A value that the column holds as SQLite knows it.
pub(super) struct Column<T>(pub(super) T);

macro_rules! column {
    ($($id:ty),*) => {$(
        impl ToSql for Column<$id> {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.0.as_bytes().as_slice().into())
            }
        }

        impl FromSql for Column<$id> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                <$id>::try_from(value.as_blob()?).map(Self).map_err(|error| FromSqlError::Other(Box::new(error)))
            }
        }
    )*};
}
column!(AccountId, ProviderId);

macro_rules! listed {
    ($($list:ident),*) => {$(
        impl ToSql for Column<$list> {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.0.number().into())
            }
        }

        impl FromSql for Column<$list> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let number = value.as_i64()?;
                $list::from_number(number).map(Self).ok_or(FromSqlError::OutOfRange(number))
            }
        }
    )*};
}
listed!(ProviderKind, ProviderStatus, InboxSetting, Reach);

/// Unix milliseconds and counters: below 2^63 for the next 292 million years.
impl ToSql for Column<u64> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Column<u64> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}
