//! Watch: the token keys of all providers, then whatever changes of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::token_keys_update::Update;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use tokio::sync::watch::Receiver;
use tonic::Status;

use super::providers::{kind_to_proto, status_to_proto};
use crate::directory::Directory;
use crate::token_keys::KeysOfProvider;

/// Well within the 5 s that the contract allows.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The full set is cut here, far below the largest gRPC message; the rest follows provider by provider.
const FULL_SET_BYTES: usize = 1024 * 1024;

pub(super) fn run(directory: &Arc<Directory>) -> BoxStream<'static, Result<pb::TokenKeysUpdate, Status>> {
    let watcher = Watcher {
        versions: directory.token_keys.versions(),
        directory: Arc::clone(directory),
        seen: 0,
        waiting: VecDeque::new(),
        full_was_sent: false,
    };
    futures::stream::unfold(Some(watcher), |watcher: Option<Watcher>| async move {
        let mut watcher = watcher?;
        match watcher.next().await {
            Some(update) => Some((Ok(pb::TokenKeysUpdate { update: Some(update) }), Some(watcher))),
            None => Some((Err(Status::unavailable("the directory is stopping")), None)),
        }
    })
    .boxed()
}

struct Watcher {
    directory: Arc<Directory>,
    versions: Receiver<u64>,
    /// The version up to which everything has been taken.
    seen: u64,
    /// Taken and not sent yet; at most one entry a provider.
    waiting: VecDeque<pb::ProviderKeys>,
    full_was_sent: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Update> {
        if !self.full_was_sent {
            self.full_was_sent = true;
            return Some(Update::Full(self.full_set()));
        }
        loop {
            if let Some(keys) = self.waiting.pop_front() {
                return Some(Update::Provider(keys));
            }
            tokio::select! {
                biased;
                () = self.directory.closing.cancelled() => return None,
                changed = self.versions.changed() => changed.ok()?,
                () = tokio::time::sleep(HEARTBEAT) => return Some(Update::Heartbeat(pb::Heartbeat {})),
            }
            self.take();
        }
    }

    fn full_set(&mut self) -> pb::FullSet {
        self.take();
        let mut bytes = 0;
        let mut providers = Vec::new();
        while bytes < FULL_SET_BYTES
            && let Some(keys) = self.waiting.pop_front()
        {
            bytes += keys.encoded_len();
            providers.push(keys);
        }
        pb::FullSet { providers }
    }

    fn take(&mut self) {
        let (version, newer) = self.directory.token_keys.since(self.seen);
        self.seen = version;
        self.waiting.extend(newer.into_iter().map(to_proto));
    }
}

pub(super) fn to_proto(keys: KeysOfProvider) -> pb::ProviderKeys {
    let provider = keys.provider;
    pb::ProviderKeys {
        provider_id: provider.id.as_bytes().to_vec().into(),
        domain: provider.settings.domain.to_string(),
        kind: kind_to_proto(provider.settings.kind).into(),
        issuer: provider.settings.issuer,
        status: status_to_proto(provider.status).into(),
        jwks: keys.jwks,
        stale_at_ms: keys.stale_at_ms,
        media_prefixes: provider.settings.media_prefixes,
    }
}
