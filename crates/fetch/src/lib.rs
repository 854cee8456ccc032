//! The one guarded HTTP client for everything that a provider hosts: discovery, key sets, media, webhooks.
//!
//! A provider chooses the URLs, so each is treated as an attempt to make this server talk to somebody else:
//! - only `https`, only to the provider's registered hosts ([`HostSet`]), never to an IP literal;
//! - every resolved address is checked, and the connection goes to an address that was checked: one answer of the
//!   special ranges (private, loopback, link-local, documentation, ...) spoils them all;
//! - no redirects, no proxies from the environment, no cookies, no referrer, one fixed user agent;
//! - bytes, idle time and total time are bounded, and an encoding other than identity is refused;
//! - an error carries a reason and at most a status code, nothing of what the other side sent.
//!
//! [`FetchConfig::private_networks`] lets those registered names that [`FetchConfig::private_hosts`] has resolve to addresses of the
//! operator's own networks; all else holds.
//!
//! For demos and tests on one machine [`FetchConfig::allow_loopback_http`] lets in plain `http` to loopback literals and
//! `localhost`, if they are registered; nothing else changes.

mod address;
mod body;
mod config;
mod error;
mod fetcher;
mod hosts;
mod metrics;
mod network;
mod resolve;

#[cfg(test)]
mod tests;

pub use body::{ByteRange, ContentRange, FetchedBody};
pub use config::FetchConfig;
pub use error::FetchError;
pub use fetcher::{Fetcher, Posted};
pub use hosts::{HostError, HostSet, MAX_HOSTS};
pub use url::Url;
