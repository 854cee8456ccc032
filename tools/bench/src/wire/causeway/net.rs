//! What Causeway's clients know of a deployment.

use anyhow::Context as _;
use causeway_identity::{NoiseKey, RootPublicKey, ServerCertificate};
use causeway_noise::PublicKey;
use causeway_proto::wire::v1 as pb;
use causeway_runtime::clock::{Clock as _, SystemClock};
use causeway_stanza::ServerHello;

/// A deployment.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    name: String,
    /// The root that clients pin.
    root: RootPublicKey,
    /// The edges' key and its certificate, once they were verified. They are the same for all, so one check is enough:
    /// others compare.
    verified: Option<(PublicKey, pb::ServerCertificate)>,
}

impl Net {
    /// A deployment that nobody has connected to.
    pub(crate) fn new(name: &str, root: RootPublicKey) -> Self {
        Self { name: name.to_owned(), root, verified: None }
    }

    /// The deployment's name, and the root that clients pin.
    pub(crate) fn pinned(&self) -> (&str, &RootPublicKey) {
        (&self.name, &self.root)
    }

    /// The edges' key, once one was verified.
    pub(super) fn server_key(&self) -> Option<&PublicKey> {
        self.verified.as_ref().map(|(key, _)| key)
    }

    /// Checks the certificate in a server's hello for this key.
    pub(super) fn check(&mut self, key: &PublicKey, hello: &[u8]) -> anyhow::Result<()> {
        let hello = ServerHello::decode(hello).map_err(|error| anyhow::anyhow!("server hello: {error}"))?;
        if let Some((known, certificate)) = &self.verified
            && (known, certificate) == (key, &hello.certificate)
        {
            return Ok(());
        }
        let certificate = ServerCertificate::try_from(hello.certificate.clone()).context("the certificate")?;
        let named = NoiseKey::new(*key).context("the server's key")?;
        certificate.verify(&[self.root], &self.name, &named, SystemClock.now()).context("the certificate")?;
        self.verified = Some((*key, hello.certificate));
        Ok(())
    }
}
