//! The whole configuration: one section a service, and others for the process. A file may hold more than a process uses: all of
//! it must be known, and what the process uses must be right.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use causeway_edge::EdgeConfig;
use causeway_fetch::{FetchConfig, FetchError};
use causeway_key_directory::DirectoryConfig;
use causeway_media_relay::MediaConfig;
use causeway_routing::RoutingConfig;
use causeway_runtime::config::{Check, ConfigError, ensure, within};
use causeway_runtime::grpc;
use causeway_runtime::telemetry::{self, LogFormat, TelemetryConfig};
use causeway_runtime::tls::TlsConfig;
use serde::{Deserialize, Serialize};

use crate::transport;

/// What a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    All,
    Edge,
    Routing,
    KeyDirectory,
    MediaRelay,
}

impl Role {
    /// As metrics, traces and health call it.
    pub(crate) fn service(self) -> &'static str {
        match self {
            Self::Edge => "causeway-edge",
            Self::Routing => "causeway-routing",
            Self::KeyDirectory => "causeway-key-directory",
            Self::MediaRelay => "causeway-media-relay",
            Self::All => "causeway",
        }
    }
}

/// Everything that can be set.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) server: ServerConfig,
    pub(crate) log: LogConfig,
    pub(crate) telemetry: TelemetryConfig,
    pub(crate) edge: EdgeConfig,
    pub(crate) routing: RoutingConfig,
    pub(crate) directory: DirectoryConfig,
    pub(crate) media: MediaConfig,
}

/// The process and the services' own interfaces.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServerConfig {
    /// Where the operator API listens. Default `127.0.0.1:7444`.
    pub(crate) operator_listen: SocketAddr,
    /// Each stage of a stop (edge, then routing, then the rest) has this long (100 to 600 000). Default 15 000.
    pub(crate) shutdown_grace_ms: u64,
    /// Where probes are answered over HTTP: `/live`, `/ready`, `/health`, and `/metrics`. Default none.
    pub(crate) health_listen: Option<SocketAddr>,
    /// Where a key-directory on its own serves the other services. Default `127.0.0.1:7450`.
    pub(crate) directory_listen: SocketAddr,
    /// Where a routing on its own serves edges. Default `127.0.0.1:7451`.
    pub(crate) routing_listen: SocketAddr,
    /// Where a media-relay on its own serves edges. Default `127.0.0.1:7452`.
    pub(crate) media_listen: SocketAddr,
    /// Where services on their own find key-directory: `http://host:port` of each replica, or `dns+http://name:port` for all addresses of a name.
    /// Default `["http://127.0.0.1:7450"]`.
    pub(crate) directory_urls: Vec<String>,
    /// Where an edge on its own finds routing, and a key-directory for delivery traces: `http://host:port` of each replica, or
    /// `dns+http://name:port` for all addresses of a name.
    /// Default `["http://127.0.0.1:7451"]`.
    pub(crate) routing_urls: Vec<String>,
    /// Where an edge on its own finds media-relay: `http://host:port` of each replica, or `dns+http://name:port` for all addresses of a name.
    /// Default `["http://127.0.0.1:7452"]`.
    pub(crate) media_urls: Vec<String>,
    /// The services' own interfaces are plain text: off this machine they are refused unless this says so, for networks
    /// that encrypt by themselves. Default false.
    pub(crate) allow_plaintext_grpc: bool,
    /// Mutual TLS on these interfaces and on the operator API. Default none.
    pub(crate) tls: Option<TlsConfig>,
}

/// What is logged, and how.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// A filter such as `info` or `info,causeway_edge=debug`. Default `info`.
    pub(crate) filter: String,
    /// `text` or `json`. Default `text`.
    pub(crate) format: LogFormat,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            operator_listen: local(7444),
            shutdown_grace_ms: 15_000,
            health_listen: None,
            directory_listen: local(7450),
            routing_listen: local(7451),
            media_listen: local(7452),
            directory_urls: vec!["http://127.0.0.1:7450".to_owned()],
            routing_urls: vec!["http://127.0.0.1:7451".to_owned()],
            media_urls: vec!["http://127.0.0.1:7452".to_owned()],
            allow_plaintext_grpc: false,
            tls: None,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Config {
    /// The configuration of a process whose data is in `data`, overlaid by a file and the environment, and checked as far as
    /// `role` uses it.
    pub(crate) fn load(data: &Path, file: Option<&Path>, role: Option<Role>) -> Result<Self, ConfigError> {
        let config = Self::read(data, file)?;
        config.check_for(role)?;
        Ok(config)
    }

    pub(crate) fn read(data: &Path, file: Option<&Path>) -> Result<Self, ConfigError> {
        let inside = |name: &str| data.join(name).to_string_lossy().into_owned();
        let defaults = [
            ("edge.noise_key_file", inside("keys/noise.key")),
            ("edge.certificate_file", inside("keys/certificate")),
            ("edge.deployment", DEPLOYMENT.to_owned()),
            ("edge.listen", "127.0.0.1:7443".to_owned()),
            ("edge.websocket_listen", "127.0.0.1:7445".to_owned()),
            ("directory.data_dir", inside("directory")),
            ("directory.operator_token_file", inside("keys/operator.token")),
            ("directory.deployment", DEPLOYMENT.to_owned()),
            ("routing.data_dir", inside("mailbox")),
            ("media.data_dir", inside("media")),
            ("media.ticket_key_file", inside("keys/ticket.key")),
        ];
        causeway_runtime::config::read(&defaults, file)
    }
}

/// Name of the deployment unless one is configured.
const DEPLOYMENT: &str = "causeway.local";

impl ServerConfig {
    pub(crate) fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }

    /// What the services that run apart from each other use to find each other.
    fn check_urls(&self, uses: impl Fn(&[Role]) -> bool) -> Result<(), ConfigError> {
        for (field, urls, users) in [
            ("server.directory_urls", &self.directory_urls, &[Role::Edge, Role::Routing][..]),
            ("server.routing_urls", &self.routing_urls, &[Role::Edge, Role::KeyDirectory]),
            ("server.media_urls", &self.media_urls, &[Role::Edge]),
        ] {
            let fix = "give at least one, each as http://host:port or dns+http://name:port";
            let usable = !uses(users) || grpc::check_addresses(urls).is_ok();
            ensure(field, usable, urls.join(", "), fix)?;
        }
        Ok(())
    }

    fn check_plaintext(&self, uses: impl Fn(&[Role]) -> bool) -> Result<(), ConfigError> {
        for (field, address, users) in [
            ("server.operator_listen", self.operator_listen, &[Role::All, Role::KeyDirectory][..]),
            ("server.directory_listen", self.directory_listen, &[Role::KeyDirectory]),
            ("server.routing_listen", self.routing_listen, &[Role::Routing]),
            ("server.media_listen", self.media_listen, &[Role::MediaRelay]),
        ] {
            let local = self.allow_plaintext_grpc || grpc::is_local(&address);
            let allowed = !uses(users) || self.tls.is_some() || local;
            let fix = "give a loopback address, set server.tls, or set server.allow_plaintext_grpc where the network itself encrypts";
            ensure(field, allowed, address, fix)?;
        }
        Ok(())
    }
}

impl Config {
    /// Checks what `role` uses; without one, everything, and that the sections fit each other.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first field that is wrong.
    pub(crate) fn check_for(&self, role: Option<Role>) -> Result<(), ConfigError> {
        let uses = |users: &[Role]| role.is_none_or(|role| users.contains(&role));
        let runs = |service| uses(&[Role::All, service]);
        within("server.shutdown_grace_ms", self.server.shutdown_grace_ms, 100..=600_000)?;
        self.server.check_plaintext(uses)?;
        self.server.check_urls(uses)?;
        transport::check(self, role)?;
        let readable = telemetry::is_filter(&self.log.filter);
        ensure("log.filter", readable, &self.log.filter, "give a filter such as info, or info,causeway_edge=debug")?;
        self.telemetry.check()?;
        if runs(Role::Edge) {
            self.edge.check()?;
        }
        if runs(Role::Routing) {
            self.routing.check()?;
            check_fetch("routing.fetch", &self.routing.fetch)?;
        }
        if runs(Role::KeyDirectory) {
            self.directory.check()?;
            check_fetch("directory.fetch", &self.directory.fetch)?;
        }
        if runs(Role::MediaRelay) {
            self.media.check()?;
            check_fetch("media.fetch", &self.media.fetch)?;
        }
        if uses(&[Role::All]) { self.check_together() } else { Ok(()) }
    }

    /// That the services' sections fit each other. A process of one service does not know what the others really have.
    fn check_together(&self) -> Result<(), ConfigError> {
        let same = self.edge.deployment == self.directory.deployment;
        ensure("directory.deployment", same, &self.directory.deployment, "must equal edge.deployment")?;
        let fix = "must be less than edge.queue_messages, so that what a session is given fits its queue";
        let fits = self.routing.session_messages < self.edge.queue_messages;
        ensure("routing.session_messages", fits, self.routing.session_messages, fix)?;
        let fix = "must be less than edge.queue_bytes, so that what a session is given fits its queue";
        let fits = self.routing.session_bytes < self.edge.queue_bytes;
        ensure("routing.session_bytes", fits, self.routing.session_bytes, fix)
    }
}

fn check_fetch(section: &str, fetch: &FetchConfig) -> Result<(), ConfigError> {
    match fetch.check() {
        Ok(()) => Ok(()),
        Err(FetchError::Config { field, least, most }) => {
            ensure(&format!("{section}.{field}"), false, "out of range", &format!("must be between {least} and {most}"))
        }
        Err(other) => ensure(section, false, "not usable", &other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        let config = Config::load(Path::new("data"), None, None).unwrap();
        assert_eq!(config.edge.noise_key_file, Path::new("data/keys/noise.key"));
    }

    #[test]
    fn the_documented_sample_is_accepted_and_states_the_defaults() {
        let sample = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/causeway.toml"));
        let stated = Config::load(Path::new("data"), Some(sample), None).unwrap();
        let defaults = Config::load(Path::new("data"), None, None).unwrap();
        assert_eq!(format!("{stated:?}"), format!("{defaults:?}"));
    }

    #[test]
    fn every_part_is_checked() {
        let defaults = || Config::load(Path::new("data"), None, None).unwrap();
        type Spoil = fn(&mut Config);
        let wrong: [(&str, Spoil); 8] = [
            ("server.media_urls", |config| config.server.media_urls = vec!["x y".to_owned()]),
            ("server.routing_urls", |config| config.server.routing_urls.clear()),
            ("log.filter", |config| config.log.filter = "info,=,".to_owned()),
            ("directory.fetch.connect_timeout_ms", |config| config.directory.fetch.connect_timeout_ms = 1),
            ("routing.fetch.idle_timeout_ms", |config| config.routing.fetch.idle_timeout_ms = 0),
            ("media.fetch.max_stream_bytes", |config| config.media.fetch.max_stream_bytes = 0),
            ("routing.session_messages", |config| config.edge.queue_messages = config.routing.session_messages),
            ("directory.deployment", |config| config.directory.deployment = "other".to_owned()),
        ];
        for (field, spoil) in wrong {
            let mut config = defaults();
            spoil(&mut config);
            let error = config.check_for(None).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn plain_text_grpc_stays_on_the_machine_unless_a_flag_says_otherwise() {
        let mut config = Config::load(Path::new("data"), None, None).unwrap();
        config.server.routing_listen = "0.0.0.0:7451".parse().unwrap();
        assert!(config.check_for(None).unwrap_err().to_string().contains("server.routing_listen"));
        config.server.allow_plaintext_grpc = true;
        config.check_for(None).unwrap();
    }

    fn read_text(text: &str) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Config::read(Path::new("data"), Some(file.path()))
    }

    #[test]
    fn a_process_checks_what_it_uses_and_no_more() {
        // One file for all: what is special to each routing is in its environment.
        let shared = "[routing]\nstore = 'postgres'\n[routing.postgres]\nurl = 'postgres://c@127.0.0.1/c'";
        let config = read_text(shared).unwrap();
        for role in [Role::Edge, Role::KeyDirectory, Role::MediaRelay] {
            config.check_for(Some(role)).unwrap();
        }
        for role in [None, Some(Role::All), Some(Role::Routing)] {
            assert!(config.check_for(role).unwrap_err().to_string().contains("routing.advertise_url"), "{role:?}");
        }
        let wrong: [(&str, &[Role]); 10] = [
            ("edge.max_connections = 0", &[Role::All, Role::Edge]),
            ("routing.push_queue = 0", &[Role::All, Role::Routing]),
            ("directory.prekeys_low = 0", &[Role::All, Role::KeyDirectory]),
            ("media.retention_days = 0", &[Role::All, Role::MediaRelay]),
            ("media.fetch.idle_timeout_ms = 0", &[Role::All, Role::MediaRelay]),
            ("server.directory_urls = []", &[Role::Edge, Role::Routing]),
            ("server.routing_urls = []", &[Role::Edge, Role::KeyDirectory]),
            ("server.media_urls = []", &[Role::Edge]),
            ("server.operator_listen = '0.0.0.0:1'", &[Role::All, Role::KeyDirectory]),
            ("server.routing_listen = '0.0.0.0:1'", &[Role::Routing]),
        ];
        for (line, users) in wrong {
            let config = read_text(line).unwrap();
            assert!(config.check_for(None).is_err(), "{line}");
            for role in Role::value_variants() {
                assert_eq!(config.check_for(Some(*role)).is_err(), users.contains(role), "{line}: {role:?}");
            }
        }
    }

    #[test]
    fn what_nobody_knows_is_refused_wherever_it_stands() {
        for unknown in
            ["edge.colour", "routing.postgres.colour", "media.fetch.colour", "directory.redis.colour", "colour"]
        {
            let error = read_text(&format!("{unknown} = 1")).unwrap_err().to_string();
            assert!(error.contains(unknown), "{error}");
        }
    }
}
