//! Who owns an account: claims and releases inside a batch's transaction.
//!
//! Two statements that follow each other each see what was committed before them, so: owners are locked first, then leases
//! that have run out are ended, which a renewal cannot overtake, and only then it is decided who may have the account.

use std::collections::HashMap;

use causeway_identity::AccountId;
use causeway_postgres::{PostgresError, Transaction};

use crate::mailbox::postgres::ops::{Done, Op};
use crate::mailbox::postgres::rows::{self, Id};
use crate::mailbox::postgres::sql;
use crate::mailbox::{Claimed, DeviceUsage, Replica, ReplicaId};

/// Results of claims, each of another account; `claims` are positions in `ops`.
pub(super) async fn claim(
    tx: &Transaction<'_>,
    ops: &[Op],
    claims: &[usize],
) -> Result<Vec<(usize, Done)>, PostgresError> {
    let all: Vec<(usize, AccountId, ReplicaId)> =
        claims.iter().filter_map(|&at| ops.get(at).map(|op| (at, op.account, op.replica))).collect();
    let (accounts, replicas) = arrays(&all);
    let alive = async { tx.query(sql::ALIVE, &[&replicas]).await };
    let held = async { tx.query(sql::HELD, &[&accounts, &replicas]).await };
    let (alive, held) = futures::try_join!(alive, held)?;
    let alive: Vec<ReplicaId> = alive.iter().map(|row| rows::replica(row, 0)).collect::<Result<_, _>>()?;
    let mut held = owners(&held)?;

    let mut results = Vec::with_capacity(all.len());
    let mut open = Vec::new();
    for (at, account, replica) in all {
        if !alive.contains(&replica) {
            results.push((at, Done::Fenced));
        } else if let Some(owner) = held.remove(&account) {
            results.push((at, Done::Claimed(Claimed::Held(owner))));
        } else {
            open.push((at, account, replica));
        }
    }
    if !open.is_empty() {
        decide(tx, open, &mut results).await?;
    }
    Ok(results)
}

/// Takes the accounts unless, when it comes to it, somebody has them nevertheless.
async fn decide(
    tx: &Transaction<'_>,
    open: Vec<(usize, AccountId, ReplicaId)>,
    results: &mut Vec<(usize, Done)>,
) -> Result<(), PostgresError> {
    let (accounts, replicas) = arrays(&open);
    let take = async { tx.query(sql::CLAIM_FREE, &[&accounts, &replicas]).await };
    let lock = async { tx.query(sql::LOCK_OWNERS, &[&accounts]).await };
    let end = async { tx.execute(sql::END_LEASES, &[&accounts]).await };
    let look = async { tx.query(sql::LIVE_OWNERS, &[&accounts]).await };
    // Sent together, done one after the other.
    let (taken, before, _, live) = futures::try_join!(take, lock, end, look)?;
    let taken: Vec<AccountId> = taken.iter().map(|row| rows::account(row, 0)).collect::<Result<_, _>>()?;
    let mut locked = HashMap::with_capacity(before.len());
    for row in &before {
        locked.insert(rows::account(row, 0)?, rows::replica(row, 1)?);
    }
    let mut live = owners(&live)?;

    let mut ours = Vec::with_capacity(open.len());
    let mut previous = HashMap::new();
    for (at, account, replica) in open {
        let Some(&owner) = locked.get(&account) else {
            // Released between the first two statements; the batch is begun anew.
            return Err(PostgresError::Lost("an account was released while it was claimed".to_owned()));
        };
        match live.remove(&account) {
            Some(other) if other.id != replica => results.push((at, Done::Claimed(Claimed::Held(other)))),
            _ => {
                if !taken.contains(&account) {
                    previous.insert(account, owner);
                }
                ours.push((at, account, replica));
            }
        }
    }
    let (accounts, replicas) = arrays(&ours);
    // Behind the locks: nobody's earlier write can come after this.
    let take = async { tx.execute(sql::CLAIM, &[&accounts, &replicas]).await };
    let count = async { tx.query(sql::USAGE, &[&accounts]).await };
    let (_, found) = futures::try_join!(take, count)?;
    let mut usage: HashMap<AccountId, Vec<DeviceUsage>> = HashMap::new();
    for row in &found {
        let (account, known) = rows::device_usage(row)?;
        usage.entry(account).or_default().push(known);
    }
    for (at, account, _) in ours {
        let usage = usage.remove(&account).unwrap_or_default();
        results.push((at, Done::Claimed(Claimed::Ours { usage, before: previous.remove(&account) })));
    }
    Ok(())
}

fn arrays(all: &[(usize, AccountId, ReplicaId)]) -> (Vec<Id>, Vec<Id>) {
    all.iter().map(|&(_, account, replica)| (Id::from(account), Id::from(replica))).unzip()
}

fn owners(rows: &[causeway_postgres::Row]) -> Result<HashMap<AccountId, Replica>, PostgresError> {
    rows.iter().map(|row| Ok((rows::account(row, 0)?, rows::known_replica(row, 1)?))).collect()
}
