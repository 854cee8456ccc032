//! Mutual TLS between the processes of a deployment.
//!
//! Each process has one certificate, for both sides of a handshake. Its URI name says what the process is
//! ([`Role`], in a trust domain); its DNS names say where it is. A client takes a server's certificate only with the name that it
//! dialled and the role that it wants; a server takes any role of its trust domain, and decides for each call what that role
//! may do (`permissions.rs`). Only TLS 1.3, and no session is resumed: each connection is verified anew.
//!
//! The files are read again every few seconds. New handshakes use what is there then; connections that are open stay until the
//! end of their peer's certificate, and not longer than a day (`accept.rs`). Files
//! that cannot be used are told of in health and log, and those before stay in use.

mod accept;
mod config;
mod files;
mod identity;
mod metrics;
mod permissions;
mod reload;
mod sources;
#[cfg(test)]
mod tests;
mod verify;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) use self::accept::{Caller, incoming};
pub use self::config::TlsConfig;
pub use self::files::TlsError;
use self::files::{Files, Material};
pub use self::identity::{Role, is_trust_domain};
use self::metrics::Metrics;
pub(crate) use self::permissions::{allows, is_call};
use crate::clock::SharedClock;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The certificates of this process and what they are checked against. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    config: TlsConfig,
    domain: String,
    own: Role,
    clock: SharedClock,
    metrics: Metrics,
    state: Mutex<State>,
}

struct State {
    /// What handshakes use.
    used: Arc<Material>,
    /// The files that were looked at last, usable or not.
    seen: Files,
    /// What is wrong with the files that are there now.
    problem: Option<String>,
}

impl Tls {
    /// Reads the files of a process with this role; the trust domain is that of the configuration or else the deployment's name.
    ///
    /// # Errors
    /// [`TlsError`], which names the file and what is wrong. A certificate that is out of its time is none: health tells of it.
    pub fn load(config: TlsConfig, deployment: &str, own: Role, clock: SharedClock) -> Result<Self, TlsError> {
        let domain = config.trust_domain.clone().unwrap_or_else(|| deployment.to_owned());
        let seen = Files::read(&config)?;
        let used = Arc::new(Material::from(&seen, &config, &domain, own, &clock)?);
        let state = Mutex::new(State { used, seen, problem: None });
        Ok(Self(Arc::new(Inner { config, domain, own, clock, metrics: Metrics::new(), state })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state().used.server)
    }

    fn client(&self, role: Role) -> Option<Arc<ClientConfig>> {
        self.state().used.clients.get(&role).cloned()
    }

    /// Speaks TLS over a connection to a process that must have this DNS name, or IP address, and this role.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        name: &str,
        role: Role,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let wrong = |problem| std::io::Error::new(std::io::ErrorKind::InvalidInput, problem);
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| wrong("no DNS name that a certificate can have"))?;
        let config = self.client(role).ok_or_else(|| wrong("no such role"))?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        let secured = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
        secured.unwrap_or_else(|_elapsed| Err(std::io::ErrorKind::TimedOut.into())).map_err(|error| {
            self.0.metrics.handshake_failed(metrics::Side::Client);
            verify::readable(error)
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("domain", &self.0.domain).field("own", &self.0.own).finish_non_exhaustive()
    }
}
