//! Which devices are attached where: for operators, and for the order of sessions when an account changes its owner. A
//! hint, never the truth: nothing that is decided about a message depends on it, and nothing waits for it but a session
//! that attaches at an owner which has just claimed its account, for no more than a few milliseconds.
//!
//! Another backend is a file here that implements [`Store`] and passes `suite`.

mod memory;
mod shared;
#[cfg(test)]
mod suite;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use causeway_identity::{AccountId, DeviceId};
use causeway_redis::Redis;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::memory::MemoryStore;
use self::shared::RedisStore;
use crate::session::SessionKey;

/// A device of an account.
pub(crate) type Who = (AccountId, DeviceId);

/// Where presence is kept. What is told may get lost; a renewal tells it again.
#[async_trait]
pub(crate) trait Store: Send + Sync {
    /// Takes all in, in order. Of a device's sessions the one with the greatest number counts. Where it has left it is not
    /// any more, unless it has come elsewhere meanwhile; its number is remembered.
    async fn tell(&self, told: &[Told]) -> Result<(), Away>;

    /// What is known of the account's devices, by device.
    async fn look(&self, account: AccountId) -> Result<Vec<Seen>, Away>;
}

/// What a replica says of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) who: Who,
    pub(crate) number: u64,
    /// The replica.
    pub(crate) at: Arc<str>,
    /// Else it has left there.
    pub(crate) here: bool,
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) device: DeviceId,
    /// Of its newest session.
    pub(crate) number: u64,
    /// The replica, if it is attached and its lease holds.
    pub(crate) at: Option<String>,
}

/// There is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Away;

/// The presence of this replica's sessions, and what others have told. Nothing here waits, other than [`Presence::newest`].
pub(crate) struct Presence {
    store: Box<dyn Store>,
    /// This replica's name.
    name: Arc<str>,
    local: Mutex<Local>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Local {
    here: HashMap<SessionKey, (Who, u64)>,
    /// Sessions that have come or left since the last telling.
    untold: Vec<Told>,
    /// More have than fit.
    overflown: bool,
}

impl Presence {
    /// Over Redis, or in the memory of this process, which is right for one replica. `name` is this replica's.
    pub(crate) fn new(redis: Option<Redis>, name: &str) -> Self {
        let store: Box<dyn Store> = match redis {
            Some(redis) => Box::new(RedisStore::new(redis)),
            None => Box::new(MemoryStore::default()),
        };
        Self { store, name: name.into(), local: Mutex::default(), news: Notify::new() }
    }

    /// The session is attached here, with this number. A second time is no error.
    pub(crate) fn attach(&self, session: SessionKey, account: AccountId, device: DeviceId, number: u64) {
        let mut local = self.local();
        if local.here.insert(session, ((account, device), number)).is_none() {
            local.note(Told { who: (account, device), number, at: Arc::clone(&self.name), here: true });
            self.news.notify_one();
        }
    }

    /// It is not any more. Another session of the device is not touched.
    pub(crate) fn detach(&self, session: SessionKey) {
        let mut local = self.local();
        if let Some((who, number)) = local.here.remove(&session) {
            local.note(Told { who, number, at: Arc::clone(&self.name), here: false });
            self.news.notify_one();
        }
    }

    /// The greatest number of each device's sessions, as far as is known; nothing when that takes too long. `now_us` is
    /// the time of day in microseconds: numbers are taken from it, so what is far ahead of it is none.
    pub(crate) async fn newest(&self, account: AccountId, now_us: u64) -> BTreeMap<DeviceId, u64> {
        let Ok(Ok(seen)) = timeout(HINT_WAIT, self.store.look(account)).await else { return BTreeMap::new() };
        let latest = now_us.saturating_add(MOST_AHEAD_US);
        seen.into_iter().filter(|seen| seen.number <= latest).map(|seen| (seen.device, seen.number)).collect()
    }

    /// Tells the store what changes, and renews everything that is here, until `stop`. Then it tells that all have left
    /// who have.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut renew_at = Instant::now() + RENEW_EACH;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.news.notified() => {
                    // Those that come together are told together.
                    tokio::time::sleep(GATHER).await;
                    self.tell_news().await;
                }
                () = tokio::time::sleep_until(renew_at) => {
                    self.renew(&stop).await;
                    renew_at = Instant::now() + RENEW_EACH;
                }
            }
        }
        let _late = timeout(LAST_WORDS, self.tell_news()).await;
    }

    async fn tell_news(&self) {
        loop {
            let (news, overflown) = {
                let mut local = self.local();
                (std::mem::take(&mut local.untold), std::mem::take(&mut local.overflown))
            };
            if overflown {
                tracing::info!("more sessions came and left than presence could be told of; the next renewal tells it");
            }
            if news.is_empty() {
                return;
            }
            for batch in news.chunks(BATCH) {
                if self.store.tell(batch).await.is_err() {
                    // The next renewal tells of those who are here; for those who have left, the lease ends.
                    return;
                }
            }
        }
    }

    /// Spread over a part of the time between renewals, so that many sessions are no burst. All that is told is told by
    /// one task, one after the other: so who has left is never told to be here after that.
    async fn renew(&self, stop: &CancellationToken) {
        let sessions: Vec<SessionKey> = self.local().here.keys().copied().collect();
        let batches = u32::try_from(sessions.len().div_ceil(BATCH)).unwrap_or(u32::MAX).max(1);
        let pause = ((RENEW_EACH / 2) / batches).min(MOST_PAUSE);
        for batch in sessions.chunks(BATCH) {
            let here: Vec<Told> = {
                let local = self.local();
                let here = batch.iter().filter_map(|session| local.here.get(session));
                here.map(|&(who, number)| Told { who, number, at: Arc::clone(&self.name), here: true }).collect()
            };
            if self.store.tell(&here).await.is_err() {
                return;
            }
            // Those who come or leave meanwhile do not wait for the end of it.
            self.tell_news().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Local {
    fn note(&mut self, told: Told) {
        if self.untold.len() < MAX_UNTOLD {
            self.untold.push(told);
        } else {
            self.overflown = true;
        }
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("here", &self.local().here.len()).finish_non_exhaustive()
    }
}

/// A place is believed for so long after it was told.
const LEASE: Duration = Duration::from_secs(60);
const RENEW_EACH: Duration = Duration::from_secs(20);
/// Numbers are remembered for so long after the last session has left.
const NUMBERS_KEPT: Duration = Duration::from_secs(60 * 60);
/// A session that attaches waits no longer for the hint.
const HINT_WAIT: Duration = Duration::from_millis(5);
/// Clocks of replicas differ by less.
const MOST_AHEAD_US: u64 = 60 * 60 * 1_000_000;
const GATHER: Duration = Duration::from_millis(20);
const LAST_WORDS: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_millis(500);
const BATCH: usize = 512;
const MAX_UNTOLD: usize = 65_536;
