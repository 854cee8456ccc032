//! Claiming prekey bundles.

use std::collections::HashMap;

use async_trait::async_trait;
use causeway_identity::{AccountId, Address, DeviceId};
use causeway_postgres::{Postgres, Row};

use super::prekeys::counts_of;
use super::rows::{account, device, device_id, get, number, prekey};
use super::statements::{BUNDLES, LOCK_ACCOUNT, Sql, TAKE_PREKEYS};
use super::step::{Done, Failure, Step, Tx, Values, read};
use crate::keys::{EcPrekey, RegistrationId};
use crate::store::stored::{Listed as _, PrekeyKind, StoredPrekey, corrupt, ec_key, prekey_id};
use crate::store::{Bundle, REMEMBERED_PREKEYS, StoreError, low_prekeys};

/// The step of taking one-time keys. It is not tried again after a commit without an answer: the keys may have been
/// taken then, and nobody else gets them; whoever asks again gets others.
pub(super) struct Claim<'a> {
    pub(super) account: AccountId,
    pub(super) devices: &'a [DeviceId],
    pub(super) low: u32,
}

#[async_trait]
impl Step for Claim<'_> {
    type Outcome = Vec<Bundle>;

    /// The order matters: see the statement that takes.
    const TOGETHER: &'static [Sql] = &[LOCK_ACCOUNT, TAKE_PREKEYS, BUNDLES];
    const REPEATABLE: bool = false;

    async fn attempt(&self, tx: &Tx<'_>, _: Option<&Done<Vec<Bundle>>>) -> Result<Done<Vec<Bundle>>, Failure> {
        let (id, numbers) = (account(&self.account), numbers(self.devices));
        let remembered = REMEMBERED_PREKEYS as i64;
        let (one, both, all): (Values<'_>, Values<'_>, Values<'_>) =
            (&[&id], &[&id, &numbers], &[&id, &numbers, &remembered]);
        let (locked, taken, heads) =
            futures::try_join!(tx.row(LOCK_ACCOUNT, one), tx.rows(TAKE_PREKEYS, all), tx.rows(BUNDLES, both))?;
        let Some(locked) = locked else { return Ok(Done::nothing(Vec::new())) };
        let none_taken = taken.is_empty();
        let bundles = bundles(self.devices, &heads, &taken)?;
        if none_taken {
            return Ok(Done::nothing(bundles));
        }
        let address: Address = get::<&str>(&locked, 0)?.parse().map_err(corrupt("address"))?;
        let changes = low_prekeys(self.account, &address, &bundles, self.low);
        Ok(Done::told(bundles, changes))
    }
}

/// Bundles without one-time keys.
pub(super) async fn peek(postgres: &Postgres, id: AccountId, devices: &[DeviceId]) -> Result<Vec<Bundle>, StoreError> {
    let heads = read(postgres, BUNDLES, &[&account(&id), &numbers(devices)]).await?;
    bundles(devices, &heads, &[])
}

fn numbers(devices: &[DeviceId]) -> Vec<i32> {
    let mut numbers: Vec<i32> = devices.iter().copied().map(device).collect();
    // A device that was named twice would be given one key twice.
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Puts together what belongs together, in the order of `devices`.
fn bundles(devices: &[DeviceId], heads: &[Row], taken: &[Row]) -> Result<Vec<Bundle>, StoreError> {
    let mut one_time: HashMap<(DeviceId, i16), StoredPrekey> = HashMap::new();
    for row in taken {
        one_time.insert((device_id(row, 0)?, get(row, 1)?), prekey(row, 2)?);
    }
    let mut found: HashMap<DeviceId, Bundle> = HashMap::new();
    for row in heads {
        let device = device_id(row, 0)?;
        let ec = one_time.remove(&(device, PrekeyKind::Ec.number()));
        let kyber = one_time.remove(&(device, PrekeyKind::Kyber.number()));
        let bundle = Bundle {
            device,
            registration_id: RegistrationId::try_from(number::<i32, u32>(row, 1)?)
                .map_err(corrupt("registration id"))?,
            identity_key: ec_key(get(row, 2)?)?,
            signed: prekey(row, 3)?.signed_ec()?,
            taken: (ec.is_some(), kyber.is_some()),
            ec: ec
                .map(|stored| Ok::<_, StoreError>(EcPrekey { id: prekey_id(stored.id)?, key: ec_key(&stored.key)? }))
                .transpose()?,
            kyber: kyber.map_or_else(|| prekey(row, 6), Ok)?.kyber()?,
            left: counts_of(row, 9)?,
        };
        found.insert(device, bundle);
    }
    Ok(devices.iter().filter_map(|device| found.remove(device)).collect())
}
