//! Statements about how far the one-time keys of a device have been handed out. A claim moves a cursor and leaves the rows of
//! the keys alone, so that it writes little; keys behind a cursor are erased together, when their device publishes new ones,
//! or when the store is closed.

use std::time::Duration;

use causeway_identity::{AccountId, DeviceId};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::time::Instant;

use super::engine::failed;
use super::rows::Column;
use super::schema;
use crate::store::stored::{Listed as _, PrekeyKind, corrupt};
use crate::store::{KeyCounts, REMEMBERED_PREKEYS, StoreError};

/// Devices that are settled in one transaction when the store is closed.
const AT_ONCE: u32 = 64;

/// Where a device's keys of one kind are handed out from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    /// No key has a place below this but those that were handed out.
    pub(super) next: i64,
    /// Keys in store.
    pub(super) left: u32,
}

/// Those of both kinds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursors {
    pub(super) ec: Cursor,
    pub(super) kyber: Cursor,
}

impl Cursors {
    /// Of this device.
    pub(super) fn of(db: &Connection, account: AccountId, device: DeviceId) -> Result<Self, StoreError> {
        match Self::stored(db, account, device)? {
            Some(stored) => Ok(stored),
            None => Self::up_to(db, account, device, u32::MAX),
        }
    }

    /// `None`: keys that were handed out have been erased.
    pub(super) fn stored(db: &Connection, account: AccountId, device: DeviceId) -> Result<Option<Self>, StoreError> {
        db.prepare_cached(STORED)
            .map_err(failed)?
            .query_row(params![Column(account), device.get()], |row| {
                let ec = Cursor { next: row.get(0)?, left: row.get(1)? };
                Ok(Self { ec, kyber: Cursor { next: row.get(2)?, left: row.get(3)? } })
            })
            .optional()
            .map_err(failed)
    }

    /// Of a device without stored ones; of each kind no more than `most` keys are counted.
    pub(super) fn up_to(db: &Connection, account: AccountId, device: DeviceId, most: u32) -> Result<Self, StoreError> {
        let mut statement = db.prepare_cached(COUNT).map_err(failed)?;
        let mut count = |kind: PrekeyKind| {
            statement
                .query_row(params![Column(account), device.get(), kind.number(), most], |row| {
                    Ok(Cursor { next: row.get(0)?, left: row.get(1)? })
                })
                .map_err(failed)
        };
        Ok(Self { ec: count(PrekeyKind::Ec)?, kyber: count(PrekeyKind::Kyber)? })
    }

    /// What the device has in store.
    pub(super) const fn left(&self) -> KeyCounts {
        KeyCounts { ec: self.ec.left, kyber: self.kyber.left }
    }

    pub(super) fn store(&self, db: &Connection, account: AccountId, device: DeviceId) -> Result<(), StoreError> {
        let Self { ec, kyber } = self;
        db.prepare_cached(STORE)
            .map_err(failed)?
            .execute(params![Column(account), device.get(), ec.next, ec.left, kyber.next, kyber.left])
            .map_err(failed)?;
        Ok(())
    }
}

/// Erases the keys that this device has handed out, but for what they are remembered by, and forgets those that were handed
/// out long ago.
pub(super) fn settle(db: &Connection, account: AccountId, device: DeviceId) -> Result<(), StoreError> {
    let Some(cursors) = Cursors::stored(db, account, device)? else { return Ok(()) };
    for (kind, cursor) in [(PrekeyKind::Ec, cursors.ec), (PrekeyKind::Kyber, cursors.kyber)] {
        db.prepare_cached(ERASE)
            .map_err(failed)?
            .execute(params![Column(account), device.get(), kind.number(), cursor.next])
            .map_err(failed)?;
        // Keys leave in the order of their places.
        db.prepare_cached(FORGET)
            .map_err(failed)?
            .execute(params![Column(account), device.get(), kind.number(), cursor.next - REMEMBERED_PREKEYS as i64])
            .map_err(failed)?;
    }
    db.prepare_cached("DELETE FROM prekey_cursors WHERE account_id = ?1 AND device_id = ?2")
        .map_err(failed)?
        .execute(params![Column(account), device.get()])
        .map_err(failed)?;
    Ok(())
}

/// The same for all devices; if that ends in time, the file is one that the release before can open.
pub(super) fn settle_all(db: &Connection, patience: Option<Duration>) -> Result<(), StoreError> {
    let begun = Instant::now();
    loop {
        let transaction = db.unchecked_transaction().map_err(failed)?;
        let some = some(&transaction)?;
        for (account, device) in &some {
            settle(&transaction, *account, *device)?;
        }
        if some.is_empty() {
            schema::without_cursors(&transaction).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        if some.is_empty() || patience.is_some_and(|patience| begun.elapsed() > patience) {
            return Ok(());
        }
    }
}

fn some(db: &Connection) -> Result<Vec<(AccountId, DeviceId)>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT account_id, device_id FROM prekey_cursors LIMIT ?1").map_err(failed)?;
    let rows = statement
        .query_map([AT_ONCE], |row| Ok((row.get::<_, Column<AccountId>>(0)?.0, row.get::<_, u32>(1)?)))
        .map_err(failed)?;
    rows.map(|row| {
        let (account, device) = row.map_err(failed)?;
        Ok((account, DeviceId::new(device).map_err(corrupt("device id"))?))
    })
    .collect()
}

const STORED: &str = "SELECT ec_next, ec_left, kyber_next, kyber_left FROM prekey_cursors
    WHERE account_id = ?1 AND device_id = ?2";
const STORE: &str = "INSERT INTO prekey_cursors (account_id, device_id, ec_next, ec_left, kyber_next, kyber_left)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT DO UPDATE SET ec_next = ?3, ec_left = ?4, kyber_next = ?5, kyber_left = ?6";
const COUNT: &str = "SELECT coalesce(min(place), 0), count(*) FROM (
        SELECT place FROM one_time_prekeys
        WHERE account_id = ?1 AND device_id = ?2 AND kind = ?3 AND public_key IS NOT NULL ORDER BY place LIMIT ?4)";
const ERASE: &str = "UPDATE one_time_prekeys SET public_key = NULL, signature = NULL
    WHERE account_id = ?1 AND device_id = ?2 AND kind = ?3 AND place < ?4 AND public_key IS NOT NULL";
const FORGET: &str = "DELETE FROM one_time_prekeys
    WHERE account_id = ?1 AND device_id = ?2 AND kind = ?3 AND place < ?4 AND public_key IS NULL";
