//! Settings of the mailbox in PostgreSQL.

use causeway_postgres::PostgresConfig;
use causeway_runtime::config::{Check, ConfigError, ensure, within};
use serde::Deserialize;
use std::time::Duration;

/// Connections beside the writers': one that looks for single messages, one for leases, one for sweeps, one for pages.
const OTHERS: usize = 4;

/// Settings of the mailbox in PostgreSQL; section `[routing.postgres]`, together with all of [`PostgresConfig`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresMailboxConfig {
    /// How the database is reached.
    #[serde(flatten)]
    pub postgres: PostgresConfig,
    /// Tasks that write at a time, over which the accounts are spread, each with a connection of its own (1 to 64).
    /// Default 4; at most `max_connections` less 4.
    pub writers: usize,
    /// How long it is tried to write something, while the database is away or does not answer. Milliseconds, 100 to
    /// 60 000. Default 5 000.
    pub write_timeout_ms: u64,
}

impl Default for PostgresMailboxConfig {
    fn default() -> Self {
        Self { postgres: PostgresConfig::default(), writers: 4, write_timeout_ms: 5_000 }
    }
}

impl Check for PostgresMailboxConfig {
    fn check(&self) -> Result<(), ConfigError> {
        self.postgres.check()?;
        within("routing.postgres.writers", self.writers, 1..=64)?;
        within("routing.postgres.write_timeout_ms", self.write_timeout_ms, 100..=60_000)?;
        let enough = self.writers + OTHERS <= self.postgres.max_connections;
        let fix = "must be at most routing.postgres.max_connections less 4";
        ensure("routing.postgres.writers", enough, self.writers, fix)
    }
}

impl PostgresMailboxConfig {
    pub(super) const fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }

    /// Pages that are read at a time.
    pub(super) const fn page_readers(&self) -> usize {
        let rest = self.postgres.max_connections.saturating_sub(self.writers + OTHERS - 1);
        if rest == 0 { 1 } else { rest }
    }
}
