//! Settings of the mailbox in PostgreSQL.

use causeway_postgres::PostgresConfig;
use causeway_runtime::config::{Check, ConfigError, ensure, in_section, within};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Connections beside the writers': one for leases, one for sweeps,
const SINGLE: usize = 2;
/// and at least one each for pages and for looking for single messages.
const OTHERS: usize = SINGLE + 2;
/// Single messages that are looked for at a time, at most: strangers can make it happen.
const CHECKS: usize = 4;

/// Settings of the mailbox in PostgreSQL; section `[routing.postgres]`, together with all of [`PostgresConfig`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
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
        in_section("routing", self.postgres.check())?;
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

    /// Single messages that are looked for at a time. All that is done at a time has a connection each, so that nobody
    /// waits for one that others hold.
    pub(super) fn checkers(&self) -> usize {
        (self.readers() / 2).clamp(1, CHECKS)
    }

    /// Pages that are read at a time.
    pub(super) fn page_readers(&self) -> usize {
        self.readers().saturating_sub(self.checkers()).max(1)
    }

    const fn readers(&self) -> usize {
        self.postgres.max_connections.saturating_sub(self.writers + SINGLE)
    }
}

#[cfg(test)]
mod tests {
    use causeway_runtime::config::{ConfigError, load};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        postgres: PostgresMailboxConfig,
    }

    impl Check for File {
        fn check(&self) -> Result<(), ConfigError> {
            self.postgres.check()
        }
    }

    fn parse(text: &str) -> Result<File, ConfigError> {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("causeway.toml");
        let url = "url = \"postgres://causeway@127.0.0.1/causeway\"";
        std::fs::write(&path, format!("[postgres]\n{url}\n{text}")).unwrap();
        load(&[], Some(&path))
    }

    #[test]
    fn its_fields_and_those_of_the_connection_are_one_section() {
        let File { postgres } = parse("writers = 2\nmax_connections = 6\nlock_timeout_ms = 900").unwrap();
        assert_eq!((postgres.writers, postgres.postgres.max_connections, postgres.page_readers()), (2, 6, 1));
        assert_eq!(postgres.postgres.lock_timeout_ms, 900);
        for (writers, max_connections, expected) in [(4, 16, (4, 6)), (1, 7, (2, 2)), (2, 6, (1, 1)), (4, 64, (4, 54))]
        {
            let postgres = PostgresConfig { max_connections, ..PostgresConfig::default() };
            let config = PostgresMailboxConfig { postgres, writers, ..PostgresMailboxConfig::default() };
            assert_eq!((config.checkers(), config.page_readers()), expected);
        }
        for (wrong, named) in [
            ("writrs = 2", "writrs"),
            ("lock_timeout = 2", "lock_timeout"),
            ("writers = 0", "routing.postgres.writers"),
            ("writers = 13", "max_connections less 4"),
            ("write_timeout_ms = 1", "routing.postgres.write_timeout_ms"),
            ("lock_timeout_ms = 1", "routing.postgres.lock_timeout_ms"),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
