//! What the user names: a process, or a DNS name that stands for several.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use crate::chat::clean;

const DNS: &str = "dns+";

/// An observability listener, or all those of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    host: String,
    port: u16,
    /// Each address of the host is a process.
    many: bool,
}

/// One process to ask, or what could not be found.
#[derive(Debug)]
pub(super) struct Place {
    /// `host:port`.
    pub(super) name: String,
    pub(super) problem: Option<String>,
}

impl Target {
    /// A process at this address.
    pub(crate) fn at(address: std::net::SocketAddr) -> Self {
        let host = match address {
            std::net::SocketAddr::V4(address) => address.ip().to_string(),
            std::net::SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        Self { host, port: address.port(), many: false }
    }

    pub(super) async fn resolve(&self, patience: Duration) -> Vec<Place> {
        let name = format!("{}:{}", self.host, self.port);
        if !self.many {
            return vec![Place { name, problem: None }];
        }
        let mut found: Vec<_> = match tokio::time::timeout(patience, tokio::net::lookup_host(name.clone())).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            return vec![Place { name, problem: Some("the name has no address".to_owned()) }];
        }
        found.into_iter().map(|address| Place { name: address.to_string(), problem: None }).collect()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}http://{}:{}", if self.many { DNS } else { "" }, self.host, self.port)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{} is no target: write http://host:port or dns+http://name:port", clean(text));
        let (many, rest) = text.strip_prefix(DNS).map_or((false, text), |rest| (true, rest));
        let url = Url::parse(rest).map_err(|_| wrong())?;
        let plain = url.scheme() == "http"
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        match (plain, url.host_str()) {
            // `port()` is none for the scheme's own, which may have been written.
            (true, Some(host)) if url.port().is_some() || rest.trim_end_matches('/').ends_with(":80") => {
                Ok(Self { host: host.to_owned(), port: url.port().unwrap_or(80), many })
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_nonsense_is_refused() {
        for text in ["http://127.0.0.1:7460", "dns+http://edge.causeway.svc:7460", "http://[::1]:80"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("http://h:1/".parse::<Target>().unwrap().to_string(), "http://h:1");
        for text in
            ["", "127.0.0.1:7460", "https://h:1", "http://h", "http://h:1/health", "http://u:p@h:1", "\u{1b}[2J"]
        {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains("write http://host:port") && !error.contains('\u{1b}'), "{error}");
        }
    }
}
