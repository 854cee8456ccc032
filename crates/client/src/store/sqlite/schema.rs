//! Tables. A change of them is a new step at the end of `STEPS`; steps that were released are never edited.

use rusqlite::{Connection, ErrorCode};

use crate::store::StoreError;

/// Each brings a database from the version that is its index to the next.
const STEPS: &[&str] = &["
    CREATE TABLE device (
        one INTEGER PRIMARY KEY CHECK (one = 1), noise_private BLOB NOT NULL, identity BLOB NOT NULL,
        registration_id INTEGER NOT NULL, account BLOB, device INTEGER NOT NULL, server_key BLOB,
        next_prekey_id INTEGER NOT NULL) STRICT;
    CREATE TABLE prekeys (
        family INTEGER NOT NULL, id INTEGER NOT NULL, last_resort INTEGER NOT NULL, record BLOB NOT NULL,
        made_ms INTEGER NOT NULL, published INTEGER NOT NULL, replaced_ms INTEGER,
        PRIMARY KEY (family, id)) STRICT, WITHOUT ROWID;
    CREATE TABLE base_keys (
        kyber INTEGER NOT NULL, signed INTEGER NOT NULL, base_key BLOB NOT NULL,
        PRIMARY KEY (kyber, signed, base_key)) STRICT, WITHOUT ROWID;
    CREATE TABLE sessions (
        account BLOB NOT NULL, device INTEGER NOT NULL, record BLOB NOT NULL,
        PRIMARY KEY (account, device)) STRICT, WITHOUT ROWID;
    CREATE TABLE identities (
        account BLOB NOT NULL, device INTEGER NOT NULL, key BLOB NOT NULL,
        PRIMARY KEY (account, device)) STRICT, WITHOUT ROWID;
    CREATE TABLE peers (
        address TEXT PRIMARY KEY, account BLOB NOT NULL, devices BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE outgoing (
        seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, address TEXT NOT NULL, class INTEGER NOT NULL,
        created_ms INTEGER NOT NULL, purpose INTEGER NOT NULL, body BLOB NOT NULL, result INTEGER,
        finished_ms INTEGER NOT NULL) STRICT;
    CREATE INDEX outgoing_unfinished ON outgoing (seq) WHERE result IS NULL;
    CREATE TABLE resends (
        id BLOB NOT NULL, account BLOB NOT NULL, device INTEGER NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (id, account, device)) STRICT, WITHOUT ROWID;
    CREATE TABLE seen (
        account BLOB NOT NULL, device INTEGER NOT NULL, id BLOB NOT NULL, at_ms INTEGER NOT NULL,
        read INTEGER NOT NULL, PRIMARY KEY (account, device, id)) STRICT, WITHOUT ROWID;
    CREATE INDEX seen_by_age ON seen (at_ms);
    CREATE TABLE inbox (seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
    CREATE TABLE last_seqs (
        one INTEGER PRIMARY KEY CHECK (one = 1), outgoing INTEGER NOT NULL, inbox INTEGER NOT NULL) STRICT;
    INSERT INTO last_seqs VALUES (1, 0, 0);
"];

/// Locks the file for this connection and brings its tables up to date.
pub(super) fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(std::time::Duration::ZERO)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let locked = connection.pragma_update(None, "journal_mode", "WAL");
    // Taking the write lock once makes the exclusive mode effective.
    locked.and_then(|()| connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;")).map_err(in_use)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(version).ok().filter(|done| *done <= STEPS.len()).ok_or(StoreError::Newer(version))?;
    for (index, step) in STEPS.iter().enumerate().skip(done) {
        connection.execute_batch(&format!("BEGIN; {step} PRAGMA user_version = {}; COMMIT;", index + 1))?;
    }
    Ok(())
}

fn in_use(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse,
        _ => error.into(),
    }
}
