//! Publishing and counting prekeys.

use std::collections::HashSet;

use async_trait::async_trait;
use causeway_identity::{AccountId, DeviceId};
use causeway_postgres::{Postgres, Row};

use super::accounts::Locked;
use super::rows::{account, device, get, number, small};
use super::statements::{
    DROP_SURPLUS_PREKEYS, IDENTITY, INSERT_PREKEYS, KEY_COUNTS, KNOWN_PREKEYS, LAST_PLACES, REPLACE_PREKEYS,
    SET_LAST_RESORT, SET_SIGNED,
};
use super::step::{Done, Failure, Step, Tx, Values, read};
use crate::keys::VerifiedPrekeys;
use crate::store::stored::{Listed as _, PrekeyKind, key_digest};
use crate::store::{KeyCounts, MAX_STORED_PREKEYS, Published, StoreError};

/// The step of publishing. Done again, it passes over the keys that it added.
pub(super) struct Publish<'a> {
    pub(super) account: AccountId,
    pub(super) device: DeviceId,
    pub(super) keys: &'a VerifiedPrekeys,
}

#[async_trait]
impl Step for Publish<'_> {
    type Outcome = Published;

    async fn attempt(&self, tx: &Tx<'_>, _: Option<&Done<Published>>) -> Result<Done<Published>, Failure> {
        let Some(_locked) = Locked::account(tx, self.account).await? else {
            return Ok(Done::nothing(Published::NoDevice));
        };
        let (id, number) = (account(&self.account), device(self.device));
        let mut batch = Batch::of(self.keys);
        let digests = batch.digests();
        let (both, all): (Values<'_>, Values<'_>) = (&[&id, &number], &[&id, &number, &digests]);
        let (identity, places, known) =
            futures::try_join!(tx.row(IDENTITY, both), tx.rows(LAST_PLACES, both), tx.rows(KNOWN_PREKEYS, all))?;
        let Some(identity) = identity else { return Ok(Done::nothing(Published::NoDevice)) };
        if get::<&[u8]>(&identity, 0)? != self.keys.identity_key.as_bytes() {
            return Ok(Done::nothing(Published::OtherIdentity));
        }
        let known: HashSet<Vec<u8>> = known.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
        batch.pass_over(&known);
        let places = places.first().ok_or(StoreError::Corrupt("row"))?;
        let places = [get::<Option<i64>>(places, 0)?.unwrap_or(0), get::<Option<i64>>(places, 1)?.unwrap_or(0)];
        if let Some(signed) = &self.keys.signed {
            let (key, signature) = (signed.key.as_bytes().as_slice(), signed.signature.as_bytes().as_slice());
            tx.execute(SET_SIGNED, &[&id, &number, &small(signed.id.get()), &key, &signature]).await?;
        }
        if let Some(last) = &self.keys.last_resort {
            let (key, signature) = (last.key.as_bytes().as_ref(), last.signature.as_bytes().as_slice());
            tx.execute(SET_LAST_RESORT, &[&id, &number, &small(last.id.get()), &key, &signature]).await?;
        }
        add(tx, self.account, self.device, &batch, places).await?;
        let row = tx.row(KEY_COUNTS, &[&id, &number]).await?.ok_or(StoreError::Corrupt("row"))?;
        Ok(Done::silently(Published::Done(counts_of(&row, 0)?)))
    }
}

/// How many one-time keys are in store; `None`: there is no such device.
pub(super) async fn counts(
    postgres: &Postgres,
    id: AccountId,
    number: DeviceId,
) -> Result<Option<KeyCounts>, StoreError> {
    let rows = read(postgres, KEY_COUNTS, &[&account(&id), &device(number)]).await?;
    rows.first().map(|row| counts_of(row, 0)).transpose()
}

/// Two columns.
pub(super) fn counts_of(row: &Row, first: usize) -> Result<KeyCounts, StoreError> {
    Ok(KeyCounts { ec: number::<i64, u32>(row, first)?, kyber: number::<i64, u32>(row, first + 1)? })
}

/// One-time keys that are to be added, by kind.
pub(super) struct Batch<'a>([(PrekeyKind, Vec<NewKey<'a>>); 2]);

struct NewKey<'a> {
    id: i32,
    digest: Vec<u8>,
    key: &'a [u8],
    signature: Option<&'a [u8]>,
}

impl<'a> Batch<'a> {
    pub(super) fn of(keys: &'a VerifiedPrekeys) -> Self {
        let new = |id: u32, key: &'a [u8], signature| NewKey { id: small(id), digest: key_digest(key), key, signature };
        let ec = keys.ec.iter().map(|prekey| new(prekey.id.get(), prekey.key.as_bytes(), None));
        let kyber = keys
            .kyber
            .iter()
            .map(|prekey| new(prekey.id.get(), prekey.key.as_bytes(), Some(prekey.signature.as_bytes().as_slice())));
        let mut batch = Self([(PrekeyKind::Ec, ec.collect()), (PrekeyKind::Kyber, kyber.collect())]);
        batch.pass_over(&HashSet::new());
        batch
    }

    fn digests(&self) -> Vec<&[u8]> {
        self.0.iter().flat_map(|(_, keys)| keys.iter().map(|key| key.digest.as_slice())).collect()
    }

    /// Without those that are known, and without what is in it twice: of two with a key the first stays, of two with an
    /// id the second.
    fn pass_over(&mut self, known: &HashSet<Vec<u8>>) {
        for (_, keys) in &mut self.0 {
            let mut seen = HashSet::new();
            keys.retain(|key| !known.contains(&key.digest) && seen.insert(key.digest.clone()));
            let mut ids = HashSet::new();
            keys.reverse();
            keys.retain(|key| ids.insert(key.id));
            keys.reverse();
        }
    }
}

/// Adds the keys behind those in store, of which the last of each kind has these places.
pub(super) async fn add(
    tx: &Tx<'_>,
    id: AccountId,
    number: DeviceId,
    batch: &Batch<'_>,
    last_places: [i64; 2],
) -> Result<(), Failure> {
    let (id, number) = (account(&id), device(number));
    for ((kind, keys), last_place) in batch.0.iter().zip(last_places) {
        if keys.is_empty() {
            continue;
        }
        let kind = kind.number();
        let ids: Vec<i32> = keys.iter().map(|key| key.id).collect();
        let digests: Vec<&[u8]> = keys.iter().map(|key| key.digest.as_slice()).collect();
        let publics: Vec<&[u8]> = keys.iter().map(|key| key.key).collect();
        let signatures: Vec<Option<&[u8]>> = keys.iter().map(|key| key.signature).collect();
        tx.execute(REPLACE_PREKEYS, &[&id, &number, &kind, &ids]).await?;
        tx.execute(INSERT_PREKEYS, &[&id, &number, &kind, &last_place, &ids, &digests, &publics, &signatures]).await?;
        tx.execute(DROP_SURPLUS_PREKEYS, &[&id, &number, &kind, &(MAX_STORED_PREKEYS as i64)]).await?;
    }
    Ok(())
}
