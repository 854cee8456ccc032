//! SetStatus: suspend a provider, or bring it back. Confirmed when no routing acts on the older status.

use std::sync::Arc;

use causeway_identity::Domain;
use causeway_proto::directory::v1 as pb;

use super::{to_proto, unknown};
use crate::directory::Directory;
use crate::error::CallError;
use crate::providers::{BadSetting, ProviderStatus};

pub(in crate::rpc) async fn run(
    directory: &Arc<Directory>,
    request: pb::SetProviderStatus,
) -> Result<pb::Provider, CallError> {
    let status = match request.status() {
        pb::ProviderStatus::Live => ProviderStatus::Live,
        pb::ProviderStatus::Suspended => ProviderStatus::Suspended,
        pb::ProviderStatus::Unspecified => {
            return Err(BadSetting::new("status", "must be live or suspended").into());
        }
    };
    let domain: Domain = request.domain.parse().map_err(|_| unknown(&request.domain))?;
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move {
        let written = directory.store.set_provider_status(&domain, status).await?;
        let Some(provider) = written.outcome else { return Err(unknown(domain.as_str())) };
        tracing::info!(provider = %provider.id, ?status, "provider status set");
        let published = directory.changes.publish_all(&written.logged);
        let told = match status {
            ProviderStatus::Live => directory.token_keys.revived(&domain).await,
            ProviderStatus::Suspended => directory.token_keys.changed(&domain).await,
        };
        published.confirm().await;
        told?;
        let keys = directory.token_keys.of(provider.id);
        Ok(to_proto(provider, keys.as_ref()))
    })
    .await
}
