//! Name resolution that hands out checked addresses only. The connector connects to nothing but what comes out of
//! here, so there is no moment between check and use.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::is_public;
use crate::network::Network;

/// A host that resolves to more is cut off here.
const MAX_ADDRESSES: usize = 16;

/// An answer with an address of a special range.
#[derive(Debug, thiserror::Error)]
#[error("the name resolves to an address that is not allowed")]
pub(crate) struct ForbiddenAddress;

pub(crate) type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Asks for the addresses of a name.
pub(crate) trait Lookup: Send + Sync {
    fn lookup(&self, name: String) -> Found;
}

/// The system's resolver.
pub(crate) struct System;

impl Lookup for System {
    fn lookup(&self, name: String) -> Found {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).take(MAX_ADDRESSES).collect())
        })
    }
}

pub(crate) struct Guarded {
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) allow_loopback: bool,
    /// Networks of the operator's own, which only these names may be in: others are third parties'.
    pub(crate) private: Vec<Network>,
    pub(crate) private_hosts: BTreeSet<String>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let private = if self.private_hosts.contains(&name) { self.private.clone() } else { Vec::new() };
        let local = self.allow_loopback && name == "localhost";
        let found = self.lookup.lookup(name);
        Box::pin(async move {
            let found = found.await?;
            // One bad answer among good ones is an attempt, not an accident.
            let own = |address: IpAddr| private.iter().any(|network| network.contains(address));
            let fit = found
                .iter()
                .all(|address| if local { address.is_loopback() } else { is_public(*address) || own(*address) });
            if !fit {
                return Err(ForbiddenAddress.into());
            }
            if found.is_empty() {
                return Err(io::Error::from(io::ErrorKind::NotFound).into());
            }
            // Port 0: the connector puts in the URL's.
            let addresses: Addrs = Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}
