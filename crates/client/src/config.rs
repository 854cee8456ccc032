//! What a client must know before it can start.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use causeway_identity::{Address, RootPublicKey};
use causeway_noise::Suite;
use causeway_stanza::Encoding;
use url::Url;

/// Where a deployment's edge listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// Plain TCP; Noise runs directly on it.
    Tcp {
        /// Name or IP address.
        host: String,
        /// Usually 7443.
        port: u16,
    },
    /// WebSocket, `ws://host:port/v1/noise`: for networks that let only HTTP pass. Noise protects it, so it needs no TLS.
    WebSocket(Url),
}

/// Text is not the address of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server address is host:port, or ws://host:port/v1/noise")]
pub struct ServerAddressError;

impl FromStr for ServerAddress {
    type Err = ServerAddressError;

    /// Reads `host:port`, `[v6]:port`, or `ws://host:port/v1/noise` (the path may be left out).
    fn from_str(text: &str) -> Result<Self, ServerAddressError> {
        if text.starts_with("ws://") {
            let mut url = Url::parse(text).map_err(|_| ServerAddressError)?;
            if url.path() == "/" {
                url.set_path("/v1/noise");
            }
            let usable = url.has_host() && url.path() == "/v1/noise" && url.query().is_none();
            return if usable { Ok(Self::WebSocket(url)) } else { Err(ServerAddressError) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(ServerAddressError)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().map_err(|_| ServerAddressError)?;
        if host.is_empty() || port == 0 || host.contains(['/', ' ']) {
            return Err(ServerAddressError);
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::WebSocket(url) => url.fmt(f),
        }
    }
}

/// Everything but state and tokens.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The user's own address; its local part is the `sub` of the tokens.
    pub address: Address,
    /// Where to connect.
    pub server: ServerAddress,
    /// The deployment's name, from onboarding; the server's certificate must name it.
    pub deployment: String,
    /// The deployment's root keys, from onboarding; more than one during a rotation.
    pub roots: Vec<RootPublicKey>,
    /// How stanzas are written; both mean the same. BINARY unless said otherwise.
    pub encoding: Encoding,
    /// The Noise cipher suite.
    pub suite: Suite,
    /// Name and version of the application, at most 64 bytes; the operator counts them.
    pub agent: String,
    /// Waits and pauses.
    pub timing: Timing,
    /// Bounds of what is kept.
    pub bounds: Bounds,
}

impl ClientConfig {
    /// The usual settings.
    pub fn new(address: Address, server: ServerAddress, deployment: &str, roots: Vec<RootPublicKey>) -> Self {
        Self {
            address,
            server,
            deployment: deployment.to_owned(),
            roots,
            encoding: Encoding::Binary,
            suite: Suite::default(),
            agent: concat!("causeway-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            timing: Timing::default(),
            bounds: Bounds::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, fix| Err(ConfigError { field, fix });
        if self.roots.is_empty() {
            return wrong("roots", "give at least one root key of the deployment");
        }
        if self.deployment.is_empty() || self.deployment.len() > 253 {
            return wrong("deployment", "give the deployment's name, at most 253 bytes");
        }
        if self.agent.len() > 64 {
            return wrong("agent", "use at most 64 bytes");
        }
        let timing = &self.timing;
        if timing.backoff_first.is_zero() || timing.backoff_first > timing.backoff_longest {
            return wrong("timing.backoff_first", "use more than 0 and at most backoff_longest");
        }
        let waits = [timing.connect_timeout, timing.ack_timeout, timing.request_timeout];
        if waits.iter().any(|wait| *wait < Duration::from_millis(100) || *wait > Duration::from_secs(600)) {
            return wrong("timing", "use time-outs between 100 ms and 10 min");
        }
        if self.bounds.one_time_prekeys < 200 {
            return wrong("bounds.one_time_prekeys", "use at least 200");
        }
        if self.bounds.window == 0 || self.bounds.window > 1024 {
            return wrong("bounds.window", "use 1 to 1024");
        }
        Ok(())
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fix}")]
pub struct ConfigError {
    /// The field of [`ClientConfig`].
    pub field: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

/// How long the client waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From the first byte to `success` (100 ms to 10 min).
    pub connect_timeout: Duration,
    /// Before the second attempt to connect; doubles with each further one. The actual pause is drawn between 0 and this.
    pub backoff_first: Duration,
    /// The doubling stops here.
    pub backoff_longest: Duration,
    /// A message without an answer is sent again after this (100 ms to 10 min).
    pub ack_timeout: Duration,
    /// A request without an answer fails after this, whether or not there is a connection (100 ms to 10 min).
    pub request_timeout: Duration,
    /// Signed prekeys are replaced when they are older than this.
    pub prekey_rotation: Duration,
    /// Replaced signed prekeys are kept this long for messages that are under way.
    pub prekey_retention: Duration,
    /// Sent messages are kept this long, should a device ask for one again.
    pub sent_retention: Duration,
    /// A message that could not be handed over within this is given up (`expired`).
    pub send_deadline: Duration,
    /// The same for content that is only worth something now, such as typing.
    pub ephemeral_deadline: Duration,
    /// What was received is remembered this long, so that a repetition is recognised. Longer than the server keeps a message.
    pub dedup_retention: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            connect_timeout: Duration::from_secs(15),
            backoff_first: Duration::from_millis(250),
            backoff_longest: Duration::from_secs(60),
            ack_timeout: Duration::from_secs(20),
            request_timeout: Duration::from_secs(20),
            prekey_rotation: Duration::from_secs(7 * DAY),
            prekey_retention: Duration::from_secs(30 * DAY),
            sent_retention: Duration::from_secs(14 * DAY),
            send_deadline: Duration::from_secs(30 * DAY),
            ephemeral_deadline: Duration::from_secs(20),
            dedup_retention: Duration::from_secs(45 * DAY),
        }
    }
}

/// How much is kept at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Messages sent and not yet answered (1 to 1024).
    pub window: usize,
    /// Messages that wait to be sent; beyond it, `send` answers `QueueFull`.
    pub queue: usize,
    /// Received messages that the application has not confirmed; beyond it the server is left to keep the rest.
    pub inbox: usize,
    /// Finished messages kept for repetition.
    pub sent: usize,
    /// Received messages remembered to recognise repetitions.
    pub dedup: usize,
    /// One-time prekeys of a family kept, 100 of which are on the server; the others were handed out and not used yet.
    pub one_time_prekeys: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { window: 64, queue: 10_000, inbox: 10_000, sent: 10_000, dedup: 500_000, one_time_prekeys: 2_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_are_read_and_written() {
        for text in ["edge.example:7443", "127.0.0.1:7443", "[::1]:7443", "ws://edge.example/v1/noise"] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), text);
        }
        for text in [
            "edge.example",
            ":7443",
            "edge.example:0",
            "edge.example:99999",
            "ws://",
            "http://x/y:1",
            "wss://x/v1/noise",
        ] {
            assert_eq!(text.parse::<ServerAddress>(), Err(ServerAddressError), "{text}");
        }
    }
}
