//! The hosts that a provider has registered.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::Url;

/// Most hosts of one provider.
pub const MAX_HOSTS: usize = 16;

const MAX_NAME_BYTES: usize = 253;

/// Why text is not a host that can be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not `host` or `host:port` with a lower-case domain name of at least two labels in A-labels and without a dot at
    /// the end, or, for one machine only, a loopback literal or `localhost`.
    #[error("a host is written as host or host:port, lower-case, in A-labels, without a dot at the end")]
    Form,
    /// More than [`MAX_HOSTS`].
    #[error("more than {MAX_HOSTS} hosts")]
    TooMany,
}

/// Hosts in canonical form; exactly these may be contacted. The default is empty and allows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSet(BTreeSet<Host>);

impl HostSet {
    /// Reads a list of `host` or `host:port`. Without a port the scheme's own is meant.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn parse<S: AsRef<str>>(hosts: impl IntoIterator<Item = S>) -> Result<Self, HostError> {
        let mut set = BTreeSet::new();
        for host in hosts {
            set.insert(host.as_ref().parse()?);
            if set.len() > MAX_HOSTS {
                return Err(HostError::TooMany);
            }
        }
        Ok(Self(set))
    }

    /// The hosts as text, in order.
    pub fn as_strings(&self) -> Vec<String> {
        self.0.iter().map(Host::to_string).collect()
    }

    /// True if one of them is this machine, which only [`crate::FetchConfig::allow_loopback_http`] allows.
    pub fn has_loopback(&self) -> bool {
        self.0.iter().any(|host| !matches!(host.name, Name::Domain(_)))
    }

    /// True if `url` is on one of these hosts, port included.
    pub(crate) fn covers(&self, url: &Url) -> bool {
        let default = default_port(url.scheme());
        let Some(name) = Name::of(url) else { return false };
        self.0.iter().any(|host| host.name == name && host.port.or(default) == url.port_or_known_default())
    }
}

/// What a URL or an entry names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// A domain name of at least two labels.
    Domain(String),
    /// `localhost`.
    Localhost,
    /// A loopback address.
    Loopback(IpAddr),
}

impl Name {
    /// What `url` names, if that can ever be allowed.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        match url.host()? {
            url::Host::Domain(domain) => Self::of_domain(domain),
            url::Host::Ipv4(v4) if v4.is_loopback() => Some(Self::Loopback(v4.into())),
            url::Host::Ipv6(v6) if v6.is_loopback() => Some(Self::Loopback(v6.into())),
            url::Host::Ipv4(_) | url::Host::Ipv6(_) => None,
        }
    }

    fn of_domain(domain: &str) -> Option<Self> {
        if domain == "localhost" {
            return Some(Self::Localhost);
        }
        let shaped = domain.len() <= MAX_NAME_BYTES
            && domain.contains('.')
            && !domain.ends_with(".localhost")
            && domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
            && domain.split('.').all(|label| (1..=63).contains(&label.len()));
        shaped.then(|| Self::Domain(domain.to_owned()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Host {
    name: Name,
    port: Option<u16>,
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            None => None,
            Some(digits) => {
                let number: u16 = digits.parse().map_err(|_| HostError::Form)?;
                if number == 0 || number.to_string() != digits {
                    return Err(HostError::Form);
                }
                Some(number)
            }
        };
        // The URL parser knows all spellings of a host; a registered one must be the one that it settles on.
        let parsed = url::Host::parse(name).map_err(|_| HostError::Form)?;
        if parsed.to_string() != name {
            return Err(HostError::Form);
        }
        let name = match parsed {
            url::Host::Domain(domain) => Name::of_domain(&domain),
            url::Host::Ipv4(v4) if v4.is_loopback() => Some(Name::Loopback(v4.into())),
            url::Host::Ipv6(v6) if v6.is_loopback() => Some(Name::Loopback(v6.into())),
            url::Host::Ipv4(_) | url::Host::Ipv6(_) => None,
        };
        Ok(Self { name: name.ok_or(HostError::Form)?, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Domain(domain) => f.write_str(domain)?,
            Name::Localhost => f.write_str("localhost")?,
            Name::Loopback(IpAddr::V4(v4)) => write!(f, "{v4}")?,
            Name::Loopback(IpAddr::V6(v6)) => write!(f, "[{v6}]")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_hosts_are_accepted_and_written_back() {
        let all = [
            "127.0.0.1:8080",
            "[::1]:8080",
            "birdy.example",
            "localhost",
            "media.birdy.example:8443",
            "xn--bcher-kva.example",
        ];
        let set = HostSet::parse(all).unwrap();
        assert!(set.has_loopback());
        let mut written = set.as_strings();
        written.sort();
        assert_eq!(written, all);
        assert!(!HostSet::parse(["birdy.example"]).unwrap().has_loopback());
    }

    #[test]
    fn other_spellings_and_other_addresses_are_refused() {
        for text in [
            "",
            ".",
            "birdy",
            "Birdy.example",
            "birdy.example.",
            ".birdy.example",
            "birdy..example",
            "birdy.example:",
            "birdy.example:0",
            "birdy.example:080",
            "birdy.example:65536",
            "birdy.example:+80",
            "https://birdy.example",
            "birdy.example/",
            "user@birdy.example",
            "*.birdy.example",
            "b\u{fc}cher.example",
            "10.0.0.1",
            "8.8.8.8",
            "127.1",
            "0x7f000001",
            "2130706433",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "::1",
            "a.localhost",
            "localhost.",
            "ip6-localhost",
            "birdy example.org",
            "birdy_x.example",
            "\u{ff11}27.0.0.1",
        ] {
            assert_eq!(HostSet::parse([text]), Err(HostError::Form), "{text:?}");
        }
        let many: Vec<String> = (0..=MAX_HOSTS).map(|n| format!("h{n}.example")).collect();
        assert_eq!(HostSet::parse(&many), Err(HostError::TooMany));
    }
}
