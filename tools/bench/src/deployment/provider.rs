//! Providers: stand-ins in this process, registered with the deployment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use causeway_identity::{Address, Domain};
use causeway_proto::directory::v1::providers_client::ProvidersClient;
use causeway_proto::directory::v1::{ProviderSettings, RegisterProvider};
use causeway_proto::wire::v1::ProviderKind;
use causeway_runtime::clock::SystemClock;
use causeway_runtime::grpc;
use causeway_runtime::lifecycle::Lifecycle;
use causeway_sandbox::{Sandbox, SandboxConfig};
use tonic::metadata::MetadataValue;

/// The operator's own messenger, and a third party's.
pub(crate) const DOMAINS: [&str; 2] = ["home.example", "birdy.example"];

/// How long tokens hold.
const TOKEN: Duration = Duration::from_secs(6 * 3_600);

/// The operator's API.
pub(super) struct Operator {
    pub(super) url: String,
    pub(super) token: String,
}

/// A running provider, whose tokens are signed with EdDSA.
pub(crate) struct Provider {
    inner: causeway_sandbox::Provider,
    life: Lifecycle,
}

impl Provider {
    pub(super) async fn start(
        folder: &Path,
        domain: &str,
        home: bool,
        audience: &str,
        operator: &Operator,
    ) -> anyhow::Result<Self> {
        let config = SandboxConfig {
            audience: audience.to_owned(),
            ..SandboxConfig::new(folder.join(domain), domain.parse::<Domain>()?)
        };
        let sandbox = Sandbox::build(config, Arc::new(SystemClock)).await.context("start a provider")?;
        let (inner, life) = (sandbox.provider(), Lifecycle::new());
        life.spawn(sandbox.serve(life.clone()));
        let settings = ProviderSettings {
            domain: domain.to_owned(),
            display_name: domain.to_owned(),
            kind: if home { ProviderKind::Home } else { ProviderKind::ThirdParty }.into(),
            issuer: inner.issuer().to_owned(),
            hosts: inner.hosts(),
            media_prefixes: vec![inner.media_prefix().to_owned()],
            webhook_url: inner.webhook_url(),
            webhook_secret: inner.webhook_secret().to_owned(),
        };
        let bearer: MetadataValue<_> = format!("Bearer {}", operator.token).parse().context("the operator token")?;
        let mut request = grpc::call(RegisterProvider { settings: Some(settings) });
        request.metadata_mut().insert("authorization", bearer);
        let mut api = ProvidersClient::new(grpc::connect(&operator.url)?);
        api.register(request).await.context("register a provider")?;
        Ok(Self { inner, life })
    }

    /// The address of a user.
    pub(crate) fn address(&self, user: &str) -> anyhow::Result<Address> {
        Ok(Address::new(user, self.inner.domain())?)
    }

    /// A token for this key.
    pub(crate) async fn token(&self, user: &str, key: &[u8; 32]) -> anyhow::Result<String> {
        Ok(self.inner.issue_token(user, key, TOKEN).await?)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.life.drain();
    }
}
