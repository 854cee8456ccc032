//! The tables, and how older files get them: a step a version, run in one transaction at open. To change the schema,
//! append a step; steps that were released are never edited. Older programs refuse a file with a step that they do not
//! know; what they can do without is no step but an addition (docs/upgrades.md).

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::OpenError;

/// "CWKD": tells our file from other SQLite files.
const APPLICATION_ID: i32 = 0x4357_4b44;

/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS: usize = 64;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const STEPS: [&str; 3] = [VERSION_1, VERSION_2, VERSION_3];
/// The version of a file without [cursors](VERSION_3): what the release before can open.
const WITHOUT_CURSORS: u32 = 2;

/// Lookup of an account by its address is a table of its own, so that account tables need no key but the account's.
const VERSION_1: &str = "
CREATE TABLE providers (
    provider_id     BLOB NOT NULL PRIMARY KEY,
    domain          TEXT NOT NULL UNIQUE,
    issuer          TEXT NOT NULL UNIQUE,
    kind            INTEGER NOT NULL,
    status          INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    registered_ms   INTEGER NOT NULL,
    settings        TEXT NOT NULL,
    jwks            TEXT NOT NULL,
    jwks_count      INTEGER NOT NULL,
    jwks_fetched_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE addresses (
    address    TEXT NOT NULL PRIMARY KEY,
    account_id BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    account_id  BLOB NOT NULL PRIMARY KEY,
    address     TEXT NOT NULL,
    provider_id BLOB NOT NULL,
    created_ms  INTEGER NOT NULL,
    interop     INTEGER NOT NULL,
    inbox       INTEGER NOT NULL,
    reach       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE provider_rules (
    account_id BLOB NOT NULL,
    provider   TEXT NOT NULL,
    allow      INTEGER NOT NULL,
    PRIMARY KEY (account_id, provider)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    account_id            BLOB NOT NULL,
    device_id             INTEGER NOT NULL,
    noise_key             BLOB NOT NULL,
    registration_id       INTEGER NOT NULL,
    identity_key          BLOB NOT NULL,
    enlisted_ms           INTEGER NOT NULL,
    push_token            BLOB,
    signed_id             INTEGER NOT NULL,
    signed_key            BLOB NOT NULL,
    signed_signature      BLOB NOT NULL,
    last_resort_id        INTEGER NOT NULL,
    last_resort_key       BLOB NOT NULL,
    last_resort_signature BLOB NOT NULL,
    PRIMARY KEY (account_id, device_id),
    UNIQUE (account_id, noise_key)
) STRICT, WITHOUT ROWID;

-- Device ids that were used and are free again; the lowest place was freed longest ago.
CREATE TABLE freed_devices (
    account_id BLOB NOT NULL,
    device_id  INTEGER NOT NULL,
    place      INTEGER NOT NULL,
    PRIMARY KEY (account_id, device_id)
) STRICT, WITHOUT ROWID;

-- One-time keys by their place in the order of upload. One that was handed out keeps its row and digest without the
-- key, so that it is known when it is published again.
CREATE TABLE one_time_prekeys (
    account_id BLOB NOT NULL,
    device_id  INTEGER NOT NULL,
    kind       INTEGER NOT NULL,
    place      INTEGER NOT NULL,
    key_id     INTEGER NOT NULL,
    digest     BLOB NOT NULL,
    public_key BLOB,
    signature  BLOB,
    PRIMARY KEY (account_id, device_id, kind, place)
) STRICT;
CREATE INDEX one_time_prekeys_in_store ON one_time_prekeys (account_id, device_id, kind, place)
    WHERE public_key IS NOT NULL;
CREATE UNIQUE INDEX one_time_prekeys_by_digest ON one_time_prekeys (account_id, device_id, kind, digest);

CREATE TABLE withdrawn (
    account_id   BLOB NOT NULL PRIMARY KEY,
    withdrawn_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Noise keys of devices that are no more, as digests; `owner` is that of the address.
const VERSION_2: &str = "
CREATE TABLE retired_keys (
    owner     BLOB NOT NULL,
    noise_key BLOB NOT NULL,
    until_ms  INTEGER NOT NULL,
    PRIMARY KEY (owner, noise_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX retired_keys_by_end ON retired_keys (until_ms);
";

/// From where on a device's one-time keys are still to be handed out, and how many these are: so a claim writes a row of
/// some 40 bytes, and not the keys themselves. A device without a row has handed out what has no key in its row. The keys
/// behind a cursor are erased when the device publishes new ones, and when the store is closed: then there is no cursor,
/// and the file is of the version before, which would hand them out again.
const VERSION_3: &str = "
CREATE TABLE IF NOT EXISTS prekey_cursors (
    account_id BLOB NOT NULL,
    device_id  INTEGER NOT NULL,
    ec_next    INTEGER NOT NULL,
    ec_left    INTEGER NOT NULL,
    kyber_next INTEGER NOT NULL,
    kyber_left INTEGER NOT NULL,
    PRIMARY KEY (account_id, device_id)
) STRICT, WITHOUT ROWID;
";

/// What is made at each open if it is not there. Older programs go on without knowing of it.
const ADDITIONS: &str = "
CREATE TABLE IF NOT EXISTS epoch (
    only_one INTEGER NOT NULL PRIMARY KEY CHECK (only_one = 1),
    current  BLOB NOT NULL,
    before   BLOB NOT NULL
) STRICT;
";

/// What each connection needs, also those that only read.
pub(super) fn tune(db: &Connection) -> rusqlite::Result<()> {
    // Else a statement with a parameter in its WHERE clause is planned anew each time that it is taken from the cache.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.busy_timeout(BUSY_TIMEOUT)
}

/// There are no cursors any more.
pub(super) fn without_cursors(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "user_version", WITHOUT_CURSORS)
}

/// Sets the connection up and brings the file to the newest version.
pub(super) fn prepare(db: &mut Connection, file: &Path) -> Result<(), OpenError> {
    let broken = |cause: rusqlite::Error| OpenError::Database { file: file.to_owned(), cause: cause.to_string() };
    let foreign =
        || OpenError::Database { file: file.to_owned(), cause: "it is another program's SQLite file".to_owned() };
    let known = u32::try_from(STEPS.len()).expect("few steps");
    let found: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(broken)?;
    let application: i32 = db.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(broken)?;
    let tables: u32 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(broken)?;
    if application != APPLICATION_ID && (application != 0 || found != 0 || tables != 0) {
        return Err(foreign());
    }
    if found > known {
        return Err(OpenError::TooNew { file: file.to_owned(), found, known });
    }

    // Erased rows are overwritten: what a user withdraws is gone from the file too.
    db.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA cache_size = -8192;",
    )
    .map_err(broken)?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(broken)?;
    for step in &STEPS[found as usize..] {
        transaction.execute_batch(step).map_err(broken)?;
    }
    transaction.execute_batch(ADDITIONS).map_err(broken)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(broken)?;
    transaction.pragma_update(None, "user_version", known).map_err(broken)?;
    transaction.commit().map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.sqlite");
        let mut db = Connection::open(&file).unwrap();
        prepare(&mut db, &file).unwrap();
        (folder, db)
    }

    #[test]
    fn every_account_table_leads_its_key_with_the_account() {
        let (_folder, db) = opened();
        let mut tables = db
            .prepare(
                "SELECT t.name, (SELECT k.name FROM pragma_table_info(t.name) k WHERE k.pk = 1)
                 FROM pragma_table_list t JOIN pragma_table_info(t.name) c ON c.name = 'account_id'
                 WHERE t.schema = 'main'",
            )
            .unwrap();
        let keys: Vec<(String, String)> = tables
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        assert!(keys.len() >= 6, "{keys:?}");
        for (table, first) in keys {
            // The way from an address to its account is what that table is for.
            let expected = if table == "addresses" { "address" } else { "account_id" };
            assert_eq!(first, expected, "{table}");
        }
    }

    #[test]
    fn commits_are_synced_and_what_is_erased_is_overwritten() {
        let (_folder, db) = opened();
        let pragma = |name: &str| -> String {
            let value = db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0));
            match value.unwrap() {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([pragma("journal_mode"), pragma("synchronous"), pragma("secure_delete")], ["wal", "2", "1"]);
    }

    #[test]
    fn a_file_of_the_first_version_is_brought_up_with_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.sqlite");
        let mut db = Connection::open(&file).unwrap();
        db.execute_batch(VERSION_1).unwrap();
        db.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        db.execute("INSERT INTO withdrawn VALUES (x'00', 1)", []).unwrap();
        prepare(&mut db, &file).unwrap();
        let count =
            |table: &str| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u32>(0));
        assert_eq!((count("withdrawn").unwrap(), count("retired_keys").unwrap()), (1, 0));
    }

    #[test]
    fn preparing_again_changes_nothing() {
        let (folder, mut db) = opened();
        db.execute("INSERT INTO withdrawn VALUES (x'00', 1)", []).unwrap();
        prepare(&mut db, &folder.path().join("test.sqlite")).unwrap();
        assert_eq!(db.query_row("SELECT count(*) FROM withdrawn", [], |row| row.get::<_, u32>(0)).unwrap(), 1);
    }
}
