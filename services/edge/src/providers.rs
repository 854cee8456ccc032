//! What this edge knows of providers: a cache that follows key-directory's watch. Keys are used until the directory's
//! limit for them, also while the directory is away; a suspension ends the provider's sessions.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::token::KeySet;
use causeway_identity::{Domain, ProviderId};
use causeway_proto::directory::v1::token_keys_client::TokenKeysClient;
use causeway_proto::directory::v1::token_keys_update::Update;
use causeway_proto::directory::v1::{ProviderKeys, ProviderStatus, RefetchTokenKeys, WatchTokenKeys};
use causeway_proto::wire::v1::ProviderKind;
use causeway_runtime::grpc::Channel;
use causeway_runtime::grpc::{self, MAX_MESSAGE_BYTES};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::random::Random;

/// The directory sends something at least each 5 s; a stream that is silent for longer is taken for dead.
const SILENCE: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(3);
/// The directory decides how often keys are fetched; this only spares it the asking.
const SPACING: Duration = Duration::from_secs(1);
/// How long fetched keys may take from the directory's answer to the watch's update.
const ARRIVAL: Duration = Duration::from_secs(2);

/// A registered provider, as of the last update.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) id: ProviderId,
    pub(crate) domain: Domain,
    /// The operator's own messenger.
    pub(crate) home: bool,
    pub(crate) issuer: String,
    issuer_url: Option<Url>,
    pub(crate) live: bool,
    keys: KeySet,
    stale_at_ms: u64,
    media_prefixes: Vec<Url>,
    /// Cancelled when the provider stops being live; its sessions hold it.
    pub(crate) suspended: CancellationToken,
    /// Held while keys are fetched again; when that was last over.
    fetching: Arc<Mutex<Option<Instant>>>,
}

impl Provider {
    #[cfg(test)]
    pub(crate) fn for_tests(id: ProviderId, domain: &str) -> Self {
        Self {
            id,
            domain: domain.parse().unwrap(),
            home: false,
            issuer: format!("https://id.{domain}"),
            issuer_url: None,
            live: true,
            keys: KeySet::default(),
            stale_at_ms: u64::MAX,
            media_prefixes: Vec::new(),
            suspended: CancellationToken::new(),
            fetching: Arc::default(),
        }
    }

    /// The keys, if this one is among them and the set is not too old.
    pub(crate) fn keys_with(&self, kid: &str, now_ms: u64) -> Option<&KeySet> {
        (now_ms < self.stale_at_ms && self.keys.contains(kid)).then_some(&self.keys)
    }
}

/// What is known of an issuer.
#[derive(Debug)]
pub(crate) enum Issuer {
    /// It is registered.
    Known(Arc<Provider>),
    /// No provider has an issuer like this.
    Unknown,
    /// It looks like a registered issuer but is not the same text, or is no canonical URL.
    Resembles,
    /// Nothing has come from the directory yet.
    NotReady,
}

/// Handle of the cache; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Providers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: RwLock<State>,
    /// Counts updates; 0 before the first full set.
    updates: watch::Sender<u64>,
    directory: TokenKeysClient<Channel>,
    random: Random,
}

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<ProviderId, Arc<Provider>>,
    by_issuer: HashMap<String, Arc<Provider>>,
}

impl Providers {
    pub(crate) fn new(directory: Channel, random: Random) -> Self {
        Self(Arc::new(Shared {
            state: RwLock::default(),
            updates: watch::Sender::new(0),
            directory: TokenKeysClient::new(directory).max_decoding_message_size(MAX_MESSAGE_BYTES),
            random,
        }))
    }

    /// Who is behind an issuer, compared byte for byte.
    pub(crate) fn by_issuer(&self, issuer: &str) -> Issuer {
        if *self.0.updates.borrow() == 0 {
            return Issuer::NotReady;
        }
        self.0.read(|state| match state.by_issuer.get(issuer) {
            Some(provider) => Issuer::Known(Arc::clone(provider)),
            None if state.resembles(issuer) => Issuer::Resembles,
            None => Issuer::Unknown,
        })
    }

    /// The provider as it is known now.
    pub(crate) fn by_id(&self, id: ProviderId) -> Option<Arc<Provider>> {
        self.0.read(|state| state.by_id.get(&id).cloned())
    }

    /// True if `url` lies under a media prefix of a live provider.
    pub(crate) fn serve_media(&self, url: &Url) -> bool {
        self.0.read(|state| {
            state
                .by_id
                .values()
                .any(|provider| provider.live && provider.media_prefixes.iter().any(|prefix| lies_under(url, prefix)))
        })
    }

    /// A token of this provider names a key that is not known: has the directory fetch the keys again, and gives the
    /// provider if the key is known then. One fetch a provider is under way at a time; who comes while it is shares
    /// its result.
    pub(crate) async fn refetch(&self, provider: &Provider, kid: &str, now_ms: u64) -> Option<Arc<Provider>> {
        let known = || self.by_id(provider.id).filter(|current| current.keys_with(kid, now_ms).is_some());
        let Ok(mut last) = provider.fetching.try_lock() else {
            let _over = provider.fetching.lock().await;
            return known();
        };
        if last.is_some_and(|last| last.elapsed() < SPACING) {
            return known();
        }
        let mut updates = self.0.updates.subscribe();
        let request = RefetchTokenKeys { issuer: provider.issuer.clone(), kid: kid.to_owned() };
        let answer = self.0.directory.clone().refetch(grpc::call(request)).await;
        *last = Some(Instant::now());
        let answer = answer.ok()?.into_inner();
        if !KeySet::from_jwks(&answer.jwks).is_ok_and(|keys| keys.contains(kid)) {
            return None;
        }
        // Only the watch changes the cache, so that a late answer cannot undo a later suspension.
        let arrived = updates.wait_for(|_| known().is_some());
        tokio::time::timeout(ARRIVAL, arrived).await.ok()?.ok()?;
        known()
    }

    /// Resolves once the first full set is there.
    pub(crate) async fn wait_until_filled(&self) {
        // The sender lives in self, so it cannot be gone.
        let mut updates = self.0.updates.subscribe();
        let _gone = updates.wait_for(|count| *count > 0).await;
    }

    /// Follows the directory until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut retry = FIRST_RETRY;
        loop {
            let followed = tokio::select! {
                followed = self.follow() => followed,
                () = stop.cancelled() => return,
            };
            if followed {
                retry = FIRST_RETRY;
            }
            tokio::select! {
                () = tokio::time::sleep(self.0.random.jitter(retry)) => {}
                () = stop.cancelled() => return,
            }
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Follows one stream to its end; false if it brought nothing.
    async fn follow(&self) -> bool {
        let mut directory = self.0.directory.clone();
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, directory.watch(WatchTokenKeys {})).await;
        let Ok(Ok(response)) = opened else { return false };
        let mut stream = response.into_inner();
        let mut filled = false;
        // Who was named on this stream, until everybody must have been.
        let mut named = Some(HashSet::new());
        while let Ok(Ok(Some(message))) = tokio::time::timeout(SILENCE, stream.message()).await {
            match message.update {
                Some(Update::Full(set)) => {
                    named.get_or_insert_default().extend(set.providers.iter().map(|keys| keys.provider_id.clone()));
                    self.0.update(set.providers);
                    filled = true;
                }
                // Before the full set a single provider says too little.
                Some(Update::Provider(keys)) if filled => {
                    if let Some(named) = &mut named {
                        named.insert(keys.provider_id.clone());
                    }
                    self.0.update(vec![keys]);
                }
                // A set that is too large for one message goes on provider by provider; the first heartbeat says that
                // nothing more waits, so whoever was not named by then is registered no more.
                Some(Update::Heartbeat(_)) if filled => {
                    if let Some(named) = named.take() {
                        self.0.forget_all_but(&named);
                    }
                }
                Some(Update::Provider(_) | Update::Heartbeat(_)) | None => {}
            }
        }
        if filled {
            tracing::warn!("lost the watch of providers' keys; what is known stays until it is stale");
        }
        filled
    }
}

impl Shared {
    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes providers in, or in again.
    fn update(&self, all: Vec<ProviderKeys>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for keys in all {
            let Ok(id) = ProviderId::try_from(&keys.provider_id[..]) else {
                tracing::warn!("the directory names a provider without an id");
                continue;
            };
            let before = state.remove(id);
            if !state.put(id, keys, before.as_deref())
                && let Some(before) = before
            {
                before.suspended.cancel();
            }
        }
        drop(state);
        self.updates.send_modify(|count| *count += 1);
    }

    fn forget_all_but(&self, named: &HashSet<Bytes>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<ProviderId> =
            state.by_id.keys().filter(|id| !named.contains(&id.as_bytes()[..])).copied().collect();
        for provider in gone.into_iter().filter_map(|id| state.remove(id)) {
            provider.suspended.cancel();
        }
    }
}

impl State {
    fn remove(&mut self, id: ProviderId) -> Option<Arc<Provider>> {
        let provider = self.by_id.remove(&id)?;
        if self.by_issuer.get(&provider.issuer).is_some_and(|other| other.id == id) {
            self.by_issuer.remove(&provider.issuer);
        }
        Some(provider)
    }

    /// Takes a provider in; one that cannot be understood is left out, so that nobody logs in by it.
    fn put(&mut self, id: ProviderId, keys: ProviderKeys, earlier: Option<&Provider>) -> bool {
        let Ok(domain) = keys.domain.parse() else {
            tracing::warn!(provider = %id, "the directory names a provider without a proper domain");
            return false;
        };
        let known = KeySet::from_jwks(&keys.jwks).unwrap_or_else(|_| {
            tracing::warn!(provider = %id, "the provider's keys cannot be read; none of its tokens is accepted");
            KeySet::default()
        });
        let live = keys.status() == ProviderStatus::Live;
        let suspended = match earlier.map(|provider| &provider.suspended) {
            Some(token) if !(live && token.is_cancelled()) => token.clone(),
            // New, or back from a suspension.
            _ => CancellationToken::new(),
        };
        if !live {
            suspended.cancel();
        }
        let provider = Arc::new(Provider {
            id,
            domain,
            home: keys.kind() == ProviderKind::Home,
            live,
            keys: known,
            stale_at_ms: keys.stale_at_ms,
            media_prefixes: keys.media_prefixes.iter().filter_map(|prefix| Url::parse(prefix).ok()).collect(),
            suspended,
            fetching: earlier.map(|provider| Arc::clone(&provider.fetching)).unwrap_or_default(),
            issuer_url: Url::parse(&keys.issuer).ok(),
            issuer: keys.issuer,
        });
        self.by_issuer.insert(provider.issuer.clone(), Arc::clone(&provider));
        self.by_id.insert(id, provider);
        true
    }

    /// An issuer that is not registered: a mere stranger, or something that could be mistaken for a registered one?
    fn resembles(&self, issuer: &str) -> bool {
        let Ok(url) = Url::parse(issuer) else { return true };
        let canonical = url.as_str() == issuer || url.as_str().strip_suffix('/') == Some(issuer);
        if !canonical || !url.username().is_empty() || url.password().is_some() {
            return true;
        }
        self.by_issuer.values().filter_map(|provider| provider.issuer_url.as_ref()).any(|registered| {
            // A port makes another issuer on a bare address (development), but no other one on a name.
            registered.host() == url.host() && (registered.domain().is_some() || registered.port() == url.port())
        })
    }
}

/// Compares parsed forms, whole path segments only.
fn lies_under(url: &Url, prefix: &Url) -> bool {
    let same_origin = url.scheme() == prefix.scheme()
        && url.host().is_some()
        && url.host() == prefix.host()
        && url.port_or_known_default() == prefix.port_or_known_default();
    let folder = prefix.path().strip_suffix('/').unwrap_or(prefix.path());
    let rest = url.path().strip_prefix(folder);
    same_origin && rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn providers() -> Providers {
        Providers::new(grpc::connect("http://127.0.0.1:1").unwrap(), Random::seeded(1))
    }

    fn keys(id: u8, name: &str) -> ProviderKeys {
        ProviderKeys {
            provider_id: vec![id; 16].into(),
            domain: format!("{name}.example"),
            kind: ProviderKind::ThirdParty.into(),
            issuer: format!("https://id.{name}.example"),
            status: ProviderStatus::Live.into(),
            jwks: r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#
                .to_owned(),
            stale_at_ms: NOW_MS + 1_000,
            media_prefixes: vec![format!("https://media.{name}.example/v1/blobs/")],
        }
    }

    fn known(providers: &Providers, issuer: &str) -> Arc<Provider> {
        match providers.by_issuer(issuer) {
            Issuer::Known(provider) => provider,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn keys_are_used_until_they_are_stale() {
        let providers = providers();
        assert!(matches!(providers.by_issuer("https://id.birdy.example"), Issuer::NotReady));
        providers.0.update(vec![keys(1, "birdy")]);
        let birdy = known(&providers, "https://id.birdy.example");
        assert!(birdy.live && !birdy.home);
        assert!(birdy.keys_with("k1", NOW_MS).is_some());
        assert!(birdy.keys_with("k2", NOW_MS).is_none());
        assert!(birdy.keys_with("k1", NOW_MS + 1_000).is_none());
    }

    #[tokio::test]
    async fn look_alikes_of_an_issuer_are_told_from_strangers() {
        let providers = providers();
        let mut local = keys(2, "local");
        local.issuer = "http://127.0.0.1:9000".to_owned();
        providers.0.update(vec![keys(1, "birdy"), local]);
        for near in [
            "https://id.birdy.example/",
            "https://ID.birdy.example",
            "https://id.birdy.example:443",
            "https://id.birdy.example:8443",
            "https://x@id.birdy.example",
            "https://id.birdy%2eexample",
            "https://id.b\u{456}rdy.example",
            "https://id.birdy.example\u{200b}",
            "birdy",
            "",
            "http://127.0.0.1:9000/",
        ] {
            assert!(matches!(providers.by_issuer(near), Issuer::Resembles), "{near}");
        }
        for stranger in ["https://id.other.example", "http://127.0.0.1:9001"] {
            assert!(matches!(providers.by_issuer(stranger), Issuer::Unknown), "{stranger}");
        }
    }

    #[tokio::test]
    async fn a_suspension_reaches_the_sessions_and_a_return_starts_anew() {
        let providers = providers();
        providers.0.update(vec![keys(1, "birdy"), keys(2, "crow")]);
        let (birdy, crow) =
            (known(&providers, "https://id.birdy.example"), known(&providers, "https://id.crow.example"));

        providers.0.update(vec![keys(1, "birdy")]);
        assert!(!birdy.suspended.is_cancelled(), "new keys are no suspension");
        let mut suspended = keys(1, "birdy");
        suspended.set_status(ProviderStatus::Suspended);
        providers.0.update(vec![suspended]);
        assert!(birdy.suspended.is_cancelled());
        assert!(!known(&providers, "https://id.birdy.example").live);

        providers.0.update(vec![keys(1, "birdy")]);
        let back = known(&providers, "https://id.birdy.example");
        assert!(back.live && !back.suspended.is_cancelled() && birdy.suspended.is_cancelled());

        providers.0.forget_all_but(&HashSet::from([Bytes::from_static(&[1; 16])]));
        assert!(crow.suspended.is_cancelled(), "gone from the registry");
        assert!(!back.suspended.is_cancelled());
        assert!(matches!(providers.by_issuer("https://id.crow.example"), Issuer::Unknown));
    }

    #[tokio::test]
    async fn what_cannot_be_understood_admits_nobody() {
        let providers = providers();
        providers.0.update(vec![keys(1, "birdy")]);
        let birdy = known(&providers, "https://id.birdy.example");
        let mut broken = keys(1, "birdy");
        broken.domain = "Birdy".to_owned();
        providers.0.update(vec![broken]);
        assert!(birdy.suspended.is_cancelled());
        assert!(providers.by_id(birdy.id).is_none());

        let mut keyless = keys(2, "crow");
        keyless.jwks = "nonsense".to_owned();
        providers.0.update(vec![keyless]);
        assert!(known(&providers, "https://id.crow.example").keys_with("k1", NOW_MS).is_none());
    }

    #[tokio::test]
    async fn media_lies_under_a_prefix_of_a_live_provider_only() {
        let providers = providers();
        let mut crow = keys(2, "crow");
        crow.set_status(ProviderStatus::Suspended);
        providers.0.update(vec![keys(1, "birdy"), crow]);
        let serves = |url: &str| providers.serve_media(&Url::parse(url).unwrap());
        assert!(serves("https://media.birdy.example/v1/blobs/abc"));
        for foreign in [
            "https://media.birdy.example/v1/blobs",
            "https://media.birdy.example/v1/blobs/",
            "https://media.birdy.example/v1/blobsX/abc",
            "https://media.birdy.example/v1/blobs/../secret",
            "https://media.birdy.example/v1/blobs/%2e%2e/secret",
            "https://media.birdy.example:8443/v1/blobs/abc",
            "http://media.birdy.example/v1/blobs/abc",
            "https://media.birdy.example.evil.example/v1/blobs/abc",
            "https://media.crow.example/v1/blobs/abc",
        ] {
            assert!(!serves(foreign), "{foreign}");
        }
    }
}
