//! Settings of the key-directory.

use std::path::PathBuf;
use std::time::Duration;

use causeway_fetch::FetchConfig;
use causeway_postgres::PostgresConfig;
use causeway_redis::RedisConfig;
use causeway_runtime::config::{Check, ConfigError, ensure, in_section, within};
use serde::{Deserialize, Serialize};

use crate::peers::Settings;

/// Settings of the key-directory; section `directory` of the configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DirectoryConfig {
    /// Where everything is kept: `sqlite`, a folder of this process alone, or `postgres`, which replicas share.
    /// Default `sqlite`.
    pub store: StoreKind,
    /// Folder of the database if `store` is `sqlite`; made at the first start. Default `data/directory`.
    pub data_dir: PathBuf,
    /// The database if `store` is `postgres`.
    pub postgres: PostgresConfig,
    /// File with the operator token, readable by its owner alone; made with random content at the first start.
    /// Default `data/operator-token`.
    pub operator_token_file: PathBuf,
    /// Name of this deployment: the audience that tokens name. Default `causeway.local`.
    pub deployment: String,
    /// How providers' documents are fetched.
    pub fetch: FetchConfig,
    /// Most providers that can be registered (1 to 10 000). Default 1 000.
    pub max_providers: u32,
    /// Providers' token keys are fetched again this often, give or take a tenth (100 to 86 400 000). Default 300 000.
    pub keys_refresh_ms: u64,
    /// A token with an unknown key makes a provider's keys be fetched at most once in this time (100 to 3 600 000). Default
    /// 60 000.
    pub keys_cooldown_ms: u64,
    /// Token keys of a provider that cannot be reached are used for this long after they were last fetched (1 000 to
    /// 604 800 000). Default 86 400 000.
    pub keys_stale_ms: u64,
    /// Devices are told to publish prekeys when fewer one-time keys of a kind than this are left (1 to 100). Default 10.
    pub prekeys_low: u32,
    /// Claims of one account's prekey bundles by all devices of another at once (1 to 10 000). Default 16. So each of its
    /// devices can once. What is more is refused. A claim takes one one-time key of a kind from each device, so at the
    /// defaults one account needs 84 x 5 min = 7 h for the 100 of a full supply, without what is published meanwhile.
    pub claim_burst: u32,
    /// After these, one more in each of these (1 to 86 400 000). Default 300 000.
    pub claim_interval_ms: u64,
    /// Claims of one account by all users of one provider at once that get one-time keys; what is more gets bundles without
    /// them, so that conversations still start (1 to 100 000). Default 60. At the defaults all users of a provider together
    /// need 40 x 3 min = 2 h for 100 keys.
    pub claim_provider_burst: u32,
    /// After these, one more in each of these (1 to 86 400 000). Default 180 000.
    pub claim_provider_interval_ms: u64,
    /// The same for claims of one account by everybody (1 to 100 000). Default 200. It is the most that are stored.
    pub claim_target_burst: u32,
    /// After these, one more in each of these (1 to 86 400 000). Default 30 000.
    pub claim_target_interval_ms: u64,
    /// Addresses that are not available which one account may ask about at once, by discover and by claiming; then
    /// questions about others are refused too (1 to 100 000). Default 200.
    pub miss_burst: u32,
    /// After these, one more in each of these (1 to 86 400 000). Default 18 000. That is 200 an hour.
    pub miss_interval_ms: u64,
    /// The same for all users of a provider together (1 to 10 000 000). Default 5 000.
    pub miss_provider_burst: u32,
    /// After these, one more in each of these (1 to 86 400 000). Default 720. That is 5 000 an hour.
    pub miss_provider_interval_ms: u64,
    /// Publications that one device may make at once (1 to 10 000). Default 20.
    pub publish_burst: u32,
    /// After these, one more in each of these (1 to 86 400 000). Default 10 000.
    pub publish_interval_ms: u64,
    /// Changes that the devices of one address may make at once to what the directory keeps of them: consent, push tokens,
    /// removals of devices, and withdrawing (1 to 10 000). Default 20.
    pub settings_burst: u32,
    /// After these, one more in each of these (1 to 86 400 000). Default 1 000.
    pub settings_interval_ms: u64,
    /// The same for all users of one provider together (1 to 1 000 000). Default 1 000.
    pub settings_provider_burst: u32,
    /// After these, one more in each of these (1 to 60 000). Default 20. That is 50 a second: replicas that share a
    /// database write some hundreds of changes a second, of all providers.
    pub settings_provider_interval_ms: u64,
    /// Enlistments of one address at once (1 to 10 000). Default 6.
    pub enlist_burst: u32,
    /// After these, one more in each of these (1 to 86 400 000). Default 20 000. That is 6 in 2 min.
    pub enlist_interval_ms: u64,
    /// Enlistments of one provider at once (1 to 1 000 000). Default 600.
    pub enlist_provider_burst: u32,
    /// After these, one more in each of these (1 to 60 000). Default 100. That is 600 a minute.
    pub enlist_provider_interval_ms: u64,
    /// Users of one provider that each rate limit keeps apart at a time; when there are more, new ones of this provider
    /// wait, and those of others do not (1 000 to 10 000 000). Default 100 000. About 10 MB if all are in use.
    pub limiter_states: usize,
    /// For this long a follower of records may trust what it cached without hearing from the directory (500 to 4 000).
    /// Default 3 000. A narrower consent waits at most twice this long, and a second, for a follower that is silent.
    pub lease_ms: u32,
    /// Changes that a follower may leave unacknowledged before it is cut off (16 to 1 000 000). Default 4 096.
    pub follower_queue: usize,
    /// With `postgres`: changes that other replicas have made are looked for at least this often (10 to 2 000). Default
    /// 200. So long may a narrower consent wait besides, if Redis does not tell of it sooner.
    pub poll_ms: u64,
    /// With `postgres`: other replicas wait for this one to confirm changes until they have heard nothing of it for this
    /// long (1 000 to 8 000). Default 5 000. At least 500 more than `lease_ms`, and four times `poll_ms`. So long may a
    /// narrower consent wait for a replica that has died.
    pub replica_lease_ms: u64,
    /// With `postgres`: where replicas tell each other to look for changes at once, and count what is limited together:
    /// section `[directory.redis]`. Default: nowhere; then each looks every `poll_ms`, and counts for itself.
    pub redis: Option<RedisConfig>,
}

/// Where the directory is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A file of this process.
    Sqlite,
    /// A database that several replicas share.
    Postgres,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            store: StoreKind::Sqlite,
            data_dir: PathBuf::from("data/directory"),
            postgres: PostgresConfig::default(),
            operator_token_file: PathBuf::from("data/operator-token"),
            deployment: "causeway.local".to_owned(),
            fetch: FetchConfig::default(),
            max_providers: 1_000,
            keys_refresh_ms: 5 * 60 * 1_000,
            keys_cooldown_ms: 60 * 1_000,
            keys_stale_ms: 24 * 60 * 60 * 1_000,
            prekeys_low: 10,
            claim_burst: 16,
            claim_interval_ms: 5 * 60 * 1_000,
            claim_provider_burst: 60,
            claim_provider_interval_ms: 3 * 60 * 1_000,
            claim_target_burst: 200,
            claim_target_interval_ms: 30 * 1_000,
            miss_burst: 200,
            miss_interval_ms: 18 * 1_000,
            miss_provider_burst: 5_000,
            miss_provider_interval_ms: 720,
            publish_burst: 20,
            publish_interval_ms: 10 * 1_000,
            settings_burst: 20,
            settings_interval_ms: 1_000,
            settings_provider_burst: 1_000,
            settings_provider_interval_ms: 20,
            enlist_burst: 6,
            enlist_interval_ms: 20 * 1_000,
            enlist_provider_burst: 600,
            enlist_provider_interval_ms: 100,
            limiter_states: 100_000,
            lease_ms: 3_000,
            follower_queue: 4_096,
            poll_ms: 200,
            replica_lease_ms: 5_000,
            redis: None,
        }
    }
}

impl Check for DirectoryConfig {
    fn check(&self) -> Result<(), ConfigError> {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        let path_is_set =
            |field, path: &PathBuf| ensure(field, !path.as_os_str().is_empty(), "empty", "must be a path");
        match self.store {
            StoreKind::Sqlite => {
                path_is_set("directory.data_dir", &self.data_dir)?;
                // A replica that believes to be one of several would find that it is alone with its file.
                let fix =
                    "is for several replicas, which share a database: set directory.store to postgres, or remove it";
                ensure("directory.redis", self.redis.is_none(), "set", fix)?;
            }
            StoreKind::Postgres => {
                in_section("directory", self.postgres.check())?;
                in_section("directory", self.redis.iter().try_for_each(RedisConfig::check))?;
            }
        }
        path_is_set("directory.operator_token_file", &self.operator_token_file)?;
        ensure(
            "directory.deployment",
            (1..=253).contains(&self.deployment.len()) && !self.deployment.contains(char::is_whitespace),
            &self.deployment,
            "must be 1 to 253 bytes without white space",
        )?;
        within("directory.max_providers", self.max_providers, 1..=10_000)?;
        within("directory.keys_refresh_ms", self.keys_refresh_ms, 100..=DAY_MS)?;
        within("directory.keys_cooldown_ms", self.keys_cooldown_ms, 100..=3_600_000)?;
        within("directory.keys_stale_ms", self.keys_stale_ms, 1_000..=7 * DAY_MS)?;
        within("directory.prekeys_low", self.prekeys_low, 1..=100)?;
        within("directory.claim_burst", self.claim_burst, 1..=10_000)?;
        within("directory.claim_interval_ms", self.claim_interval_ms, 1..=DAY_MS)?;
        within("directory.claim_provider_burst", self.claim_provider_burst, 1..=100_000)?;
        within("directory.claim_provider_interval_ms", self.claim_provider_interval_ms, 1..=DAY_MS)?;
        within("directory.claim_target_burst", self.claim_target_burst, 1..=100_000)?;
        within("directory.claim_target_interval_ms", self.claim_target_interval_ms, 1..=DAY_MS)?;
        within("directory.miss_burst", self.miss_burst, 1..=100_000)?;
        within("directory.miss_interval_ms", self.miss_interval_ms, 1..=DAY_MS)?;
        within("directory.miss_provider_burst", self.miss_provider_burst, 1..=10_000_000)?;
        within("directory.miss_provider_interval_ms", self.miss_provider_interval_ms, 1..=DAY_MS)?;
        within("directory.publish_burst", self.publish_burst, 1..=10_000)?;
        within("directory.publish_interval_ms", self.publish_interval_ms, 1..=DAY_MS)?;
        within("directory.settings_burst", self.settings_burst, 1..=10_000)?;
        within("directory.settings_interval_ms", self.settings_interval_ms, 1..=DAY_MS)?;
        within("directory.settings_provider_burst", self.settings_provider_burst, 1..=1_000_000)?;
        within("directory.settings_provider_interval_ms", self.settings_provider_interval_ms, 1..=60_000)?;
        within("directory.enlist_burst", self.enlist_burst, 1..=10_000)?;
        within("directory.enlist_interval_ms", self.enlist_interval_ms, 1..=DAY_MS)?;
        within("directory.enlist_provider_burst", self.enlist_provider_burst, 1..=1_000_000)?;
        within("directory.enlist_provider_interval_ms", self.enlist_provider_interval_ms, 1..=60_000)?;
        within("directory.limiter_states", self.limiter_states, 1_000..=10_000_000)?;
        within("directory.lease_ms", self.lease_ms, 500..=4_000)?;
        within("directory.follower_queue", self.follower_queue, 16..=1_000_000)?;
        within("directory.poll_ms", self.poll_ms, 10..=2_000)?;
        within("directory.replica_lease_ms", self.replica_lease_ms, 1_000..=8_000)?;
        let least = (u64::from(self.lease_ms) + 500).max(4 * self.poll_ms);
        ensure(
            "directory.replica_lease_ms",
            self.store == StoreKind::Sqlite || self.replica_lease_ms >= least,
            self.replica_lease_ms,
            "must be at least 500 more than directory.lease_ms, and 4 times directory.poll_ms",
        )
    }
}

impl DirectoryConfig {
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.into())
    }

    /// How this replica takes part among several.
    pub(crate) const fn peers(&self) -> Settings {
        Settings { poll: Duration::from_millis(self.poll_ms), lease: Duration::from_millis(self.replica_lease_ms) }
    }

    /// The same database, for the few connections that the lease hangs on: what takes longer than half of it is in vain.
    pub(crate) fn log_database(&self) -> PostgresConfig {
        let half = self.replica_lease_ms / 2;
        let given = &self.postgres;
        PostgresConfig {
            max_connections: 2,
            connect_timeout_ms: given.connect_timeout_ms.min(half),
            statement_timeout_ms: given.statement_timeout_ms.min(half),
            lock_timeout_ms: given.lock_timeout_ms.min(half),
            ..given.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_wrong_values_are_named() {
        DirectoryConfig::default().check().unwrap();
        let wrong = DirectoryConfig { claim_burst: 0, ..DirectoryConfig::default() };
        let message = wrong.check().unwrap_err().to_string();
        assert!(message.contains("directory.claim_burst") && message.contains("between 1 and 10000"), "{message}");
        let wrong = DirectoryConfig { data_dir: PathBuf::new(), ..DirectoryConfig::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("directory.data_dir"));
        let wrong = DirectoryConfig { redis: Some(RedisConfig::default()), ..DirectoryConfig::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("directory.redis"));
        let postgres =
            PostgresConfig { url: "postgres://causeway@127.0.0.1/causeway".to_owned(), ..PostgresConfig::default() };
        let shared = DirectoryConfig { store: StoreKind::Postgres, postgres, ..DirectoryConfig::default() };
        shared.check().unwrap();
        shared.log_database().check().unwrap();
        for (lease_ms, poll_ms) in [(4_000, 200), (3_000, 1_200)] {
            let wrong = DirectoryConfig { lease_ms, poll_ms, replica_lease_ms: 4_400, ..shared.clone() };
            assert!(wrong.check().unwrap_err().to_string().contains("directory.replica_lease_ms"));
        }
        let wrong = DirectoryConfig { store: StoreKind::Postgres, ..DirectoryConfig::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("directory.postgres.url"));
    }
}
