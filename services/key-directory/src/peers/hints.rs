//! That there is something to read, said among directories.

use causeway_redis::{Redis, WakeUps};

const CHANNEL: &str = "directory-changes";

/// Hints between directories; without Redis there are none.
pub(super) struct Hints {
    redis: Option<Redis>,
    wake_ups: Option<WakeUps>,
}

impl Hints {
    pub(super) fn listen(redis: Option<&Redis>) -> Self {
        Self { redis: redis.cloned(), wake_ups: redis.map(|redis| redis.wake_ups(CHANNEL)) }
    }

    pub(super) async fn next(&mut self) {
        match &mut self.wake_ups {
            Some(wake_ups) => wake_ups.next().await,
            None => std::future::pending().await,
        }
    }

    /// In the background: nobody waits for a hint.
    pub(super) fn tell(&self) {
        if let Some(redis) = self.redis.clone().filter(Redis::is_up) {
            tokio::spawn(async move {
                // The log is read anyway.
                let _unheard = redis.wake(CHANNEL).await;
            });
        }
    }
}
