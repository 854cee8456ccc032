//! Whether a database that several directories share was put back to an earlier time: Redis has seen a higher number of its
//! epoch. Nothing more than a hint: without Redis, or after Redis has lost it, nothing is found.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use causeway_redis::{Redis, RedisError, Script};
use tokio::time::timeout;

use crate::store::{Store, StoreError};

/// A copy that is older than this is found when it is put back.
const EPOCH: Duration = Duration::from_secs(30);
/// A start does not wait for Redis for longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps the highest number of all, for a year, and gives the one of before.
static HIGHEST: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local seen = tonumber(redis.call('GET', KEYS[1]) or '0')
         if tonumber(ARGV[1]) > seen then redis.call('SET', KEYS[1], ARGV[1], 'EX', 31536000) end
         return seen",
    )
});

/// What is seen of a store's epochs.
pub(crate) struct Witness {
    store: Arc<dyn Store>,
    redis: Option<Redis>,
}

#[derive(Debug, thiserror::Error)]
enum NotSeen {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl Witness {
    pub(crate) fn of(store: Arc<dyn Store>, redis: Option<Redis>) -> Self {
        Self { store, redis }
    }

    /// Whether the store is known to have been put back, before anything is done with it.
    pub(crate) async fn knows_better(&self) -> bool {
        if let (Some(redis), Ok(Some(_))) = (&self.redis, self.store.epoch().await) {
            // A Redis that is away is asked later.
            let _away = timeout(PATIENCE, redis.wait_until_up()).await;
        }
        self.has_fallen().await
    }

    /// Turns the epoch every now and then. Resolves when the store is known to have been put back.
    pub(crate) async fn watch(&self) {
        loop {
            if self.has_fallen().await {
                return;
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
        self.store.turn_epoch().await?;
        if let (Some(redis), Some((place, number))) = (&self.redis, self.store.epoch().await?) {
            seen(redis, &place, number).await?;
        }
        Ok(())
    }

    async fn has_fallen(&self) -> bool {
        self.try_has_fallen().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "nobody knows whether the database was put back");
            false
        })
    }

    async fn try_has_fallen(&self) -> Result<bool, NotSeen> {
        let (Some(redis), Some((place, _))) = (&self.redis, self.store.epoch().await?) else { return Ok(false) };
        // What Redis has seen was committed before. So the store is asked afterwards: another directory may just have turned.
        let seen = seen(redis, &place, 0).await?;
        Ok(self.store.epoch().await?.is_some_and(|(same, number)| same == place && number < seen))
    }
}

async fn seen(redis: &Redis, place: &str, number: u64) -> Result<u64, RedisError> {
    redis.script(&HIGHEST, &redis.key("epoch", place), &[number.to_string().into_bytes()]).await
}
