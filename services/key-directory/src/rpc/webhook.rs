//! Webhook: where routing sends the push notices of a provider's devices.

use causeway_identity::Domain;
use causeway_proto::directory::v1 as pb;

use crate::directory::Directory;
use crate::error::CallError;
use crate::providers::ProviderStatus;

pub(super) async fn run(directory: &Directory, request: pb::GetWebhook) -> Result<pb::WebhookResponse, CallError> {
    let Ok(domain) = request.provider_domain.parse::<Domain>() else {
        return Ok(pb::WebhookResponse { webhook: None });
    };
    let provider = directory.store.provider(&domain).await?;
    let live = provider.filter(|provider| provider.status == ProviderStatus::Live);
    let webhook = live.and_then(|provider| {
        let target = provider.settings.webhook?;
        Some(pb::Webhook { url: target.url, secret: target.secret, hosts: provider.settings.hosts })
    });
    Ok(pb::WebhookResponse { webhook })
}
