//! Settings of a routing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use causeway_fetch::FetchConfig;
use causeway_redis::RedisConfig;
use causeway_runtime::config::{Check, ConfigError, ensure, in_section, within};
use causeway_runtime::grpc;
use serde::{Deserialize, Serialize};

use crate::limits::Budget;
use crate::mailbox::Bounds;
use crate::mailbox::postgres::PostgresMailboxConfig;

/// Settings of a routing; section `[routing]` of the configuration file. Durations are in milliseconds.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoutingConfig {
    /// Where messages wait: `sqlite`, a folder of this process alone, or `postgres`, which replicas share.
    /// Default `sqlite`.
    pub store: StoreKind,
    /// Folder of the mailbox, made if it is missing. Must be set if `store` is `sqlite`.
    pub data_dir: PathBuf,
    /// The database if `store` is `postgres`.
    pub postgres: PostgresMailboxConfig,
    /// Where replicas share rates and presence: section `[routing.redis]`. Default: nowhere; each replica counts alone. None
    /// of them ever waits for it (docs/redis.md).
    pub redis: Option<RedisConfig>,
    /// Name of this replica, the same after a restart, over which edges spread accounts (at most 255 bytes). Default
    /// empty: `advertise_url`.
    pub name: String,
    /// Where other routings reach this one, as `http://host:port`. Must be set if `store` is `postgres`. Default empty.
    pub advertise_url: String,
    /// A replica that has not said for so long that it lives is replaced by others (500 to 60 000). Default 2 000. It
    /// says so four times as often.
    pub lease_ms: u64,
    /// How long a message waits until this replica owns its recipient's mailbox, before its sender is told to come back
    /// (500 to 60 000). Default 5 000. With `postgres` at least twice `lease_ms`.
    pub claim_timeout_ms: u64,
    /// How long another replica is waited for to release a mailbox, before it is asked again (100 to 10 000).
    /// Default 1 000.
    pub release_timeout_ms: u64,

    /// How long devices have to acknowledge a message before it is written to the mailbox (1 to 10 000). Default 25.
    pub ack_window_ms: u64,
    /// Unacknowledged deliveries that a session may have (1 to 1 024). Default 256; more wait in the mailbox. Keep it
    /// below `edge.queue_messages`.
    pub session_messages: usize,
    /// Bytes of them (1 024 to 67 108 864). Default 1 048 576. Keep it below `edge.queue_bytes`.
    pub session_bytes: usize,
    /// Sum of a message's ciphertexts in bytes (1 024 to 1 048 576). Default 262 144; more is `too-large`.
    pub max_message_bytes: usize,

    /// Messages that may wait for one device (1 to 1 000 000). Default 10 000.
    pub mailbox_messages: u64,
    /// Bytes that may wait for one device (65 536 to 2^40). Default 67 108 864.
    pub mailbox_bytes: u64,
    /// A sender to a full mailbox is asked to wait this long (100 to 86 400 000). Default 60 000.
    pub mailbox_full_retry_ms: u64,
    /// How long a `chat` message is kept (60 000 to 2 592 000 000). Default 2 592 000 000.
    pub chat_expiry_ms: u64,
    /// How long a `call` message is kept (1 000 to 600 000). Default 60 000.
    pub call_expiry_ms: u64,
    /// How often expired messages are erased (100 to 3 600 000). Default 60 000.
    pub sweep_interval_ms: u64,

    /// Messages that may wait for the decision of one recipient's actor (8 to 65 536). Default 512; more are
    /// `rate-limited`.
    pub recipient_queue: usize,
    /// Recipients in memory at a time (16 to 10 000 000). Default 200 000; messages to more are `rate-limited`. A tenth of
    /// them is only for those who attach.
    pub max_recipients: usize,
    /// A recipient without sessions and work is forgotten after this time (1 000 to 86 400 000). Default 600 000. Until
    /// then its actor knows the outcome of repeats.
    pub recipient_idle_ms: u64,
    /// Outcomes that are remembered for repeats, per recipient, for at most a quarter of an hour (16 to 1 000 000).
    /// Default 65 536.
    pub remembered_outcomes: usize,
    /// The same over all recipients, some 60 bytes each (1 000 to 1 000 000 000). Default 2 000 000.
    pub remembered_outcomes_total: usize,
    /// Bytes of messages in memory on behalf of senders (1 048 576 to 2^40). Default 268 435 456; more are
    /// `rate-limited`.
    pub memory_bytes: usize,
    /// Sessions of one edge (1 to 10 000 000). Default 1 000 000; one more ends with `overloaded`.
    pub max_sessions: usize,
    /// Bytes that may wait for one edge to read them (1 048 576 to 2^40). Default 67 108 864. Deliveries stop at half of
    /// it and stay in the mailbox; an edge that lets the whole of it fill up loses its stream.
    pub link_bytes: usize,
    /// A client that cannot be served now is asked to wait from one to two times this long (100 to 600 000).
    /// Default 1 000.
    pub retry_ms: u64,

    /// Messages a second that an account may send in the long run (1 to 1 000 000). Default 50.
    pub account_per_s: u32,
    /// Messages that an account may send at once (1 to 1 000 000). Default 200.
    pub account_burst: u32,
    /// Messages a second that all accounts of a provider may send in the long run (1 to 10 000 000). Default 2 000.
    pub provider_per_s: u32,
    /// Messages that they may send at once (1 to 10 000 000). Default 4 000.
    pub provider_burst: u32,

    /// `not-available` leaves at this time after its message came in, whatever the reason, so that its pace tells nobody
    /// who exists (0 to 1 000). Default 20.
    pub refusal_delay_ms: u64,
    /// Refusals `not-available` an hour that an account may collect in the long run (1 to 1 000 000). Default 200. When
    /// they are used up, its messages to whom it has not reached before are `rate-limited`, without looking them up.
    pub account_refusals_per_hour: u32,
    /// Refusals that an account may collect at once (1 to 1 000 000). Default 200.
    pub account_refusal_burst: u32,
    /// Refusals an hour that all accounts of a provider may collect in the long run (1 to 10 000 000). Default 5 000.
    pub provider_refusals_per_hour: u32,
    /// Refusals that they may collect at once (1 to 10 000 000). Default 5 000.
    pub provider_refusal_burst: u32,

    /// Records of accounts in memory (1 000 to 100 000 000). Default 200 000.
    pub cached_records: u64,
    /// How long a message waits for the directory before its sender is told to come back (100 to 30 000).
    /// Default 3 000.
    pub directory_timeout_ms: u64,

    /// Webhooks that wake a device are at least this far apart, but for calls (100 to 86 400 000). Default 30 000.
    pub push_interval_ms: u64,
    /// A webhook that fails is tried again, ever more rarely, for at most this long (1 000 to 604 800 000). Default
    /// 259 200 000.
    pub push_give_up_ms: u64,
    /// Devices that may wait for a webhook (16 to 10 000 000). Default 100 000; more are woken by a later message.
    pub push_queue: usize,
    /// Webhooks on their way at a time (1 to 4 096). Default 64.
    pub push_concurrency: usize,
    /// The same for one provider (1 to 4 096). Default 8.
    pub push_concurrency_per_provider: usize,
    /// How long the delivery trace of a message is kept, in memory (0 to 86 400 000). Default 900 000; 0: none is.
    pub trace_keep_ms: u64,
    /// Messages whose delivery traces are kept, some 300 bytes each (0 to 10 000 000). Default 20 000. Whoever has sent
    /// most gives way, the oldest first; of one recipient at most a sixteenth is kept.
    pub trace_max_messages: usize,
    /// How providers' webhooks are called.
    pub fetch: FetchConfig,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            store: StoreKind::Sqlite,
            data_dir: PathBuf::new(),
            postgres: PostgresMailboxConfig::default(),
            redis: None,
            name: String::new(),
            advertise_url: String::new(),
            lease_ms: 2_000,
            claim_timeout_ms: 5_000,
            release_timeout_ms: 1_000,
            ack_window_ms: 25,
            session_messages: 256,
            session_bytes: 1024 * 1024,
            max_message_bytes: 256 * 1024,
            mailbox_messages: 10_000,
            mailbox_bytes: 64 * 1024 * 1024,
            mailbox_full_retry_ms: 60_000,
            chat_expiry_ms: 30 * DAY_MS,
            call_expiry_ms: 60_000,
            sweep_interval_ms: 60_000,
            recipient_queue: 512,
            max_recipients: 200_000,
            recipient_idle_ms: 600_000,
            remembered_outcomes: 65_536,
            remembered_outcomes_total: 2_000_000,
            memory_bytes: 256 * 1024 * 1024,
            max_sessions: 1_000_000,
            link_bytes: 64 * 1024 * 1024,
            retry_ms: 1_000,
            account_per_s: 50,
            account_burst: 200,
            provider_per_s: 2_000,
            provider_burst: 4_000,
            refusal_delay_ms: 20,
            account_refusals_per_hour: 200,
            account_refusal_burst: 200,
            provider_refusals_per_hour: 5_000,
            provider_refusal_burst: 5_000,
            cached_records: 200_000,
            directory_timeout_ms: 3_000,
            push_interval_ms: 30_000,
            push_give_up_ms: 3 * DAY_MS,
            push_queue: 100_000,
            push_concurrency: 64,
            push_concurrency_per_provider: 8,
            trace_keep_ms: 15 * 60 * 1_000,
            trace_max_messages: 20_000,
            fetch: FetchConfig::default(),
        }
    }
}

impl Check for RoutingConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if let Some(redis) = &self.redis {
            in_section("routing", redis.check())?;
        }
        match self.store {
            StoreKind::Sqlite => {
                let set = !self.data_dir.as_os_str().is_empty();
                ensure("routing.data_dir", set, "empty", "give the path of a folder")?;
            }
            StoreKind::Postgres => {
                self.postgres.check()?;
                let url = &self.advertise_url;
                let fix = "other routings must reach this one: write http://host:port";
                let one = !url.starts_with("dns+") && grpc::check_addresses(std::slice::from_ref(url)).is_ok();
                ensure("routing.advertise_url", one, url, fix)?;
            }
        }
        within("routing.name", self.name.len(), 0..=255)?;
        within("routing.lease_ms", self.lease_ms, 500..=60_000)?;
        within("routing.claim_timeout_ms", self.claim_timeout_ms, 500..=60_000)?;
        // Who has died owns its mailboxes for one lease more; then another can claim them, and needs some time for it.
        let long = self.store == StoreKind::Sqlite || self.claim_timeout_ms >= self.lease_ms.saturating_mul(2);
        let fix =
            "must be at least twice routing.lease_ms, so that messages wait for the end of a replica that has died";
        ensure("routing.claim_timeout_ms", long, self.claim_timeout_ms, fix)?;
        within("routing.release_timeout_ms", self.release_timeout_ms, 100..=10_000)?;
        within("routing.ack_window_ms", self.ack_window_ms, 1..=10_000)?;
        within("routing.session_messages", self.session_messages, 1..=1_024)?;
        within("routing.session_bytes", self.session_bytes, 1_024..=64 << 20)?;
        within("routing.max_message_bytes", self.max_message_bytes, 1_024..=1 << 20)?;
        within("routing.mailbox_messages", self.mailbox_messages, 1..=1_000_000)?;
        within("routing.mailbox_bytes", self.mailbox_bytes, 65_536..=1 << 40)?;
        within("routing.mailbox_full_retry_ms", self.mailbox_full_retry_ms, 100..=DAY_MS)?;
        within("routing.chat_expiry_ms", self.chat_expiry_ms, 60_000..=30 * DAY_MS)?;
        within("routing.call_expiry_ms", self.call_expiry_ms, 1_000..=600_000)?;
        within("routing.sweep_interval_ms", self.sweep_interval_ms, 100..=3_600_000)?;
        within("routing.recipient_queue", self.recipient_queue, 8..=65_536)?;
        within("routing.max_recipients", self.max_recipients, 16..=10_000_000)?;
        within("routing.recipient_idle_ms", self.recipient_idle_ms, 1_000..=DAY_MS)?;
        within("routing.remembered_outcomes", self.remembered_outcomes, 16..=1_000_000)?;
        within("routing.remembered_outcomes_total", self.remembered_outcomes_total, 1_000..=1_000_000_000)?;
        within("routing.memory_bytes", self.memory_bytes, 1 << 20..=1 << 40)?;
        within("routing.max_sessions", self.max_sessions, 1..=10_000_000)?;
        within("routing.link_bytes", self.link_bytes, 1 << 20..=1 << 40)?;
        within("routing.retry_ms", self.retry_ms, 100..=600_000)?;
        within("routing.account_per_s", self.account_per_s, 1..=1_000_000)?;
        within("routing.account_burst", self.account_burst, 1..=1_000_000)?;
        within("routing.provider_per_s", self.provider_per_s, 1..=10_000_000)?;
        within("routing.provider_burst", self.provider_burst, 1..=10_000_000)?;
        within("routing.refusal_delay_ms", self.refusal_delay_ms, 0..=1_000)?;
        within("routing.account_refusals_per_hour", self.account_refusals_per_hour, 1..=1_000_000)?;
        within("routing.account_refusal_burst", self.account_refusal_burst, 1..=1_000_000)?;
        within("routing.provider_refusals_per_hour", self.provider_refusals_per_hour, 1..=10_000_000)?;
        within("routing.provider_refusal_burst", self.provider_refusal_burst, 1..=10_000_000)?;
        within("routing.cached_records", self.cached_records, 1_000..=100_000_000)?;
        within("routing.directory_timeout_ms", self.directory_timeout_ms, 100..=30_000)?;
        within("routing.push_interval_ms", self.push_interval_ms, 100..=DAY_MS)?;
        within("routing.push_give_up_ms", self.push_give_up_ms, 1_000..=7 * DAY_MS)?;
        within("routing.push_queue", self.push_queue, 16..=10_000_000)?;
        within("routing.push_concurrency", self.push_concurrency, 1..=4_096)?;
        within("routing.push_concurrency_per_provider", self.push_concurrency_per_provider, 1..=4_096)?;
        within("routing.trace_keep_ms", self.trace_keep_ms, 0..=DAY_MS)?;
        within("routing.trace_max_messages", self.trace_max_messages, 0..=10_000_000)
    }
}

/// Where messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A file of this process.
    Sqlite,
    /// A database that several replicas share.
    Postgres,
}

impl RoutingConfig {
    pub(crate) const fn mailbox_bounds(&self) -> Bounds {
        Bounds { messages: self.mailbox_messages, bytes: self.mailbox_bytes }
    }

    /// The name that edges know this replica by.
    pub(crate) fn stable_name(&self) -> String {
        let chosen = [&self.name, &self.advertise_url].into_iter().find(|name| !name.is_empty());
        chosen.map_or_else(|| "routing".to_owned(), Clone::clone)
    }

    /// What the state machine of a recipient needs of this.
    pub(crate) fn device_policy(&self) -> DevicePolicy {
        DevicePolicy {
            ack_window: Duration::from_millis(self.ack_window_ms),
            session_messages: self.session_messages,
            session_bytes: self.session_bytes,
            max_message_bytes: self.max_message_bytes,
            mailbox_messages: self.mailbox_messages,
            mailbox_bytes: self.mailbox_bytes,
            mailbox_full_retry_ms: self.mailbox_full_retry_ms,
            chat_expiry_ms: self.chat_expiry_ms,
            call_expiry_ms: self.call_expiry_ms,
            remembered_outcomes: self.remembered_outcomes,
            remembered_total: Budget::new(self.remembered_outcomes_total),
        }
    }
}

/// The settings that decide about messages; see the fields of the same names in [`RoutingConfig`].
#[derive(Debug, Clone)]
pub(crate) struct DevicePolicy {
    pub(crate) ack_window: Duration,
    pub(crate) session_messages: usize,
    pub(crate) session_bytes: usize,
    pub(crate) max_message_bytes: usize,
    pub(crate) mailbox_messages: u64,
    pub(crate) mailbox_bytes: u64,
    pub(crate) mailbox_full_retry_ms: u64,
    pub(crate) chat_expiry_ms: u64,
    pub(crate) call_expiry_ms: u64,
    pub(crate) remembered_outcomes: usize,
    pub(crate) remembered_total: Arc<Budget>,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_need_a_folder_only() {
        let mut config = RoutingConfig::default();
        assert!(config.check().unwrap_err().to_string().contains("routing.data_dir"));
        config.data_dir = "somewhere".into();
        config.check().unwrap();
        config.store = StoreKind::Postgres;
        assert!(config.check().unwrap_err().to_string().contains("routing.postgres.url"));
        config.postgres.postgres.url = "postgres://causeway@127.0.0.1/causeway".to_owned();
        assert!(config.check().unwrap_err().to_string().contains("routing.advertise_url"));
        config.advertise_url = "http://routing-1.example:7461".to_owned();
        config.check().unwrap();
        assert_eq!(config.stable_name(), config.advertise_url);
        config.lease_ms = 2_501;
        assert!(config.check().unwrap_err().to_string().contains("routing.claim_timeout_ms"));
        config.lease_ms = 2_500;
        config.check().unwrap();
        config.session_messages = 0;
        assert!(config.check().unwrap_err().to_string().contains("routing.session_messages"));
    }
}
