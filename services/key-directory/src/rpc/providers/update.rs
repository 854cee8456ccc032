//! Update: new settings of a provider; its keys are fetched under them before they take effect.

use std::sync::Arc;

use causeway_proto::directory::v1 as pb;

use super::{issuer_taken, raw, to_proto, unknown};
use crate::directory::Directory;
use crate::error::CallError;
use crate::providers::{BadSetting, ProviderSettings};
use crate::store::Updated;

pub(in crate::rpc) async fn run(
    directory: &Arc<Directory>,
    request: pb::UpdateProvider,
) -> Result<pb::Provider, CallError> {
    let settings = request.settings.ok_or_else(|| BadSetting::new("settings", "are missing"))?;
    let mut raw = raw(settings);
    let domain = raw.domain.parse().map_err(|_| unknown(&raw.domain))?;
    let Some(before) = directory.store.provider(&domain).await? else { return Err(unknown(domain.as_str())) };
    if let Some(target) = before.settings.webhook
        && raw.webhook_secret.is_empty()
        && !raw.webhook_url.is_empty()
    {
        // The secret is never shown, so what an operator read and sends back lacks it.
        raw.webhook_secret = target.secret;
    }
    let settings = ProviderSettings::check(raw, directory.token_keys.fetcher())?;
    let keys = directory.token_keys.fetch_first(&settings).await?;
    let directory = Arc::clone(directory);
    Directory::to_the_end(async move {
        let written = directory.store.update_provider(&settings, &keys).await?;
        let provider = match written.outcome {
            Updated::Done(provider) => *provider,
            Updated::Unknown => return Err(unknown(settings.domain.as_str())),
            Updated::OtherKind => {
                return Err(BadSetting::new("kind", "cannot change: register another domain for the other kind").into());
            }
            Updated::IssuerTaken => return Err(issuer_taken()),
        };
        tracing::info!(provider = %provider.id, "provider updated");
        let published = directory.changes.publish_all(&written.logged);
        let told = directory.token_keys.changed(&settings.domain).await;
        published.confirm().await;
        told?;
        let keys = directory.token_keys.of(provider.id);
        Ok(to_proto(provider, keys.as_ref()))
    })
    .await
}
