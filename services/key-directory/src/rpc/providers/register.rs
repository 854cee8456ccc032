//! Register: a new provider, whose keys are fetched at once.

use std::sync::Arc;

use causeway_identity::ProviderId;
use causeway_proto::directory::v1 as pb;
use rand::rngs::OsRng;
use rand::{RngCore as _, TryRngCore as _};

use super::{issuer_taken, raw, to_proto};
use crate::directory::Directory;
use crate::error::CallError;
use crate::providers::{BadSetting, Provider, ProviderSettings, ProviderStatus};
use crate::store::Registered;

pub(in crate::rpc) async fn run(
    directory: &Arc<Directory>,
    request: pb::RegisterProvider,
) -> Result<pb::Provider, CallError> {
    let settings = request.settings.ok_or_else(|| BadSetting::new("settings", "are missing"))?;
    let settings = ProviderSettings::check(raw(settings), directory.token_keys.fetcher())?;
    if directory.store.provider(&settings.domain).await?.is_some() {
        return Err(domain_taken());
    }
    let keys = directory.token_keys.fetch_first(&settings).await?;
    let mut id = [0; 16];
    OsRng.unwrap_err().fill_bytes(&mut id);
    let provider = Provider {
        id: ProviderId::from_bytes(id),
        settings,
        status: ProviderStatus::Live,
        registered_ms: directory.clock.now_ms(),
        revision: 0,
    };
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move {
        let written = directory.store.register_provider(&provider, &keys, directory.config.max_providers).await?;
        match written.outcome {
            Registered::Done => {}
            Registered::DomainTaken => return Err(domain_taken()),
            Registered::IssuerTaken => return Err(issuer_taken()),
            Registered::Full => {
                return Err(CallError::Full(
                    "no more providers can be registered: raise directory.max_providers".to_owned(),
                ));
            }
        }
        tracing::info!(provider = %provider.id, "provider registered");
        let published = directory.changes.publish_all(&written.logged);
        let told = directory.token_keys.changed(&provider.settings.domain).await;
        published.confirm().await;
        told?;
        let keys = directory.token_keys.of(provider.id);
        Ok(to_proto(provider, keys.as_ref()))
    })
    .await
}

fn domain_taken() -> CallError {
    CallError::Exists("domain is registered already: use update to change its settings".to_owned())
}
