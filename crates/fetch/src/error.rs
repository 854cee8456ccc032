//! Why something could not be fetched.

/// Why something could not be fetched. Carries nothing that the other side sent but a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FetchError {
    /// Not an absolute URL of at most 2048 bytes, or one with user name, password or fragment.
    #[error("the URL is not usable")]
    Url,
    /// Neither `https` nor, where that is allowed, `http` to this machine.
    #[error("the URL's scheme is not allowed: use https")]
    Scheme,
    /// The host is none of the provider's registered ones.
    #[error("the URL's host is not registered for this provider")]
    Host,
    /// The host is an IP literal, or resolves to an address of a special range.
    #[error("the host's address is not allowed")]
    Address,
    /// The answer was a redirect; none is followed.
    #[error("the host answered with a redirect, and redirects are not followed")]
    Redirect,
    /// The answer had another status than the request allows.
    #[error("the host answered with status {0}")]
    Status(u16),
    /// More bytes than allowed, announced or sent.
    #[error("the answer is too large")]
    TooLarge,
    /// The answer has a content encoding.
    #[error("the answer is encoded; only identity is accepted")]
    Encoding,
    /// The part that came is not the part that was asked for.
    #[error("the answer's range is not the requested one")]
    Range,
    /// A deadline passed: connecting, silence, or the whole.
    #[error("the host took too long")]
    Timeout,
    /// The name did not resolve, nobody listens, or TLS failed.
    #[error("no connection to the host could be made")]
    Connect,
    /// The connection or the HTTP on it broke before the answer was whole.
    #[error("the host's answer was cut off or is not HTTP")]
    Broken,
    /// The system has no TLS root certificates, or the client could not be made for another reason.
    #[error("the HTTPS client could not be set up: are the system's CA certificates installed?")]
    Setup,
    /// A setting is out of range.
    #[error("fetch.{field} must be between {least} and {most}")]
    Config {
        /// Name of the setting.
        field: &'static str,
        /// Smallest allowed value.
        least: u64,
        /// Largest allowed value.
        most: u64,
    },
    /// A network in the settings is none.
    #[error("fetch.private_networks must be up to 16 private blocks as address/length, such as 10.1.0.0/16")]
    Networks,
    /// Networks without the hosts for which they hold, or hosts that are none.
    #[error(
        "fetch.private_hosts must be the names, without ports, of up to 16 hosts that may be in fetch.private_networks, such \
         as home.example; neither is of use without the other"
    )]
    PrivateHosts,
}

impl FetchError {
    /// Stable name for metric labels and log fields.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Url => "FETCH_URL",
            Self::Scheme => "FETCH_SCHEME",
            Self::Host => "FETCH_HOST",
            Self::Address => "FETCH_ADDRESS",
            Self::Redirect => "FETCH_REDIRECT",
            Self::Status(_) => "FETCH_STATUS",
            Self::TooLarge => "FETCH_TOO_LARGE",
            Self::Encoding => "FETCH_ENCODING",
            Self::Range => "FETCH_RANGE",
            Self::Timeout => "FETCH_TIMEOUT",
            Self::Connect => "FETCH_CONNECT",
            Self::Broken => "FETCH_BROKEN",
            Self::Setup => "FETCH_SETUP",
            Self::Config { .. } | Self::Networks | Self::PrivateHosts => "FETCH_CONFIG",
        }
    }
}
