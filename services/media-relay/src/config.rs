//! Settings of the media-relay, section `media`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use causeway_fetch::FetchConfig;
use causeway_redis::RedisConfig;
use causeway_runtime::config::{Check, ConfigError, ensure, in_section, within};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::blobs::BucketConfig;

/// Settings of one media-relay.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaConfig {
    /// Address of the HTTP listener; port 0 takes a free one. Default `127.0.0.1:7446`.
    pub listen: SocketAddr,
    /// URL under which clients and other operators' relays reach the listener, `http` or `https`, without query. Absent:
    /// `http://` and the bound address, which is accepted only when `listen` is a loopback address.
    pub public_base: Option<String>,
    /// Where the blobs are: `folder`, or `s3`, an object store over the network. Default `folder`.
    pub store: StoreKind,
    /// Folder of the blobs if `store` is `folder`; made if it is absent. Default `causeway-data/media`.
    pub data_dir: PathBuf,
    /// The bucket of the blobs if `store` is `s3`.
    pub s3: BucketConfig,
    /// File with the key that seals tickets, 32 bytes; made with mode 0600 if it is absent. Default: `ticket.key` in
    /// `data_dir`. Replicas that serve one another's tickets share it.
    pub ticket_key_file: Option<PathBuf>,
    /// How long a ticket is good for, in seconds (10 to 86 400). Default 600.
    pub ticket_ttl_s: u64,
    /// How often one ticket may be presented (1 to 10 000). Default 64. Resumed downloads need some.
    pub max_ticket_uses: u32,
    /// How many tickets, of both kinds together, one account gets at once (1 to 10 000). Default 60.
    pub ticket_burst: u32,
    /// How many more it gets in a minute (1 to 10 000). Default 60.
    pub tickets_per_minute: u32,
    /// Largest ciphertext in bytes, both roles (1 024 to 4 294 967 296). Default 104 857 600.
    pub max_blob_bytes: u64,
    /// Transfers at one time; further ones get 503 (1 to 100 000). Default 256. Fetches without a ticket get half of them.
    pub max_transfers: u32,
    /// Uploads and relayed downloads of one account at one time; further ones get 503 (1 to 100 000). Default 8.
    pub max_transfers_per_account: u32,
    /// A transfer that is slower, on average over 30 s of waiting for the peer, is cut off, in bytes a second; 0 demands
    /// nothing (0 to 1 048 576). Default 1 024.
    pub min_bytes_per_s: u32,
    /// Open HTTP connections; further ones are closed at once (1 to 100 000). Default 1 024.
    pub max_connections: u32,
    /// Open HTTP connections of one network (IPv4 /24, IPv6 /64); further ones are closed at once (1 to 100 000). Default
    /// 256. Behind a proxy all connections are of its network: set it to `max_connections` there. A network that asks for this
    /// many blobs that do not exist gets 503 until the next second.
    pub max_connections_per_network: u32,
    /// A transfer in which nothing moves for this long is cut off (100 to 600 000). Default 15 000.
    pub idle_timeout_ms: u64,
    /// A transfer that takes longer is cut off (1 000 to 86 400 000). Default 900 000.
    pub transfer_timeout_ms: u64,
    /// Bytes for which one account gets upload tickets in a day (UTC) (1 024 to 2^40). Default 2 147 483 648.
    pub daily_upload_bytes: u64,
    /// Blobs older than this are deleted (1 to 3 650). Default 35. Messages wait for at most 30 days.
    pub retention_days: u32,
    /// How often orphans and old blobs are looked for (1 to 86 400). Default 3 600.
    pub sweep_interval_s: u64,
    /// Where replicas count the uses of upload tickets together: section `[media.redis]`. Default: nowhere, which is right
    /// for one replica only. Without an answer from it uploads get 503 (docs/redis.md).
    pub redis: Option<RedisConfig>,
    /// How providers' media hosts are fetched from.
    pub fetch: FetchConfig,
}

/// Where blobs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// A folder.
    Folder,
    /// An object store that speaks S3.
    S3,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7446)),
            public_base: None,
            store: StoreKind::Folder,
            data_dir: PathBuf::from("causeway-data/media"),
            s3: BucketConfig::default(),
            ticket_key_file: None,
            ticket_ttl_s: 600,
            max_ticket_uses: 64,
            ticket_burst: 60,
            tickets_per_minute: 60,
            max_blob_bytes: 100 * 1024 * 1024,
            max_transfers: 256,
            max_transfers_per_account: 8,
            min_bytes_per_s: 1_024,
            max_connections: 1_024,
            max_connections_per_network: 256,
            idle_timeout_ms: 15_000,
            transfer_timeout_ms: 900_000,
            daily_upload_bytes: 2 * 1024 * 1024 * 1024,
            retention_days: 35,
            sweep_interval_s: 3_600,
            redis: None,
            fetch: FetchConfig::default(),
        }
    }
}

impl Check for MediaConfig {
    fn check(&self) -> Result<(), ConfigError> {
        within("media.ticket_ttl_s", self.ticket_ttl_s, 10..=86_400)?;
        within("media.max_ticket_uses", self.max_ticket_uses, 1..=10_000)?;
        within("media.ticket_burst", self.ticket_burst, 1..=10_000)?;
        within("media.tickets_per_minute", self.tickets_per_minute, 1..=10_000)?;
        within("media.max_blob_bytes", self.max_blob_bytes, 1024..=4 * 1024 * 1024 * 1024)?;
        within("media.max_transfers", self.max_transfers, 1..=100_000)?;
        within("media.max_transfers_per_account", self.max_transfers_per_account, 1..=100_000)?;
        within("media.min_bytes_per_s", self.min_bytes_per_s, 0..=1_048_576)?;
        within("media.max_connections", self.max_connections, 1..=100_000)?;
        within("media.max_connections_per_network", self.max_connections_per_network, 1..=100_000)?;
        within("media.idle_timeout_ms", self.idle_timeout_ms, 100..=600_000)?;
        within("media.transfer_timeout_ms", self.transfer_timeout_ms, 1_000..=86_400_000)?;
        within("media.daily_upload_bytes", self.daily_upload_bytes, 1024..=1024 * 1024 * 1024 * 1024)?;
        within("media.retention_days", self.retention_days, 1..=3_650)?;
        within("media.sweep_interval_s", self.sweep_interval_s, 1..=86_400)?;
        if self.store == StoreKind::S3 {
            in_section("media", self.s3.check())?;
        }
        if let Some(redis) = &self.redis {
            in_section("media", redis.check())?;
        }
        match &self.public_base {
            Some(base) => {
                let fix = "must be an http or https URL without user, query and fragment, at most 512 bytes";
                ensure("media.public_base", parse_base(base).is_some(), base, fix)
            }
            None => ensure(
                "media.public_base",
                self.listen.ip().is_loopback(),
                "absent",
                "must be set when media.listen is not a loopback address",
            ),
        }
    }
}

impl MediaConfig {
    /// The public base, once the listener is bound to `local`.
    pub(crate) fn base_at(&self, local: SocketAddr) -> Option<Url> {
        parse_base(self.public_base.as_deref().unwrap_or(&format!("http://{local}")))
    }

    /// Where the ticket key is.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.ticket_key_file.clone().unwrap_or_else(|| self.data_dir.join("ticket.key"))
    }

    /// How long a transfer may stand still.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// How long a transfer may take.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_millis(self.transfer_timeout_ms)
    }
}

fn parse_base(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|_| text.len() <= 512)?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    plain.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_and_each_wrong_value_is_named() {
        MediaConfig::default().check().unwrap();
        let open = MediaConfig { listen: "0.0.0.0:80".parse().unwrap(), ..MediaConfig::default() };
        assert!(open.check().unwrap_err().to_string().contains("media.public_base"));
        for base in ["ftp://x", "https://u@x", "https://x/?q", "https://x/#f", "/path", ""] {
            let config = MediaConfig { public_base: Some(base.to_owned()), ..MediaConfig::default() };
            assert!(config.check().unwrap_err().to_string().contains("media.public_base"), "{base}");
        }
        let zero = MediaConfig { max_transfers: 0, ..MediaConfig::default() };
        assert!(zero.check().unwrap_err().to_string().contains("media.max_transfers"));
    }
}
