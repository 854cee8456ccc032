//! How Redis is.

use tokio::time::Instant;

/// Whether commands are answered; from a watch that [`crate::Redis::health`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Redis answers and takes writes.
    Up {
        /// Since when.
        since: Instant,
    },
    /// It does not: what the service does without it is in docs/redis.md.
    Degraded {
        /// Since when.
        since: Instant,
        /// What was seen, for the operator.
        why: String,
    },
}

impl Health {
    /// Whether Redis answers and takes writes.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}
