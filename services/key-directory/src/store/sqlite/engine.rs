//! Runs jobs on the database: changes one after the other on a thread of their own, all that wait in one commit; readings
//! beside them on read-only connections.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use causeway_runtime::telemetry::instruments::Store;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::readers::Readers;
use super::{OpenError, cursors, epoch, schema};
use crate::store::StoreError;

pub(super) const FILE: &str = "directory.sqlite";
const LOCK: &str = "directory.lock";
/// Changes that may wait for the writer.
const QUEUE: usize = 1_024;
/// Changes in one commit.
const GROUP: usize = 256;
const READERS: usize = 4;
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// What a close may take to leave a file that the release before can open.
const SETTLING: Duration = Duration::from_secs(2);

/// A change: runs inside the transaction, and gives what tells the caller once the commit is over.
type Job = Box<dyn FnOnce(&Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), &str>) + Send>;

pub(super) struct Engine {
    /// `None` only while this is being dropped.
    writer: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    readers: Readers,
    writer_gone: CancellationToken,
}

/// The database, which no other process has open.
pub(super) struct Alone {
    pub(super) db: Connection,
    file: PathBuf,
    lock: File,
}

impl Alone {
    /// Makes it, or brings it to the newest version.
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
        let in_folder = |cause| OpenError::Folder { folder: folder.to_owned(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(in_folder)?;
        let lock = private_file(&folder.join(LOCK)).map_err(in_folder)?;
        lock_soon(&lock, folder)?;
        let file = folder.join(FILE);
        // SQLite gives its side files the permissions of the main one, so that one is made first.
        drop(private_file(&file).map_err(in_folder)?);

        let broken = |cause: rusqlite::Error| OpenError::Database { file: file.clone(), cause: cause.to_string() };
        let mut db = Connection::open_with_flags(&file, flags(OpenFlags::SQLITE_OPEN_READ_WRITE)).map_err(broken)?;
        schema::tune(&db).map_err(broken)?;
        schema::prepare(&mut db, &file)?;
        Ok(Self { db, file, lock })
    }
}

impl Engine {
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
        let Alone { lock, db, file } = Alone::open(folder)?;
        epoch::open(&db, folder)?;
        let in_folder = |cause| OpenError::Folder { folder: folder.to_owned(), cause };
        let broken = |cause: rusqlite::Error| OpenError::Database { file: file.clone(), cause: cause.to_string() };
        let readers = (0..READERS)
            .map(|_| {
                let reader = Connection::open_with_flags(&file, flags(OpenFlags::SQLITE_OPEN_READ_ONLY))?;
                schema::tune(&reader)?;
                Ok(reader)
            })
            .collect::<rusqlite::Result<Vec<_>>>()
            .map_err(broken)?;

        let (writer, jobs) = mpsc::channel(QUEUE);
        let writer_gone = CancellationToken::new();
        let gone = writer_gone.clone().drop_guard();
        let thread = std::thread::Builder::new()
            .name("directory-writer".to_owned())
            .spawn(move || write_until_closed(db, jobs, &lock, gone))
            .map_err(in_folder)?;
        let readers = Readers::start(readers).map_err(in_folder)?;
        Ok(Self { writer: Some(writer), thread: Some(thread), readers, writer_gone })
    }

    /// Runs a change; its result arrives after the commit that made it durable.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |db| {
            let outcome = in_savepoint(db, change);
            Box::new(move |commit| {
                let result = match commit {
                    Ok(()) => outcome,
                    Err(cause) => outcome.and(Err(StoreError::Failed(cause.to_owned()))),
                };
                // The caller may have given up; the change stands all the same.
                let _caller_gone = answer.send(result);
            })
        });
        let gone = || StoreError::Failed("the writer is gone".to_owned());
        self.writer.as_ref().ok_or_else(gone)?.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => gone(),
        })?;
        let since = Instant::now();
        let written = answered.await.map_err(|_| gone()).flatten();
        Store::SQLITE.waited("write", since.elapsed(), written.is_err());
        written
    }

    /// Runs a reading, which sees one state of the database throughout.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        reading: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let since = Instant::now();
        let read = self.readers.read(reading).await;
        Store::SQLITE.waited("read", since.elapsed(), read.is_err());
        read
    }

    pub(super) async fn lost(&self) {
        self.writer_gone.cancelled().await;
    }
}

/// Finishes what is queued and lets go of the files, so that they can be opened again at once.
impl Drop for Engine {
    fn drop(&mut self) {
        // The writer's connection is the last one, so that it leaves no log behind.
        self.readers.close();
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer has been told of by `lost`.
            let _panicked = thread.join();
        }
    }
}

/// Waits a moment for a process that is about to leave.
fn lock_soon(lock: &File, folder: &Path) -> Result<(), OpenError> {
    for attempt in 0..=LOCK_ATTEMPTS {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(cause)) => return Err(OpenError::Folder { folder: folder.to_owned(), cause }),
        }
    }
    Err(OpenError::InUse(folder.to_owned()))
}

fn write_until_closed(mut db: Connection, mut jobs: mpsc::Receiver<Job>, _lock: &File, _gone: DropGuard) {
    while let Some(first) = jobs.blocking_recv() {
        commit_group(&mut db, first, &mut jobs);
    }
    if let Err(error) = cursors::settle_all(&db, Some(SETTLING)) {
        tracing::warn!(%error, "the directory's database stays one that the release before refuses to open");
    }
}

/// Commits `first` and whatever waits behind it, up to a bound, with one sync of the disk.
fn commit_group(db: &mut Connection, first: Job, jobs: &mut mpsc::Receiver<Job>) {
    let mut answers = Vec::new();
    let committed = (|| {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        answers.push(first(&transaction));
        while answers.len() < GROUP {
            let Ok(next) = jobs.try_recv() else { break };
            answers.push(next(&transaction));
        }
        transaction.commit()
    })();
    let told = committed.map_err(|error| {
        tracing::warn!(%error, "a commit failed");
        error.to_string()
    });
    for answer in answers {
        answer(match &told {
            Ok(()) => Ok(()),
            Err(cause) => Err(cause.as_str()),
        });
    }
}

/// Runs one change so that its failure leaves the others of the group alone.
fn in_savepoint<T>(
    db: &Connection,
    change: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let run = |sql: &str| db.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(failed);
    run("SAVEPOINT change")?;
    let outcome = change(db);
    if outcome.is_err() {
        run("ROLLBACK TO change")?;
    }
    run("RELEASE change")?;
    outcome
}

fn flags(access: OpenFlags) -> OpenFlags {
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE
}

fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Text of an error of the layers below. SQLite's texts name tables and columns, never values.
pub(super) fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use rusqlite::StatementStatus;

    use super::*;

    #[tokio::test]
    async fn a_statement_is_planned_once() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path()).unwrap();
        let planned_again = |db: &Connection| {
            const SQL: &str = "SELECT device_id, enlisted_ms FROM devices WHERE account_id = ?1 ORDER BY device_id";
            for n in 0_u8..10 {
                let mut statement = db.prepare_cached(SQL).map_err(failed)?;
                assert!(!statement.exists([vec![n; 16]]).map_err(failed)?);
            }
            Ok(db.prepare_cached(SQL).map_err(failed)?.get_status(StatementStatus::RePrepare))
        };
        assert_eq!(engine.write(planned_again).await.unwrap(), 0);
        assert_eq!(engine.read(planned_again).await.unwrap(), 0);
        // What the setting is for: when this fails, SQLite does without it, and it can go.
        let plain = Connection::open(folder.path().join(FILE)).unwrap();
        assert!(planned_again(&plain).unwrap() > 0);
    }

    #[tokio::test]
    async fn a_reading_that_panics_is_an_answer_and_the_others_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path()).unwrap();
        for _ in 0..2 * READERS {
            let (broken, whole) = tokio::join!(
                engine.read(|_| -> Result<(), StoreError> { panic!("on purpose") }),
                engine.read(|_| Ok(1))
            );
            assert!(broken.is_err() && whole.unwrap() == 1);
        }
    }

    #[tokio::test]
    async fn a_change_that_fails_leaves_the_others_of_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path()).unwrap();
        let insert = |db: &Connection, n: u8| {
            db.execute("INSERT INTO withdrawn VALUES (?1, 0)", [[n; 16].to_vec()]).map_err(failed)
        };
        let (good, bad, also_good) = tokio::join!(
            engine.write(move |db| insert(db, 1)),
            engine.write(move |db| {
                insert(db, 2)?;
                Err::<(), _>(StoreError::Corrupt("test"))
            }),
            engine.write(move |db| insert(db, 3)),
        );
        assert!(good.is_ok() && bad.is_err() && also_good.is_ok());
        let count = engine
            .read(|db| db.query_row("SELECT count(*) FROM withdrawn", [], |row| row.get::<_, u32>(0)).map_err(failed));
        assert_eq!(count.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_full_queue_is_an_answer_not_a_wait() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path()).unwrap();
        let (started, has_started) = oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let blocked = engine.write(move |_| {
            let _ = started.send(());
            released.recv().map_err(failed)
        });
        let flood = async {
            has_started.await.unwrap();
            let mut waiting = futures::stream::FuturesUnordered::new();
            for _ in 0..QUEUE {
                let mut write = Box::pin(engine.write(|_| Ok(())));
                assert!(futures::poll!(&mut write).is_pending());
                waiting.push(write);
            }
            assert!(matches!(engine.write(|_| Ok(())).await, Err(StoreError::Overloaded)));
            release.send(()).unwrap();
            while let Some(written) = futures::StreamExt::next(&mut waiting).await {
                written.unwrap();
            }
        };
        let (blocked, ()) = tokio::join!(blocked, flood);
        blocked.unwrap();
    }

    #[tokio::test]
    async fn readings_whose_callers_give_up_keep_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path()).unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for _ in 0..READERS {
            let (started, has_started) = oneshot::channel();
            let released = Arc::clone(&released);
            let mut blocked = Box::pin(engine.read(move |_| {
                let _ = started.send(());
                released.lock().unwrap().recv().map_err(failed)
            }));
            assert!(futures::poll!(&mut blocked).is_pending());
            has_started.await.unwrap();
        }
        let mut next = Box::pin(engine.read(|_| Ok(())));
        assert!(futures::poll!(&mut next).is_pending(), "every connection is still in use");
        for _ in 0..READERS {
            release.send(()).unwrap();
        }
        next.await.unwrap();
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path()).unwrap();
        let wrote = engine.read(|db| db.execute("DELETE FROM withdrawn", []).map_err(failed)).await;
        assert!(wrote.is_err());
        for _ in 0..2 * READERS {
            assert!(engine.read(|_| Ok(())).await.is_ok(), "a failed reading gives its connection back");
        }
    }
}
