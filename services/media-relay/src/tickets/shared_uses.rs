//! How often each ticket has been presented, over all replicas.

use std::sync::LazyLock;

use causeway_redis::{Redis, Script};

/// Counts by the first half of a ticket's tag, which nobody can choose, until the ticket expires.
#[derive(Debug)]
pub(super) struct SharedUses {
    redis: Redis,
    max: u32,
}

/// What others have counted cannot be learnt now. The use may have been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Away;

impl SharedUses {
    /// Allows `max` uses of each.
    pub(super) fn new(redis: Redis, max: u32) -> Self {
        Self { redis, max }
    }

    /// Counts one more use; false when it was one too many.
    pub(super) async fn count(&self, tag: &[u8; 32], expires_ms: u64, now_ms: u64) -> Result<bool, Away> {
        let lasts_ms = expires_ms.saturating_sub(now_ms).saturating_add(SKEW_MS).min(LONGEST_MS);
        let args = [self.max.to_string().into_bytes(), lasts_ms.to_string().into_bytes()];
        let key = self.redis.key("ticket", &hex::encode(&tag[..16]));
        self.redis.script::<bool>(&COUNT, &key, &args).await.map_err(|_| Away)
    }
}

/// The replicas' clocks differ by less.
const SKEW_MS: u64 = 60_000;
/// Two days: longer than any ticket lasts.
const LONGEST_MS: u64 = 2 * 24 * 60 * 60 * 1_000;

static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local uses = tonumber(redis.call('GET', KEYS[1]) or '0')
if uses >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], uses + 1, 'PX', ARGV[2])
return 1",
    )
});
