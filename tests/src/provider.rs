//! A provider: the sandbox, registered with a deployment.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use causeway_client::TokenSource;
use causeway_identity::{Address, Domain};
use causeway_proto::directory::v1::ProviderSettings;
use causeway_proto::wire::v1::ProviderKind;
use causeway_runtime::clock::SystemClock;
use causeway_runtime::lifecycle::Lifecycle;
use causeway_sandbox::{Sandbox, SandboxConfig};
use tempfile::TempDir;

use crate::Deployment;

/// Whose messenger it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The operator's.
    Home,
    /// Another's.
    ThirdParty,
}

/// A running sandbox provider that is registered.
pub struct Provider {
    inner: causeway_sandbox::Provider,
    kind: Kind,
    life: Lifecycle,
    _folder: TempDir,
}

impl Provider {
    /// Starts a provider with this domain and registers it.
    ///
    /// # Errors
    /// It cannot start, or registration is refused.
    pub async fn start(net: &Deployment, domain: &str, kind: Kind) -> anyhow::Result<Self> {
        let provider = Self::unregistered(net, domain, kind).await?;
        net.register(provider.settings(net)?).await?;
        Ok(provider)
    }

    /// Starts a provider that the operator does not know.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn unregistered(net: &Deployment, domain: &str, kind: Kind) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("folder for the provider")?;
        let config = SandboxConfig {
            audience: net.ready().deployment.clone(),
            ..SandboxConfig::new(folder.path().to_owned(), domain.parse::<Domain>()?)
        };
        let sandbox = Sandbox::build(config, Arc::new(SystemClock)).await.context("start the sandbox")?;
        let (inner, life) = (sandbox.provider(), Lifecycle::new());
        life.spawn(sandbox.serve(life.clone()));
        Ok(Self { inner, kind, life, _folder: folder })
    }

    /// What the operator registers. The home provider's users upload to the operator's own host.
    ///
    /// # Errors
    /// The deployment's media URL is unusable.
    pub fn settings(&self, net: &Deployment) -> anyhow::Result<ProviderSettings> {
        let mut hosts = self.inner.hosts();
        let mut media_prefixes = vec![self.inner.media_prefix().to_owned()];
        let kind = match self.kind {
            Kind::Home => {
                let media = &net.ready().media;
                hosts.push(media.strip_prefix("http://").context("an http URL")?.to_owned());
                media_prefixes.push(format!("{media}/v1/blobs/"));
                ProviderKind::Home
            }
            Kind::ThirdParty => ProviderKind::ThirdParty,
        };
        Ok(ProviderSettings {
            domain: self.inner.domain().to_string(),
            display_name: self.inner.domain().to_string(),
            kind: kind.into(),
            issuer: self.inner.issuer().to_owned(),
            hosts,
            media_prefixes,
            webhook_url: self.inner.webhook_url(),
            webhook_secret: self.inner.webhook_secret().to_owned(),
        })
    }

    /// Whose messenger it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sandbox: its keys, tokens and received webhooks.
    pub fn sandbox(&self) -> &causeway_sandbox::Provider {
        &self.inner
    }

    /// The address of a user.
    ///
    /// # Errors
    /// `user` is no local part.
    pub fn address(&self, user: &str) -> anyhow::Result<Address> {
        Ok(Address::new(user, self.inner.domain())?)
    }

    /// Where a user's device gets its tokens.
    pub fn tokens(&self, user: &str) -> Arc<dyn TokenSource> {
        let (provider, user) = (self.inner.clone(), user.to_owned());
        Arc::new(move |noise_public: [u8; 32]| {
            let (provider, user) = (provider.clone(), user.clone());
            async move {
                let issued = provider.issue_token(&user, &noise_public, Duration::from_secs(3_600)).await;
                issued.map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>)
            }
        })
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.life.drain();
    }
}
