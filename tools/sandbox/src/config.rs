//! What a stand-in provider is to be.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use causeway_identity::Domain;
use causeway_identity::token::Algorithm;
use url::Url;

/// Settings of one stand-in provider.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// Folder for keys, the webhook secret and media; made if it is absent.
    pub data_dir: PathBuf,
    /// The domain that its users' addresses end with.
    pub domain: Domain,
    /// Where to listen: a loopback address, unless there is a `public_base`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its `https` URL, if a TLS proxy that others reach is before it: in a network for demonstrations only.
    pub public_base: Option<Url>,
    /// Audience of its tokens: the name of the deployment whose network its users join.
    pub audience: String,
    /// Algorithm of new signing keys. Keys that are there already keep theirs.
    pub alg: Algorithm,
}

impl SandboxConfig {
    /// A free port of 127.0.0.1, the audience `causeway.local`, EdDSA.
    pub fn new(data_dir: PathBuf, domain: Domain) -> Self {
        Self {
            data_dir,
            domain,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            public_base: None,
            audience: "causeway.local".to_owned(),
            alg: Algorithm::EdDsa,
        }
    }
}
