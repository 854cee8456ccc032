//! What the stand-in provider knows and can do, for its HTTP side and for programs that embed it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use causeway_identity::token::{Algorithm, KeySet};
use causeway_identity::{AccountId, Domain, Expected, Verified, token};
use causeway_media_relay::RequestError;
use causeway_media_relay::host::{Host, UploadTicket};
use causeway_runtime::clock::SharedClock;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::error::SandboxError;
use crate::keys::SigningKeys;
use crate::pushes::{Pushes, ReceivedPush};
use crate::tokens::{self, Grant, Minted};

/// A handle to a stand-in provider; usable before, while and after it serves. Cloning gives another handle.
#[derive(Clone)]
pub struct Provider(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) domain: Domain,
    /// `http://` and the bound address.
    pub(crate) base: String,
    pub(crate) authority: String,
    pub(crate) audience: String,
    pub(crate) alg: Algorithm,
    pub(crate) clock: SharedClock,
    pub(crate) keys: Arc<RwLock<SigningKeys>>,
    pub(crate) pushes: Pushes,
    pub(crate) webhook_secret: String,
    pub(crate) webhook_secret_file: PathBuf,
    pub(crate) host: Host,
    pub(crate) jwks_fetches: AtomicU64,
    pub(crate) pushes_to_refuse: AtomicU32,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("base", &self.0.base).finish_non_exhaustive()
    }
}

impl Provider {
    /// The domain that its users' addresses end with.
    pub fn domain(&self) -> &Domain {
        &self.0.domain
    }

    /// The issuer, exactly as tokens name it: the base URL.
    pub fn issuer(&self) -> &str {
        &self.0.base
    }

    /// What to register as hosts.
    pub fn hosts(&self) -> Vec<String> {
        vec![self.0.authority.clone()]
    }

    /// What to register as media prefix.
    pub fn media_prefix(&self) -> &str {
        self.0.host.media_prefix()
    }

    /// What to register as webhook URL.
    pub fn webhook_url(&self) -> String {
        format!("{}/webhooks/push", self.0.base)
    }

    /// What to register as webhook secret, `whsec_` and base64.
    pub fn webhook_secret(&self) -> &str {
        &self.0.webhook_secret
    }

    /// The file that holds the webhook secret.
    pub fn webhook_secret_file(&self) -> &std::path::Path {
        &self.0.webhook_secret_file
    }

    /// Where users' clients get tokens.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.0.base)
    }

    /// Where users' clients get upload tickets.
    pub fn upload_url(&self) -> String {
        format!("{}/media/tickets", self.0.base)
    }

    /// A token for `user`, good for `ttl` (at most a day), bound to this Noise key.
    ///
    /// # Errors
    /// [`SandboxError::User`], [`SandboxError::NoiseKey`], [`SandboxError::Lifetime`].
    pub async fn issue_token(
        &self,
        user: &str,
        noise_public: &[u8; 32],
        ttl: Duration,
    ) -> Result<String, SandboxError> {
        Ok(self.mint(user, noise_public, ttl).await?.token)
    }

    /// A token that shows us the delivery traces of our own users, good for some minutes.
    ///
    /// # Errors
    /// [`SandboxError::Crypto`], [`SandboxError::Secret`].
    pub async fn trace_token(&self) -> Result<String, SandboxError> {
        let Inner { base, audience, clock, keys, .. } = &*self.0;
        tokens::for_traces(keys.read().await.newest()?, base, audience, clock.now())
    }

    /// Signs with a new key from now on. The old keys stay in the key set if `keep_old`, so that tokens that are out
    /// stay good; else they are gone at once.
    ///
    /// # Errors
    /// [`SandboxError::Secret`], [`SandboxError::Folder`].
    pub async fn rotate_keys(&self, keep_old: bool) -> Result<(), SandboxError> {
        let alg = self.0.alg;
        let mut keys = Arc::clone(&self.0.keys).write_owned().await;
        let rotated = tokio::task::spawn_blocking(move || {
            keys.add(alg)?;
            if keep_old { Ok(()) } else { keys.retire_old() }
        });
        rotated.await.map_err(|_| SandboxError::Crypto)?
    }

    /// How often the key set was fetched over HTTP.
    pub fn jwks_fetches(&self) -> u64 {
        self.0.jwks_fetches.load(Ordering::Relaxed)
    }

    /// The webhooks that came, oldest first; the newest 1 024 are kept.
    pub fn received(&self) -> Vec<ReceivedPush> {
        self.0.pushes.list()
    }

    /// The same, once there are at least `count`.
    pub async fn wait_for_pushes(&self, count: usize) -> Vec<ReceivedPush> {
        self.0.pushes.wait_for(count).await
    }

    /// Answers the next `count` webhooks with 503, to see them come again.
    pub fn refuse_pushes(&self, count: u32) {
        self.0.pushes_to_refuse.store(count, Ordering::Relaxed);
    }

    pub(crate) async fn mint(&self, user: &str, noise_key: &[u8; 32], ttl: Duration) -> Result<Minted, SandboxError> {
        let mut id = [0; 16];
        OsRng.try_fill_bytes(&mut id).map_err(|_| SandboxError::Crypto)?;
        let Inner { base, domain, audience, clock, keys, .. } = &*self.0;
        let grant = Grant { issuer: base, domain, audience, user, noise_key, now: clock.now(), ttl, id };
        tokens::mint(keys.read().await.newest()?, &grant)
    }

    pub(crate) async fn jwks(&self) -> Value {
        self.0.keys.read().await.jwks()
    }

    pub(crate) fn discovery(&self) -> Value {
        json!({
            "issuer": self.issuer(),
            "jwks_uri": format!("{}/jwks.json", self.0.base),
            "token_endpoint": self.token_url(),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA", "ES256", "RS256"],
        })
    }

    /// Checks a token that one of our users' clients presents to us. Whether the client holds the Noise key cannot be
    /// seen over HTTP; the key that the token names is taken as given.
    pub(crate) async fn check_own(&self, token: &str) -> Option<Verified> {
        let keys = KeySet::from_jwks(&self.jwks().await.to_string()).ok()?;
        let Inner { base, domain, audience, clock, .. } = &*self.0;
        let noise_key = tokens::named_noise_key(token)?;
        let expected = Expected { issuer: base, provider: domain, audience, noise_key, now: clock.now() };
        token::verify(token, &keys, &expected).ok()
    }

    pub(crate) fn upload_ticket(
        &self,
        user: &Verified,
        size: u64,
        sha256: [u8; 32],
    ) -> Result<UploadTicket, RequestError> {
        // Our own name for the account; the operator's id of it is none of our business.
        let name = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, user.address().as_str().as_bytes());
        let account = AccountId::try_from(&name.as_ref()[..16]).expect("SHA-256 has 32 bytes");
        self.0.host.upload_ticket(account, size, sha256)
    }
}
