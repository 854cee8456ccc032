//! The server's certificate. It is the same for all, so one check of it is enough: others compare.

use anyhow::Context as _;
use causeway_identity::{NoiseKey, ServerCertificate};
use causeway_noise::PublicKey;
use causeway_proto::wire::v1 as pb;
use causeway_runtime::clock::{Clock as _, SystemClock};
use causeway_stanza::ServerHello;

use super::link::Net;

/// What was verified last.
#[derive(Default)]
pub(super) struct Verified(Option<(PublicKey, pb::ServerCertificate)>);

impl Verified {
    /// Checks the certificate in a server's hello for this key.
    pub(super) fn check(&mut self, net: &Net, key: &PublicKey, hello: &[u8]) -> anyhow::Result<()> {
        let hello = ServerHello::decode(hello).map_err(|error| anyhow::anyhow!("server hello: {error}"))?;
        if let Some((known, certificate)) = &self.0
            && (known, certificate) == (key, &hello.certificate)
        {
            return Ok(());
        }
        let certificate = ServerCertificate::try_from(hello.certificate.clone()).context("the certificate")?;
        let named = NoiseKey::new(*key).context("the server's key")?;
        certificate.verify(&[net.root], &net.name, &named, SystemClock.now()).context("the certificate")?;
        self.0 = Some((*key, hello.certificate));
        Ok(())
    }
}
