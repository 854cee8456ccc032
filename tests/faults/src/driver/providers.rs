//! Providers: sandboxes in this process, registered with the deployment under test.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use causeway_client::TokenSource;
use causeway_identity::{Address, Domain};
use causeway_proto::directory::v1::providers_client::ProvidersClient;
use causeway_proto::directory::v1::{ProviderSettings, RegisterProvider};
use causeway_proto::wire::v1::ProviderKind;
use causeway_runtime::clock::SystemClock;
use causeway_runtime::grpc;
use causeway_runtime::lifecycle::Lifecycle;
use causeway_sandbox::{Sandbox, SandboxConfig};
use tokio::time::Instant;
use tonic::metadata::MetadataValue;

/// How long tokens hold.
const TOKEN: Duration = Duration::from_secs(3_600);
/// A token is used for new logins for this long.
const FRESH: Duration = Duration::from_secs(1_800);

/// The operator's API.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Where it is.
    pub url: String,
    /// What it asks for.
    pub token: String,
    /// The deployment's media URL, on which the home provider's blobs are.
    pub media: String,
}

/// A running provider.
pub struct Provider {
    inner: causeway_sandbox::Provider,
    home: bool,
    tokens: Mutex<HashMap<[u8; 32], (String, Instant)>>,
    life: Lifecycle,
}

impl Provider {
    /// Starts one with its files in `folder` and registers it.
    ///
    /// # Errors
    /// It cannot start, or is refused.
    pub async fn start(
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
        let sandbox = Sandbox::build(config, Arc::new(SystemClock)).await.context("start a sandbox")?;
        let (inner, life) = (sandbox.provider(), Lifecycle::new());
        life.spawn(sandbox.serve(life.clone()));
        let provider = Self { inner, home, tokens: Mutex::default(), life };
        provider.register(operator).await?;
        Ok(provider)
    }

    async fn register(&self, operator: &Operator) -> anyhow::Result<()> {
        let (mut hosts, mut media_prefixes) = (self.inner.hosts(), vec![self.inner.media_prefix().to_owned()]);
        if self.home {
            hosts.push(operator.media.strip_prefix("http://").context("an http URL")?.to_owned());
            media_prefixes.push(format!("{}/v1/blobs/", operator.media));
        }
        let settings = ProviderSettings {
            domain: self.inner.domain().to_string(),
            display_name: self.inner.domain().to_string(),
            kind: if self.home { ProviderKind::Home } else { ProviderKind::ThirdParty }.into(),
            issuer: self.inner.issuer().to_owned(),
            hosts,
            media_prefixes,
            webhook_url: self.inner.webhook_url(),
            webhook_secret: self.inner.webhook_secret().to_owned(),
        };
        let bearer: MetadataValue<_> = format!("Bearer {}", operator.token).parse().context("the operator token")?;
        let mut request = grpc::call(RegisterProvider { settings: Some(settings) });
        request.metadata_mut().insert("authorization", bearer);
        let mut api = ProvidersClient::new(grpc::connect(&operator.url)?);
        api.register(request).await.context("register a provider")?;
        Ok(())
    }

    /// Its domain.
    pub fn domain(&self) -> &Domain {
        self.inner.domain()
    }

    /// Whether it is the operator's own.
    pub fn is_home(&self) -> bool {
        self.home
    }

    /// The address of a user.
    ///
    /// # Errors
    /// `user` is no local part.
    pub fn address(&self, user: &str) -> anyhow::Result<Address> {
        Ok(Address::new(user, self.inner.domain())?)
    }

    /// A token for this key: the last one while it is fresh.
    ///
    /// # Errors
    /// The sandbox refuses.
    pub async fn token(&self, user: &str, key: &[u8; 32]) -> anyhow::Result<String> {
        let known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some((token, _)) = known.filter(|(_, made)| made.elapsed() < FRESH) {
            return Ok(token);
        }
        let token = self.inner.issue_token(user, key, TOKEN).await?;
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, (token.clone(), Instant::now()));
        Ok(token)
    }

    /// Forgets the token of this key: it was refused.
    pub fn forget(&self, key: &[u8; 32]) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Where its users get upload tickets; `None`: from the server, since they are the operator's own.
    pub fn upload_url(&self) -> Option<String> {
        (!self.home).then(|| self.inner.upload_url())
    }

    /// Where the SDK gets a user's tokens.
    pub fn tokens(&self, user: &str) -> Arc<dyn TokenSource> {
        let (provider, user) = (self.inner.clone(), user.to_owned());
        Arc::new(move |key: [u8; 32]| {
            let (provider, user) = (provider.clone(), user.clone());
            async move {
                let issued = provider.issue_token(&user, &key, TOKEN).await;
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
