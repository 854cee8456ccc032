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

/// An epoch that never was.
fn next() -> [u8; BYTES] {
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
    let beside = beside(folder).map_err(in_folder)?;
    let is_the_same = match (&stored, &beside) {
        // One that was made before there were epochs.
        (None, None) => true,
        // The file is written after the database.
        (Some([current, before]), Some(beside)) => current == beside || before == beside,
        _ => false,
    };
    if !is_the_same && has_devices(db).map_err(broken)? {
        return Err(OpenError::PutBack(folder.to_owned()));
    }
    let turned = turn(db, beside.as_deref()).map_err(broken)?;
    write(folder, &turned).map_err(in_folder)
}

/// From now on no copy is good that was made before.
pub(super) fn begin(db: &Connection, folder: &Path) -> Result<(), OpenError> {
    let broken = |error: StoreError| OpenError::Database { file: folder.to_owned(), cause: error.to_string() };
    let next = next();
    store(db, &next).map_err(broken)?;
    write(folder, &next).map_err(|cause| OpenError::Folder { folder: folder.to_owned(), cause })
}

/// What the file says, if it is there.
pub(super) fn beside(folder: &Path) -> std::io::Result<Option<Vec<u8>>> {
    read(&file(folder))
}

/// The database's part of a turn; gives what is to be [written](fn@write) to the file once it is committed. A file that lags
/// behind, because it could not be written the last time, comes to where the database is: else the next one that cannot
/// be written would part them.
pub(super) fn turn(db: &Connection, beside: Option<&[u8]>) -> Result<Vec<u8>, StoreError> {
    if let Some([current, before]) = stored(db)?
        && beside == Some(&before)
        && current != before
    {
        return Ok(current);
    }
    let next = next();
    store(db, &next)?;
    Ok(next.to_vec())
}

fn store(db: &Connection, next: &[u8]) -> Result<(), StoreError> {
    let sql = "INSERT INTO epoch VALUES (1, ?1, ?1) ON CONFLICT DO UPDATE SET before = current, current = ?1";
    db.execute(sql, params![next]).map_err(failed)?;
    Ok(())
}

/// The file's part of a turn.
pub(super) fn write(folder: &Path, epoch: &[u8]) -> std::io::Result<()> {
    let (file, draft) = (file(folder), folder.join("epoch.new"));
    let mut new = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    new.write_all(epoch)?;
    new.sync_all()?;
    std::fs::rename(&draft, &file)?;
    File::open(folder)?.sync_all()
}

fn stored(db: &Connection) -> Result<Option<[Vec<u8>; 2]>, StoreError> {
    db.query_row("SELECT current, before FROM epoch", [], |row| Ok([row.get(0)?, row.get(1)?]))
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

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_time_and_again_parts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = Connection::open_in_memory().unwrap();
        schema::prepare(&mut db, folder.path()).unwrap();
        open(&db, folder.path()).unwrap();
        let device =
            "INSERT INTO devices VALUES (x'00', 1, x'00', 1, x'00', 1, NULL, 1, x'00', x'00', 1, x'00', x'00')";
        db.execute(device, []).unwrap();
        // As if no write of the file had succeeded.
        let first = beside(folder.path()).unwrap();
        let mut turned = turn(&db, first.as_deref()).unwrap();
        for _ in 0..3 {
            turned = turn(&db, first.as_deref()).unwrap();
        }
        open(&db, folder.path()).expect("the file is only a turn behind");
        assert_eq!(beside(folder.path()).unwrap(), Some(turned));
        open(&db, folder.path()).unwrap();

        std::fs::remove_file(file(folder.path())).unwrap();
        assert!(matches!(open(&db, folder.path()), Err(OpenError::PutBack(_))));
        begin(&db, folder.path()).unwrap();
        open(&db, folder.path()).unwrap();
    }
}
