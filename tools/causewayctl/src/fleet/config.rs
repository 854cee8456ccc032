//! The addresses in a process's configuration file. Only they are read: `causeway check-config` is for the rest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use toml::{Table, Value};
use url::Url;

use super::Target;

const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Addresses of one file that are looked at.
const MAX_ADDRESSES: usize = 256;
const POSTGRES_PORT: u16 = 5432;

/// A configuration file, with the environment before it.
#[derive(Debug)]
pub(crate) struct ProcessConfig {
    file: PathBuf,
    table: Table,
}

/// An address in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// `server.routing_urls`.
    pub(crate) field: String,
    /// As it stands there, without what may be secret.
    pub(crate) text: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The process itself listens there.
    pub(crate) own: bool,
}

/// Which of its fields a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope<'s> {
    /// Those of this service: `edge`, `all`.
    Of(&'s str),
    /// It is not known which it is: what others serve and what the file names.
    Unknown,
}

/// Field, default, and the services that use it; `None`: nothing by default.
type Field = (&'static str, Option<&'static str>, &'static [&'static str]);

const LISTENS: &[Field] = &[
    ("edge.listen", Some("127.0.0.1:7443"), &["edge", "all"]),
    ("edge.websocket_listen", Some("127.0.0.1:7445"), &["edge", "all"]),
    ("media.listen", Some("127.0.0.1:7446"), &["media-relay", "all"]),
    ("server.operator_listen", Some("127.0.0.1:7444"), &["key-directory", "all"]),
    ("server.directory_listen", Some("127.0.0.1:7450"), &["key-directory"]),
    ("server.routing_listen", Some("127.0.0.1:7451"), &["routing"]),
    ("server.media_listen", Some("127.0.0.1:7452"), &["media-relay"]),
];

const PEERS: &[Field] = &[
    ("server.directory_urls", Some("http://127.0.0.1:7450"), &["edge", "routing"]),
    ("server.routing_urls", Some("http://127.0.0.1:7451"), &["edge"]),
    ("server.media_urls", Some("http://127.0.0.1:7452"), &["edge"]),
    ("routing.advertise_url", None, &["routing"]),
    ("edge.redis.addresses", None, &["edge", "all"]),
    ("routing.redis.addresses", None, &["routing", "all"]),
    ("directory.redis.addresses", None, &["key-directory", "all"]),
    ("media.redis.addresses", None, &["media-relay", "all"]),
    ("telemetry.otlp_endpoint", None, &["edge", "routing", "key-directory", "media-relay", "all"]),
];

/// As [`PEERS`], if the field before says so.
const STORES: &[(&str, &str, Field)] = &[
    ("routing.store", "postgres", ("routing.postgres.url", None, &["routing", "all"])),
    ("directory.store", "postgres", ("directory.postgres.url", None, &["key-directory", "all"])),
    ("media.store", "s3", ("media.s3.endpoint", None, &["media-relay", "all"])),
];

impl ProcessConfig {
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let unreadable = || format!("the configuration file {} cannot be read", file.display());
        let size = std::fs::metadata(file).with_context(unreadable)?.len();
        if size > MAX_FILE_BYTES {
            bail!("{} is too large for a configuration file", file.display());
        }
        let text = std::fs::read_to_string(file).with_context(unreadable)?;
        let table = text.parse::<Table>();
        let table = table.map_err(|error| anyhow::anyhow!("{} is no TOML: {}", file.display(), error.message()))?;
        Ok(Self { file: file.to_owned(), table })
    }

    /// Which file it is.
    pub(crate) fn name(&self) -> String {
        self.file.display().to_string()
    }

    /// Where its process answers probes.
    pub(crate) fn health_target(&self) -> Option<Target> {
        let address: SocketAddr = self.values("server.health_listen").first()?.parse().ok()?;
        Some(Target::at(reachable(address)))
    }

    /// The addresses that the process uses. The error names the field that holds none.
    pub(crate) fn addresses(&self, scope: Scope<'_>) -> (Vec<Listed>, Vec<String>) {
        let (mut found, mut wrong) = (Vec::new(), Vec::new());
        let stores = STORES.iter().filter(|(switch, on, _)| self.values(switch).iter().any(|value| value == on));
        let peers = PEERS.iter().chain(stores.map(|(_, _, field)| field));
        let own = LISTENS.iter().filter(|_| scope != Scope::Unknown);
        for ((field, default, users), own) in own.map(|field| (field, true)).chain(peers.map(|field| (field, false))) {
            let used = match scope {
                Scope::Of(service) => users.contains(&service),
                Scope::Unknown => true,
            };
            let mut values = if used { self.values(field) } else { Vec::new() };
            if let (true, Scope::Of(_), Some(default)) = (values.is_empty() && used, scope, default) {
                values.push((*default).to_owned());
            }
            for value in values {
                match addresses(&value) {
                    Some(addresses) => {
                        found.extend(addresses.into_iter().filter(|(_, port)| *port != 0).map(|(host, port)| Listed {
                            field: (*field).to_owned(),
                            text: format!("{host}:{port}"),
                            host,
                            port,
                            own,
                        }))
                    }
                    None => wrong.push((*field).to_owned()),
                }
            }
        }
        found.truncate(MAX_ADDRESSES);
        (found, wrong)
    }

    /// A field's text, or each of its texts, from the environment or the file.
    fn values(&self, field: &str) -> Vec<String> {
        let variable = format!("CAUSEWAY_{}", field.to_uppercase().replace('.', "__"));
        let from_environment = std::env::var(variable).ok().filter(|text| !text.is_empty());
        let from_environment = from_environment.map(|text| {
            // A list is written as in the file; anything else is the text itself.
            let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
            parsed.unwrap_or(Value::String(text))
        });
        let value = from_environment.or_else(|| {
            let mut names = field.split('.');
            let first = self.table.get(names.next()?)?;
            names.try_fold(first, |value, name| value.get(name)).cloned()
        });
        match value {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(texts)) => {
                let texts = texts.into_iter().take(MAX_ADDRESSES);
                texts.filter_map(|text| text.as_str().map(ToOwned::to_owned)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Hosts and ports in `host:port`, an URL, or an URL with several hosts.
fn addresses(text: &str) -> Option<Vec<(String, u16)>> {
    let text = text.strip_prefix("dns+").unwrap_or(text);
    let Some((scheme, rest)) = text.split_once("://") else {
        let (host, port) = text.rsplit_once(':')?;
        return match text.parse::<SocketAddr>() {
            Ok(address) => Some(vec![split(reachable(address))]),
            Err(_) => Some(vec![(host.to_owned(), port.parse().ok()?)]).filter(|_| !host.is_empty()),
        };
    };
    if scheme != "postgres" && scheme != "postgresql" {
        let url = Url::parse(text).ok()?;
        return Some(vec![(url.host_str()?.to_owned(), url.port_or_known_default()?)]);
    }
    let hosts = rest.split(['/', '?']).next()?;
    let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
    let each = hosts.split(',').map(|host| match host.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => Some((host.to_owned(), port.parse().ok()?)),
        _ if host.is_empty() => None,
        _ => Some((host.to_owned(), POSTGRES_PORT)),
    });
    each.collect()
}

/// Where a listener of all addresses can be reached from here.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn split(address: SocketAddr) -> (String, u16) {
    match address {
        SocketAddr::V4(address) => (address.ip().to_string(), address.port()),
        SocketAddr::V6(address) => (format!("[{}]", address.ip()), address.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ProcessConfig {
        ProcessConfig { file: "causeway.toml".into(), table: text.parse().unwrap() }
    }

    fn shown(config: &ProcessConfig, scope: Scope<'_>) -> Vec<String> {
        config.addresses(scope).0.iter().map(|listed| format!("{} {}", listed.field, listed.text)).collect()
    }

    #[test]
    fn a_file_for_all_is_read_for_each() {
        let text = "[server]\nhealth_listen = '0.0.0.0:7460'\nrouting_urls = ['http://r-1:7451', 'dns+https://r:7451']\n\
            [edge]\nlisten = '0.0.0.0:0'\nwebsocket_listen = '[::]:7'\n[edge.redis]\naddresses = ['redis:6379']\n\
            [routing]\nstore = 'postgres'\npostgres.url = 'postgres://me:secret@a,b:5433/db?x=1'\n\
            [directory.postgres]\nurl = 'postgres://unused/db'";
        let config = config(text);
        assert_eq!(config.health_target().unwrap().to_string(), "http://127.0.0.1:7460");
        assert_eq!(
            shown(&config, Scope::Of("edge")),
            [
                "edge.websocket_listen [::1]:7",
                "server.directory_urls 127.0.0.1:7450",
                "server.routing_urls r-1:7451",
                "server.routing_urls r:7451",
                "server.media_urls 127.0.0.1:7452",
                "edge.redis.addresses redis:6379",
            ]
        );
        assert_eq!(
            shown(&config, Scope::Of("routing")),
            [
                "server.routing_listen 127.0.0.1:7451",
                "server.directory_urls 127.0.0.1:7450",
                "routing.postgres.url a:5432",
                "routing.postgres.url b:5433",
            ]
        );
        assert_eq!(
            shown(&config, Scope::Unknown),
            [
                "server.routing_urls r-1:7451",
                "server.routing_urls r:7451",
                "edge.redis.addresses redis:6379",
                "routing.postgres.url a:5432",
                "routing.postgres.url b:5433",
            ]
        );
    }

    #[test]
    fn what_is_no_address_is_named() {
        let config = config("server.media_urls = ['x y']\nedge.redis.addresses = ['redis']\nrouting.store = 7");
        let (found, wrong) = config.addresses(Scope::Unknown);
        assert_eq!((found.len(), wrong), (0, vec!["server.media_urls".to_owned(), "edge.redis.addresses".to_owned()]));
    }
}
