//! [`Store`] on SQLite: one file, one writer thread with group commit, readers on connections of their own.
//!
//! `engine` runs jobs, `schema` makes and migrates the tables, the others hold the statements by subject. Every account
//! table leads its primary key with the account id.

mod accounts;
mod cursors;
mod engine;
mod epoch;
mod prekeys;
mod providers;
mod readers;
mod retired;
mod rows;
mod schema;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use causeway_identity::{AccountId, Address, DeviceId, Domain, ProviderId};
use causeway_runtime::health::Tables;

use self::engine::{Alone, Engine, FILE, failed};
use super::{
    Bundle, Enlisted, Enlistment, Epoch, KeyCounts, KnownDevice, Published, Registered, Removed, Store, StoreError,
    Updated, Who, Written,
};
use crate::accounts::{PushToken, Record};
use crate::consent::Consent;
use crate::keys::VerifiedPrekeys;
use crate::providers::{Provider, ProviderSettings, ProviderStatus, TokenKeySet};

/// Why the store cannot be opened: names the path and the fix.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made, or nothing can be written in it.
    #[error("data folder {folder} is not writable ({cause}): create it for the user that runs this, or set data_dir")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another process has it open.
    #[error("data folder {0} is in use by another process: stop that one, or set another data_dir")]
    InUse(PathBuf),
    /// An older copy of the database was put back, or the folder is a copy.
    #[error(
        "{0} holds a copy of the database that was put back, or has been moved: run `causeway after-restore` once, so that \
         nothing is given out twice (docs/backups.md)"
    )]
    PutBack(PathBuf),
    /// There is no database where one must be.
    #[error(
        "{0} holds no directory.sqlite: put the restored one there, or name its folder (--data, directory.data_dir)"
    )]
    Absent(PathBuf),
    /// Written by a newer version of this program.
    #[error("{file} has schema version {found}, this program knows up to {known}: run the newer program")]
    TooNew {
        /// The database file.
        file: PathBuf,
        /// The version it has.
        found: u32,
        /// The newest version that is known.
        known: u32,
    },
    /// Not a database of ours, or SQLite refuses it.
    #[error("{file} cannot be opened as the directory's database: {cause}")]
    Database {
        /// The database file.
        file: PathBuf,
        /// What SQLite said.
        cause: String,
    },
}

/// The directory's state in one SQLite file, `directory.sqlite` in the data folder. WAL, synchronous=FULL.
pub struct SqliteStore {
    engine: Engine,
    folder: PathBuf,
}

impl SqliteStore {
    /// What this program has brought the tables to.
    pub(crate) const TABLES: Tables = Tables { store: "sqlite", version: schema::STEPS.len() as u32 };

    /// Opens or makes the store in `folder`, which is made too if need be. Blocks for as long as a migration takes.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Ok(Self { engine: Engine::open(folder)?, folder: folder.to_owned() })
    }

    /// Makes a database usable that was put back from a backup: treats all one-time keys as handed out, if `give_up` says
    /// so, and gives their number.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn after_restore(folder: &Path, give_up: bool) -> Result<u64, OpenError> {
        if !folder.join(FILE).is_file() {
            return Err(OpenError::Absent(folder.to_owned()));
        }
        let alone = Alone::open(folder)?;
        let broken = |error: StoreError| OpenError::Database { file: folder.to_owned(), cause: error.to_string() };
        let given_up = if give_up { prekeys::give_up(&alone.db).map_err(broken)? } else { 0 };
        epoch::begin(&alone.db, folder)?;
        Ok(given_up)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn register_provider(
        &self,
        new: &Provider,
        keys: &TokenKeySet,
        limit: u32,
    ) -> Result<Written<Registered>, StoreError> {
        let (new, keys) = (new.clone(), keys.clone());
        self.engine.write(move |db| providers::register(db, &new, &keys, limit)).await
    }

    async fn update_provider(
        &self,
        settings: &ProviderSettings,
        keys: &TokenKeySet,
    ) -> Result<Written<Updated>, StoreError> {
        let (settings, keys) = (settings.clone(), keys.clone());
        self.engine.write(move |db| providers::update(db, &settings, &keys)).await
    }

    async fn set_provider_status(
        &self,
        domain: &Domain,
        status: ProviderStatus,
    ) -> Result<Written<Option<Provider>>, StoreError> {
        let domain = domain.clone();
        self.engine.write(move |db| providers::set_status(db, &domain, status)).await
    }

    async fn provider(&self, domain: &Domain) -> Result<Option<Provider>, StoreError> {
        let domain = domain.clone();
        self.engine.read(move |db| providers::by_domain(db, &domain)).await
    }

    async fn providers(&self, after: Option<&Domain>, limit: u32) -> Result<Vec<Provider>, StoreError> {
        let after = after.cloned();
        self.engine.read(move |db| providers::page(db, after.as_ref(), limit)).await
    }

    async fn keep_token_keys(
        &self,
        provider: ProviderId,
        revision: u64,
        before_ms: u64,
        keys: &TokenKeySet,
    ) -> Result<bool, StoreError> {
        let keys = keys.clone();
        self.engine.write(move |db| providers::keep_keys(db, provider, revision, before_ms, &keys)).await
    }

    async fn token_keys(&self, provider: ProviderId) -> Result<Option<TokenKeySet>, StoreError> {
        self.engine.read(move |db| providers::keys(db, provider)).await
    }

    async fn record(&self, who: &Who) -> Result<Option<Record>, StoreError> {
        let who = who.clone();
        self.engine.read(move |db| accounts::record(db, &who)).await
    }

    async fn two_records(&self, one: &Who, other: &Who) -> Result<[Option<Record>; 2], StoreError> {
        let (one, other) = (one.clone(), other.clone());
        self.engine.read(move |db| Ok([accounts::record(db, &one)?, accounts::record(db, &other)?])).await
    }

    async fn known_device(
        &self,
        address: &Address,
        device: DeviceId,
        low: u32,
    ) -> Result<Option<KnownDevice>, StoreError> {
        let address = address.clone();
        self.engine.read(move |db| accounts::known_device(db, &address, device, low)).await
    }

    async fn enlist(&self, enlistment: &Enlistment) -> Result<Written<Enlisted>, StoreError> {
        let enlistment = enlistment.clone();
        self.engine.write(move |db| accounts::enlist(db, &enlistment)).await
    }

    async fn remove_device(
        &self,
        account: AccountId,
        by: DeviceId,
        device: DeviceId,
        now_ms: u64,
    ) -> Result<Written<Removed>, StoreError> {
        self.engine.write(move |db| accounts::remove_device(db, account, by, device, now_ms)).await
    }

    async fn withdraw(&self, account: AccountId, by: DeviceId, now_ms: u64) -> Result<Written<bool>, StoreError> {
        self.engine.write(move |db| accounts::withdraw(db, account, by, now_ms)).await
    }

    async fn set_push(
        &self,
        account: AccountId,
        device: DeviceId,
        token: Option<&PushToken>,
    ) -> Result<Written<bool>, StoreError> {
        let token = token.cloned();
        self.engine.write(move |db| accounts::set_push(db, account, device, token.as_ref())).await
    }

    async fn set_consent(
        &self,
        account: AccountId,
        by: DeviceId,
        consent: &Consent,
    ) -> Result<Written<bool>, StoreError> {
        let consent = consent.clone();
        self.engine.write(move |db| accounts::set_consent(db, account, by, &consent)).await
    }

    async fn publish(
        &self,
        account: AccountId,
        device: DeviceId,
        keys: &VerifiedPrekeys,
    ) -> Result<Published, StoreError> {
        let keys = keys.clone();
        self.engine.write(move |db| prekeys::publish(db, account, device, &keys)).await
    }

    async fn key_counts(&self, account: AccountId, device: DeviceId) -> Result<Option<KeyCounts>, StoreError> {
        self.engine.read(move |db| prekeys::counts_if_enlisted(db, account, device)).await
    }

    async fn claim(
        &self,
        account: AccountId,
        devices: &[DeviceId],
        one_time: bool,
        low: u32,
    ) -> Result<Written<Vec<Bundle>>, StoreError> {
        let devices = devices.to_vec();
        if one_time {
            self.engine.write(move |db| prekeys::claim(db, account, &devices, true, low)).await
        } else {
            // Takes nothing, so need not wait for a commit.
            self.engine.read(move |db| prekeys::claim(db, account, &devices, false, low)).await
        }
    }

    async fn turn_epoch(&self) -> Result<Option<Epoch>, StoreError> {
        let folder = self.folder.clone();
        let beside = tokio::task::spawn_blocking(move || epoch::beside(&folder)).await;
        let beside = beside.map_err(failed)?.map_err(failed)?;
        let turned = self.engine.write(move |db| epoch::turn(db, beside.as_deref())).await?;
        let folder = self.folder.clone();
        let written = tokio::task::spawn_blocking(move || epoch::write(&folder, &turned)).await;
        written.map_err(failed)?.map_err(failed)?;
        Ok(None)
    }

    async fn lost(&self) {
        self.engine.lost().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;

    /// A store in a folder that goes away with it.
    struct Temporary {
        store: SqliteStore,
        _folder: tempfile::TempDir,
    }

    impl suite::Fresh for Temporary {
        fn store(&self) -> &dyn Store {
            &self.store
        }
    }

    #[test]
    fn keeps_the_contract() {
        suite::run(async || {
            let folder = tempfile::tempdir().unwrap();
            Temporary { store: SqliteStore::open(folder.path()).unwrap(), _folder: folder }
        });
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = SqliteStore::open(folder.path()).unwrap();
        let (account, device) = suite::an_account(&first).await;
        let before = first.record(&Who::Account(account)).await.unwrap();
        drop(first);
        let second = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(second.record(&Who::Account(account)).await.unwrap(), before);
        assert!(second.key_counts(account, device).await.unwrap().is_some());
    }

    /// Pages that were written, and commits of them, since the log was emptied.
    fn logged(folder: &Path) -> (usize, usize) {
        const PAGE: usize = 4096;
        let log = std::fs::read(folder.join("directory.sqlite-wal")).unwrap();
        let (head, frames) = log.split_at(32);
        // Frames of before the log began anew have another salt.
        let frames = frames.chunks_exact(24 + PAGE).take_while(|frame| frame[8..16] == head[16..24]);
        let commits = frames.clone().filter(|frame| frame[4..8] != [0; 4]).count();
        (frames.count(), commits)
    }

    fn empty_the_log(folder: &Path) {
        let db = rusqlite::Connection::open(folder.join("directory.sqlite")).unwrap();
        let busy: u32 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
    }

    fn version(folder: &Path) -> u32 {
        let db = rusqlite::Connection::open(folder.join("directory.sqlite")).unwrap();
        db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn claims_that_wait_are_one_commit_of_few_pages_and_each_key_goes_once() {
        const DEVICES: u8 = 12;
        const KEYS: u32 = 20;
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let (account, first) = suite::an_account(&store).await;
        let mut devices = vec![first];
        for phone in 2..=DEVICES {
            let enlisted = store.enlist(&suite::enlistment(1, phone)).await.unwrap().outcome;
            devices.push(suite::added(enlisted).1);
        }
        for (device, phone) in devices.iter().zip(1..) {
            let keys = suite::one_time_keys(phone, (1..=KEYS).collect(), (1..=KEYS).collect());
            store.publish(account, *device, &keys).await.unwrap();
        }
        empty_the_log(folder.path());

        let (started, has_started) = tokio::sync::oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let blocked = store.engine.write(move |_| {
            let _ = started.send(());
            released.recv().map_err(failed)
        });
        let claims = async {
            has_started.await.unwrap();
            let round = |_| devices.iter().map(|device| suite::claim(&store, account, *device));
            let mut claims: Vec<_> = (0..KEYS).flat_map(round).map(Box::pin).collect();
            for claim in &mut claims {
                assert!(futures::poll!(claim).is_pending());
            }
            release.send(()).unwrap();
            futures::future::join_all(claims).await
        };
        let (blocked, bundles) = tokio::join!(blocked, claims);
        blocked.unwrap();
        let mut taken: Vec<_> =
            bundles.iter().map(|one| (one.device, one.ec.as_ref().unwrap().id, one.kyber.id)).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), usize::from(DEVICES) * KEYS as usize);
        let (pages, commits) = logged(folder.path());
        assert_eq!(commits, 1);
        assert!(pages <= 4, "{} claims wrote {pages} pages", taken.len());
    }

    #[tokio::test]
    async fn what_was_handed_out_stays_so_for_whoever_opens_the_file_next() {
        let (folder, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = SqliteStore::open(folder.path()).unwrap();
        let (account, device) = suite::restored::before_the_backup(&store).await;
        // As a process leaves it that is killed: the release before does not open it.
        copy(folder.path(), killed.path());
        assert_eq!(version(killed.path()), 3);
        let after = SqliteStore::open(killed.path()).unwrap();
        suite::restored::after_the_backup(&after, account, device).await;

        // As a process leaves it that ends: all that was handed out is erased, which is all that the release before knows of.
        drop((store, after));
        for (folder, left) in [(&folder, 3), (&killed, 1)] {
            assert_eq!(version(folder.path()), 2);
            let db = rusqlite::Connection::open(folder.path().join("directory.sqlite")).unwrap();
            let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
            assert_eq!(count("SELECT count(*) FROM prekey_cursors"), 0);
            assert_eq!(count("SELECT count(*) FROM one_time_prekeys WHERE public_key IS NOT NULL"), 2 * left);
            assert_eq!(count("SELECT count(*) FROM one_time_prekeys"), 8, "by which they are remembered");
        }
        let again = SqliteStore::open(killed.path()).unwrap();
        suite::restored::after_a_move(&again, account, device).await;
    }

    #[tokio::test]
    async fn a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = SqliteStore::open(folder.path()).unwrap();
        let error = SqliteStore::open(folder.path()).err().expect("must be refused");
        assert!(matches!(error, OpenError::InUse(_)), "{error}");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let error = SqliteStore::open(&file.join("data")).err().expect("must be refused").to_string();
        assert!(error.contains("file/data") && error.contains("data_dir"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("directory.sqlite");
        std::fs::write(&file, "garbage, ".repeat(1_000)).unwrap();
        let error = SqliteStore::open(folder.path()).err().expect("must be refused");
        assert!(matches!(error, OpenError::Database { .. }), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), "garbage, ".repeat(1_000).as_bytes());
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(folder.path()).unwrap());
        let db = rusqlite::Connection::open(folder.path().join("directory.sqlite")).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        drop(db);
        let error = SqliteStore::open(folder.path()).err().expect("must be refused");
        assert!(matches!(error, OpenError::TooNew { found: 99, .. }), "{error}");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_may_read_the_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        let store = SqliteStore::open(&folder).unwrap();
        suite::an_account(&store).await;
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
        }
    }

    fn copy(from: &Path, to: &Path) {
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }

    #[tokio::test]
    async fn a_database_that_is_put_back_is_refused_until_its_one_time_keys_are_given_up() {
        let (folder, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = SqliteStore::open(folder.path()).unwrap();
        let (account, device) = suite::restored::before_the_backup(&store).await;
        drop(store);
        copy(folder.path(), backup.path());
        let store = SqliteStore::open(folder.path()).unwrap();
        suite::restored::after_the_backup(&store, account, device).await;
        drop(store);
        drop(SqliteStore::open(folder.path()).expect("a restart is no restore"));

        std::fs::copy(backup.path().join("directory.sqlite"), folder.path().join("directory.sqlite")).unwrap();
        for _ in 0..2 {
            let refused = SqliteStore::open(folder.path()).err().expect("must be refused");
            assert!(matches!(refused, OpenError::PutBack(_)), "{refused}");
        }
        let nowhere = folder.path().join("mistyped");
        assert!(matches!(SqliteStore::after_restore(&nowhere, true), Err(OpenError::Absent(_))) && !nowhere.exists());
        assert_eq!(SqliteStore::after_restore(folder.path(), true).unwrap(), 6);
        suite::restored::after_the_restore(&SqliteStore::open(folder.path()).unwrap(), account, device).await;
    }

    #[tokio::test]
    async fn a_backup_that_was_made_while_the_process_ran_is_known_as_well() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = SqliteStore::open(folder.path()).unwrap();
        let (account, device) = suite::restored::before_the_backup(&store).await;
        let backup = elsewhere.path().join("directory.sqlite");
        let db = rusqlite::Connection::open(folder.path().join("directory.sqlite")).unwrap();
        db.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
        drop(db);
        suite::restored::after_the_backup(&store, account, device).await;
        store.turn_epoch().await.unwrap();
        drop(store);
        // Alone in another folder, and in its own.
        assert!(matches!(SqliteStore::open(elsewhere.path()), Err(OpenError::PutBack(_))));
        std::fs::copy(backup, folder.path().join("directory.sqlite")).unwrap();
        assert!(matches!(SqliteStore::open(folder.path()), Err(OpenError::PutBack(_))));
    }

    #[tokio::test]
    async fn a_folder_that_is_moved_keeps_its_keys() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = SqliteStore::open(folder.path()).unwrap();
        let (account, device) = suite::restored::before_the_backup(&store).await;
        suite::restored::after_the_backup(&store, account, device).await;
        drop(store);
        copy(folder.path(), elsewhere.path());
        std::fs::remove_file(elsewhere.path().join("epoch")).unwrap();
        assert!(SqliteStore::open(elsewhere.path()).is_err());
        assert_eq!(SqliteStore::after_restore(elsewhere.path(), false).unwrap(), 0);
        suite::restored::after_a_move(&SqliteStore::open(elsewhere.path()).unwrap(), account, device).await;
    }
}
