//! Whether the database is an older copy of itself.
//!
//! A random value is kept in the database, and the same in a file beside it that no backup has; both are replaced every now
//! and then. A copy that is put back holds a value that the file has no more. What this does not find: a copy of the
//! whole file system, and one that was made less than a turn ago (docs/backups.md).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rand::rngs::OsRng;
use rand::{RngCore as _, TryRngCore as _};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::OpenError;
use super::engine::failed;
use crate::store::StoreError;

const FILE: &str = "epoch";
const BYTES: usize = 16;

/// A moment in the life of a database.
pub(super) type Epoch = [u8; BYTES];

/// One that never was.
pub(super) fn next() -> Epoch {
    let mut epoch = [0; BYTES];
    OsRng.unwrap_err().fill_bytes(&mut epoch);
    epoch
}

/// Refuses a database that has been put back, and turns the epoch of another. One without devices has nothing that could
/// be given twice, so it may begin anew.
pub(super) fn open(db: &Connection, folder: &Path) -> Result<(), OpenError> {
    let broken = |error: StoreError| OpenError::Database { file: folder.to_owned(), cause: error.to_string() };
    let in_folder = |cause| OpenError::Folder { folder: folder.to_owned(), cause };
    let stored = stored(db).map_err(broken)?;
    let beside = read(&file(folder)).map_err(in_folder)?;
    let is_the_same = match (&stored, &beside) {
        // One that was made before there were epochs.
        (None, None) => true,
        // The file is written after the database.
        (Some((current, before)), Some(beside)) => current == beside || before == beside,
        _ => false,
    };
    if !is_the_same && has_devices(db).map_err(broken)? {
        return Err(OpenError::PutBack(folder.to_owned()));
    }
    begin(db, folder)
}

/// From now on no copy is good that was made before.
pub(super) fn begin(db: &Connection, folder: &Path) -> Result<(), OpenError> {
    let next = next();
    store(db, &next).map_err(|error| OpenError::Database { file: folder.to_owned(), cause: error.to_string() })?;
    write(folder, &next).map_err(|cause| OpenError::Folder { folder: folder.to_owned(), cause })
}

/// The database's part of a turn; [`write`] must follow once it is committed.
pub(super) fn store(db: &Connection, next: &Epoch) -> Result<(), StoreError> {
    let sql = "INSERT INTO epoch VALUES (1, ?1, ?1) ON CONFLICT DO UPDATE SET before = current, current = ?1";
    db.execute(sql, params![next]).map_err(failed)?;
    Ok(())
}

/// The file's part.
pub(super) fn write(folder: &Path, epoch: &Epoch) -> std::io::Result<()> {
    let (file, draft) = (file(folder), folder.join("epoch.new"));
    let mut new = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    new.write_all(epoch)?;
    new.sync_all()?;
    std::fs::rename(&draft, &file)?;
    File::open(folder)?.sync_all()
}

fn stored(db: &Connection) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreError> {
    db.query_row("SELECT current, before FROM epoch", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(failed)
}

fn has_devices(db: &Connection) -> Result<bool, StoreError> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM devices)", [], |row| row.get(0)).map_err(failed)
}

/// What is no epoch is like none that ever was.
fn read(file: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    match File::open(file) {
        Ok(file) => file.take(BYTES as u64 + 1).read_to_end(&mut content)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(content))
}

fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}
