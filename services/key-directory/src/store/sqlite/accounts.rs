//! Statements about accounts, devices and consent.

use std::collections::BTreeMap;

use bytes::Bytes;
use causeway_identity::{AccountId, Address, DeviceId, NoiseKey, ProviderId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::engine::failed;
use super::prekeys;
use super::retired;
use super::rows::Column;
use crate::accounts::{Device, PushToken, Record};
use crate::consent::{Consent, InboxSetting, Reach};
use crate::keys::{EcPublicKey, RegistrationId};
use crate::providers::{ProviderKind, ProviderRef, ProviderStatus};
use crate::store::stored::corrupt;
use crate::store::{Change, Enlisted, Enlistment, KnownDevice, MAX_DEVICE_ID, Removed, StoreError, What, Who, Written};

pub(super) fn record(db: &Connection, who: &Who) -> Result<Option<Record>, StoreError> {
    let account = match who {
        Who::Account(account) => *account,
        Who::Address(address) => match account_of(db, address)? {
            Some(account) => account,
            None => return Ok(None),
        },
    };
    let head = db
        .prepare_cached(
            "SELECT a.address, a.interop, a.inbox, a.reach, p.provider_id, p.domain, p.kind, p.status
             FROM accounts a JOIN providers p ON p.provider_id = a.provider_id WHERE a.account_id = ?1",
        )
        .map_err(failed)?
        .query_row([Column(account)], |row| {
            let consent = Consent {
                interop: row.get(1)?,
                inbox: row.get::<_, Column<InboxSetting>>(2)?.0,
                reach: row.get::<_, Column<Reach>>(3)?.0,
                rules: BTreeMap::new(),
            };
            let provider = (
                row.get::<_, Column<ProviderId>>(4)?.0,
                row.get::<_, String>(5)?,
                row.get::<_, Column<ProviderKind>>(6)?.0,
                row.get::<_, Column<ProviderStatus>>(7)?.0,
            );
            Ok((row.get::<_, String>(0)?, consent, provider))
        })
        .optional()
        .map_err(failed)?;
    let Some((address, mut consent, (id, domain, kind, status))) = head else { return Ok(None) };
    consent.rules = rules(db, account)?;
    let domain = domain.parse().map_err(corrupt("provider"))?;
    Ok(Some(Record {
        account,
        address: address.parse().map_err(corrupt("address"))?,
        provider: ProviderRef { id, domain, kind, status },
        devices: devices(db, account)?,
        consent,
    }))
}

/// What a login needs to know of a device, without the rest of the record.
pub(super) fn known_device(
    db: &Connection,
    address: &Address,
    device: DeviceId,
    low: u32,
) -> Result<Option<KnownDevice>, StoreError> {
    let found = db
        .prepare_cached(
            "SELECT d.account_id, d.noise_key, d.registration_id,
                    (SELECT count(*) FROM devices WHERE account_id = d.account_id)
             FROM addresses a JOIN devices d ON d.account_id = a.account_id AND d.device_id = ?2 WHERE a.address = ?1",
        )
        .map_err(failed)?
        .query_row(params![address.as_str(), device.get()], |row| {
            Ok((row.get::<_, Column<AccountId>>(0)?.0, row.get::<_, [u8; 32]>(1)?, row.get::<_, u32>(2)?, row.get(3)?))
        })
        .optional()
        .map_err(failed)?;
    let Some((account, noise_key, registration_id, devices)) = found else { return Ok(None) };
    Ok(Some(KnownDevice {
        account,
        noise_key: NoiseKey::try_from(noise_key.as_slice()).map_err(corrupt("Noise key"))?,
        registration_id: RegistrationId::try_from(registration_id).map_err(corrupt("registration id"))?,
        devices,
        is_low: prekeys::is_low(db, account, device, low)?,
    }))
}

fn account_of(db: &Connection, address: &Address) -> Result<Option<AccountId>, StoreError> {
    db.prepare_cached("SELECT account_id FROM addresses WHERE address = ?1")
        .map_err(failed)?
        .query_row([address.as_str()], |row| Ok(row.get::<_, Column<AccountId>>(0)?.0))
        .optional()
        .map_err(failed)
}

fn rules(db: &Connection, account: AccountId) -> Result<BTreeMap<causeway_identity::Domain, bool>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT provider, allow FROM provider_rules WHERE account_id = ?1").map_err(failed)?;
    let rows =
        statement.query_map([Column(account)], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).map_err(failed)?;
    rows.map(|row| {
        let (provider, allow) = row.map_err(failed)?;
        Ok((provider.parse().map_err(corrupt("provider rule"))?, allow))
    })
    .collect()
}

fn devices(db: &Connection, account: AccountId) -> Result<Vec<Device>, StoreError> {
    let mut statement = db
        .prepare_cached(
            "SELECT device_id, noise_key, registration_id, identity_key, enlisted_ms, push_token
             FROM devices WHERE account_id = ?1 ORDER BY device_id",
        )
        .map_err(failed)?;
    let mut rows = statement.query([Column(account)]).map_err(failed)?;
    let mut devices = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let id: u32 = row.get(0).map_err(failed)?;
        let noise_key: Vec<u8> = row.get(1).map_err(failed)?;
        let registration_id: u32 = row.get(2).map_err(failed)?;
        let identity_key: Vec<u8> = row.get(3).map_err(failed)?;
        let push_token: Option<Vec<u8>> = row.get(5).map_err(failed)?;
        devices.push(Device {
            id: DeviceId::new(id).map_err(corrupt("device id"))?,
            noise_key: NoiseKey::try_from(noise_key.as_slice()).map_err(corrupt("Noise key"))?,
            registration_id: RegistrationId::try_from(registration_id).map_err(corrupt("registration id"))?,
            identity_key: EcPublicKey::from_stored(&identity_key).ok_or(StoreError::Corrupt("identity key"))?,
            enlisted_ms: row.get::<_, Column<u64>>(4).map_err(failed)?.0,
            push_token: push_token.and_then(|bytes| PushToken::new(Bytes::from(bytes))),
        });
    }
    Ok(devices)
}

pub(super) fn enlist(db: &Connection, new: &Enlistment) -> Result<Written<Enlisted>, StoreError> {
    let known = account_of(db, &new.address)?;
    let enlisted = known.map_or_else(|| Ok(Vec::new()), |account| devices(db, account))?;
    let same_key = enlisted.iter().find(|device| device.noise_key == new.noise_key);
    if let (Some(account), Some(device)) = (known, same_key) {
        let same = device.identity_key == new.keys.identity_key && device.registration_id == new.registration_id;
        if !same {
            return Ok(Written::silent(Enlisted::OtherKeys));
        }
        let change = Change::Record { address: new.address.clone(), account, what: What::Devices };
        return Ok(Written::told(Enlisted::Before { account, device: device.id }, change));
    }
    if retired::holds(db, &new.address, &new.noise_key, new.now_ms)? {
        return Ok(Written::silent(Enlisted::Retired));
    }
    if enlisted.len() >= DeviceId::MAX_PER_ACCOUNT {
        return Ok(Written::silent(Enlisted::DeviceLimit));
    }
    let account = known.map_or_else(|| create(db, new), Ok)?;
    let device = free_device_id(db, account, &enlisted)?;
    let (Some(signed), Some(last_resort)) = (&new.keys.signed, &new.keys.last_resort) else {
        return Err(StoreError::Corrupt("enlistment"));
    };
    db.execute(
        "INSERT INTO devices VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            Column(account),
            device.get(),
            new.noise_key.as_bytes(),
            new.registration_id.get(),
            new.keys.identity_key.as_bytes(),
            Column(new.now_ms),
            signed.id.get(),
            signed.key.as_bytes(),
            signed.signature.as_bytes(),
            last_resort.id.get(),
            last_resort.key.as_bytes().as_ref(),
            last_resort.signature.as_bytes(),
        ],
    )
    .map_err(failed)?;
    db.execute(
        "DELETE FROM freed_devices WHERE account_id = ?1 AND device_id = ?2",
        params![Column(account), device.get()],
    )
    .map_err(failed)?;
    prekeys::add(db, account, device, &new.keys)?;
    let change = Change::Record { address: new.address.clone(), account, what: What::Devices };
    Ok(Written::told(Enlisted::Added { account, device }, change))
}

fn create(db: &Connection, new: &Enlistment) -> Result<AccountId, StoreError> {
    let used: Option<i64> = db
        .query_row(
            "SELECT 1 FROM withdrawn WHERE account_id = ?1 UNION ALL SELECT 1 FROM accounts WHERE account_id = ?1",
            [Column(new.new_account)],
            |row| row.get(0),
        )
        .optional()
        .map_err(failed)?;
    if used.is_some() {
        return Err(StoreError::Failed("the account id is not new".to_owned()));
    }
    let consent = Consent::default();
    db.execute(
        "INSERT INTO accounts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            Column(new.new_account),
            new.address.as_str(),
            Column(new.provider),
            Column(new.now_ms),
            consent.interop,
            Column(consent.inbox),
            Column(consent.reach),
        ],
    )
    .map_err(failed)?;
    db.execute("INSERT INTO addresses VALUES (?1, ?2)", params![new.address.as_str(), Column(new.new_account)])
        .map_err(failed)?;
    Ok(new.new_account)
}

fn free_device_id(db: &Connection, account: AccountId, enlisted: &[Device]) -> Result<DeviceId, StoreError> {
    let mut statement = db
        .prepare_cached("SELECT device_id FROM freed_devices WHERE account_id = ?1 ORDER BY place")
        .map_err(failed)?;
    let freed = statement
        .query_map([Column(account)], |row| row.get::<_, u32>(0))
        .map_err(failed)?
        .collect::<rusqlite::Result<Vec<u32>>>()
        .map_err(failed)?;
    let never_used =
        (1..=MAX_DEVICE_ID).find(|id| !freed.contains(id) && !enlisted.iter().any(|device| device.id.get() == *id));
    // 16 devices of 127 ids: when none is unused, some are freed.
    let id = never_used.or_else(|| freed.first().copied()).ok_or(StoreError::Corrupt("list of device ids"))?;
    DeviceId::new(id).map_err(corrupt("device id"))
}

fn is_enlisted(db: &Connection, account: AccountId, device: DeviceId) -> Result<bool, StoreError> {
    db.prepare_cached("SELECT 1 FROM devices WHERE account_id = ?1 AND device_id = ?2")
        .map_err(failed)?
        .exists(params![Column(account), device.get()])
        .map_err(failed)
}

pub(super) fn remove_device(
    db: &Connection,
    account: AccountId,
    by: DeviceId,
    device: DeviceId,
    now_ms: u64,
) -> Result<Written<Removed>, StoreError> {
    if !is_enlisted(db, account, by)? {
        return Ok(Written::silent(Removed::NotEnlisted));
    }
    let of_device = params![Column(account), device.get()];
    let names: Option<(String, Vec<u8>)> = db
        .query_row(
            "SELECT a.address, d.noise_key FROM devices d JOIN accounts a ON a.account_id = d.account_id
             WHERE d.account_id = ?1 AND d.device_id = ?2",
            of_device,
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .map_err(failed)?;
    let Some((address, noise_key)) = names else { return Ok(Written::silent(Removed::NoDevice)) };
    retired::add(db, &address, &noise_key, now_ms)?;
    db.execute("DELETE FROM devices WHERE account_id = ?1 AND device_id = ?2", of_device).map_err(failed)?;
    for table in ["one_time_prekeys", "prekey_cursors"] {
        let sql = format!("DELETE FROM {table} WHERE account_id = ?1 AND device_id = ?2");
        db.execute(&sql, of_device).map_err(failed)?;
    }
    db.execute(
        "INSERT INTO freed_devices SELECT ?1, ?2, coalesce(max(place), 0) + 1 FROM freed_devices WHERE account_id = ?1",
        of_device,
    )
    .map_err(failed)?;
    told(Removed::Done, account, &address, What::Devices)
}

pub(super) fn withdraw(
    db: &Connection,
    account: AccountId,
    by: DeviceId,
    now_ms: u64,
) -> Result<Written<bool>, StoreError> {
    if !is_enlisted(db, account, by)? {
        return Ok(Written::silent(false));
    }
    let Some(address) = address_of(db, account)? else { return Ok(Written::silent(false)) };
    for device in devices(db, account)? {
        retired::add(db, &address, device.noise_key.as_bytes(), now_ms)?;
    }
    db.execute("DELETE FROM addresses WHERE address = ?1", [&address]).map_err(failed)?;
    for table in ["accounts", "devices", "freed_devices", "one_time_prekeys", "prekey_cursors", "provider_rules"] {
        db.execute(&format!("DELETE FROM {table} WHERE account_id = ?1"), [Column(account)]).map_err(failed)?;
    }
    db.execute("INSERT INTO withdrawn VALUES (?1, ?2)", params![Column(account), Column(now_ms)]).map_err(failed)?;
    told(true, account, &address, What::Withdrawn)
}

pub(super) fn address_of(db: &Connection, account: AccountId) -> Result<Option<String>, StoreError> {
    db.prepare_cached("SELECT address FROM accounts WHERE account_id = ?1")
        .map_err(failed)?
        .query_row([Column(account)], |row| row.get(0))
        .optional()
        .map_err(failed)
}

fn told<T>(outcome: T, account: AccountId, address: &str, what: What) -> Result<Written<T>, StoreError> {
    let address = address.parse().map_err(corrupt("address"))?;
    Ok(Written::told(outcome, Change::Record { address, account, what }))
}

/// What is stored already is not written, but told again: whoever set it may not have told it yet.
pub(super) fn set_push(
    db: &Connection,
    account: AccountId,
    device: DeviceId,
    token: Option<&PushToken>,
) -> Result<Written<bool>, StoreError> {
    let Some(record) = record(db, &Who::Account(account))? else { return Ok(Written::silent(false)) };
    let Some(stored) = record.device(device) else { return Ok(Written::silent(false)) };
    if stored.push_token.as_ref() != token {
        db.execute(
            "UPDATE devices SET push_token = ?3 WHERE account_id = ?1 AND device_id = ?2",
            params![Column(account), device.get(), token.map(|token| token.as_bytes().as_ref())],
        )
        .map_err(failed)?;
    }
    told(true, account, record.address.as_str(), What::Push)
}

/// What is stored already is not written, but told again: whoever set it may not have told it yet.
pub(super) fn set_consent(
    db: &Connection,
    account: AccountId,
    by: DeviceId,
    consent: &Consent,
) -> Result<Written<bool>, StoreError> {
    let record = record(db, &Who::Account(account))?.filter(|record| record.device(by).is_some());
    let Some(record) = record else { return Ok(Written::silent(false)) };
    if record.consent != *consent {
        replace_consent(db, account, consent)?;
    }
    told(true, account, record.address.as_str(), What::Consent)
}

fn replace_consent(db: &Connection, account: AccountId, consent: &Consent) -> Result<(), StoreError> {
    db.execute(
        "UPDATE accounts SET interop = ?2, inbox = ?3, reach = ?4 WHERE account_id = ?1",
        params![Column(account), consent.interop, Column(consent.inbox), Column(consent.reach)],
    )
    .map_err(failed)?;
    db.execute("DELETE FROM provider_rules WHERE account_id = ?1", [Column(account)]).map_err(failed)?;
    let mut insert = db.prepare_cached("INSERT INTO provider_rules VALUES (?1, ?2, ?3)").map_err(failed)?;
    for (provider, allow) in &consent.rules {
        insert.execute(params![Column(account), provider.as_str(), allow]).map_err(failed)?;
    }
    Ok(())
}
