//! Building and serving.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_media_relay::host::{Host, HostConfig};
use causeway_media_relay::http::Limits;
use causeway_media_relay::tickets::Tickets;
use causeway_runtime::clock::SharedClock;
use causeway_runtime::lifecycle::Lifecycle;
use causeway_runtime::secret_file;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use zeroize::Zeroizing;

use crate::config::SandboxConfig;
use crate::error::SandboxError;
use crate::http;
use crate::keys::SigningKeys;
use crate::provider::{Inner, Provider};
use crate::pushes::Pushes;

/// A stand-in provider that is bound and ready to serve.
#[derive(Debug)]
pub struct Sandbox {
    listener: TcpListener,
    local: SocketAddr,
    provider: Provider,
}

impl Sandbox {
    /// Binds, reads or makes keys and secrets, and opens the media folder; serves nothing yet.
    ///
    /// # Errors
    /// [`SandboxError`], one sentence that says what to mend.
    pub async fn build(config: SandboxConfig, clock: SharedClock) -> Result<Self, SandboxError> {
        let behind_tls = config.public_base.as_ref().is_some_and(|base| base.scheme() == "https" && base.path() == "/");
        if !config.listen.ip().is_loopback() && !behind_tls {
            return Err(SandboxError::NotLoopback(config.listen));
        }
        let bind = |source| SandboxError::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
        let local = listener.local_addr().map_err(bind)?;
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|source| SandboxError::Folder { path: config.data_dir.clone(), source })?;

        let (folder, alg) = (config.data_dir.join("keys"), config.alg);
        let opened = tokio::task::spawn_blocking(move || SigningKeys::open(&folder, alg));
        let keys = opened.await.map_err(|_| SandboxError::Crypto)??;
        let webhook_secret_file = config.data_dir.join("webhook.secret");
        let webhook_secret = webhook_secret(&webhook_secret_file)?;
        let pushes =
            Pushes::new(&webhook_secret).ok_or_else(|| SandboxError::WebhookSecret(webhook_secret_file.clone()))?;

        let (base, authority) = match &config.public_base {
            Some(base) => {
                let authority = base.as_str().trim_start_matches("https://").trim_end_matches('/').to_owned();
                (format!("{}://{authority}", base.scheme()), authority)
            }
            None => (format!("http://{local}"), local.to_string()),
        };
        let media = HostConfig {
            public_base: base.parse().map_err(|_| SandboxError::NotLoopback(local))?,
            data_dir: config.data_dir.join("media"),
            ..HostConfig::default()
        };
        let tickets = Arc::new(Tickets::open(&config.data_dir.join("ticket.key"), clock.clone())?);
        let provider = Provider(Arc::new(Inner {
            domain: config.domain,
            authority,
            base,
            audience: config.audience,
            alg,
            host: Host::build(media, tickets, clock.clone()).await?,
            clock,
            keys: Arc::new(RwLock::new(keys)),
            pushes,
            webhook_secret,
            webhook_secret_file,
            jwks_fetches: AtomicU64::new(0),
            pushes_to_refuse: AtomicU32::new(0),
        }));
        Ok(Self { listener, local, provider })
    }

    /// Where it is bound.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// A handle that outlives [`Sandbox::serve`].
    pub fn provider(&self) -> Provider {
        self.provider.clone()
    }

    /// Serves until the lifecycle drains and every open request is answered.
    pub async fn serve(self, life: Lifecycle) {
        let app = http::router(self.provider);
        causeway_media_relay::http::serve(self.listener, app, Limits::default(), life).await;
    }
}

/// Reads the webhook secret, or makes it.
fn webhook_secret(path: &Path) -> Result<String, SandboxError> {
    let mut random = Zeroizing::new([0; 32]);
    OsRng.try_fill_bytes(random.as_mut_slice()).map_err(|_| SandboxError::Crypto)?;
    let secret = secret_file::read_or_create(path, || {
        Zeroizing::new(format!("whsec_{}", STANDARD.encode(random.as_slice())).into_bytes())
    })?;
    let text = std::str::from_utf8(&secret).map_err(|_| SandboxError::WebhookSecret(path.to_owned()))?;
    Ok(text.trim_end().to_owned())
}
