//! Enlisting a device, and with the first one its account.

use async_trait::async_trait;
use causeway_identity::{AccountId, DeviceId};
use causeway_postgres::Row;

use super::accounts::Locked;
use super::prekeys::{self, Batch};
use super::rows::{account, account_id, big, device, device_id, get, small};
use super::statements::{
    ACCOUNT_OF_ADDRESS, CREATE_ACCOUNT, DEVICES, FREED_DEVICES, INSERT_DEVICE, IS_RETIRED, REUSE_DEVICE, TAKE_ADDRESS,
    WAS_WITHDRAWN,
};
use super::step::{Done, Failure, Step, Tx};
use crate::consent::Consent;
use crate::store::stored::{Listed as _, RetiredNames};
use crate::store::{Change, Enlisted, Enlistment, MAX_DEVICE_ID, StoreError, What};

/// An address changes hands while we look at it no more often than this, since each time somebody has withdrawn.
const ATTEMPTS: usize = 8;

/// The step. Done again, it finds the device that it added.
pub(super) struct Enlist<'a>(pub(super) &'a Enlistment);

#[async_trait]
impl Step for Enlist<'_> {
    type Outcome = Enlisted;

    async fn attempt(&self, tx: &Tx<'_>, _: Option<&Done<Enlisted>>) -> Result<Done<Enlisted>, Failure> {
        let new = self.0;
        let owner = self.owner(tx).await?;
        let devices = match owner {
            Owner::There(id) => tx.rows(DEVICES, &[&account(&id)]).await?,
            Owner::ToBeMade => Vec::new(),
        };
        let mut enlisted = Vec::with_capacity(devices.len());
        for row in &devices {
            let id = device_id(row, 0)?;
            if let Owner::There(account) = owner
                && get::<&[u8]>(row, 1)? == new.noise_key.as_bytes()
            {
                if !self.is_same(row)? {
                    return Ok(Done::nothing(Enlisted::OtherKeys));
                }
                return Ok(Done::told(Enlisted::Before { account, device: id }, [self.change(account)]));
            }
            enlisted.push(id);
        }
        let names = RetiredNames::of(new.address.as_str(), new.noise_key.as_bytes());
        if tx.row(IS_RETIRED, &[&names.owner, &names.key, &big(new.now_ms)]).await?.is_some() {
            return Ok(Done::nothing(Enlisted::Retired));
        }
        if enlisted.len() >= DeviceId::MAX_PER_ACCOUNT {
            return Ok(Done::nothing(Enlisted::DeviceLimit));
        }
        let id = match owner {
            Owner::There(id) => id,
            Owner::ToBeMade => self.create(tx).await?,
        };
        let device = free_device_id(tx, id, &enlisted).await?;
        self.insert(tx, id, device).await?;
        let batch = Batch::of(&new.keys);
        // Of a device that was not there nothing is known.
        prekeys::add(tx, id, device, &batch, [0, 0]).await?;
        Ok(Done::told(Enlisted::Added { account: id, device }, [self.change(id)]))
    }
}

#[derive(Clone, Copy)]
enum Owner {
    /// Locked.
    There(AccountId),
    /// The address is ours to give, as nobody else can take it.
    ToBeMade,
}

impl Enlist<'_> {
    /// The account of the address, locked; or else the address itself is taken. What is read behind this is what is.
    async fn owner(&self, tx: &Tx<'_>) -> Result<Owner, Failure> {
        let new = self.0;
        for _ in 0..ATTEMPTS {
            match tx.row(ACCOUNT_OF_ADDRESS, &[&new.address.as_str()]).await? {
                Some(row) => {
                    let id = account_id(&row, 0)?;
                    // It may have been withdrawn while its lock was waited for.
                    if Locked::account(tx, id).await?.is_some() {
                        return Ok(Owner::There(id));
                    }
                }
                None => {
                    let id = account(&new.new_account);
                    if tx.execute(TAKE_ADDRESS, &[&id, &new.address.as_str()]).await? == 1 {
                        return Ok(Owner::ToBeMade);
                    }
                }
            }
        }
        Err(StoreError::Away("the address changes hands".to_owned()).into())
    }

    fn is_same(&self, row: &Row) -> Result<bool, StoreError> {
        let registration: i32 = get(row, 2)?;
        let identity: &[u8] = get(row, 3)?;
        Ok(registration == small(self.0.registration_id.get()) && identity == self.0.keys.identity_key.as_bytes())
    }

    async fn create(&self, tx: &Tx<'_>) -> Result<AccountId, Failure> {
        let new = self.0;
        let consent = Consent::default();
        let created = tx
            .execute(
                CREATE_ACCOUNT,
                &[
                    &account(&new.new_account),
                    &new.address.as_str(),
                    &new.provider.as_bytes().as_slice(),
                    &big(new.now_ms),
                    &consent.interop,
                    &consent.inbox.number(),
                    &consent.reach.number(),
                ],
            )
            .await?;
        let used = tx.row(WAS_WITHDRAWN, &[&account(&new.new_account)]).await?;
        if created == 0 || used.is_some() {
            return Err(StoreError::Failed("the account id is not new".to_owned()).into());
        }
        Ok(new.new_account)
    }

    async fn insert(&self, tx: &Tx<'_>, id: AccountId, number: DeviceId) -> Result<(), Failure> {
        let new = self.0;
        let (Some(signed), Some(last_resort)) = (&new.keys.signed, &new.keys.last_resort) else {
            return Err(StoreError::Corrupt("enlistment").into());
        };
        tx.execute(
            INSERT_DEVICE,
            &[
                &account(&id),
                &device(number),
                &new.noise_key.as_bytes().as_slice(),
                &small(new.registration_id.get()),
                &new.keys.identity_key.as_bytes().as_slice(),
                &big(new.now_ms),
                &small(signed.id.get()),
                &signed.key.as_bytes().as_slice(),
                &signed.signature.as_bytes().as_slice(),
                &small(last_resort.id.get()),
                &last_resort.key.as_bytes().as_ref(),
                &last_resort.signature.as_bytes().as_slice(),
            ],
        )
        .await?;
        tx.execute(REUSE_DEVICE, &[&account(&id), &device(number)]).await?;
        Ok(())
    }

    fn change(&self, account: AccountId) -> Change {
        Change::Record { address: self.0.address.clone(), account, what: What::Devices }
    }
}

async fn free_device_id(tx: &Tx<'_>, id: AccountId, enlisted: &[DeviceId]) -> Result<DeviceId, Failure> {
    let rows = tx.rows(FREED_DEVICES, &[&account(&id)]).await?;
    let freed: Vec<DeviceId> = rows.iter().map(|row| device_id(row, 0)).collect::<Result<_, _>>()?;
    let numbers = (1..=MAX_DEVICE_ID).filter_map(|number| DeviceId::new(number).ok());
    let mut never_used = numbers.filter(|id| !freed.contains(id) && !enlisted.contains(id));
    // 16 devices of 127 ids: when none is unused, some are freed.
    let id = never_used.next().or_else(|| freed.first().copied());
    Ok(id.ok_or(StoreError::Corrupt("list of device ids"))?)
}
