//! Calls of operators: the registry of providers. Every message is one sentence that names the field and the fix.

pub(super) mod list;
pub(super) mod register;
pub(super) mod set_status;
pub(super) mod update;

use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;

use crate::error::CallError;
use crate::providers::{Provider, ProviderKind, ProviderStatus, RawSettings};
use crate::token_keys::KeysOfProvider;

pub(super) const fn kind_to_proto(kind: ProviderKind) -> wire::ProviderKind {
    match kind {
        ProviderKind::Home => wire::ProviderKind::Home,
        ProviderKind::ThirdParty => wire::ProviderKind::ThirdParty,
    }
}

pub(super) const fn status_to_proto(status: ProviderStatus) -> pb::ProviderStatus {
    match status {
        ProviderStatus::Live => pb::ProviderStatus::Live,
        ProviderStatus::Suspended => pb::ProviderStatus::Suspended,
    }
}

fn raw(settings: pb::ProviderSettings) -> RawSettings {
    let kind = match settings.kind() {
        wire::ProviderKind::Home => Some(ProviderKind::Home),
        wire::ProviderKind::ThirdParty => Some(ProviderKind::ThirdParty),
        wire::ProviderKind::Unspecified => None,
    };
    RawSettings {
        domain: settings.domain,
        display_name: settings.display_name,
        kind,
        issuer: settings.issuer,
        hosts: settings.hosts,
        media_prefixes: settings.media_prefixes,
        webhook_url: settings.webhook_url,
        webhook_secret: settings.webhook_secret,
    }
}

/// The webhook's secret is not part of it.
fn to_proto(provider: Provider, keys: Option<&KeysOfProvider>) -> pb::Provider {
    let settings = provider.settings;
    pb::Provider {
        id: provider.id.as_bytes().to_vec().into(),
        settings: Some(pb::ProviderSettings {
            domain: settings.domain.to_string(),
            display_name: settings.display_name,
            kind: kind_to_proto(settings.kind).into(),
            issuer: settings.issuer,
            hosts: settings.hosts,
            media_prefixes: settings.media_prefixes,
            webhook_url: settings.webhook.map(|target| target.url).unwrap_or_default(),
            webhook_secret: String::new(),
        }),
        status: status_to_proto(provider.status).into(),
        registered_ms: provider.registered_ms,
        key_count: keys.map_or(0, |keys| keys.count),
        keys_fetched_ms: keys.map_or(0, |keys| keys.fetched_ms),
        keys_error: keys.and_then(|keys| keys.error.clone()).unwrap_or_default(),
    }
}

fn issuer_taken() -> CallError {
    CallError::Exists("issuer is registered for another provider: each needs an issuer of its own".to_owned())
}

fn unknown(domain: &str) -> CallError {
    CallError::NotFound(format!("domain: no provider {domain:?} is registered; list shows those that are"))
}
