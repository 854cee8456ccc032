//! Keys that sign providers' tokens: fetched by way of OIDC discovery, kept through outages for a bounded time, and
//! handed to watchers whenever anything of a provider changes.
//!
//! `fetch` talks to providers, `refresh` decides when. Watchers need no queue: each remembers the version it has seen
//! and takes whatever is newer, so a slow one skips intermediate states and nothing grows.

mod fetch;
mod refresh;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use causeway_fetch::Fetcher;
use causeway_identity::token::KeySet;
use causeway_identity::{Domain, ProviderId};
use causeway_runtime::clock::SharedClock;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

pub(crate) use fetch::KeysError;

use crate::config::{DirectoryConfig, StoreKind};
use crate::error::DirectoryError;
use crate::metrics::Metrics;
use crate::peers::{LogError, Observer};
use crate::providers::{Provider, TokenKeySet};
use crate::store::{Store, StoreError};

const LOAD_PAGE: u32 = 100;
/// Calls that may wait for one provider at a time.
const ASKING: usize = 64;

/// What a watcher learns of one provider.
#[derive(Debug, Clone)]
pub(crate) struct KeysOfProvider {
    pub(crate) provider: Provider,
    /// Usable keys alone; empty once they are stale.
    pub(crate) jwks: String,
    pub(crate) count: u32,
    /// Unix milliseconds.
    pub(crate) stale_at_ms: u64,
    pub(crate) fetched_ms: u64,
    /// Why the last fetch failed.
    pub(crate) error: Option<String>,
}

/// The keys of all providers.
pub(crate) struct TokenKeys {
    store: Arc<dyn Store>,
    fetcher: Fetcher,
    clock: SharedClock,
    metrics: Metrics,
    refresh: Duration,
    cooldown: Duration,
    stale_ms: u64,
    /// Other key-directories fetch keys, too.
    shared: bool,
    reloading: tokio::sync::Mutex<()>,
    /// Something is due earlier than thought.
    wake: Notify,
    /// The newest version, for watchers.
    newest: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    version: u64,
    providers: BTreeMap<ProviderId, Entry>,
}

struct Entry {
    provider: Provider,
    /// As fetched last.
    set: TokenKeySet,
    /// The same, parsed: which keys are known.
    known: KeySet,
    error: Option<String>,
    /// The version in which any of this changed last.
    version: u64,
    due: Instant,
    fetching: bool,
    asking: Arc<Asking>,
}

/// When a provider's keys are to be fetched again.
#[derive(Debug, Clone, Copy)]
enum Due {
    At(Instant),
    /// In a round from when another directory has fetched them; if nobody has, as before.
    AsFetched,
}

/// Calls that ask for a key of one provider.
struct Asking {
    /// Held during a fetch; says when the last one for an unknown key was.
    turn: Arc<tokio::sync::Mutex<Option<Instant>>>,
    /// Calls that may wait for their turn. More are answered with what is known, so that a slow provider and a flood of
    /// unknown keys hold up nobody else.
    places: Semaphore,
}

impl Default for Asking {
    fn default() -> Self {
        Self { turn: Arc::default(), places: Semaphore::new(ASKING) }
    }
}

impl TokenKeys {
    /// Starts from what the store has; fetching begins with [`TokenKeys::run`].
    pub(crate) async fn load(
        config: &DirectoryConfig,
        store: Arc<dyn Store>,
        fetcher: Fetcher,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Result<Self, DirectoryError> {
        let this = Self {
            store,
            fetcher,
            clock,
            metrics,
            refresh: Duration::from_millis(config.keys_refresh_ms),
            cooldown: Duration::from_millis(config.keys_cooldown_ms),
            stale_ms: config.keys_stale_ms,
            shared: config.store == StoreKind::Postgres,
            reloading: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            newest: watch::Sender::new(0),
            state: Mutex::default(),
        };
        // What was fetched before the start may be old, so all are due at once.
        this.reload_all(Due::At(Instant::now())).await?;
        Ok(this)
    }

    /// The guarded client, for checks of what an operator sets.
    pub(crate) const fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// Something of this provider was changed in the store; its keys are fresh.
    pub(crate) async fn changed(&self, domain: &Domain) -> Result<(), StoreError> {
        self.reload(domain, Due::At(self.next_due(self.refresh))).await
    }

    /// A provider is live again: its keys are fetched at once.
    pub(crate) async fn revived(&self, domain: &Domain) -> Result<(), StoreError> {
        self.reload(domain, Due::At(Instant::now())).await
    }

    /// Takes over what the store has. One at a time, so that of two changes the later one stays here, too.
    async fn reload(&self, domain: &Domain, due: Due) -> Result<(), StoreError> {
        let _turn = self.reloading.lock().await;
        let Some(provider) = self.store.provider(domain).await? else { return Ok(()) };
        let Some(set) = self.store.token_keys(provider.id).await? else { return Ok(()) };
        let known = KeySet::from_jwks(&set.jwks).unwrap_or_default();
        let mut state = self.lock();
        let version = state.version + 1;
        let before = state.providers.remove(&provider.id);
        let same = before.as_ref().is_some_and(|entry| entry.provider == provider && entry.set == set);
        let due = match (due, &before) {
            (Due::At(due), _) => due,
            (Due::AsFetched, Some(_)) if same => {
                // Nothing new for watchers either.
                state.providers.extend(before.map(|entry| (provider.id, entry)));
                return Ok(());
            }
            (Due::AsFetched, Some(entry)) if entry.set.fetched_ms == set.fetched_ms => entry.due,
            (Due::AsFetched, _) => {
                let age = Duration::from_millis(self.clock.now_ms().saturating_sub(set.fetched_ms));
                self.next_due(self.refresh.saturating_sub(age).max(self.refresh / 10))
            }
        };
        let (error, fetching, asking) =
            before.map_or_else(Default::default, |entry| (entry.error, entry.fetching, entry.asking));
        let error = if same { error } else { None };
        let entry = Entry { set, known, error, version, due, fetching, asking, provider };
        state.providers.insert(entry.provider.id, entry);
        state.version = version;
        drop(state);
        self.newest.send_replace(version);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes over everything that the store has.
    async fn reload_all(&self, due: Due) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.providers(after.as_ref(), LOAD_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.settings.domain.clone());
            for provider in page {
                self.reload(&provider.settings.domain, due).await?;
            }
        }
    }

    /// What is known of one provider's keys.
    pub(crate) fn of(&self, provider: ProviderId) -> Option<KeysOfProvider> {
        self.lock().providers.get(&provider).map(|entry| self.view(entry))
    }

    /// The provider with this issuer and what is known of its keys.
    pub(crate) fn of_issuer(&self, issuer: &str) -> Option<KeysOfProvider> {
        let state = self.lock();
        let entry = state.providers.values().find(|entry| entry.provider.settings.issuer == issuer)?;
        Some(self.view(entry))
    }

    /// Everything that changed after `version`, and the version that this is.
    pub(crate) fn since(&self, version: u64) -> (u64, Vec<KeysOfProvider>) {
        let state = self.lock();
        let newer = state.providers.values().filter(|entry| entry.version > version);
        (state.version, newer.map(|entry| self.view(entry)).collect())
    }

    /// Tells of new versions.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn view(&self, entry: &Entry) -> KeysOfProvider {
        let stale_at_ms = entry.set.fetched_ms.saturating_add(self.stale_ms);
        let stale = self.clock.now_ms() >= stale_at_ms;
        KeysOfProvider {
            provider: entry.provider.clone(),
            jwks: if stale { KeySet::default().to_jwks() } else { entry.set.jwks.clone() },
            count: if stale { 0 } else { entry.set.count },
            stale_at_ms,
            fetched_ms: entry.set.fetched_ms,
            error: entry.error.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Observer for TokenKeys {
    async fn provider_changed(&self, domain: &Domain) -> Result<(), LogError> {
        self.reload(domain, Due::AsFetched).await.map_err(|error| LogError(error.to_string()))
    }

    async fn anything_changed(&self) -> Result<(), LogError> {
        self.reload_all(Due::AsFetched).await.map_err(|error| LogError(error.to_string()))
    }
}
