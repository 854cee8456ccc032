//! Statements about prekeys.

use causeway_identity::{AccountId, Address, DeviceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::accounts;
use super::cursors::{self, Cursor, Cursors};
use super::engine::failed;
use super::rows::Column;
use crate::keys::VerifiedPrekeys;
use crate::keys::{EcPrekey, PrekeyId, RegistrationId};
use crate::store::stored::{Listed as _, PrekeyKind, StoredPrekey, corrupt, ec_key, key_digest, prekey_id};
use crate::store::{Bundle, KeyCounts, Logged, MAX_STORED_PREKEYS, Published, StoreError, Written, low_prekeys};

pub(super) fn publish(
    db: &Connection,
    account: AccountId,
    device: DeviceId,
    keys: &VerifiedPrekeys,
) -> Result<Published, StoreError> {
    let identity: Option<Vec<u8>> = db
        .query_row(
            "SELECT identity_key FROM devices WHERE account_id = ?1 AND device_id = ?2",
            params![Column(account), device.get()],
            |row| row.get(0),
        )
        .optional()
        .map_err(failed)?;
    let Some(identity) = identity else { return Ok(Published::NoDevice) };
    if identity != keys.identity_key.as_bytes() {
        return Ok(Published::OtherIdentity);
    }
    if let Some(signed) = &keys.signed {
        db.execute(
            "UPDATE devices SET signed_id = ?3, signed_key = ?4, signed_signature = ?5
             WHERE account_id = ?1 AND device_id = ?2",
            params![Column(account), device.get(), signed.id.get(), signed.key.as_bytes(), signed.signature.as_bytes()],
        )
        .map_err(failed)?;
    }
    if let Some(last) = &keys.last_resort {
        db.execute(
            "UPDATE devices SET last_resort_id = ?3, last_resort_key = ?4, last_resort_signature = ?5
             WHERE account_id = ?1 AND device_id = ?2",
            params![
                Column(account),
                device.get(),
                last.id.get(),
                last.key.as_bytes().as_ref(),
                last.signature.as_bytes()
            ],
        )
        .map_err(failed)?;
    }
    cursors::settle(db, account, device)?;
    add(db, account, device, keys)?;
    Ok(Published::Done(Cursors::of(db, account, device)?.left()))
}

/// Adds the one-time keys behind those in store.
pub(super) fn add(
    db: &Connection,
    account: AccountId,
    device: DeviceId,
    keys: &VerifiedPrekeys,
) -> Result<(), StoreError> {
    let ec = keys.ec.iter().map(|key| (key.id, &key.key.as_bytes()[..], None));
    add_kind(db, account, device, PrekeyKind::Ec, ec)?;
    let kyber = keys.kyber.iter().map(|key| (key.id, key.key.as_bytes().as_ref(), Some(&key.signature.as_bytes()[..])));
    add_kind(db, account, device, PrekeyKind::Kyber, kyber)
}

fn add_kind<'a>(
    db: &Connection,
    account: AccountId,
    device: DeviceId,
    kind: PrekeyKind,
    keys: impl Iterator<Item = (PrekeyId, &'a [u8], Option<&'a [u8]>)>,
) -> Result<(), StoreError> {
    let mut last_place: i64 = db
        .query_row(
            "SELECT coalesce(max(place), 0) FROM one_time_prekeys
             WHERE account_id = ?1 AND device_id = ?2 AND kind = ?3",
            params![Column(account), device.get(), kind.number()],
            |row| row.get(0),
        )
        .map_err(failed)?;
    let mut known = db
        .prepare_cached(
            "SELECT 1 FROM one_time_prekeys
             WHERE account_id = ?1 AND device_id = ?2 AND kind = ?3 AND digest = ?4",
        )
        .map_err(failed)?;
    let mut replace = db
        .prepare_cached(
            "DELETE FROM one_time_prekeys WHERE account_id = ?1 AND device_id = ?2 AND kind = ?3 AND key_id = ?4
             AND public_key IS NOT NULL",
        )
        .map_err(failed)?;
    let mut insert =
        db.prepare_cached("INSERT INTO one_time_prekeys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)").map_err(failed)?;
    for (id, key, signature) in keys {
        let digest = key_digest(key);
        if known.exists(params![Column(account), device.get(), kind.number(), digest]).map_err(failed)? {
            continue;
        }
        replace.execute(params![Column(account), device.get(), kind.number(), id.get()]).map_err(failed)?;
        last_place += 1;
        insert
            .execute(params![
                Column(account),
                device.get(),
                kind.number(),
                last_place,
                id.get(),
                digest,
                key,
                signature
            ])
            .map_err(failed)?;
    }
    let surplus = "DELETE FROM one_time_prekeys
        WHERE account_id = ?1 AND device_id = ?2 AND kind = ?3 AND public_key IS NOT NULL AND place <= (
            SELECT place FROM one_time_prekeys
            WHERE account_id = ?1 AND device_id = ?2 AND kind = ?3 AND public_key IS NOT NULL
            ORDER BY place DESC LIMIT 1 OFFSET ?4)";
    db.execute(surplus, params![Column(account), device.get(), kind.number(), MAX_STORED_PREKEYS as i64])
        .map_err(failed)?;
    Ok(())
}

pub(super) fn counts_if_enlisted(
    db: &Connection,
    account: AccountId,
    device: DeviceId,
) -> Result<Option<KeyCounts>, StoreError> {
    let enlisted = db
        .prepare_cached("SELECT 1 FROM devices WHERE account_id = ?1 AND device_id = ?2")
        .map_err(failed)?
        .exists(params![Column(account), device.get()])
        .map_err(failed)?;
    if !enlisted {
        return Ok(None);
    }
    Ok(Some(Cursors::of(db, account, device)?.left()))
}

/// True if the device has fewer than `low` one-time keys of a kind.
pub(super) fn is_low(db: &Connection, account: AccountId, device: DeviceId, low: u32) -> Result<bool, StoreError> {
    let left = match Cursors::stored(db, account, device)? {
        Some(cursors) => cursors.left(),
        // To count no further than needed.
        None => Cursors::up_to(db, account, device, low)?.left(),
    };
    Ok(left.ec < low || left.kyber < low)
}

pub(super) fn claim(
    db: &Connection,
    account: AccountId,
    devices: &[DeviceId],
    one_time: bool,
    low: u32,
) -> Result<Written<Vec<Bundle>>, StoreError> {
    let mut bundles = Vec::with_capacity(devices.len());
    for (place, device) in devices.iter().enumerate() {
        if devices[..place].contains(device) {
            continue;
        }
        if let Some(bundle) = claim_one(db, account, *device, one_time)? {
            bundles.push(bundle);
        }
    }
    let mut changes = Vec::new();
    if bundles.iter().any(|bundle| bundle.runs_low(low)) {
        let address = accounts::address_of(db, account)?.ok_or(StoreError::Corrupt("account"))?;
        let address: Address = address.parse().map_err(corrupt("address"))?;
        changes = low_prekeys(account, &address, &bundles, low);
    }
    Ok(Written { outcome: bundles, logged: Logged { changes, number: None } })
}

fn claim_one(
    db: &Connection,
    account: AccountId,
    device: DeviceId,
    one_time_keys: bool,
) -> Result<Option<Bundle>, StoreError> {
    let head = db
        .prepare_cached(
            "SELECT registration_id, identity_key, signed_id, signed_key, signed_signature,
                    last_resort_id, last_resort_key, last_resort_signature
             FROM devices WHERE account_id = ?1 AND device_id = ?2",
        )
        .map_err(failed)?
        .query_row(params![Column(account), device.get()], |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, Vec<u8>>(1)?, one_time(row, 2)?, one_time(row, 5)?))
        })
        .optional()
        .map_err(failed)?;
    let Some((registration_id, identity_key, signed, last_resort)) = head else { return Ok(None) };
    let mut cursors = Cursors::of(db, account, device)?;
    let (mut ec, mut kyber) = (None, None);
    if one_time_keys {
        ec = take(db, account, device, PrekeyKind::Ec, &mut cursors.ec)?;
        kyber = take(db, account, device, PrekeyKind::Kyber, &mut cursors.kyber)?;
    }
    let taken = (ec.is_some(), kyber.is_some());
    if taken != (false, false) {
        cursors.store(db, account, device)?;
    }
    let ec =
        ec.map(|key| Ok::<_, StoreError>(EcPrekey { id: prekey_id(key.id)?, key: ec_key(&key.key)? })).transpose()?;
    Ok(Some(Bundle {
        device,
        registration_id: RegistrationId::try_from(registration_id).map_err(corrupt("registration id"))?,
        identity_key: ec_key(&identity_key)?,
        signed: signed.signed_ec()?,
        ec,
        kyber: kyber.unwrap_or(last_resort).kyber()?,
        left: cursors.left(),
        taken,
    }))
}

/// Takes the one-time key that was uploaded first, by moving the cursor beyond it.
fn take(
    db: &Connection,
    account: AccountId,
    device: DeviceId,
    kind: PrekeyKind,
    cursor: &mut Cursor,
) -> Result<Option<StoredPrekey>, StoreError> {
    if cursor.left == 0 {
        return Ok(None);
    }
    let first = db
        .prepare_cached(TAKE)
        .map_err(failed)?
        .query_row(params![Column(account), device.get(), kind.number(), cursor.next], |row| {
            Ok((one_time(row, 0)?, row.get::<_, i64>(3)?))
        })
        .optional()
        .map_err(failed)?;
    let Some((key, place)) = first else { return Ok(None) };
    *cursor = Cursor { next: place + 1, left: cursor.left - 1 };
    Ok(Some(key))
}

const TAKE: &str = "SELECT key_id, public_key, signature, place FROM one_time_prekeys
    WHERE account_id = ?1 AND device_id = ?2 AND kind = ?3 AND place >= ?4 AND public_key IS NOT NULL
    ORDER BY place LIMIT 1";

/// Treats all one-time keys as handed out, and gives their number.
pub(super) fn give_up(db: &Connection) -> Result<u64, StoreError> {
    cursors::settle_all(db, None)?;
    let sql = "UPDATE one_time_prekeys SET public_key = NULL, signature = NULL WHERE public_key IS NOT NULL";
    let given_up = db.execute(sql, []).map_err(failed)?;
    Ok(given_up as u64)
}

fn one_time(row: &Row<'_>, first: usize) -> rusqlite::Result<StoredPrekey> {
    Ok(StoredPrekey { id: row.get(first)?, key: row.get(first + 1)?, signature: row.get(first + 2)? })
}
