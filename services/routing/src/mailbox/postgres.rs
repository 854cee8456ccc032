//! The mailbox in PostgreSQL, which several processes share: a few writers over which the accounts are spread, each of
//! which commits everything that is queued for it in one transaction. A result is told only after the commit was answered.
//!
//! To change the tables: a further step in `sql.rs` that programs which do not know it can live with. To add a statement:
//! a constant there, which finds its rows by the account.

mod batch;
mod claims;
mod config;
mod ops;
mod rows;
mod sql;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId};
use causeway_postgres::{Class, Connection, Postgres, PostgresError};
use causeway_runtime::health::Tables;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::RngCore;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::mailbox::{
    Bounds, Claimed, Commit, Depth, DeviceUsage, Mailbox, Page, PageRequest, Put, PutOutcome, Replica, ReplicaId,
    StoreError, Usage,
};
use crate::message::{MessageKey, Seq};
use crate::metrics::Metrics;

pub use config::PostgresMailboxConfig;
use ops::{Action, Done, Op};
use rows::Id;
use writer::{Queue, Writer};

/// Pause before a look-up is repeated.
const PAUSE: Duration = Duration::from_millis(20);
/// Replicas of this process whose registration is remembered: all that it was, but for one that changes very often.
const REMEMBERED: usize = 1_024;

/// A mailbox in a database.
pub(crate) struct PostgresMailbox {
    queues: Vec<Arc<Queue>>,
    writers: TaskTracker,
    reader: Arc<Reader>,
}

/// What is not queued.
struct Reader {
    postgres: Postgres,
    timeout: Duration,
    pages: Semaphore,
    /// For what strangers can make happen: a few, so that one that is slow does not delay the others, and no more, so that
    /// they do not hold up devices that read their messages. Writers have connections of their own.
    checks: Semaphore,
    leases: Semaphore,
    sweeps: Semaphore,
    /// Replicas whose first lease has begun.
    registered: Mutex<Vec<ReplicaId>>,
}

impl PostgresMailbox {
    /// What this program has brought the tables to.
    pub(crate) const TABLES: Tables = Tables { store: "postgres", version: sql::MIGRATIONS.len() as u32 };

    /// Connects, brings the tables up to date and starts the writers on the current runtime.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub(crate) async fn open(
        config: &PostgresMailboxConfig,
        bounds: Bounds,
        metrics: &Metrics,
        rng: &mut (dyn RngCore + Send),
    ) -> Result<Self, PostgresError> {
        let postgres = Postgres::open(&config.postgres, "causeway-routing", sql::SETTINGS).await?;
        postgres.migrate("mailbox", sql::MIGRATIONS).await?;
        let connection = postgres.connection().await?;
        for old in [sql::CLEAR_REPLICAS, sql::CLEAR_WRITERS] {
            connection.execute(old, &[]).await?;
        }
        drop(connection);
        let writers = TaskTracker::new();
        let mut queues = Vec::with_capacity(config.writers);
        for _ in 0..config.writers.max(1) {
            let queue = Queue::new();
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            let timeout = config.write_timeout();
            let writer = Writer::new(Arc::clone(&queue), postgres.clone(), bounds, timeout, metrics.clone(), id);
            writers.spawn(writer.run());
            queues.push(queue);
        }
        writers.close();
        let reader = Reader {
            postgres,
            timeout: config.write_timeout(),
            pages: Semaphore::new(config.page_readers()),
            checks: Semaphore::new(config.checkers()),
            leases: Semaphore::new(1),
            sweeps: Semaphore::new(1),
            registered: Mutex::default(),
        };
        Ok(Self { queues, writers, reader: Arc::new(reader) })
    }

    /// Number of transactions that writers have committed.
    #[cfg(test)]
    pub(crate) fn commits(&self) -> u64 {
        self.queues.iter().map(|queue| queue.commits()).sum()
    }

    fn queue<T: Send + 'static>(
        &self,
        replica: ReplicaId,
        account: AccountId,
        action: Action,
        result: fn(Done) -> Option<T>,
    ) -> Commit<T> {
        let (reply, done) = oneshot::channel();
        let op = Op { account, replica, action, queued: Instant::now(), reply };
        let Some(queue) = self.queues.get(shard(account, self.queues.len())) else {
            return futures::future::ready(Err(StoreError::Closed)).boxed();
        };
        let chain = op.chain();
        if let Err(error) = queue.push(op) {
            if let Some(chain) = chain {
                chain.break_off();
            }
            return futures::future::ready(Err(error)).boxed();
        }
        async move {
            let done = done.await.unwrap_or(Err(StoreError::Closed))?;
            // Each operation has one kind of result, so there always is one.
            result(done).ok_or_else(|| StoreError::Unknown("a result of another operation".to_owned()))
        }
        .boxed()
    }
}

/// Writes what is queued, if the runtime lives long enough; to wait for it is [`Mailbox::close`].
impl Drop for PostgresMailbox {
    fn drop(&mut self) {
        self.queues.iter().for_each(|queue| queue.close());
    }
}

/// Which writer an account's operations go to, always the same.
fn shard(account: AccountId, writers: usize) -> usize {
    // Account ids are random, but not those of tests.
    let sum = account.as_bytes().iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    sum.checked_rem(writers).unwrap_or_default()
}

impl Mailbox for PostgresMailbox {
    fn claim(&self, replica: ReplicaId, account: AccountId) -> Commit<Claimed> {
        self.queue(replica, account, Action::Claim, Done::claimed)
    }

    fn release(&self, replica: ReplicaId, account: AccountId) -> Commit<()> {
        self.queue(replica, account, Action::Release, Done::gone)
    }

    fn put(&self, replica: ReplicaId, put: Put) -> Commit<PutOutcome> {
        self.queue(replica, put.account, Action::Put(put), Done::put)
    }

    fn forget(&self, replica: ReplicaId, account: AccountId, device: DeviceId, upto: Seq) -> Commit<Usage> {
        self.queue(replica, account, Action::Forget { device, upto }, Done::erased)
    }

    fn drop_device(
        &self,
        replica: ReplicaId,
        account: AccountId,
        device: DeviceId,
        keep: Option<u32>,
    ) -> Commit<Usage> {
        self.queue(replica, account, Action::DropDevice { device, keep }, Done::erased)
    }

    fn drop_account(&self, replica: ReplicaId, account: AccountId) -> Commit<()> {
        self.queue(replica, account, Action::DropAccount, Done::gone)
    }

    fn usage(&self, account: AccountId) -> Commit<Vec<DeviceUsage>> {
        self.queue(ReplicaId::from_bytes([0; 16]), account, Action::Usage, Done::usage)
    }

    fn expire(&self, now_ms: u64, limit: u32) -> Commit<u64> {
        let reader = Arc::clone(&self.reader);
        // It happens whether or not anybody waits for it.
        let sweep = self.writers.spawn(async move {
            let end = Instant::now() + reader.timeout;
            let values = (rows::integer(now_ms), i64::from(limit));
            let erase = move |connection: Connection| async move {
                let row = connection.query_one(sql::EXPIRE, &[&values.0, &values.1]).await?;
                rows::natural(&row, 0)
            };
            reader.ask(&reader.sweeps, end, Lost::MayHaveHappened, erase).await
        });
        async move { sweep.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    fn holds(&self, account: AccountId, key: MessageKey) -> Commit<bool> {
        let reader = Arc::clone(&self.reader);
        async move {
            let (account, sender, id) = (Id::from(account), Id::from(key.account), Id::from(key.id));
            let device = rows::device_number(key.device);
            let look = move |connection: Connection| async move {
                let row = connection.query_one(sql::HOLDS, &[&account, &sender, &device, &id]).await?;
                rows::get(&row, 0)
            };
            reader.ask(&reader.checks, Instant::now() + reader.timeout, Lost::Nothing, look).await
        }
        .boxed()
    }

    fn page(&self, request: PageRequest) -> Commit<Page> {
        let reader = Arc::clone(&self.reader);
        async move {
            let look = move |connection: Connection| read_page(connection, request);
            reader.ask(&reader.pages, Instant::now() + reader.timeout, Lost::Nothing, look).await
        }
        .boxed()
    }

    fn depth(&self) -> Commit<Depth> {
        let reader = Arc::clone(&self.reader);
        async move {
            let look = move |connection: Connection| async move {
                let row = connection.query_one(sql::DEPTH, &[]).await?;
                rows::depth(&row)
            };
            reader.ask(&reader.sweeps, Instant::now() + reader.timeout, Lost::Nothing, look).await
        }
        .boxed()
    }

    fn queued(&self) -> usize {
        self.queues.iter().map(|queue| queue.len()).sum()
    }

    fn renew(&self, replica: &Replica, lasts: Duration) -> Commit<()> {
        let (reader, replica) = (Arc::clone(&self.reader), replica.clone());
        async move { reader.renew(replica, lasts).await }.boxed()
    }

    fn leave(&self, replica: ReplicaId) -> Commit<()> {
        let reader = Arc::clone(&self.reader);
        async move {
            let replica = Id::from(replica);
            let leave = move |connection: Connection| async move {
                connection.execute(sql::LEAVE, &[&replica]).await.map(|_| ())
            };
            reader.ask(&reader.leases, Instant::now() + reader.timeout, Lost::MayHaveHappened, leave).await
        }
        .boxed()
    }

    fn replicas(&self) -> Commit<Vec<Replica>> {
        let reader = Arc::clone(&self.reader);
        async move {
            let look = move |connection: Connection| async move {
                let found = connection.query(sql::REPLICAS, &[]).await?;
                found.iter().map(|row| rows::known_replica(row, 0)).collect()
            };
            reader.ask(&reader.leases, Instant::now() + reader.timeout, Lost::Nothing, look).await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.queues.iter().for_each(|queue| queue.close());
        let writers = self.writers.clone();
        async move { writers.wait().await }.boxed()
    }
}

async fn read_page(connection: Connection, request: PageRequest) -> Result<Page, PostgresError> {
    let natural = |value: usize| rows::integer(value as u64);
    let found = connection
        .query(
            sql::PAGE,
            &[
                &Id::from(request.account),
                &rows::device_number(request.device),
                &rows::integer(request.after.0),
                &i64::from(request.registration),
                &rows::integer(request.now_ms),
                &natural(request.messages.min(1 << 31)),
                &natural(request.bytes),
            ],
        )
        .await?;
    rows::page(&found, &request)
}

/// What an answer that did not come means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// It only looked.
    Nothing,
    /// It may have changed something; to do it twice is as good as once.
    MayHaveHappened,
}

impl Reader {
    /// Does one statement, again while that can help, until `end`; at most as many at a time as `gate` lets in.
    async fn ask<T, F: Future<Output = Result<T, PostgresError>>>(
        &self,
        gate: &Semaphore,
        end: Instant,
        lost: Lost,
        statement: impl Fn(Connection) -> F,
    ) -> Result<T, StoreError> {
        let mut asked = false;
        let asking = async {
            loop {
                let _permit = gate.acquire().await.map_err(|_| PostgresError::Closed)?;
                let attempt = async {
                    let connection = self.postgres.connection().await?;
                    asked = true;
                    statement(connection).await
                };
                match attempt.await {
                    Err(error) if error.class() != Class::Failed && Instant::now() + PAUSE < end => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    result => return result,
                }
            }
        };
        let result = match tokio::time::timeout_at(end, asking).await {
            Ok(result) => result,
            Err(_) => Err(PostgresError::Unknown("it took too long".to_owned())),
        };
        result.map_err(|error| match (error.class(), error) {
            (_, PostgresError::Closed) => StoreError::Closed,
            (Class::Failed, error) => StoreError::Failed(error.to_string()),
            (_, error) if asked && lost == Lost::MayHaveHappened => StoreError::Unknown(error.to_string()),
            (_, error) => StoreError::Failed(error.to_string()),
        })
    }

    async fn renew(&self, replica: Replica, lasts: Duration) -> Result<(), StoreError> {
        let milliseconds = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX);
        let known = self.registered().contains(&replica.id);
        let sql = if known { sql::RENEW } else { sql::REGISTER };
        let (id, url) = (Id::from(replica.id), replica.url);
        let renew = move |connection: Connection| {
            let url = url.clone();
            async move { connection.execute(sql, &[&id, &url, &milliseconds]).await }
        };
        // When it has lasted that long without an answer, it has run out.
        let end = Instant::now() + lasts.min(self.timeout);
        if self.ask(&self.leases, end, Lost::MayHaveHappened, renew).await? == 0 {
            return Err(StoreError::Fenced);
        }
        if !known {
            let mut registered = self.registered();
            if registered.len() >= REMEMBERED {
                registered.remove(0);
            }
            registered.push(replica.id);
        }
        Ok(())
    }

    fn registered(&self) -> std::sync::MutexGuard<'_, Vec<ReplicaId>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
