//! The mailbox in an SQLite file: one writer thread that commits everything queued at a time in one transaction, and a
//! few readers for pages. WAL with `synchronous=FULL`: a result is sent only after the log is on disk.

mod ops;
mod rows;
mod writer;

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId};
use causeway_runtime::health::Tables;
use futures::FutureExt as _;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Semaphore, oneshot};

use crate::error::RoutingError;
use crate::mailbox::{
    Bounds, Claimed, Commit, Depth, DeviceUsage, Mailbox, Page, PageRequest, Put, PutOutcome, Replica, ReplicaId,
    StoreError, Usage,
};
use crate::message::{MessageKey, Seq, weight};
use crate::metrics::Metrics;

use ops::Op;
use writer::Writer;

/// Connections that read pages at a time.
const READERS: usize = 4;
/// Connections that look for single messages at a time.
const CHECKERS: usize = 1;
/// "CWMB": tells this file from other SQLite files.
const APPLICATION_ID: i32 = 0x4357_4d42;
const SCHEMA_VERSION: i32 = 1;
/// Pages that the writing connection keeps, at most: the upper ones of the indexes, and all that a transaction changes. With fewer it
/// reads pages again that it has just written, and writes some twice.
const WRITE_CACHE_KIB: i64 = 64 * 1024;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A mailbox in one file.
pub(crate) struct SqliteMailbox {
    writer: Writer,
    readers: Arc<Readers>,
    /// For what strangers can make happen, so that it does not hold up devices that read their messages.
    checkers: Arc<Readers>,
    /// Held as long as the file is open: a second process is refused.
    _lock: File,
}

/// The file, made for its owner only if it is not there.
fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

impl SqliteMailbox {
    /// What this program has brought the tables to.
    pub(crate) const TABLES: Tables = Tables { store: "sqlite", version: SCHEMA_VERSION as u32 };

    /// Opens `mailbox.sqlite` in `dir`, and makes it if it is not there.
    pub(crate) fn open(dir: &Path, bounds: Bounds, metrics: Metrics) -> Result<Self, RoutingError> {
        let folder = |source| RoutingError::Folder { path: dir.to_owned(), source };
        // Nobody else on this machine is to see who waits for whom.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(folder)?;
        let lock = File::create(dir.join("mailbox.lock")).map_err(folder)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(RoutingError::InUse(dir.to_owned())),
            Err(std::fs::TryLockError::Error(source)) => return Err(folder(source)),
        }
        let file = dir.join("mailbox.sqlite");
        private(&file).map_err(folder)?;
        let broken = |error: rusqlite::Error| RoutingError::Mailbox { path: file.clone(), reason: describe(&error) };
        let mut connection = connect_to_write(&file).map_err(broken)?;
        prepare(&mut connection).map_err(|reason| RoutingError::Mailbox { path: file.clone(), reason })?;
        let readers = Readers::open(&file, READERS).map_err(broken)?;
        let checkers = Readers::open(&file, CHECKERS).map_err(broken)?;
        let writer = Writer::start(connection, file.clone(), bounds, metrics)
            .map_err(|error| RoutingError::Mailbox { path: file, reason: error.to_string() })?;
        Ok(Self { writer, readers, checkers, _lock: lock })
    }

    /// Number of transactions that have been committed.
    #[cfg(test)]
    pub(crate) fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// Makes every commit fail, or no more.
    #[cfg(test)]
    pub(crate) fn fail_commits(&self, fail: bool) {
        self.writer.fail_commits(fail);
    }

    /// Holds the writer before its next transaction until the guard is dropped.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> writer::Held {
        self.writer.hold()
    }

    fn queue<T: Send + 'static>(
        &self,
        weight: usize,
        op: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Op,
    ) -> Commit<T> {
        let (reply, done) = oneshot::channel();
        if let Err(error) = self.writer.queue(op(reply), weight) {
            return futures::future::ready(Err(error)).boxed();
        }
        async move { done.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }
}

/// The file is locked for this process: whoever claims an account owns it, and nothing is fenced.
impl Mailbox for SqliteMailbox {
    fn claim(&self, _: ReplicaId, account: AccountId) -> Commit<Claimed> {
        let usage = self.usage(account);
        async move { usage.await.map(|usage| Claimed::Ours { usage, before: None }) }.boxed()
    }

    fn release(&self, _: ReplicaId, _: AccountId) -> Commit<()> {
        futures::future::ready(Ok(())).boxed()
    }

    fn put(&self, _: ReplicaId, put: Put) -> Commit<PutOutcome> {
        let (bytes, chain) = (put.parts.iter().map(weight).sum(), put.chain.clone());
        let (reply, done) = oneshot::channel();
        if let Err(error) = self.writer.queue(Op::Put(put, reply), bytes) {
            chain.break_off();
            return futures::future::ready(Err(error)).boxed();
        }
        async move { done.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    fn forget(&self, _: ReplicaId, account: AccountId, device: DeviceId, upto: Seq) -> Commit<Usage> {
        self.queue(0, |reply| Op::Forget { account, device, upto, reply })
    }

    fn drop_device(&self, _: ReplicaId, account: AccountId, device: DeviceId, keep: Option<u32>) -> Commit<Usage> {
        self.queue(0, |reply| Op::DropDevice { account, device, keep, reply })
    }

    fn drop_account(&self, _: ReplicaId, account: AccountId) -> Commit<()> {
        self.queue(0, |reply| Op::DropAccount { account, reply })
    }

    fn expire(&self, now_ms: u64, limit: u32) -> Commit<u64> {
        self.queue(0, |reply| Op::Expire { now_ms, limit, reply })
    }

    fn usage(&self, account: AccountId) -> Commit<Vec<DeviceUsage>> {
        self.queue(0, |reply| Op::Usage { account, reply })
    }

    fn holds(&self, account: AccountId, key: MessageKey) -> Commit<bool> {
        let readers = Arc::clone(&self.checkers);
        async move { readers.read(move |connection| rows::holds(connection, account, &key)).await }.boxed()
    }

    fn page(&self, request: PageRequest) -> Commit<Page> {
        let readers = Arc::clone(&self.readers);
        async move { readers.read(move |connection| rows::page(connection, &request)).await }.boxed()
    }

    fn depth(&self) -> Commit<Depth> {
        let readers = Arc::clone(&self.checkers);
        async move { readers.read(rows::depth).await }.boxed()
    }

    fn queued(&self) -> usize {
        self.writer.queued()
    }

    fn renew(&self, _: &Replica, _: Duration) -> Commit<()> {
        futures::future::ready(Ok(())).boxed()
    }

    fn leave(&self, _: ReplicaId) -> Commit<()> {
        futures::future::ready(Ok(())).boxed()
    }

    fn replicas(&self) -> Commit<Vec<Replica>> {
        futures::future::ready(Ok(Vec::new())).boxed()
    }
}

/// Connections for reading.
struct Readers {
    file: PathBuf,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn open(file: &Path, count: usize) -> rusqlite::Result<Arc<Self>> {
        let mut idle = Vec::with_capacity(count);
        for _ in 0..count {
            idle.push(connect_to_read(file)?);
        }
        Ok(Arc::new(Self { file: file.to_owned(), permits: Semaphore::new(count), idle: Mutex::new(idle) }))
    }

    async fn read<T: Send + 'static>(
        self: Arc<Self>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = Arc::clone(&self);
        let _permit = self.permits.acquire().await.map_err(|_| StoreError::Closed)?;
        let task = tokio::task::spawn_blocking(move || {
            let idle = this.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => connect_to_read(&this.file).map_err(failed)?,
            };
            let result = query(&connection)?;
            // After an error the connection is closed instead: the next reader opens a fresh one.
            this.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok(result)
        });
        task.await.unwrap_or_else(|join| Err(StoreError::Failed(join.to_string())))
    }
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Else a statement with a parameter in its WHERE clause is planned anew each time that it is taken from the cache.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// The one connection that writes.
fn connect_to_write(file: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(file)?;
    connection.pragma_update(None, "cache_size", -WRITE_CACHE_KIB)?;
    Ok(connection)
}

fn connect_to_read(file: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(file)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Makes the tables, or refuses a file that is something else.
fn prepare(connection: &mut Connection) -> Result<(), String> {
    let text = |error: rusqlite::Error| describe(&error);
    let read =
        |connection: &Connection, pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let version = read(connection, "user_version").map_err(text)?;
    let application = read(connection, "application_id").map_err(text)?;
    match (application, version) {
        (0, 0) => {
            let transaction = connection.transaction().map_err(text)?;
            let tables: i64 =
                transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(text)?;
            if tables != 0 {
                return Err("this is not a mailbox; set another routing.data_dir".to_owned());
            }
            transaction.execute_batch(include_str!("schema.sql")).map_err(text)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(text)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(text)?;
            transaction.commit().map_err(text)
        }
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(()),
        (APPLICATION_ID, newer) => {
            Err(format!("it was written by another version (schema {newer}, this one knows {SCHEMA_VERSION})"))
        }
        _ => Err("this is not a mailbox; set another routing.data_dir".to_owned()),
    }
}

/// An error without the statement's values.
fn describe(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, _) => code.to_string(),
        rusqlite::Error::FromSqlConversionFailure(column, _, _)
        | rusqlite::Error::IntegralValueOutOfRange(column, _) => {
            format!("an entry is damaged in column {column}")
        }
        rusqlite::Error::InvalidColumnType(column, _, _) => format!("an entry is damaged in column {column}"),
        _ => "the file does not answer as a mailbox does".to_owned(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "its use is map_err(failed)")]
fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::Failed(describe(&error))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::mailbox::Chain;
    use crate::mailbox::suite::{self, BOUNDS, ONE, account, device, enc, header, model, put, request};

    fn open(dir: &Path) -> SqliteMailbox {
        SqliteMailbox::open(dir, BOUNDS, Metrics::new()).unwrap()
    }

    /// What a killed process leaves behind: the files as they are, while it still has them open.
    fn copy_as_after_a_kill(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for name in ["mailbox.sqlite", "mailbox.sqlite-wal"] {
            if from.join(name).exists() {
                std::fs::copy(from.join(name), to.join(name)).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn it_passes_the_suite() {
        let dir = TempDir::new().unwrap();
        let number = AtomicU64::new(0);
        suite::suite(async || open(&dir.path().join(number.fetch_add(1, Ordering::Relaxed).to_string()))).await;
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn any_history_with_crashes_is_as_in_the_model(history in model::histories()) {
            let dir = TempDir::new().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let life = AtomicU64::new(0);
            runtime.block_on(model::run(open(&dir.path().join("0")), history, async |before| {
                let number = life.fetch_add(1, Ordering::Relaxed);
                let (from, to) = (dir.path().join(number.to_string()), dir.path().join((number + 1).to_string()));
                copy_as_after_a_kill(&from, &to);
                drop(before);
                open(&to)
            }));
        }
    }

    #[tokio::test]
    async fn a_commit_that_fails_breaks_the_chains_of_its_puts() {
        let dir = TempDir::new().unwrap();
        let mailbox = open(dir.path());
        let chain = Chain::default();
        let of_chain = |id: u8| {
            let mut put = put(1, header(id.into(), 9, id), vec![enc(1, 101, b"a")]);
            put.chain = chain.clone();
            put
        };
        mailbox.fail_commits(true);
        assert!(mailbox.put(ONE, of_chain(1)).await.is_err());
        mailbox.fail_commits(false);
        assert_eq!(mailbox.put(ONE, of_chain(2)).await, Err(Chain::error()));
        assert!(mailbox.usage(account(1)).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_queued_together_is_one_commit() {
        let dir = TempDir::new().unwrap();
        let mailbox = open(dir.path());
        let held = mailbox.hold();
        // Taken by the writer on its own, or together with the others.
        let first = mailbox.usage(account(9));
        let puts: Vec<_> =
            (1..=100_u8).map(|n| mailbox.put(ONE, put(n, header(n.into(), 9, n), vec![enc(1, 101, b"a")]))).collect();
        let before = mailbox.commits();
        drop(held);
        first.await.unwrap();
        for result in futures::future::join_all(puts).await {
            result.unwrap();
        }
        assert!((1..=2).contains(&(mailbox.commits() - before)), "{}", mailbox.commits());
    }

    #[tokio::test]
    async fn a_commit_that_fails_fails_its_operations_and_no_others() {
        let dir = TempDir::new().unwrap();
        let mailbox = open(dir.path());
        mailbox.put(ONE, put(1, header(1, 9, 1), vec![enc(1, 101, b"a")])).await.unwrap();
        mailbox.fail_commits(true);
        let lost = mailbox.put(ONE, put(1, header(2, 9, 2), vec![enc(1, 101, b"a")]));
        let not_forgotten = mailbox.forget(ONE, account(1), device(1), Seq(9));
        assert!(matches!(lost.await, Err(StoreError::Failed(_))));
        assert!(matches!(not_forgotten.await, Err(StoreError::Failed(_))));
        mailbox.fail_commits(false);
        mailbox.put(ONE, put(1, header(3, 9, 3), vec![enc(1, 101, b"a")])).await.unwrap();
        let page = mailbox.page(request(1, 1, 0)).await.unwrap();
        let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.header.seq.0).collect();
        assert_eq!(seqs, [1, 3]);
    }

    #[tokio::test]
    async fn what_was_told_stored_survives_a_kill_at_once() {
        let dir = TempDir::new().unwrap();
        let mailbox = open(&dir.path().join("live"));
        for n in 1..=BOUNDS.messages {
            mailbox.put(ONE, put(1, header(n, 9, n as u8), vec![enc(1, 101, b"a")])).await.unwrap();
            let copy = dir.path().join(n.to_string());
            copy_as_after_a_kill(&dir.path().join("live"), &copy);
            let page = open(&copy).page(request(1, 1, 0)).await.unwrap();
            assert_eq!(page.entries.len() as u64, n);
        }
    }

    #[tokio::test]
    async fn dropping_it_writes_what_is_queued() {
        let dir = TempDir::new().unwrap();
        let mailbox = open(dir.path());
        let queued = mailbox.put(ONE, put(1, header(1, 9, 1), vec![enc(1, 101, b"a")]));
        drop(mailbox);
        queued.await.unwrap();
        assert_eq!(open(dir.path()).page(request(1, 1, 0)).await.unwrap().entries.len(), 1);
    }

    #[tokio::test]
    async fn a_second_process_and_foreign_files_are_refused() {
        let dir = TempDir::new().unwrap();
        let first = open(dir.path());
        let second = SqliteMailbox::open(dir.path(), BOUNDS, Metrics::new());
        assert!(matches!(second, Err(RoutingError::InUse(_))));
        drop(first);
        drop(open(dir.path()));

        let foreign = dir.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("mailbox.sqlite"), b"something else entirely, long enough to be looked at")
            .unwrap();
        let refused = SqliteMailbox::open(&foreign, BOUNDS, Metrics::new()).err().unwrap();
        assert!(matches!(refused, RoutingError::Mailbox { .. }), "{refused}");

        let newer = dir.path().join("newer");
        drop(open(&newer));
        let raw = Connection::open(newer.join("mailbox.sqlite")).unwrap();
        raw.pragma_update(None, "user_version", 99).unwrap();
        drop(raw);
        let refused = SqliteMailbox::open(&newer, BOUNDS, Metrics::new()).err().unwrap().to_string();
        assert!(refused.contains("schema 99"), "{refused}");
    }

    #[tokio::test]
    async fn a_damaged_entry_is_named_and_never_skipped() {
        let dir = TempDir::new().unwrap();
        let mailbox = open(dir.path());
        for n in 1..=3 {
            mailbox.put(ONE, put(1, header(n, 9, n as u8), vec![enc(1, 101, b"a")])).await.unwrap();
        }
        let raw = Connection::open(dir.path().join("mailbox.sqlite")).unwrap();
        raw.execute("UPDATE entries SET class = 9 WHERE seq = 2", []).unwrap();
        let error = mailbox.page(request(1, 1, 0)).await.unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }
}
