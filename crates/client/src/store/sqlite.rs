//! The usual store: one SQLite file.

mod schema;
mod write;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use causeway_identity::{Address, MessageId};
use causeway_stanza::MessageClass;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use zeroize::Zeroizing;

use super::{
    Change, DeviceRecord, InboxEntry, Outgoing, OutgoingHeader, Peer, Prekey, PrekeyFamily, Purpose, SignalAddress,
    Store, StoreError, UsedBaseKey, rows,
};

/// One SQLite file in write-ahead mode, synchronised with the disk at each commit. It holds private keys and messages:
/// it is made readable for its owner only, and should lie where the platform encrypts.
#[derive(Debug, Clone)]
pub struct SqliteStore(Arc<Mutex<Connection>>);

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Backend(Box::new(error))
    }
}

impl SqliteStore {
    /// Opens the file, or makes it, and locks it until the last clone of the store is dropped.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Newer`], or whatever SQLite or the file system says.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        blocking(move || {
            make_private(&path)?;
            let connection = Connection::open(&path)?;
            schema::prepare(&connection)?;
            Ok(Self(Arc::new(Mutex::new(connection))))
        })
        .await
    }

    /// Runs `work` in a transaction of its own on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.0);
        blocking(move || {
            // A panic in the middle has rolled its transaction back, so the connection itself is sound.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.with(move |tx| changes.into_iter().try_for_each(|change| write::apply(tx, change))).await
    }

    async fn device(&self) -> Result<Option<DeviceRecord>, StoreError> {
        self.with(|tx| {
            let row = "SELECT noise_private, identity, registration_id, account, device, server_key, next_prekey_id
                       FROM device";
            let found = tx.query_row(row, [], |row| {
                Ok((
                    row.get::<_, Vec<u8>>(0)?,
                    row.get::<_, Vec<u8>>(1)?,
                    row.get::<_, u32>(2)?,
                    row.get::<_, Option<Vec<u8>>>(3)?,
                    row.get::<_, u32>(4)?,
                    row.get::<_, Option<Vec<u8>>>(5)?,
                    row.get::<_, u32>(6)?,
                ))
            });
            let Some((noise, identity, registration_id, account, device, server_key, next_prekey_id)) =
                found.optional()?
            else {
                return Ok(None);
            };
            let corrupt = || StoreError::Corrupt("device");
            let enlisted = match account {
                None => None,
                Some(account) => Some(rows::signal_address(&account, device).ok_or_else(corrupt)?),
            };
            Ok(Some(DeviceRecord {
                noise_private: Zeroizing::new(noise.try_into().map_err(|_| corrupt())?),
                identity: Zeroizing::new(identity),
                registration_id,
                enlisted,
                server_key: server_key.map(|key| key.try_into().map_err(|_| corrupt())).transpose()?,
                next_prekey_id,
            }))
        })
        .await
    }

    async fn prekey(&self, family: PrekeyFamily, id: u32) -> Result<Option<Prekey>, StoreError> {
        self.with(move |tx| {
            let mut select = tx.prepare_cached(&prekeys("WHERE family = ?1 AND id = ?2"))?;
            select.query_row(params![write::family_number(family), id], prekey).optional()?.transpose()
        })
        .await
    }

    async fn unpublished_prekeys(&self) -> Result<Vec<Prekey>, StoreError> {
        self.with(|tx| {
            let mut select = tx.prepare_cached(&prekeys("WHERE published = 0 ORDER BY family, made_ms, id"))?;
            let found = select.query_map([], prekey)?;
            found.map(|row| row?).collect()
        })
        .await
    }

    async fn signed_prekey_made_ms(&self) -> Result<Option<u64>, StoreError> {
        self.with(|tx| {
            let newest = "SELECT MAX(made_ms) FROM prekeys WHERE family = 1";
            Ok(tx.query_row(newest, [], |row| row.get::<_, Option<i64>>(0))?.map(write::from_sql))
        })
        .await
    }

    async fn base_key_used(&self, key: &UsedBaseKey) -> Result<bool, StoreError> {
        let key = key.clone();
        self.with(move |tx| {
            let find = "SELECT 1 FROM base_keys WHERE kyber = ?1 AND signed = ?2 AND base_key = ?3";
            Ok(tx.prepare_cached(find)?.exists(params![key.kyber, key.signed, key.base_key])?)
        })
        .await
    }

    async fn session(&self, with: SignalAddress) -> Result<Option<Vec<u8>>, StoreError> {
        self.blob("SELECT record FROM sessions WHERE account = ?1 AND device = ?2", with).await
    }

    async fn identity(&self, of: SignalAddress) -> Result<Option<Vec<u8>>, StoreError> {
        self.blob("SELECT key FROM identities WHERE account = ?1 AND device = ?2", of).await
    }

    async fn peer(&self, address: &Address) -> Result<Option<Peer>, StoreError> {
        let address = address.clone();
        self.with(move |tx| {
            let mut select = tx.prepare_cached("SELECT account, devices FROM peers WHERE address = ?1")?;
            let found = select.query_row([address.as_str()], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)));
            let Some((account, devices)) = found.optional()? else { return Ok(None) };
            let account = account[..].try_into().map_err(|_| StoreError::Corrupt("peer"))?;
            let devices = rows::read_devices(&Vec::<u8>::clone(&devices))?;
            Ok(Some(Peer { address, account, devices }))
        })
        .await
    }

    async fn unfinished(&self, after: u64, limit: usize) -> Result<Vec<OutgoingHeader>, StoreError> {
        self.with(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT seq, id, address, class, created_ms, purpose FROM outgoing
                 WHERE result IS NULL AND seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let found = select.query_map(params![write::to_sql(after), limit], header)?;
            found.map(|row| row?).collect()
        })
        .await
    }

    async fn outgoing(&self, id: MessageId) -> Result<Option<Outgoing>, StoreError> {
        self.with(move |tx| {
            let mut select = tx.prepare_cached(&outgoings("WHERE id = ?1"))?;
            select.query_row([id.as_bytes()], outgoing).optional()?.transpose()
        })
        .await
    }

    async fn sent_to(&self, to: &Address, id_prefix: [u8; 6]) -> Result<Option<Outgoing>, StoreError> {
        let to = to.clone();
        self.with(move |tx| {
            let (mut first, mut last) = ([0; 16], [0xff; 16]);
            first[..6].copy_from_slice(&id_prefix);
            last[..6].copy_from_slice(&id_prefix);
            let newest = "WHERE id BETWEEN ?1 AND ?2 AND address = ?3 ORDER BY seq DESC LIMIT 1";
            let mut select = tx.prepare_cached(&outgoings(newest))?;
            select.query_row(params![first, last, to.as_str()], outgoing).optional()?.transpose()
        })
        .await
    }

    async fn resends(&self, id: MessageId, device: SignalAddress) -> Result<u32, StoreError> {
        self.with(move |tx| {
            let find = "SELECT count FROM resends WHERE id = ?1 AND account = ?2 AND device = ?3";
            let key = params![id.as_bytes(), device.account.as_bytes(), device.device.get()];
            Ok(tx.prepare_cached(find)?.query_row(key, |row| row.get(0)).optional()?.unwrap_or(0))
        })
        .await
    }

    async fn seen(&self, from: SignalAddress, id: MessageId) -> Result<Option<bool>, StoreError> {
        self.with(move |tx| {
            let find = "SELECT read FROM seen WHERE account = ?1 AND device = ?2 AND id = ?3";
            let key = params![from.account.as_bytes(), from.device.get(), id.as_bytes()];
            Ok(tx.prepare_cached(find)?.query_row(key, |row| row.get(0)).optional()?)
        })
        .await
    }

    async fn inbox(&self, after: u64, limit: usize) -> Result<Vec<InboxEntry>, StoreError> {
        self.with(move |tx| {
            let mut select =
                tx.prepare_cached("SELECT seq, kind, body FROM inbox WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let found = select.query_map(params![write::to_sql(after), limit], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?))
            })?;
            found
                .map(|row| {
                    let (seq, kind, body) = row?;
                    Ok(InboxEntry { seq: write::from_sql(seq), item: rows::read_inbox(kind, &body)? })
                })
                .collect()
        })
        .await
    }

    async fn inbox_len(&self) -> Result<usize, StoreError> {
        self.with(|tx| {
            let count: i64 = tx.query_row("SELECT COUNT(*) FROM inbox", [], |row| row.get(0))?;
            Ok(usize::try_from(count).unwrap_or(0))
        })
        .await
    }

    async fn last_seqs(&self) -> Result<(u64, u64), StoreError> {
        self.with(|tx| {
            let last = "SELECT outgoing, inbox FROM last_seqs";
            Ok(tx.query_row(last, [], |row| Ok((write::from_sql(row.get(0)?), write::from_sql(row.get(1)?))))?)
        })
        .await
    }
}

impl SqliteStore {
    async fn blob(&self, select: &'static str, of: SignalAddress) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(move |tx| {
            let key = params![of.account.as_bytes(), of.device.get()];
            Ok(tx.prepare_cached(select)?.query_row(key, |row| row.get(0)).optional()?)
        })
        .await
    }
}

fn prekeys(condition: &str) -> String {
    format!("SELECT family, id, last_resort, record, made_ms, published, replaced_ms FROM prekeys {condition}")
}

fn prekey(row: &Row<'_>) -> rusqlite::Result<Result<Prekey, StoreError>> {
    let family = match row.get(0)? {
        0_i64 => PrekeyFamily::Ec,
        1 => PrekeyFamily::Signed,
        2 => PrekeyFamily::Kyber,
        _ => return Ok(Err(StoreError::Corrupt("prekey"))),
    };
    Ok(Ok(Prekey {
        family,
        id: row.get(1)?,
        last_resort: row.get(2)?,
        record: Zeroizing::new(row.get(3)?),
        made_ms: write::from_sql(row.get(4)?),
        published: row.get(5)?,
        replaced_ms: row.get::<_, Option<i64>>(6)?.map(write::from_sql),
    }))
}

fn header(row: &Row<'_>) -> rusqlite::Result<Result<OutgoingHeader, StoreError>> {
    let (id, to, class): (Vec<u8>, String, i32) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let corrupt = || StoreError::Corrupt("outgoing message");
    let parts = || {
        let id = MessageId::try_from(&id[..]).map_err(|_| corrupt())?;
        let to: Address = to.parse().map_err(|_| corrupt())?;
        Ok((id, to, MessageClass::try_from(class).map_err(|_| corrupt())?))
    };
    let (id, to, class) = match parts() {
        Ok(parts) => parts,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok(OutgoingHeader {
        seq: write::from_sql(row.get(0)?),
        id,
        to,
        class,
        created_ms: write::from_sql(row.get(4)?),
        is_message: row.get::<_, i64>(5)? == 0,
    }))
}

fn outgoings(condition: &str) -> String {
    format!("SELECT seq, id, address, class, created_ms, purpose, body, result, finished_ms FROM outgoing {condition}")
}

fn outgoing(row: &Row<'_>) -> rusqlite::Result<Result<Outgoing, StoreError>> {
    let header = match header(row)? {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let (purpose, body): (i64, Vec<u8>) = (row.get(5)?, row.get(6)?);
    let mut outgoing = Outgoing {
        seq: header.seq,
        id: header.id,
        to: header.to,
        class: header.class,
        purpose: Purpose::Message,
        content: Vec::new(),
        sealed: Vec::new(),
        repairs: 0,
        created_ms: header.created_ms,
        result: None,
        finished_ms: write::from_sql(row.get(8)?),
    };
    let result = row.get::<_, Option<i64>>(7)?;
    Ok(rows::read_outgoing(&body, purpose, &mut outgoing).and_then(|()| {
        outgoing.result = result.map(rows::result_from).transpose()?;
        Ok(outgoing)
    }))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => Err(StoreError::Backend(Box::new(stopped))),
    }
}

/// Makes the file before SQLite does, so that nobody else can read it for a moment. Its journals get the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let next = std::sync::atomic::AtomicU32::new(0);
        super::super::suite::run(async || {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Box::new(SqliteStore::open(folder.path().join(number.to_string())).await.unwrap()) as Box<dyn Store>
        })
        .await;
    }

    #[tokio::test]
    async fn a_file_has_one_user_at_a_time_and_keeps_what_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let with = SignalAddress {
            account: causeway_identity::AccountId::from_bytes([1; 16]),
            device: causeway_identity::DeviceId::new(1).unwrap(),
        };
        store.commit(vec![Change::PutSession(with, vec![1, 2, 3])]).await.unwrap();
        assert!(matches!(SqliteStore::open(&path).await, Err(StoreError::InUse)));
        drop(store);
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.session(with).await.unwrap(), Some(vec![1, 2, 3]));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn only_the_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.db");
        let _store = SqliteStore::open(&path).await.unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{mode:o}");
        }
    }

    #[tokio::test]
    async fn what_is_no_database_or_from_the_future_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise");
        std::fs::write(&path, vec![7; 4096]).unwrap();
        assert!(matches!(SqliteStore::open(&path).await, Err(StoreError::Backend(_))));
        let path = folder.path().join("later");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(SqliteStore::open(&path).await, Err(StoreError::Newer(99))));
        assert!(matches!(SqliteStore::open(folder.path().join("no/such/folder")).await, Err(StoreError::Io(_))));
    }
}
