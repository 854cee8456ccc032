//! What a batch does inside its transaction: wave by wave, first looking, then writing, each for all accounts at once.
//!
//! To do a batch twice is as good as once, so it may be begun anew whenever it is not known to be committed. A put finds
//! its own entries by their number and counts them as kept; to forget, to drop and to release takes away what is there;
//! a claim finds itself the owner; usage only looks. (The results of the first time would be lost, therefore
//! `mailbox_writers`.)

use std::collections::{HashMap, HashSet};

use causeway_identity::{AccountId, DeviceId};
use causeway_postgres::{PostgresError, Row, Transaction};

use crate::mailbox::postgres::claims;
use crate::mailbox::postgres::ops::{Action, Done, Op, waves};
use crate::mailbox::postgres::rows::{self, Columns, Id};
use crate::mailbox::postgres::sql;
use crate::mailbox::{Bounds, DeviceUsage, Put, PutOutcome, ReplicaId, Usage};
use crate::message::{Enc, Seq, weight};

/// Does all operations; the results are in their order.
pub(super) async fn apply(tx: &Transaction<'_>, ops: &[Op], bounds: Bounds) -> Result<Vec<Done>, PostgresError> {
    let mut batch = Batch { tx, ops, bounds, owned: HashSet::new(), done: vec![None; ops.len()] };
    for wave in waves(ops) {
        // Boxed, since it holds all statements that a wave may do.
        Box::pin(batch.wave(&wave)).await?;
    }
    let done: Option<Vec<Done>> = batch.done.into_iter().collect();
    done.ok_or_else(|| PostgresError::Value("an operation has no result".to_owned()))
}

struct Batch<'t> {
    tx: &'t Transaction<'t>,
    ops: &'t [Op],
    bounds: Bounds,
    /// Whose ownership cannot end before the transaction does, because this has locked the row.
    owned: HashSet<(AccountId, ReplicaId)>,
    done: Vec<Option<Done>>,
}

impl<'t> Batch<'t> {
    async fn wave(&mut self, wave: &[usize]) -> Result<(), PostgresError> {
        let claims: Vec<usize> = self.select(wave, |action| matches!(action, Action::Claim));
        if !claims.is_empty() {
            for (at, done) in claims::claim(self.tx, self.ops, &claims).await? {
                let op = self.op(at);
                if matches!(done, Done::Claimed(crate::mailbox::Claimed::Ours { .. })) {
                    self.owned.insert((op.account, op.replica));
                }
                self.finish(at, done);
            }
        }
        let puts = self.select(wave, |action| matches!(action, Action::Put(_)));
        let counted = self.select(wave, |action| matches!(action, Action::Usage));
        let looked = self.look(wave, &puts, &counted).await?;
        for at in counted {
            let usage = looked.usage.get(&self.op(at).account).cloned().unwrap_or_default();
            self.finish(at, Done::Usage(usage));
        }
        let (allowed, fenced): (Vec<usize>, Vec<usize>) = wave.iter().partition(|&&at| {
            let op = self.op(at);
            !op.action.is_fenced() || self.owned.contains(&(op.account, op.replica))
        });
        for at in fenced {
            self.finish(at, Done::Fenced);
        }
        Box::pin(self.write(&allowed, looked)).await
    }

    fn op(&self, at: usize) -> &'t Op {
        &self.ops[at]
    }

    fn finish(&mut self, at: usize, done: Done) {
        if let Some(place) = self.done.get_mut(at) {
            *place = Some(done);
        }
    }

    fn select(&self, among: &[usize], which: impl Fn(&Action) -> bool) -> Vec<usize> {
        among.iter().copied().filter(|&at| which(&self.op(at).action)).collect()
    }

    /// Locks the owners' rows, and reads behind that what decisions need: all sent together, done one after the other.
    async fn look(&mut self, wave: &[usize], puts: &[usize], counted: &[usize]) -> Result<Looked, PostgresError> {
        let tx = self.tx;
        if crate::planted::is("owner-not-fenced") {
            let all: Vec<_> = wave.iter().map(|&at| (self.op(at).account, self.op(at).replica)).collect();
            self.owned.extend(all);
        }
        let mut writers: Vec<(Id, Id)> = wave
            .iter()
            .map(|&at| self.op(at))
            .filter(|op| op.action.is_fenced() && !self.owned.contains(&(op.account, op.replica)))
            .map(|op| (op.account.into(), op.replica.into()))
            .collect();
        writers.sort_unstable();
        writers.dedup();
        let (accounts, replicas): (Vec<Id>, Vec<Id>) = writers.into_iter().unzip();
        let fence = async {
            if accounts.is_empty() { Ok(Vec::new()) } else { tx.query(sql::FENCE, &[&accounts, &replicas]).await }
        };
        let keys = Keys::new(puts.iter().filter_map(|&at| as_put(self.op(at)).map(|put| (at, put))));
        let repeats = keys.repeats(tx);
        let usage = keys.usage(tx);
        let wanted: Vec<Id> = counted.iter().map(|&at| self.op(at).account.into()).collect();
        let all_usage =
            async { if wanted.is_empty() { Ok(Vec::new()) } else { tx.query(sql::USAGE, &[&wanted]).await } };
        let (fence, repeats, usage, all_usage) = futures::try_join!(fence, repeats, usage, all_usage)?;

        for row in &fence {
            self.owned.insert((rows::account(row, 0)?, rows::replica(row, 1)?));
        }
        let mut looked = Looked::default();
        for row in &repeats {
            let place = usize::try_from(rows::natural(row, 0)?).ok().and_then(|n| n.checked_sub(1));
            let part = place.and_then(|place| keys.places.get(place)).ok_or_else(|| rows::damaged(0))?;
            looked.repeats.insert(*part, Seq(rows::natural(row, 1)?));
        }
        for row in &usage {
            looked.devices.insert((rows::account(row, 0)?, rows::device(row, 1)?), rows::usage(row, 2)?);
        }
        for row in &all_usage {
            let (account, known) = rows::device_usage(row)?;
            looked.usage.entry(account).or_default().push(known);
        }
        Ok(looked)
    }

    /// Decides about the puts, and does everything else that writes.
    async fn write(&mut self, allowed: &[usize], mut looked: Looked) -> Result<(), PostgresError> {
        let tx = self.tx;
        let mut columns = Columns::default();
        let mut more: HashMap<(AccountId, DeviceId), Usage> = HashMap::new();
        let mut released: (Vec<Id>, Vec<Id>) = Default::default();
        let mut forgotten: (Vec<Id>, Vec<i32>, Vec<i64>) = Default::default();
        let mut dropped: Vec<(usize, AccountId, Option<Device>)> = Vec::new();
        let mut fresh_keys: HashSet<PartKey> = HashSet::new();
        for &at in allowed {
            let op = self.op(at);
            match &op.action {
                Action::Put(put) => {
                    let (outcome, fresh) = decide(at, put, &mut looked, &mut fresh_keys, self.bounds);
                    for part in fresh {
                        columns.push(put, part);
                        more.entry((put.account, part.device)).or_default().add(Usage::one(weight(part)));
                    }
                    self.finish(at, Done::Put(outcome));
                }
                Action::Release => {
                    released.0.push(op.account.into());
                    released.1.push(op.replica.into());
                    self.owned.remove(&(op.account, op.replica));
                    self.finish(at, Done::Gone);
                }
                Action::Forget { device, upto } => {
                    forgotten.0.push(op.account.into());
                    forgotten.1.push(rows::device_number(*device));
                    forgotten.2.push(rows::integer(upto.0));
                }
                Action::DropDevice { device, keep } => dropped.push((at, op.account, Some((*device, *keep)))),
                Action::DropAccount => dropped.push((at, op.account, None)),
                Action::Claim | Action::Usage => {}
            }
        }
        let insert =
            async { if columns.is_empty() { Ok(0) } else { tx.execute(sql::INSERT, &columns.values()).await } };
        let count = add_usage(tx, more);
        let release = async {
            if released.0.is_empty() { Ok(0) } else { tx.execute(sql::RELEASE, &[&released.0, &released.1]).await }
        };
        let forget = async {
            let (accounts, devices, upto) = &forgotten;
            if accounts.is_empty() { Ok(Vec::new()) } else { tx.query(sql::FORGET, &[accounts, devices, upto]).await }
        };
        let (_, _, _, erased) = futures::try_join!(insert, count, release, forget)?;
        self.forgotten(allowed, &erased)?;
        for (at, account, device) in dropped {
            let done = drop_entries(tx, account, device).await?;
            self.finish(at, done);
        }
        Ok(())
    }

    fn forgotten(&mut self, allowed: &[usize], erased: &[Row]) -> Result<(), PostgresError> {
        let mut sums: HashMap<(AccountId, DeviceId), Usage> = HashMap::with_capacity(erased.len());
        for row in erased {
            sums.insert((rows::account(row, 0)?, rows::device(row, 1)?), rows::usage(row, 2)?);
        }
        for &at in allowed {
            let op = self.op(at);
            if let Action::Forget { device, .. } = &op.action {
                let usage = sums.get(&(op.account, *device)).copied().unwrap_or_default();
                self.finish(at, Done::Erased(usage));
            }
        }
        Ok(())
    }
}

/// What a wave found.
#[derive(Default)]
struct Looked {
    /// Parts of puts that are there already, and the entry's number.
    repeats: HashMap<Part, Seq>,
    /// What waits for devices to which puts go, counting what the wave has added so far.
    devices: HashMap<(AccountId, DeviceId), Usage>,
    /// What waits for accounts that are asked for.
    usage: HashMap<AccountId, Vec<DeviceUsage>>,
}

/// A device, and the registration whose entries stay.
type Device = (DeviceId, Option<u32>);

/// Position of a put in the batch, and of a part in the put.
type Part = (usize, usize);

/// What makes a part of a put a repeat of another.
type PartKey = (AccountId, DeviceId, Id, DeviceId, Id, u32);

fn part_key(put: &Put, part: &Enc) -> PartKey {
    let key = &put.header.key;
    (put.account, part.device, key.account.into(), key.device, key.id.into(), part.registration)
}

fn as_put(op: &Op) -> Option<&Put> {
    match &op.action {
        Action::Put(put) => Some(put),
        _ => None,
    }
}

/// What puts are looked up by, as columns.
#[derive(Default)]
struct Keys {
    places: Vec<Part>,
    account: Vec<Id>,
    sender_account: Vec<Id>,
    sender_device: Vec<i32>,
    message: Vec<Id>,
    device: Vec<i32>,
    registration: Vec<i64>,
    /// Each device once.
    devices: (Vec<Id>, Vec<i32>),
}

impl Keys {
    fn new<'p>(puts: impl Iterator<Item = (usize, &'p Put)>) -> Self {
        let mut keys = Self::default();
        let mut devices = HashSet::new();
        for (at, put) in puts {
            let key = &put.header.key;
            for (part, enc) in put.parts.iter().enumerate() {
                keys.places.push((at, part));
                keys.account.push(put.account.into());
                keys.sender_account.push(key.account.into());
                keys.sender_device.push(rows::device_number(key.device));
                keys.message.push(key.id.into());
                keys.device.push(rows::device_number(enc.device));
                keys.registration.push(enc.registration.into());
                devices.insert((put.account, enc.device));
            }
        }
        keys.devices =
            devices.into_iter().map(|(account, device)| (Id::from(account), rows::device_number(device))).unzip();
        keys
    }

    async fn repeats(&self, tx: &Transaction<'_>) -> Result<Vec<Row>, PostgresError> {
        if self.places.is_empty() {
            return Ok(Vec::new());
        }
        let Self { account, sender_account, sender_device, message, device, registration, .. } = self;
        tx.query(sql::REPEATS, &[account, sender_account, sender_device, message, device, registration]).await
    }

    async fn usage(&self, tx: &Transaction<'_>) -> Result<Vec<Row>, PostgresError> {
        if self.places.is_empty() {
            return Ok(Vec::new());
        }
        tx.query(sql::DEVICE_USAGE, &[&self.devices.0, &self.devices.1]).await
    }
}

/// What becomes of a put, and which of its parts are to be inserted. Those before it in the wave count.
fn decide<'p>(
    at: usize,
    put: &'p Put,
    looked: &mut Looked,
    fresh_keys: &mut HashSet<PartKey>,
    bounds: Bounds,
) -> (PutOutcome, Vec<&'p Enc>) {
    let (mut repeats, mut fresh) = (Vec::new(), Vec::new());
    for (place, part) in put.parts.iter().enumerate() {
        match looked.repeats.get(&(at, place)) {
            // This very put, when it was done the first time.
            Some(seq) if *seq == put.header.seq => {}
            Some(_) => repeats.push(part.device),
            None if fresh_keys.contains(&part_key(put, part)) => repeats.push(part.device),
            None => fresh.push(part),
        }
    }
    // Looked at before the first is kept: a put is kept whole or not at all.
    for part in &fresh {
        let mut usage = looked.devices.get(&(put.account, part.device)).copied().unwrap_or_default();
        usage.add(Usage::one(weight(part)));
        if usage.messages > bounds.messages || usage.bytes > bounds.bytes {
            return (PutOutcome::Full, Vec::new());
        }
    }
    for part in &fresh {
        looked.devices.entry((put.account, part.device)).or_default().add(Usage::one(weight(part)));
        fresh_keys.insert(part_key(put, part));
    }
    (PutOutcome::Stored { repeats }, fresh)
}

async fn add_usage(tx: &Transaction<'_>, more: HashMap<(AccountId, DeviceId), Usage>) -> Result<u64, PostgresError> {
    if more.is_empty() {
        return Ok(0);
    }
    let mut columns: (Vec<Id>, Vec<i32>, Vec<i64>, Vec<i64>) = Default::default();
    for ((account, device), usage) in more {
        columns.0.push(account.into());
        columns.1.push(rows::device_number(device));
        columns.2.push(rows::integer(usage.messages));
        columns.3.push(rows::integer(usage.bytes));
    }
    tx.execute(sql::ADD_USAGE, &[&columns.0, &columns.1, &columns.2, &columns.3]).await
}

async fn drop_entries(tx: &Transaction<'_>, account: AccountId, device: Option<Device>) -> Result<Done, PostgresError> {
    let account = Id::from(account);
    let Some((device, keep)) = device else {
        tx.execute(sql::DROP_ACCOUNT, &[&account]).await?;
        return Ok(Done::Gone);
    };
    let row = tx.query_one(sql::DROP_DEVICE, &[&account, &rows::device_number(device), &keep.map(i64::from)]).await?;
    Ok(Done::Erased(rows::usage(&row, 0)?))
}
