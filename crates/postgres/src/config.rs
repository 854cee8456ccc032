//! Settings of a PostgreSQL client, and what they mean for each connection.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use causeway_runtime::config::{Check, ConfigError, ensure, within};
use causeway_runtime::secret_file;
use serde::{Deserialize, Serialize};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::error::PostgresError;

/// How a service reaches its database; a section `[….postgres]` of the configuration file. PostgreSQL 14 or newer.
/// Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// `postgres://user@host:port/database`, without a password. Several `host:port` with commas between them: the one
    /// that can be written to is used, so that a fail-over needs no proxy. `sslmode` may be `disable` (see
    /// `allow_plaintext`), `require`, `verify-ca` or `verify-full`, of which the last three all verify the server's
    /// certificate and name; without it, only connections to loopback addresses and Unix sockets are in plaintext. Must
    /// be set. Default empty.
    pub url: String,
    /// File with the password. Default: none.
    pub password_file: Option<PathBuf>,
    /// PEM file with the certificates of the authorities that may vouch for the server. Default: those that the
    /// operating system trusts.
    pub ca_file: Option<PathBuf>,
    /// Lets `sslmode=disable` be used for servers that are not on this machine. Default false.
    pub allow_plaintext: bool,
    /// Lets a server be used that may forget what it has confirmed (`fsync`, `full_page_writes` or `synchronous_commit`
    /// are off). For tests only. Default false.
    pub allow_unsafe_durability: bool,
    /// Connections at a time (2 to 1 000). Default 16.
    pub max_connections: usize,
    /// Making a connection takes at most this long, and so does waiting for a free one (100 to 60 000). Default 3 000.
    pub connect_timeout_ms: u64,
    /// A statement takes at most this long (100 to 600 000). Default 5 000. A server that has not answered half a second
    /// later is taken for lost.
    pub statement_timeout_ms: u64,
    /// A statement waits at most this long for a lock (10 to 600 000). Default 2 000.
    pub lock_timeout_ms: u64,
    /// The server ends a transaction of a client that says nothing for this long (100 to 600 000). Default 2 000. So
    /// long can the locks of a service that was cut off from the database stay.
    pub idle_in_transaction_timeout_ms: u64,
    /// Preparing the tables takes at most this long, waiting for other replicas included (1 000 to 3 600 000).
    /// Default 60 000.
    pub migration_timeout_ms: u64,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            password_file: None,
            ca_file: None,
            allow_plaintext: false,
            allow_unsafe_durability: false,
            max_connections: 16,
            connect_timeout_ms: 3_000,
            statement_timeout_ms: 5_000,
            lock_timeout_ms: 2_000,
            idle_in_transaction_timeout_ms: 2_000,
            migration_timeout_ms: 60_000,
        }
    }
}

/// What stands for the URL in errors: it may hold a secret by mistake.
const NOT_SHOWN: &str = "(not shown)";

impl Check for PostgresConfig {
    /// Checks each range, and the URL: call it where the section is used.
    fn check(&self) -> Result<(), ConfigError> {
        within("postgres.max_connections", self.max_connections, 2..=1_000)?;
        within("postgres.connect_timeout_ms", self.connect_timeout_ms, 100..=60_000)?;
        within("postgres.statement_timeout_ms", self.statement_timeout_ms, 100..=600_000)?;
        within("postgres.lock_timeout_ms", self.lock_timeout_ms, 10..=600_000)?;
        within("postgres.idle_in_transaction_timeout_ms", self.idle_in_transaction_timeout_ms, 100..=600_000)?;
        within("postgres.migration_timeout_ms", self.migration_timeout_ms, 1_000..=3_600_000)?;
        self.target().map(|_| ())
    }
}

/// How connections are made.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) postgres: tokio_postgres::Config,
    pub(crate) encrypted: bool,
}

impl PostgresConfig {
    /// Longest wait for a free or for a new connection.
    pub(crate) const fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// After this time without an answer to a statement a connection is taken for lost. Longer than the server's own
    /// bound, so that a server that lives can say what happened.
    pub(crate) const fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms + 500)
    }

    pub(crate) const fn migration_timeout(&self) -> Duration {
        Duration::from_millis(self.migration_timeout_ms)
    }

    /// The URL, understood and checked; the password is not read.
    fn target(&self) -> Result<Target, ConfigError> {
        const FIELD: &str = "postgres.url";
        let refuse = |fix: &str| ensure(FIELD, false, NOT_SHOWN, fix);
        let is_url = self.url.starts_with("postgres://") || self.url.starts_with("postgresql://");
        ensure(FIELD, is_url, NOT_SHOWN, "must be postgres://user@host:port/database")?;
        // Only the modes of plaintext and of TLS are known below; rustls verifies certificate and name in any case.
        let url =
            self.url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
        let Ok(mut postgres) = url.parse::<tokio_postgres::Config>() else {
            refuse("must be postgres://user@host:port/database, options behind a ?, special characters as %XX")?;
            return Err(ConfigError::Shape(FIELD.to_owned()));
        };
        let no_password = postgres.get_password().is_none();
        ensure(
            FIELD,
            no_password,
            NOT_SHOWN,
            "must not hold a password: put it into a file and name it in password_file",
        )?;
        let hosts = postgres.get_hosts().len();
        ensure(FIELD, hosts > 0, NOT_SHOWN, "must name a host")?;
        ensure(FIELD, postgres.get_user().is_some(), NOT_SHOWN, "must name a user")?;
        ensure(FIELD, postgres.get_dbname().is_some(), NOT_SHOWN, "must name a database")?;
        let local =
            postgres.get_hosts().iter().all(is_local) && postgres.get_hostaddrs().iter().all(IpAddr::is_loopback);
        let encrypted = match postgres.get_ssl_mode() {
            SslMode::Disable => {
                let fix = "must not say sslmode=disable for a server on another machine, unless allow_plaintext is set";
                ensure(FIELD, local || self.allow_plaintext, NOT_SHOWN, fix)?;
                false
            }
            SslMode::Require => true,
            // What is used when nothing is said, too.
            _ => !local || self.ca_file.is_some(),
        };
        postgres.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        Ok(Target { postgres, encrypted })
    }

    /// Everything that connections need, the password included.
    pub(crate) fn connector(&self, name: &str, settings: &[(&str, &str)]) -> Result<Target, PostgresError> {
        let setup = |error: String| PostgresError::Setup(error);
        self.check().map_err(|error| setup(error.to_string()))?;
        let mut target = self.target().map_err(|error| setup(error.to_string()))?;
        let postgres = &mut target.postgres;
        if let Some(file) = &self.password_file {
            let secret = secret_file::read(file).map_err(|error| setup(error.to_string()))?;
            let end = secret.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |last| last + 1);
            postgres.password(secret.get(..end).unwrap_or_default());
        }
        // A standby cannot be written to, so it is of no use, also when it is the only host.
        postgres.target_session_attrs(TargetSessionAttrs::ReadWrite);
        postgres.connect_timeout(self.connect_timeout());
        postgres.tcp_user_timeout(self.answer_timeout());
        postgres.keepalives_idle(Duration::from_secs(10));
        postgres.application_name(name);
        let mut options = postgres.get_options().map(|given| format!("{given} ")).unwrap_or_default();
        let times = [
            ("statement_timeout", self.statement_timeout_ms),
            ("lock_timeout", self.lock_timeout_ms),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout_ms),
            // A statement of a client that has gone does not go on, and its locks are given back.
            ("client_connection_check_interval", 1_000),
        ];
        for (setting, milliseconds) in times {
            options.push_str(&format!("-c {setting}={milliseconds} "));
        }
        for (setting, value) in settings {
            options.push_str(&format!("-c {setting}={value} "));
        }
        postgres.options(options.trim_end());
        Ok(target)
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        Host::Unix(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> PostgresConfig {
        PostgresConfig { url: url.to_owned(), ..PostgresConfig::default() }
    }

    #[test]
    fn a_url_with_a_password_is_refused_without_showing_it() {
        for url in [
            "postgres://causeway:hunter2@db.example/causeway",
            "postgres://causeway@db.example/causeway?password=hunter2",
            "postgres://causeway:hunter2@db.example:nonsense/causeway",
            "postgres://causeway@db.example/causeway?pasword=hunter2",
            "host=db.example user=causeway password=hunter2",
        ] {
            let config = with_url(url);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains("postgres.url") && !error.contains("hunter2"), "{error}");
            let error = config.connector("test", &[]).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let error = with_url("postgres://causeway:hunter2@db.example/causeway").check().unwrap_err().to_string();
        assert!(error.contains("password_file"), "{error}");
    }

    #[test]
    fn plaintext_is_for_this_machine() {
        let encrypted = |url: &str| with_url(url).target().map(|target| target.encrypted).ok();
        assert_eq!(encrypted("postgres://c@127.0.0.1:5433/c"), Some(false));
        assert_eq!(encrypted("postgres://c@localhost/c?sslmode=disable"), Some(false));
        assert_eq!(encrypted("postgres://c@[::1]/c"), Some(false));
        assert_eq!(encrypted("postgres://c@%2Frun%2Fpostgresql/c"), Some(false));
        assert_eq!(encrypted("postgres://c@127.0.0.1/c?sslmode=require"), Some(true));
        assert_eq!(encrypted("postgres://c@db.example/c"), Some(true));
        assert_eq!(encrypted("postgres://c@127.0.0.1,db.example/c"), Some(true), "one of them is elsewhere");
        assert_eq!(encrypted("postgres://c@db.example/c?sslmode=verify-full"), Some(true));
        assert_eq!(encrypted("postgres://c@localhost/c?hostaddr=10.0.0.1"), Some(true));
        assert_eq!(encrypted("postgres://c@db.example/c?sslmode=disable"), None);
        let lax = PostgresConfig { allow_plaintext: true, ..with_url("postgres://c@db.example/c?sslmode=disable") };
        assert!(!lax.target().unwrap().encrypted);
    }

    #[test]
    fn ranges_are_checked_and_unknown_fields_refused() {
        let good = with_url("postgres://c@127.0.0.1/c");
        good.check().unwrap();
        assert!(PostgresConfig::default().check().unwrap_err().to_string().contains("postgres.url"));
        let one = PostgresConfig { max_connections: 1, ..good.clone() };
        assert!(one.check().unwrap_err().to_string().contains("between 2 and 1000"));
        let none = PostgresConfig { statement_timeout_ms: 0, ..good };
        assert!(none.check().unwrap_err().to_string().contains("postgres.statement_timeout_ms"));
        assert!(toml::from_str::<PostgresConfig>("pasword_file = \"x\"").is_err());
        let missing = PostgresConfig { password_file: Some("/nowhere".into()), ..with_url("postgres://c@127.0.0.1/c") };
        assert!(missing.connector("test", &[]).err().unwrap().to_string().contains("/nowhere"));
    }
}
