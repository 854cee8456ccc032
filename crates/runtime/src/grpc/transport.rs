//! How a process speaks with the other processes of its deployment: in plain text, or over mutual TLS.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::either::Either;
use tonic::transport::Uri;

use super::endpoints::{Endpoints, connect_any_by, discover_by};
use super::{Channel, GrpcError, Router, connect_with, endpoint, tune, until};
use crate::lifecycle::Lifecycle;
use crate::tls::{Role, Tls, incoming};

/// For a connection to the only replica there is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Peers whose last failure is remembered, so that it is logged once.
const MAX_COMPLAINTS: usize = 256;

/// How a process speaks with others. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Transport {
    /// In plain text: on one machine, or where the network encrypts.
    Plain,
    /// Both sides prove who they are, and nothing is spoken in plain text.
    Mutual(Tls),
}

impl Transport {
    /// The same as [`super::connect`], to a process of this role.
    ///
    /// # Errors
    /// [`GrpcError::Address`], [`GrpcError::Unencrypted`], [`GrpcError::NoTls`].
    pub fn connect(&self, role: Role, address: &str) -> Result<Channel, GrpcError> {
        self.dialer(role).channel(&Target::of(address)?)
    }

    /// Connects to a process of this role once, and says why that fails, if it does: a channel only tries again. A server that
    /// refuses this process's certificate shows at the first call.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`GrpcError::Unreachable`].
    pub async fn probe(&self, role: Role, address: &str) -> Result<(), GrpcError> {
        let (dialer, target) = (self.dialer(role), Target::of(address)?);
        dialer.check(address)?;
        let unreachable = |source| GrpcError::Unreachable { address: address.to_owned(), source };
        dialer.dial(&target, CONNECT_TIMEOUT).await.map(drop).map_err(unreachable)
    }

    /// The same as [`super::connect_any`], to processes of this role.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`GrpcError::NoAddress`].
    pub fn connect_any(&self, role: Role, addresses: &[String]) -> Result<Channel, GrpcError> {
        connect_any_by(self.dialer(role), addresses)
    }

    /// The same as [`Endpoints::discover`], of processes of this role.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`GrpcError::NoAddress`].
    pub fn discover(&self, role: Role, addresses: &[String], life: &Lifecycle) -> Result<Endpoints, GrpcError> {
        discover_by(&self.dialer(role), addresses, life)
    }

    /// Serves `router` on a bound listener until the lifecycle drains; what is open then can finish until the last call.
    /// With TLS, each call is answered only if its caller's role may make it.
    ///
    /// # Errors
    /// [`GrpcError::Serve`].
    pub async fn serve(&self, router: Router, listener: TcpListener, life: &Lifecycle) -> Result<(), GrpcError> {
        let (drain, last_call) = (life.draining(), life.last_call());
        match self {
            Self::Plain => {
                let incoming = TcpListenerStream::new(listener);
                until(last_call, router.serve_with_incoming_shutdown(incoming, drain)).await?;
            }
            Self::Mutual(tls) => {
                let incoming = incoming(listener, tls.clone());
                until(last_call, router.serve_with_incoming_shutdown(incoming, drain)).await?;
            }
        }
        Ok(())
    }

    /// Checks that an address, in any of the forms of configured ones, is one of this transport.
    ///
    /// # Errors
    /// [`GrpcError::Unencrypted`], [`GrpcError::NoTls`].
    pub fn check(&self, address: &str) -> Result<(), GrpcError> {
        check_scheme(matches!(self, Self::Mutual(_)), address)
    }

    fn dialer(&self, role: Role) -> Dialer {
        match self {
            Self::Plain => Dialer::Plain,
            Self::Mutual(tls) => {
                Dialer::Mutual(Arc::new(Mutual { tls: tls.clone(), role, complaints: Mutex::default() }))
            }
        }
    }
}

/// Checks that `address` is `https://` or `dns+https://` if services speak over TLS, and is neither if they do not.
///
/// # Errors
/// [`GrpcError::Unencrypted`], [`GrpcError::NoTls`].
pub fn check_scheme(encrypted: bool, address: &str) -> Result<(), GrpcError> {
    let https = address.starts_with("https://") || address.starts_with("dns+https://");
    match (encrypted, https) {
        (true, false) => Err(GrpcError::Unencrypted(address.to_owned())),
        (false, true) => Err(GrpcError::NoTls(address.to_owned())),
        _ => Ok(()),
    }
}

/// A replica, and the name that its certificate must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    /// `http://host:port` or `https://host:port`.
    pub(super) url: String,
    /// A DNS name or an IP address, without brackets.
    pub(super) name: String,
}

impl Target {
    /// What is called by the host of its address.
    pub(super) fn of(address: &str) -> Result<Self, GrpcError> {
        let host = endpoint(address)?.uri().host().map(bare).map(str::to_owned);
        let name = host.ok_or_else(|| GrpcError::Address(address.to_owned()))?;
        Ok(Self { url: address.to_owned(), name })
    }

    async fn dial(&self, timeout: Duration) -> io::Result<TcpStream> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "no host and port in a replica's address");
        let uri: Uri = self.url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let port = authority.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let stream = tokio::time::timeout(timeout, TcpStream::connect((bare(authority.host()), port)))
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Makes connections to processes of one role.
#[derive(Debug, Clone)]
pub(super) enum Dialer {
    Plain,
    Mutual(Arc<Mutual>),
}

#[derive(Debug)]
pub(super) struct Mutual {
    tls: Tls,
    role: Role,
    /// The last failure at each replica.
    complaints: Mutex<BTreeMap<String, String>>,
}

pub(super) type Connection = Either<TcpStream, TlsStream<TcpStream>>;

impl Dialer {
    pub(super) fn check(&self, address: &str) -> Result<(), GrpcError> {
        check_scheme(matches!(self, Self::Mutual(_)), address)
    }

    /// A connection to this very replica.
    pub(super) async fn dial(&self, target: &Target, timeout: Duration) -> io::Result<Connection> {
        let stream = target.dial(timeout).await?;
        match self {
            Self::Plain => Ok(Either::Left(stream)),
            Self::Mutual(mutual) => {
                let secured = mutual.tls.secure(stream, &target.name, mutual.role).await;
                mutual.tell(target, secured.as_ref().err());
                Ok(Either::Right(secured?))
            }
        }
    }

    /// A channel to this very replica.
    pub(super) fn channel(&self, target: &Target) -> Result<Channel, GrpcError> {
        self.check(&target.url)?;
        match self {
            Self::Plain => Ok(tune(endpoint(&target.url)?).connect_lazy().into()),
            Self::Mutual(_) => {
                let (dialer, target) = (self.clone(), target.clone());
                Ok(connect_with(move || {
                    let (dialer, target) = (dialer.clone(), target.clone());
                    async move { dialer.dial(&target, CONNECT_TIMEOUT).await }
                }))
            }
        }
    }
}

impl Mutual {
    /// Logs a failure, once until it changes: a channel tries for ever.
    fn tell(&self, target: &Target, error: Option<&io::Error>) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = error.map(ToString::to_string) else {
            complaints.remove(&target.url);
            return;
        };
        if complaints.get(&target.url) != Some(&error) {
            tracing::warn!(url = target.url, name = target.name, role = %self.role, error, "a service is refused: its TLS handshake failed");
            if complaints.len() >= MAX_COMPLAINTS {
                complaints.clear();
            }
            complaints.insert(target.url.clone(), error);
        }
    }
}
