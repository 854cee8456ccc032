//! Spent tokens. A `jti` may come again until it expires, but only over the Noise key that it was spent with, and for the
//! device that it was spent for (docs/protocol.md, section 4). Bounded, and closed when full or out of reach.
//!
//! A further backend is a file here that implements [`SpentTokens`] and passes `suite`.

mod memory;
mod shared;
#[cfg(test)]
mod suite;

use std::sync::Arc;

use async_trait::async_trait;
use causeway_identity::{DeviceId, NoiseKey, ProviderId};
use causeway_redis::{Health, Redis};
use tokio::sync::watch;

use self::memory::MemoryTokens;
use self::shared::SharedTokens;
use crate::config::EdgeConfig;

/// Entries outlive their token by the allowed clock skew and a little more.
const KEEP_AFTER_EXPIRY_S: u64 = 120;

/// Why a token cannot be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpendError {
    /// Its `jti` was spent with another key, for another device, or by a device that was removed since.
    Replayed,
    /// Too many unexpired tokens are remembered already.
    Full,
    /// What other edges have accepted cannot be learnt now.
    Away,
}

/// What was spent, by whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spending<'a> {
    pub(crate) provider: ProviderId,
    pub(crate) jti: &'a str,
    /// Unix seconds.
    pub(crate) expires_s: u64,
    pub(crate) key: NoiseKey,
    /// `None` for a session that is not enlisted.
    pub(crate) device: Option<DeviceId>,
}

/// The tokens that were accepted. To drop a future before it ends may leave the token spent, which is no harm: the same
/// may spend it again.
#[async_trait]
pub(crate) trait SpentTokens: Send + Sync {
    /// Whether the token could be spent, without spending it.
    async fn check(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError>;

    /// Spends the token. To spend it again for the same is no error.
    async fn spend(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError>;

    /// The device was removed, or its account withdrawn: the token opens nothing any more. Here at once, elsewhere soon.
    fn burn(&self, provider: ProviderId, jti: &str, expires_s: u64, now_s: u64);

    /// How the store that edges share is, if there is one.
    fn health(&self) -> Option<watch::Receiver<Health>>;
}

/// The tokens of all edges when there is a Redis, else those of this one.
pub(crate) fn open(config: &EdgeConfig, redis: Option<Redis>) -> Arc<dyn SpentTokens> {
    let own = MemoryTokens::new(config.replay_tokens, config.replay_tokens_per_provider);
    match redis {
        None => Arc::new(own),
        Some(redis) => Arc::new(SharedTokens::new(redis, own)),
    }
}
