//! One round of discovery: the provider's OIDC document, then the key set that it names (OpenID Connect Discovery 1.0,
//! sections 4 and 4.3; RFC 7517).

use std::time::Duration;

use causeway_fetch::{FetchError, HostError, HostSet};
use causeway_identity::token::{KeySet, KeySetError, MAX_JWKS_BYTES};
use serde::Deserialize;

use super::TokenKeys;
use crate::providers::{ProviderSettings, TokenKeySet};

/// Both documents together; leaves a call that waits for them time to answer.
const ROUND: Duration = Duration::from_secs(8);
const MAX_DISCOVERY_BYTES: usize = 64 * 1024;
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Why a provider's keys cannot be had. Each prints as a sentence with the fix, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeysError {
    #[error("hosts cannot be used ({0}): register them again")]
    Hosts(#[from] HostError),
    #[error("issuer: its discovery document (/.well-known/openid-configuration) cannot be fetched: {0}")]
    Discovery(FetchError),
    #[error("issuer: its discovery document is not JSON with the texts issuer and jwks_uri")]
    DiscoveryForm,
    #[error(
        "issuer: its discovery document names another issuer: register exactly the issuer that the document and the \
         provider's tokens name"
    )]
    OtherIssuer,
    #[error("jwks_uri of the discovery document is not usable: {0}; register its host, or have the provider move it")]
    KeysUri(FetchError),
    #[error("jwks_uri: the key set cannot be fetched: {0}")]
    Fetch(FetchError),
    #[error("issuer: discovery document and key set took longer than 8 s together")]
    Slow,
    #[error("jwks_uri: {0}")]
    KeySet(#[from] KeySetError),
    #[error("jwks_uri: the key set is not UTF-8 text")]
    NotText,
    #[error(
        "jwks_uri: the key set has no usable key: it needs one of Ed25519, P-256 or RSA (2048 bits or more) with a kid \
         of its own"
    )]
    NoUsableKey,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl TokenKeys {
    /// Fetches the keys of a provider with these settings; keeps nothing.
    pub(crate) async fn fetch(&self, settings: &ProviderSettings) -> Result<TokenKeySet, KeysError> {
        let round = tokio::time::timeout(ROUND, self.fetch_round(settings)).await;
        let outcome = round.unwrap_or(Err(KeysError::Slow));
        self.metrics.keys_fetched(outcome.is_ok());
        outcome
    }

    /// The same for a new provider, or new settings: a set without a usable key is refused, while later an empty set is
    /// the provider's way to withdraw its keys.
    pub(crate) async fn fetch_first(&self, settings: &ProviderSettings) -> Result<TokenKeySet, KeysError> {
        let set = self.fetch(settings).await?;
        if set.count == 0 { Err(KeysError::NoUsableKey) } else { Ok(set) }
    }

    async fn fetch_round(&self, settings: &ProviderSettings) -> Result<TokenKeySet, KeysError> {
        let hosts: HostSet = settings.host_set()?;
        let url = format!("{}{WELL_KNOWN}", settings.issuer.trim_end_matches('/'));
        let document =
            self.fetcher.get_json_bytes(&url, &hosts, MAX_DISCOVERY_BYTES).await.map_err(KeysError::Discovery)?;
        let discovery: Discovery = serde_json::from_slice(&document).map_err(|_| KeysError::DiscoveryForm)?;
        if discovery.issuer != settings.issuer {
            return Err(KeysError::OtherIssuer);
        }
        self.fetcher.check_url(&discovery.jwks_uri, &hosts).map_err(KeysError::KeysUri)?;
        // The time before the fetch: keys are never taken for newer than they are.
        let fetched_ms = self.clock.now_ms();
        let body =
            self.fetcher.get_json_bytes(&discovery.jwks_uri, &hosts, MAX_JWKS_BYTES).await.map_err(KeysError::Fetch)?;
        let text = std::str::from_utf8(&body).map_err(|_| KeysError::NotText)?;
        let keys = KeySet::from_jwks(text)?;
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        Ok(TokenKeySet { jwks: keys.to_jwks(), count, fetched_ms })
    }
}
