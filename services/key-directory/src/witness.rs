//! Whether a database that several directories share was put back to an earlier time, or replaced: this process, or Redis,
//! has seen a higher number of its epoch. What Redis says is nothing more than a hint: without Redis, or after it has lost
//! the number, nothing is found at a start; and whoever may write to it can write any number.
//!
//! Only a number whose commit was confirmed is remembered. A server shows what it has committed itself although no standby has
//! it yet (when the wait for the standby was cut short, or the server was killed in it), and after a fail-over it never was.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use causeway_redis::{Redis, RedisError, Script};
use causeway_runtime::clock::SharedClock;
use causeway_runtime::health::{Health, Part};
use tokio::time::timeout;

use crate::store::{Epoch, Store, StoreError};

/// A copy that is older than this is found when it is put back.
const EPOCH: Duration = Duration::from_secs(30);
/// A start does not wait for Redis for longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// In milliseconds. Numbers are at most those of the database's clock, which may be ahead of this one by so much.
const AHEAD: u64 = 24 * 60 * 60 * 1000;

/// Keeps the highest number of all, for a year, and gives what was there before, shortened: it may be anything.
static HIGHEST: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local kept = redis.pcall('GET', KEYS[1])
         if type(kept) == 'table' then return 'another type' end
         kept = kept or '0'
         local seen = tonumber(kept)
         if seen and tonumber(ARGV[1]) > seen then redis.call('SET', KEYS[1], ARGV[1], 'EX', 31536000) end
         return string.sub(kept, 1, 32)",
    )
});

/// What is seen of a store's epochs.
pub(crate) struct Witness {
    store: Arc<dyn Store>,
    redis: Option<Redis>,
    clock: SharedClock,
    /// The highest that is known to last. One task at a time looks.
    highest: Mutex<Option<Epoch>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Fine,
    PutBack,
    /// What Redis has under this key, no directory has written.
    Implausible(String),
}

#[derive(Debug, thiserror::Error)]
enum NotSeen {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl Witness {
    pub(crate) fn of(store: Arc<dyn Store>, redis: Option<Redis>, clock: SharedClock) -> Self {
        Self { store, redis, clock, highest: Mutex::default() }
    }

    /// Whether the store is known to have been put back, before anything is done with it.
    pub(crate) async fn knows_better(&self) -> bool {
        if let (Some(redis), Ok(Some(_))) = (&self.redis, self.store.epoch().await) {
            // A Redis that is away is asked later.
            let _away = timeout(PATIENCE, redis.wait_until_up()).await;
        }
        self.look().await == Some(Finding::PutBack)
    }

    /// Turns the epoch every now and then. Resolves when the store is known to have been put back.
    pub(crate) async fn watch(&self, health: &Health) {
        loop {
            let finding = self.look().await;
            if finding == Some(Finding::PutBack) {
                return;
            }
            if let (Some(_), Some(finding)) = (&self.redis, finding) {
                health.report("directory.epoch", finding.part());
            }
            self.turn().await;
            tokio::time::sleep(EPOCH).await;
        }
    }

    /// Turns the epoch.
    pub(crate) async fn turn(&self) {
        if let Err(error) = self.try_turn().await {
            tracing::debug!(%error, "an older copy of the database would not be known as such for now");
        }
    }

    async fn try_turn(&self) -> Result<(), NotSeen> {
        let Some(epoch) = self.store.turn_epoch().await? else { return Ok(()) };
        if self.fallen_from(&epoch).is_none() {
            *self.highest.lock().unwrap_or_else(PoisonError::into_inner) = Some(epoch.clone());
            if let Some(redis) = &self.redis {
                seen(redis, &epoch.incarnation, epoch.number).await?;
            }
        }
        Ok(())
    }

    /// `None`: nobody knows.
    async fn look(&self) -> Option<Finding> {
        let looked = self.try_look().await;
        looked.inspect_err(|error| tracing::debug!(%error, "nobody knows whether the database was put back")).ok()
    }

    async fn try_look(&self) -> Result<Finding, NotSeen> {
        if !self.store.is_home().await? {
            return Ok(Finding::PutBack);
        }
        let Some(before) = self.store.epoch().await? else { return Ok(Finding::Fine) };
        if let Some(highest) = self.fallen_from(&before) {
            return self.has_fallen_from(&highest).await;
        }
        let Some(redis) = &self.redis else { return Ok(Finding::Fine) };
        let seen = seen(redis, &before.incarnation, 0).await?;
        // What Redis has seen was committed before. So the store is asked afterwards: another directory may just have turned.
        let Some(epoch) = self.store.epoch().await? else { return Ok(Finding::Fine) };
        if let Some(highest) = self.fallen_from(&epoch) {
            return self.has_fallen_from(&highest).await;
        }
        let possible = self.clock.now_ms().max(epoch.number).saturating_add(AHEAD);
        Ok(match seen.parse::<u64>() {
            Ok(seen) if seen <= epoch.number => Finding::Fine,
            Ok(seen) if seen <= possible => Finding::PutBack,
            _ => Finding::Implausible(redis.key("epoch", &before.incarnation)),
        })
    }

    /// What was remembered, if this is earlier, or if the store is another now.
    fn fallen_from(&self, epoch: &Epoch) -> Option<Epoch> {
        let highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        let fallen = |seen: &Epoch| seen.incarnation != epoch.incarnation || seen.number > epoch.number;
        highest.clone().filter(fallen)
    }

    /// Others, and those who start later without Redis, cannot know, so they are told: this is no hint that somebody made up.
    async fn has_fallen_from(&self, highest: &Epoch) -> Result<Finding, NotSeen> {
        if let Err(error) = self.store.condemn(highest.number).await {
            tracing::warn!(%error, "other key-directories are not told that the database was put back");
        }
        Ok(Finding::PutBack)
    }
}

impl Finding {
    fn part(self) -> Part {
        match self {
            Self::Implausible(key) => Part::Degraded(format!(
                "Redis has an impossible epoch in {key}, which no key-directory wrote: find out who writes to this Redis, \
                 and delete the key; until then a cluster that is recovered to an earlier time is not noticed at a start"
            )),
            Self::Fine | Self::PutBack => Part::Up,
        }
    }
}

async fn seen(redis: &Redis, incarnation: &str, number: u64) -> Result<String, RedisError> {
    redis.script(&HIGHEST, &redis.key("epoch", incarnation), &[number.to_string().into_bytes()]).await
}
