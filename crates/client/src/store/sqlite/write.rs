//! Changes as SQL.

use std::time::Duration;

use rusqlite::{Transaction, params};

use crate::store::{Change, PrekeyFamily, Prune, StoreError, rows};

/// Applies one change.
pub(super) fn apply(tx: &Transaction<'_>, change: Change) -> Result<(), StoreError> {
    match change {
        Change::PutDevice(device) => {
            tx.prepare_cached("INSERT OR REPLACE INTO device VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
                params![
                    &device.noise_private[..],
                    &device.identity[..],
                    device.registration_id,
                    device.enlisted.map(|own| own.account.as_bytes().to_vec()),
                    device.enlisted.map_or(0, |own| own.device.get()),
                    device.server_key.map(|key| key.to_vec()),
                    device.next_prekey_id,
                ],
            )?;
        }
        Change::PutPrekey(key) => {
            tx.prepare_cached("INSERT OR REPLACE INTO prekeys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
                params![
                    family_number(key.family),
                    key.id,
                    key.last_resort,
                    &key.record[..],
                    to_sql(key.made_ms),
                    key.published,
                    key.replaced_ms.map(to_sql),
                ],
            )?;
        }
        Change::RemovePrekey(family, id) => {
            tx.prepare_cached("DELETE FROM prekeys WHERE family = ?1 AND id = ?2")?
                .execute(params![family_number(family), id])?;
            if family == PrekeyFamily::Kyber {
                tx.prepare_cached("DELETE FROM base_keys WHERE kyber = ?1")?.execute([id])?;
            }
        }
        Change::PublishedPrekeys(ids) => {
            let mut update = tx.prepare_cached("UPDATE prekeys SET published = 1 WHERE family = ?1 AND id = ?2")?;
            for (family, id) in ids {
                update.execute(params![family_number(family), id])?;
            }
        }
        Change::ReplacedPrekeys { at_ms } => {
            tx.prepare_cached(
                "UPDATE prekeys AS key SET replaced_ms = ?1
                 WHERE (family = 1 OR last_resort) AND replaced_ms IS NULL AND made_ms <
                 (SELECT MAX(made_ms) FROM prekeys WHERE family = key.family AND last_resort = key.last_resort)",
            )?
            .execute([to_sql(at_ms)])?;
        }
        Change::UseBaseKey(key) => {
            tx.prepare_cached("INSERT OR IGNORE INTO base_keys VALUES (?1, ?2, ?3)")?.execute(params![
                key.kyber,
                key.signed,
                key.base_key
            ])?;
        }
        Change::PutSession(with, record) => {
            tx.prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3)")?.execute(params![
                with.account.as_bytes(),
                with.device.get(),
                record
            ])?;
        }
        Change::PutIdentity(of, key) => {
            tx.prepare_cached("INSERT OR REPLACE INTO identities VALUES (?1, ?2, ?3)")?.execute(params![
                of.account.as_bytes(),
                of.device.get(),
                key
            ])?;
        }
        Change::PutPeer(peer) => {
            tx.prepare_cached("INSERT OR REPLACE INTO peers VALUES (?1, ?2, ?3)")?.execute(params![
                peer.address.as_str(),
                peer.account.as_bytes(),
                rows::write_devices(&peer)
            ])?;
        }
        Change::PutOutgoing(outgoing) => {
            tx.prepare_cached("INSERT OR REPLACE INTO outgoing VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?.execute(
                params![
                    to_sql(outgoing.seq),
                    outgoing.id.as_bytes(),
                    outgoing.to.as_str(),
                    i32::from(outgoing.class),
                    to_sql(outgoing.created_ms),
                    rows::purpose_number(&outgoing.purpose),
                    rows::write_outgoing(&outgoing),
                    outgoing.result.map(rows::result_number),
                    to_sql(outgoing.finished_ms),
                ],
            )?;
            tx.prepare_cached("UPDATE last_seqs SET outgoing = MAX(outgoing, ?1)")?.execute([to_sql(outgoing.seq)])?;
        }
        Change::CountResend(id, device) => {
            tx.prepare_cached(
                "INSERT INTO resends VALUES (?1, ?2, ?3, 1)
                 ON CONFLICT (id, account, device) DO UPDATE SET count = count + 1",
            )?
            .execute(params![id.as_bytes(), device.account.as_bytes(), device.device.get()])?;
        }
        Change::Seen { from, id, at_ms, read } => {
            tx.prepare_cached(
                "INSERT INTO seen VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (account, device, id) DO UPDATE SET read = MAX(read, excluded.read)",
            )?
            .execute(params![
                from.account.as_bytes(),
                from.device.get(),
                id.as_bytes(),
                to_sql(at_ms),
                read
            ])?;
        }
        Change::PutInbox(entry) => {
            let (kind, body) = rows::write_inbox(&entry.item)?;
            tx.prepare_cached("INSERT OR REPLACE INTO inbox VALUES (?1, ?2, ?3)")?.execute(params![
                to_sql(entry.seq),
                kind,
                body
            ])?;
            tx.prepare_cached("UPDATE last_seqs SET inbox = MAX(inbox, ?1)")?.execute([to_sql(entry.seq)])?;
        }
        Change::DoneInbox(seq) => {
            tx.prepare_cached("DELETE FROM inbox WHERE seq = ?1")?.execute([to_sql(seq)])?;
        }
        Change::Prune(keep) => prune(tx, keep)?,
    }
    Ok(())
}

fn prune(tx: &Transaction<'_>, keep: Prune) -> Result<(), StoreError> {
    let before = |age: Duration| to_sql(keep.now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    tx.execute("DELETE FROM prekeys WHERE replaced_ms < ?1", [before(keep.prekeys)])?;
    for family in [PrekeyFamily::Ec, PrekeyFamily::Kyber] {
        tx.execute(
            "DELETE FROM prekeys WHERE family = ?1 AND id IN
             (SELECT id FROM prekeys WHERE family = ?1 AND NOT last_resort AND published
              ORDER BY made_ms DESC, id DESC LIMIT -1 OFFSET ?2)",
            params![family_number(family), count(keep.one_time_count)],
        )?;
    }
    tx.execute("DELETE FROM base_keys WHERE kyber NOT IN (SELECT id FROM prekeys WHERE family = 2)", [])?;
    tx.execute(
        "DELETE FROM outgoing WHERE result IS NOT NULL AND (finished_ms < ?1 OR seq NOT IN
         (SELECT seq FROM outgoing WHERE result IS NOT NULL ORDER BY seq DESC LIMIT ?2))",
        params![before(keep.sent), count(keep.sent_count)],
    )?;
    tx.execute("DELETE FROM resends WHERE id NOT IN (SELECT id FROM outgoing)", [])?;
    tx.execute("DELETE FROM seen WHERE at_ms < ?1", [before(keep.seen)])?;
    tx.execute(
        "DELETE FROM seen WHERE (account, device, id) IN
         (SELECT account, device, id FROM seen ORDER BY at_ms DESC, account DESC, device DESC, id DESC LIMIT -1 OFFSET ?1)",
        [count(keep.seen_count)],
    )?;
    Ok(())
}

/// Numbers for families.
pub(super) fn family_number(family: PrekeyFamily) -> i64 {
    match family {
        PrekeyFamily::Ec => 0,
        PrekeyFamily::Signed => 1,
        PrekeyFamily::Kyber => 2,
    }
}

/// SQLite's integers are signed. Nothing here comes near the half that is lost.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The other way.
pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
