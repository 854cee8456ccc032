//! Settings of an edge.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use causeway_redis::RedisConfig;
use causeway_runtime::config::{Check, ConfigError, ensure, in_section, within};
use serde::{Deserialize, Serialize};

/// Settings of an edge; section `[edge]` of the configuration file. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Where clients connect by TCP. Default `0.0.0.0:7443`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where clients connect by WebSocket (path `/v1/noise`). Default: nowhere.
    pub websocket_listen: Option<SocketAddr>,
    /// File with the X25519 static key of this deployment's edges: 64 hex digits. Must be set.
    pub noise_key_file: PathBuf,
    /// File with the certificate of that key, as `causewayctl` or `causeway all` writes it. Must be set.
    pub certificate_file: PathBuf,
    /// How often the certificate's file is looked at; a changed one is served without a restart (1 000 to 86 400 000).
    /// Default 60 000.
    pub certificate_reload_interval_ms: u64,
    /// Name of the deployment: what tokens name as `aud` and the certificate as `deployment`. 1 to 255 bytes.
    pub deployment: String,

    /// Connections at a time (1 to 1 000 000). Default 20 000. Keep it below the limit of open files.
    pub max_connections: usize,
    /// Connections at a time that have not logged in yet (1 to 1 000 000). Default 4 096.
    pub max_half_open: usize,
    /// The same from one network: an IPv4 /24 or an IPv6 /64 (1 to 1 000 000). Default 256.
    pub max_half_open_per_network: usize,
    /// Connections at a time from one network (1 to 1 000 000). Default 2 000. Behind a proxy all come from the
    /// proxy's network: then it is to be the total.
    pub max_connections_per_network: usize,
    /// Handshakes a second that are begun in the long run (1 to 1 000 000). Default 2 000. Of more, each is told a time of
    /// its own to come back.
    pub handshakes_per_s: u32,
    /// Handshakes that may begin at once (1 to 1 000 000). Default 1 000.
    pub handshake_burst: u32,
    /// Handshakes a second from one network (1 to 1 000 000), with the same share of the burst. Default 1 000.
    pub handshakes_per_s_per_network: u32,
    /// Sessions at a time that are not enlisted (1 to 1 000 000). Default 4 096; more fail with `overloaded`.
    pub max_newcomers: usize,
    /// Of these, one provider's (1 to 1 000 000). Default 2 048.
    pub max_newcomers_per_provider: usize,
    /// Of these, one user's (1 to 1 000). Default 4.
    pub max_newcomers_per_user: usize,

    /// From the first byte to the end of the Noise handshake, however steadily bytes trickle in (100 to 60 000).
    /// Default 10 000.
    pub handshake_timeout_ms: u64,
    /// From the end of the handshake to `success` (100 to 60 000). Default 10 000.
    pub login_timeout_ms: u64,
    /// From an IK handshake to the client's first record (100 to 60 000). Default 5 000.
    pub proof_timeout_ms: u64,
    /// A session that is not enlisted must do so within this time (1 000 to 3 600 000). Default 120 000.
    pub enlist_timeout_ms: u64,
    /// From the first to the last byte of a record (100 to 600 000). Default 30 000.
    pub record_timeout_ms: u64,
    /// What is written, or each 16 KiB of it, must have left within this time (100 to 600 000). Default 20 000.
    pub write_timeout_ms: u64,
    /// A client that sent nothing for this long is pinged, and after twice this long its session ends
    /// (100 to 600 000). Default 30 000.
    pub ping_interval_ms: u64,
    /// How long a session outlives its token (0 to 300 000). Default 290 000. A little less than the five minutes of the
    /// protocol, so that a busy machine keeps the promise.
    pub token_grace_ms: u64,

    /// Largest record that a client may send, in bytes (16 384 to 262 144). Default 262 144.
    pub max_stanza_bytes: u32,
    /// Stanzas a second that a session may send in the long run (1 to 1 000 000). Default 200. More is not read.
    pub stanzas_per_s: u32,
    /// Stanzas that a session may send at once (1 to 1 000 000). Default 1 000.
    pub stanza_burst: u32,
    /// Bytes a second that a session may send in the long run (1 024 to 1 073 741 824). Default 2 097 152.
    pub bytes_per_s: u32,
    /// Bytes that a session may send at once (65 536 to 1 073 741 824). Default 8 388 608.
    pub bytes_burst: u32,
    /// Requests of a session that are open at a time (1 to 1 024). Default 64; one more ends it with `bad-stanza`.
    pub open_requests: usize,
    /// Bytes of them (max_stanza_bytes to 16 777 216). Default 1 048 576; more end it with `rate-limited`.
    pub open_request_bytes: usize,
    /// Of the open requests, how many are carried out at a time; the others wait (1 to 1 024). Default 16.
    pub concurrent_requests: usize,

    /// Events from routing that may wait for a session's socket (64 to 65 536). Default 2 048; one more ends it with
    /// `overloaded`.
    pub queue_messages: usize,
    /// Bytes of them (1 048 576 to 268 435 456). Default 4 194 304.
    pub queue_bytes: usize,
    /// Bytes of them over all sessions (16 777 216 to 2^40). Default 536 870 912.
    pub total_queue_bytes: usize,
    /// Bytes that may wait behind a write before a session takes no more events from its queue
    /// (16 384 to 16 777 216). Default 262 144.
    pub outbox_bytes: usize,

    /// Messages of a session that may wait for their outcomes (1 to 65 536). Default 256. With more, nothing is read from
    /// its client.
    pub pending_messages: usize,
    /// Bytes of them (65 536 to 268 435 456). Default 2 097 152.
    pub pending_bytes: usize,
    /// Bytes of them over all sessions (16 777 216 to 2^40). Default 268 435 456. The fuller it is, the smaller is the
    /// share of each session.
    pub total_pending_bytes: usize,
    /// A session without any replica of routing ends with `overloaded` after this long (100 to 600 000). Default 10 000.
    pub routing_grace_ms: u64,

    /// Spent tokens that are remembered until they expire (1 000 to 100 000 000). Default 500 000; when it is full,
    /// logins fail with `overloaded`.
    pub replay_tokens: usize,
    /// Of these, how many may be one provider's (1 000 to 100 000 000). Default 250 000.
    pub replay_tokens_per_provider: usize,

    /// Where edges tell each other which tokens are spent: section `[edge.redis]`. Default: nowhere, which is right for one
    /// edge only. Without an answer from it new logins fail with `overloaded` (docs/redis.md).
    pub redis: Option<RedisConfig>,

    /// A draining edge asks its clients to come back after a time spread over this window (0 to 600 000).
    /// Default 5 000.
    pub drain_window_ms: u64,
    /// Clients whose sessions end because something is overloaded or down are asked to wait from one to two times this
    /// long, connections that are turned away at least this long (100 to 600 000). Default 1 000.
    pub overload_retry_ms: u64,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7443),
            websocket_listen: None,
            noise_key_file: PathBuf::new(),
            certificate_file: PathBuf::new(),
            certificate_reload_interval_ms: 60_000,
            deployment: String::new(),
            max_connections: 20_000,
            max_half_open: 4_096,
            max_half_open_per_network: 256,
            max_connections_per_network: 2_000,
            handshakes_per_s: 2_000,
            handshake_burst: 1_000,
            handshakes_per_s_per_network: 1_000,
            max_newcomers: 4_096,
            max_newcomers_per_provider: 2_048,
            max_newcomers_per_user: 4,
            handshake_timeout_ms: 10_000,
            login_timeout_ms: 10_000,
            proof_timeout_ms: 5_000,
            enlist_timeout_ms: 120_000,
            record_timeout_ms: 30_000,
            write_timeout_ms: 20_000,
            ping_interval_ms: 30_000,
            token_grace_ms: 290_000,
            max_stanza_bytes: 256 * 1024,
            stanzas_per_s: 200,
            stanza_burst: 1_000,
            bytes_per_s: 2 * 1024 * 1024,
            bytes_burst: 8 * 1024 * 1024,
            open_requests: 64,
            open_request_bytes: 1024 * 1024,
            concurrent_requests: 16,
            queue_messages: 2_048,
            queue_bytes: 4 * 1024 * 1024,
            total_queue_bytes: 512 * 1024 * 1024,
            outbox_bytes: 256 * 1024,
            pending_messages: 256,
            pending_bytes: 2 * 1024 * 1024,
            total_pending_bytes: 256 * 1024 * 1024,
            routing_grace_ms: 10_000,
            replay_tokens: 500_000,
            replay_tokens_per_provider: 250_000,
            redis: None,
            drain_window_ms: 5_000,
            overload_retry_ms: 1_000,
        }
    }
}

impl Check for EdgeConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let set =
            |field, path: &PathBuf| ensure(field, !path.as_os_str().is_empty(), "empty", "give the path of the file");
        set("edge.noise_key_file", &self.noise_key_file)?;
        set("edge.certificate_file", &self.certificate_file)?;
        within("edge.certificate_reload_interval_ms", self.certificate_reload_interval_ms, 1_000..=86_400_000)?;
        within("edge.deployment (bytes)", self.deployment.len(), 1..=255)?;

        within("edge.max_connections", self.max_connections, 1..=1_000_000)?;
        within("edge.max_half_open", self.max_half_open, 1..=1_000_000)?;
        within("edge.max_half_open_per_network", self.max_half_open_per_network, 1..=1_000_000)?;
        within("edge.max_connections_per_network", self.max_connections_per_network, 1..=1_000_000)?;

        within("edge.handshakes_per_s", self.handshakes_per_s, 1..=1_000_000)?;
        within("edge.handshake_burst", self.handshake_burst, 1..=1_000_000)?;
        within("edge.handshakes_per_s_per_network", self.handshakes_per_s_per_network, 1..=1_000_000)?;

        within("edge.max_newcomers", self.max_newcomers, 1..=1_000_000)?;
        within("edge.max_newcomers_per_provider", self.max_newcomers_per_provider, 1..=1_000_000)?;
        within("edge.max_newcomers_per_user", self.max_newcomers_per_user, 1..=1_000)?;

        within("edge.handshake_timeout_ms", self.handshake_timeout_ms, 100..=60_000)?;
        within("edge.login_timeout_ms", self.login_timeout_ms, 100..=60_000)?;
        within("edge.proof_timeout_ms", self.proof_timeout_ms, 100..=60_000)?;
        within("edge.enlist_timeout_ms", self.enlist_timeout_ms, 1_000..=3_600_000)?;
        within("edge.record_timeout_ms", self.record_timeout_ms, 100..=600_000)?;
        within("edge.write_timeout_ms", self.write_timeout_ms, 100..=600_000)?;
        within("edge.ping_interval_ms", self.ping_interval_ms, 100..=600_000)?;
        within("edge.token_grace_ms", self.token_grace_ms, 0..=300_000)?;

        within("edge.max_stanza_bytes", self.max_stanza_bytes, 16_384..=262_144)?;
        within("edge.stanzas_per_s", self.stanzas_per_s, 1..=1_000_000)?;
        within("edge.stanza_burst", self.stanza_burst, 1..=1_000_000)?;
        within("edge.bytes_per_s", self.bytes_per_s, 1_024..=1_073_741_824)?;
        within("edge.bytes_burst", self.bytes_burst, 65_536..=1_073_741_824)?;
        within("edge.open_requests", self.open_requests, 1..=1_024)?;
        within("edge.open_request_bytes", self.open_request_bytes, self.max_stanza_bytes as usize..=16_777_216)?;
        within("edge.concurrent_requests", self.concurrent_requests, 1..=1_024)?;

        within("edge.queue_messages", self.queue_messages, 64..=65_536)?;
        within("edge.queue_bytes", self.queue_bytes, 1_048_576..=268_435_456)?;
        within("edge.total_queue_bytes", self.total_queue_bytes, 16_777_216..=1 << 40)?;
        within("edge.outbox_bytes", self.outbox_bytes, 16_384..=16_777_216)?;

        within("edge.pending_messages", self.pending_messages, 1..=65_536)?;
        within("edge.pending_bytes", self.pending_bytes, 65_536..=268_435_456)?;
        within("edge.total_pending_bytes", self.total_pending_bytes, 16_777_216..=1 << 40)?;
        within("edge.routing_grace_ms", self.routing_grace_ms, 100..=600_000)?;

        within("edge.replay_tokens", self.replay_tokens, 1_000..=100_000_000)?;
        within("edge.replay_tokens_per_provider", self.replay_tokens_per_provider, 1_000..=100_000_000)?;
        if let Some(redis) = &self.redis {
            in_section("edge", redis.check())?;
        }

        within("edge.drain_window_ms", self.drain_window_ms, 0..=600_000)?;
        within("edge.overload_retry_ms", self.overload_retry_ms, 100..=600_000)
    }
}

impl EdgeConfig {
    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable() -> EdgeConfig {
        EdgeConfig {
            noise_key_file: "noise.key".into(),
            certificate_file: "certificate".into(),
            deployment: "net.example".into(),
            ..EdgeConfig::default()
        }
    }

    #[test]
    fn defaults_are_in_range_once_the_files_are_named() {
        usable().check().unwrap();
        let unnamed = EdgeConfig::default().check().unwrap_err().to_string();
        assert!(unnamed.contains("edge.noise_key_file"), "{unnamed}");
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let zero = EdgeConfig { handshake_timeout_ms: 0, ..usable() }.check().unwrap_err().to_string();
        assert!(zero.contains("edge.handshake_timeout_ms is 0"), "{zero}");
        let long = EdgeConfig { token_grace_ms: 300_001, ..usable() }.check().unwrap_err().to_string();
        assert!(long.contains("edge.token_grace_ms"), "{long}");
    }
}
