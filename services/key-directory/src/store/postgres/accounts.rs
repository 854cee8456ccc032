//! Readings of accounts, and the locks that changes of them begin with.

use std::collections::BTreeMap;

use bytes::Bytes;
use causeway_identity::{AccountId, Address, DeviceId, NoiseKey, ProviderId};
use causeway_postgres::{Postgres, Row};

use super::rows::{account, account_id, device, device_id, get, listed, number};
use super::statements::{ACCOUNT_OF_ADDRESS, IS_ENLISTED, KNOWN_DEVICE, LOCK_ACCOUNT, RECORD};
use super::step::{Failure, Tx, read};
use crate::accounts::{Device, PushToken, Record};
use crate::consent::Consent;
use crate::keys::RegistrationId;
use crate::providers::ProviderRef;
use crate::store::stored::{corrupt, ec_key};
use crate::store::{Change, KnownDevice, StoreError, What, Who};

/// The record, in one statement. By address it takes two, in between which the address may go to another account: then
/// the first had none for a moment, and that is the answer.
pub(super) async fn record(postgres: &Postgres, who: &Who) -> Result<Option<Record>, StoreError> {
    let id = match who {
        Who::Account(id) => *id,
        Who::Address(address) => {
            let rows = read(postgres, ACCOUNT_OF_ADDRESS, &[&address.as_str()]).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            account_id(row, 0)?
        }
    };
    let rows = read(postgres, RECORD, &[&account(&id)]).await?;
    let Some(head) = rows.first() else { return Ok(None) };
    let devices: Result<Vec<Device>, StoreError> =
        if get::<Option<i32>>(head, 10)?.is_some() { rows.iter().map(device_of).collect() } else { Ok(Vec::new()) };
    Ok(Some(Record {
        account: id,
        address: get::<&str>(head, 0)?.parse().map_err(corrupt("address"))?,
        provider: ProviderRef {
            id: ProviderId::try_from(get::<&[u8]>(head, 4)?).map_err(corrupt("provider id"))?,
            domain: get::<&str>(head, 5)?.parse().map_err(corrupt("provider"))?,
            kind: listed(head, 6)?,
            status: listed(head, 7)?,
        },
        devices: devices?,
        consent: consent(head, [1, 2, 3, 8, 9])?,
    }))
}

/// What a login needs to know of a device, in one statement after the account is known.
pub(super) async fn known_device(
    postgres: &Postgres,
    address: &Address,
    id: DeviceId,
    low: u32,
) -> Result<Option<KnownDevice>, StoreError> {
    let rows = read(postgres, ACCOUNT_OF_ADDRESS, &[&address.as_str()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let of = account_id(row, 0)?;
    let rows = read(postgres, KNOWN_DEVICE, &[&account(&of), &device(id), &i64::from(low)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let registration_id: u32 = number::<i32, u32>(row, 1)?;
    let is_low = |column| Ok::<_, StoreError>(number::<i64, u32>(row, column)? < low);
    Ok(Some(KnownDevice {
        account: of,
        noise_key: NoiseKey::try_from(get::<&[u8]>(row, 0)?).map_err(corrupt("Noise key"))?,
        registration_id: RegistrationId::try_from(registration_id).map_err(corrupt("registration id"))?,
        devices: number::<i64, u32>(row, 2)?,
        is_low: is_low(3)? || is_low(4)?,
    }))
}

/// From these columns: interop, inbox, reach, and the rules' providers and answers.
pub(super) fn consent(row: &Row, [interop, inbox, reach, domains, allows]: [usize; 5]) -> Result<Consent, StoreError> {
    let rules = get::<Vec<String>>(row, domains)?.into_iter().zip(get::<Vec<bool>>(row, allows)?);
    let rules: Result<BTreeMap<_, _>, StoreError> =
        rules.map(|(domain, allow)| Ok((domain.parse().map_err(corrupt("provider rule"))?, allow))).collect();
    Ok(Consent { interop: get(row, interop)?, inbox: listed(row, inbox)?, reach: listed(row, reach)?, rules: rules? })
}

fn device_of(row: &Row) -> Result<Device, StoreError> {
    let registration_id: u32 = number::<i32, u32>(row, 12)?;
    let push_token: Option<Vec<u8>> = get(row, 15)?;
    Ok(Device {
        id: device_id(row, 10)?,
        noise_key: NoiseKey::try_from(get::<&[u8]>(row, 11)?).map_err(corrupt("Noise key"))?,
        registration_id: RegistrationId::try_from(registration_id).map_err(corrupt("registration id"))?,
        identity_key: ec_key(get(row, 13)?)?,
        enlisted_ms: number::<i64, u64>(row, 14)?,
        push_token: push_token.and_then(|bytes| PushToken::new(Bytes::from(bytes))),
    })
}

/// An account that nobody else changes until the end of the transaction.
pub(super) struct Locked {
    pub(super) id: AccountId,
    pub(super) address: String,
}

impl Locked {
    /// Waits for whoever changes the account now; `None` if there is no such account then.
    pub(super) async fn account(tx: &Tx<'_>, id: AccountId) -> Result<Option<Self>, Failure> {
        let row = tx.row(LOCK_ACCOUNT, &[&account(&id)]).await?;
        Ok(row.map(|row| get(&row, 0).map(|address| Self { id, address })).transpose()?)
    }

    /// The same if it has this device, on whose behalf it is to be changed.
    pub(super) async fn by_device(tx: &Tx<'_>, id: AccountId, by: DeviceId) -> Result<Option<Self>, Failure> {
        let Some(locked) = Self::account(tx, id).await? else { return Ok(None) };
        let enlisted = tx.row(IS_ENLISTED, &[&account(&id), &device(by)]).await?;
        Ok(enlisted.map(|_| locked))
    }

    /// What followers must be told.
    pub(super) fn change(&self, what: What) -> Result<Change, Failure> {
        let address: Address = self.address.parse().map_err(corrupt("address"))?;
        Ok(Change::Record { address, account: self.id, what })
    }
}
