//! The queued operations, what each does inside a transaction, and whom it tells.

use causeway_identity::{AccountId, DeviceId};
use rusqlite::{Connection, OptionalExtension as _, ToSql, params};
use tokio::sync::oneshot;

use crate::mailbox::sqlite::{failed, rows};
use crate::mailbox::{Bounds, DeviceUsage, Put, PutOutcome, StoreError, Usage};
use crate::message::{Enc, Seq, weight};

type To<T> = oneshot::Sender<Result<T, StoreError>>;

/// An operation that waits for its turn.
pub(super) enum Op {
    Put(Put, To<PutOutcome>),
    Forget { account: AccountId, device: DeviceId, upto: Seq, reply: To<Usage> },
    DropDevice { account: AccountId, device: DeviceId, keep: Option<u32>, reply: To<Usage> },
    DropAccount { account: AccountId, reply: To<()> },
    Expire { now_ms: u64, limit: u32, reply: To<u64> },
    Usage { account: AccountId, reply: To<Vec<DeviceUsage>> },
}

/// What an operation has done, if the transaction is committed.
pub(super) enum Applied {
    Put(PutOutcome),
    Erased(Usage),
    Expired(u64),
    Usage(Vec<DeviceUsage>),
}

/// A result and whom to tell it.
pub(super) enum Reply {
    Put(To<PutOutcome>, PutOutcome),
    Erased(To<Usage>, Usage),
    Dropped(To<()>),
    Expired(To<u64>, u64),
    Usage(To<Vec<DeviceUsage>>, Vec<DeviceUsage>),
}

impl Reply {
    /// Tells it. Nobody may be waiting any more.
    pub(super) fn send(self) {
        match self {
            Self::Put(to, result) => drop(to.send(Ok(result))),
            Self::Erased(to, result) => drop(to.send(Ok(result))),
            Self::Dropped(to) => drop(to.send(Ok(()))),
            Self::Expired(to, result) => drop(to.send(Ok(result))),
            Self::Usage(to, result) => drop(to.send(Ok(result))),
        }
    }
}

impl Op {
    /// Does it inside the open transaction.
    pub(super) fn apply(&self, db: &Connection, bounds: Bounds) -> Result<Applied, StoreError> {
        match self {
            Self::Put(put, _) => apply_put(db, put, bounds).map(Applied::Put),
            Self::Forget { account, device, upto, .. } => {
                let sql = "DELETE FROM entries WHERE account_id = ?1 AND device_id = ?2 AND seq <= ?3 RETURNING weight";
                erase(db, sql, params![account.as_bytes(), device.get(), rows::integer(upto.0)])
            }
            Self::DropDevice { account, device, keep, .. } => {
                let sql = "DELETE FROM entries WHERE account_id = ?1 AND device_id = ?2
                           AND (?3 IS NULL OR registration_id <> ?3) RETURNING weight";
                erase(db, sql, params![account.as_bytes(), device.get(), keep])
            }
            Self::DropAccount { account, .. } => {
                erase(db, "DELETE FROM entries WHERE account_id = ?1 RETURNING weight", params![account.as_bytes()])
            }
            Self::Expire { now_ms, limit, .. } => {
                let sql = "DELETE FROM entries WHERE rowid IN
                           (SELECT rowid FROM entries WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)";
                let mut statement = db.prepare_cached(sql).map_err(failed)?;
                let erased = statement.execute(params![rows::integer(*now_ms), limit]).map_err(failed)?;
                Ok(Applied::Expired(erased as u64))
            }
            Self::Usage { account, .. } => rows::usage(db, *account).map(Applied::Usage),
        }
    }

    /// Pairs the result with whoever waits for it. Each operation has one kind of result, so there always is a pair.
    pub(super) fn reply(self, applied: Applied) -> Option<Reply> {
        match (self, applied) {
            (Self::Put(_, to), Applied::Put(result)) => Some(Reply::Put(to, result)),
            (Self::Forget { reply, .. } | Self::DropDevice { reply, .. }, Applied::Erased(result)) => {
                Some(Reply::Erased(reply, result))
            }
            (Self::DropAccount { reply, .. }, Applied::Erased(_)) => Some(Reply::Dropped(reply)),
            (Self::Expire { reply, .. }, Applied::Expired(result)) => Some(Reply::Expired(reply, result)),
            (Self::Usage { reply, .. }, Applied::Usage(result)) => Some(Reply::Usage(reply, result)),
            _ => None,
        }
    }

    /// True for a put behind one that did not happen.
    pub(super) fn is_cut_off(&self) -> bool {
        matches!(self, Self::Put(put, _) if put.chain.is_broken())
    }

    /// Tells that it did not happen. What only looks is done nevertheless, if it can be: a disk that is full can be read.
    pub(super) fn fail(self, error: &StoreError, db: Option<&Connection>) {
        match self {
            Self::Put(put, to) => {
                put.chain.break_off();
                drop(to.send(Err(error.clone())));
            }
            Self::Forget { reply, .. } | Self::DropDevice { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::DropAccount { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Expire { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Usage { account, reply } => {
                drop(reply.send(db.map_or_else(|| Err(error.clone()), |db| rows::usage(db, account))));
            }
        }
    }
}

fn apply_put(db: &Connection, put: &Put, bounds: Bounds) -> Result<PutOutcome, StoreError> {
    let mut repeats = Vec::new();
    let mut fresh: Vec<&Enc> = Vec::with_capacity(put.parts.len());
    for part in &put.parts {
        if rows::has(db, put, part)? {
            repeats.push(part.device);
        } else {
            fresh.push(part);
        }
    }
    // Looked at before the first is written: a put is kept whole or not at all.
    for part in &fresh {
        let mut usage = device_usage(db, put.account, part.device)?;
        usage.add(Usage::one(weight(part)));
        if usage.messages > bounds.messages || usage.bytes > bounds.bytes {
            return Ok(PutOutcome::Full);
        }
    }
    for part in fresh {
        rows::insert(db, put, part)?;
    }
    Ok(PutOutcome::Stored { repeats })
}

fn device_usage(db: &Connection, account: AccountId, device: DeviceId) -> Result<Usage, StoreError> {
    let sql = "SELECT messages, bytes FROM usage WHERE account_id = ?1 AND device_id = ?2";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    let usage = statement
        .query_row(params![account.as_bytes(), device.get()], |row| {
            Ok(Usage { messages: rows::natural(row, 0)?, bytes: rows::natural(row, 1)? })
        })
        .optional()
        .map_err(failed)?;
    Ok(usage.unwrap_or_default())
}

fn erase(db: &Connection, sql: &str, values: &[&dyn ToSql]) -> Result<Applied, StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    let mut erased = Usage::default();
    let mut found = statement.query(values).map_err(failed)?;
    while let Some(row) = found.next().map_err(failed)? {
        erased.add(Usage { messages: 1, bytes: rows::natural(row, 0).map_err(failed)? });
    }
    Ok(Applied::Erased(erased))
}
