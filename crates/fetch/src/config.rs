//! Settings of the guarded client.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::FetchError;
use crate::hosts::{HostSet, MAX_HOSTS};
use crate::network::Network;

/// Most networks in a configuration.
const MAX_NETWORKS: usize = 16;

/// Bounds of everything that is fetched from providers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FetchConfig {
    /// Lets in `http://` to loopback literals and `localhost`. For demos and tests on one machine only. Default false.
    pub allow_loopback_http: bool,
    /// Resolving and connecting take at most this long (100 to 60 000). Default 5 000.
    pub connect_timeout_ms: u64,
    /// Longest silence while an answer is awaited or read (100 to 120 000). Default 10 000.
    pub idle_timeout_ms: u64,
    /// A document or a webhook takes at most this long (100 to 120 000). Default 30 000.
    pub total_timeout_ms: u64,
    /// A stream takes at most this long (1 000 to 86 400 000). Default 600 000.
    pub stream_timeout_ms: u64,
    /// Largest stream in bytes (1 to 2^40). Default 4 294 967 296.
    pub max_stream_bytes: u64,
    /// Networks of the operator's own, as `address/length`, which the hosts in `private_hosts` may be in although they are
    /// private: at most 16. No other host may resolve there. https is needed as everywhere. Default none.
    pub private_networks: Vec<String>,
    /// Registered hosts for which `private_networks` holds, as names without a port, for instance the home provider's: at
    /// most 16. Names that third parties control do not belong here. Default none.
    pub private_hosts: Vec<String>,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            allow_loopback_http: false,
            connect_timeout_ms: 5_000,
            idle_timeout_ms: 10_000,
            total_timeout_ms: 30_000,
            stream_timeout_ms: 600_000,
            max_stream_bytes: 4 * 1024 * 1024 * 1024,
            private_networks: Vec::new(),
            private_hosts: Vec::new(),
        }
    }
}

impl FetchConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// [`FetchError::Config`], which names the field.
    pub fn check(&self) -> Result<(), FetchError> {
        within("connect_timeout_ms", self.connect_timeout_ms, 100..=60_000)?;
        within("idle_timeout_ms", self.idle_timeout_ms, 100..=120_000)?;
        within("total_timeout_ms", self.total_timeout_ms, 100..=120_000)?;
        within("stream_timeout_ms", self.stream_timeout_ms, 1_000..=86_400_000)?;
        within("max_stream_bytes", self.max_stream_bytes, 1..=1 << 40)?;
        let readable = self.private_networks.iter().all(|network| network.parse::<Network>().is_ok());
        if !readable || self.private_networks.len() > MAX_NETWORKS {
            return Err(FetchError::Networks);
        }
        let named = self
            .private_hosts
            .iter()
            .all(|host| HostSet::parse([host]).is_ok_and(|set| !set.has_loopback()) && !host.contains(':'));
        // One without the other allows nothing, and was meant to allow something.
        let both = self.private_hosts.is_empty() == self.private_networks.is_empty();
        if named && both && self.private_hosts.len() <= MAX_HOSTS { Ok(()) } else { Err(FetchError::PrivateHosts) }
    }

    /// The names, lower-case, as they were checked.
    pub(crate) fn private_hosts(&self) -> BTreeSet<String> {
        self.private_hosts.iter().cloned().collect()
    }

    /// The networks, once they were checked.
    pub(crate) fn private_networks(&self) -> Vec<Network> {
        self.private_networks.iter().filter_map(|network| network.parse().ok()).collect()
    }

    pub(crate) const fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) const fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    pub(crate) const fn total_timeout(&self) -> Duration {
        Duration::from_millis(self.total_timeout_ms)
    }

    pub(crate) const fn stream_timeout(&self) -> Duration {
        Duration::from_millis(self.stream_timeout_ms)
    }
}

fn within(field: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<(), FetchError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(FetchError::Config { field, least: *range.start(), most: *range.end() })
}
