//! Settings of one part's Redis.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use causeway_runtime::config::{Check, ConfigError, ensure, within};
use serde::{Deserialize, Serialize};

/// How Redis is deployed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedisMode {
    /// One server, or an address that always leads to the primary.
    #[default]
    Single,
    /// A primary and replicas; Sentinels say which one is the primary.
    Sentinel,
    /// A Cluster of primaries with their replicas.
    Cluster,
}

/// Where Redis is and how long to wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// `single`, `sentinel` or `cluster`. Default `single`.
    pub mode: RedisMode,
    /// `host:port`, IPv6 in brackets, 1 to 32 of them: the server; the Sentinels; or some of the Cluster's nodes. Default
    /// `["127.0.0.1:6379"]`.
    pub addresses: Vec<String>,
    /// The name that the Sentinels know the primary by. Up to 128 bytes. Default `causeway`.
    pub sentinel_master: String,
    /// The user of the access control list; empty is the default user. Up to 128 bytes. Default empty.
    pub username: String,
    /// File with the password, readable by its owner only; empty for none. Default empty.
    pub password_file: PathBuf,
    /// File with the Sentinels' own password; empty for none. Default empty.
    pub sentinel_password_file: PathBuf,
    /// TLS to all addresses, Sentinels included. Default false.
    pub tls: bool,
    /// File with the certificates (PEM) that are trusted; empty for those of the machine. Default empty.
    pub ca_file: PathBuf,
    /// Lets a connection without TLS leave the machine. What Redis holds tells who is where: for networks that nobody else
    /// reads. Default false.
    pub allow_plaintext: bool,
    /// The number of the database (0 to 1 000). Default 0. A Cluster has that one only.
    pub database: u16,
    /// What all keys and channels begin with: 1 to 64 of `a-z 0-9 - _ .`. All replicas of a deployment need the same one.
    /// Default `causeway`.
    pub key_prefix: String,
    /// An attempt to connect, look-ups by Sentinels included, takes at most this long (50 to 30 000). Default 2 000.
    pub connect_timeout_ms: u64,
    /// A command takes at most this long (10 to 10 000). Default 500.
    pub command_timeout_ms: u64,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            mode: RedisMode::Single,
            addresses: vec!["127.0.0.1:6379".to_owned()],
            sentinel_master: "causeway".to_owned(),
            username: String::new(),
            password_file: PathBuf::new(),
            sentinel_password_file: PathBuf::new(),
            tls: false,
            ca_file: PathBuf::new(),
            allow_plaintext: false,
            database: 0,
            key_prefix: "causeway".to_owned(),
            connect_timeout_ms: 2_000,
            command_timeout_ms: 500,
        }
    }
}

impl Check for RedisConfig {
    fn check(&self) -> Result<(), ConfigError> {
        within("redis.addresses", self.addresses.len(), 1..=MAX_ADDRESSES)?;
        for address in &self.addresses {
            let Some((host, _)) = split(address) else {
                return ensure("redis.addresses", false, address, "each must be host:port, without a scheme");
            };
            let stays = self.tls || self.allow_plaintext || is_loopback(&host);
            let fix = "without TLS only this machine may be named: set tls, or allow_plaintext where nobody listens";
            ensure("redis.addresses", stays, address, fix)?;
        }
        within("redis.sentinel_master", self.sentinel_master.len(), 1..=MAX_NAME)?;
        within("redis.username", self.username.len(), 0..=MAX_NAME)?;
        let no_database = self.mode == RedisMode::Cluster && self.database != 0;
        ensure("redis.database", !no_database, self.database, "a Cluster has database 0 only")?;
        within("redis.database", self.database, 0..=1_000)?;
        let prefix_fix = "must be 1 to 64 of a-z, 0-9, -, _ and .";
        ensure("redis.key_prefix", is_prefix(&self.key_prefix), &self.key_prefix, prefix_fix)?;
        within("redis.connect_timeout_ms", self.connect_timeout_ms, 50..=30_000)?;
        within("redis.command_timeout_ms", self.command_timeout_ms, 10..=10_000)
    }
}

impl RedisConfig {
    pub(crate) const fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) const fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
    }
}

const MAX_ADDRESSES: usize = 32;
const MAX_NAME: usize = 128;

/// Host (without brackets) and port.
pub(crate) fn split(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|inner| inner.parse::<IpAddr>().is_ok())?,
        None => host,
    };
    let plain = !host.is_empty() && host.len() <= 253 && !host.contains(['/', '@', '[', ']', ' ']);
    let bare_v6 = host.contains(':') && !address.starts_with('[');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (plain && !bare_v6).then(|| (host.to_owned(), port))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_prefix(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let config: RedisConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_hold_and_wrong_values_are_named() {
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("mode = 'cluster'\naddresses = ['localhost:7000', '[::1]:7001']"), Ok(()));
        for (text, field) in [
            ("addresses = []", "redis.addresses"),
            ("addresses = ['redis://127.0.0.1:6379']", "redis.addresses"),
            ("addresses = ['::1:6379']", "redis.addresses"),
            ("addresses = ['127.0.0.1:0']", "redis.addresses"),
            ("addresses = ['127.0.0.1:6379', 'cache.example:6379']", "redis.addresses"),
            ("sentinel_master = ''", "redis.sentinel_master"),
            ("mode = 'cluster'\ndatabase = 1", "redis.database"),
            ("key_prefix = 'a{b}'", "redis.key_prefix"),
            ("connect_timeout_ms = 1", "redis.connect_timeout_ms"),
            ("command_timeout_ms = 0", "redis.command_timeout_ms"),
            ("password = 'hunter2'", "unknown field `password`"),
            ("mode = 'many'", "unknown variant"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(field), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_leaves_the_machine_in_plain_text_unless_it_is_allowed() {
        let remote = "addresses = ['cache.example:6379']";
        assert!(check(remote).unwrap_err().contains("without TLS"));
        assert_eq!(check(&format!("{remote}\ntls = true")), Ok(()));
        assert_eq!(check(&format!("{remote}\nallow_plaintext = true")), Ok(()));
    }
}
