//! When keys are fetched again: by the clock, and when a token names a key that nobody knows.

use std::sync::Arc;
use std::time::Duration;

use causeway_identity::ProviderId;
use rand::rngs::OsRng;
use rand::{Rng as _, TryRngCore as _};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Due, KeysOfProvider, TokenKeys};
use crate::providers::{Provider, ProviderStatus, TokenKeySet};

/// Fetches at a time that others overtake; then their keys must do.
const ATTEMPTS: usize = 3;
/// Providers that are asked at the same time; slow ones hold up no more than this.
const AT_ONCE: usize = 32;

impl TokenKeys {
    /// Refreshes all providers' keys until told to stop.
    pub(crate) async fn run(self: &Arc<Self>, stop: CancellationToken) {
        let mut fetches = JoinSet::new();
        loop {
            while fetches.len() < AT_ONCE
                && let Some(provider) = self.begin_due(Instant::now())
            {
                let this = Arc::clone(self);
                fetches.spawn(async move { this.refresh_in_turn(provider).await });
            }
            let next = if fetches.len() < AT_ONCE { self.earliest_due() } else { None };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                Some(_) = fetches.join_next() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// A provider whose keys are due; it is marked as being fetched.
    fn begin_due(&self, now: Instant) -> Option<ProviderId> {
        let mut state = self.lock();
        let due = |entry: &&mut super::Entry| {
            !entry.fetching && entry.due <= now && entry.provider.status == ProviderStatus::Live
        };
        let entry = state.providers.values_mut().find(due)?;
        entry.fetching = true;
        Some(entry.provider.id)
    }

    fn earliest_due(&self) -> Option<Instant> {
        let state = self.lock();
        let waiting =
            state.providers.values().filter(|entry| !entry.fetching && entry.provider.status == ProviderStatus::Live);
        waiting.map(|entry| entry.due).min()
    }

    /// A fetch for an unknown key and one by the clock come one after the other, so that the later result stays.
    async fn refresh_in_turn(&self, id: ProviderId) {
        let Some(asking) = self.lock().providers.get(&id).map(|entry| Arc::clone(&entry.asking)) else { return };
        let _turn = asking.turn.lock().await;
        if self.have_others_fetched(id).await {
            if let Some(entry) = self.lock().providers.get_mut(&id) {
                entry.fetching = false;
            }
        } else {
            self.refresh(id).await;
        }
    }

    /// Another key-directory has kept newer keys of a provider than are known here; now they are.
    async fn have_others_fetched(&self, id: ProviderId) -> bool {
        let fetched = || self.lock().providers.get(&id).map(|entry| entry.set.fetched_ms);
        let Some(domain) = self.lock().providers.get(&id).map(|entry| entry.provider.settings.domain.clone()) else {
            return false;
        };
        let before = fetched();
        self.shared && self.reload(&domain, Due::AsFetched).await.is_ok() && fetched() != before
    }

    /// Fetches a provider's keys and keeps them; a failure leaves the last good ones until they are stale.
    async fn refresh(&self, id: ProviderId) {
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            let known = self.lock().providers.get(&id).map(|entry| (entry.provider.clone(), entry.set.fetched_ms));
            let Some((provider, before_ms)) = known else { return };
            let attempt = match self.fetch(&provider.settings).await {
                Ok(set) => self.keep(&provider, before_ms, set).await,
                Err(error) => Err(error.to_string()),
            };
            match attempt {
                Ok(Kept::Overtaken) => {}
                Ok(Kept::Done) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if let Err(error) = &outcome {
            tracing::warn!(provider = %id, error, "token keys could not be refreshed");
        }
        // After a failure sooner than the next round, but no faster than unknown keys may trigger.
        let soon = self.refresh.min(self.cooldown);
        let due = self.next_due(if outcome.is_ok() { self.refresh } else { soon });
        if let Some(entry) = self.lock().providers.get_mut(&id) {
            entry.fetching = false;
            entry.due = due;
            entry.error = outcome.err();
        }
    }

    /// In the store first, so that what is told here is there after a restart. Keys that were fetched under settings
    /// which changed meanwhile are not kept; nor are those of a fetch during which others were kept, as it may have begun
    /// before the one that those are of.
    async fn keep(&self, provider: &Provider, before_ms: u64, set: TokenKeySet) -> Result<Kept, String> {
        // So that no two key sets of a provider have the same time.
        let earliest = if self.shared { before_ms.saturating_add(1) } else { 0 };
        let set = TokenKeySet { fetched_ms: set.fetched_ms.max(earliest), ..set };
        let kept = self.store.keep_token_keys(provider.id, provider.revision, before_ms, &set).await;
        let reloaded = self.changed(&provider.settings.domain).await;
        match kept.and_then(|kept| reloaded.map(|()| kept)) {
            Ok(true) => Ok(Kept::Done),
            Ok(false) if self.of(provider.id).is_some_and(|now| now.provider.revision == provider.revision) => {
                Ok(Kept::Overtaken)
            }
            Ok(false) => Err("the settings have changed meanwhile".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A token of `issuer` names `kid`. If that key is not known, the keys are fetched, at most once in a cool-down;
    /// calls that come meanwhile wait for the same fetch. `None`: no provider has this issuer.
    pub(crate) async fn refetch(self: &Arc<Self>, issuer: &str, kid: &str) -> Option<KeysOfProvider> {
        let (id, asking) = {
            let state = self.lock();
            let entry = state.providers.values().find(|entry| entry.provider.settings.issuer == issuer)?;
            (entry.provider.id, Arc::clone(&entry.asking))
        };
        if self.wants_fetch(id, kid)
            && let Ok(_place) = asking.places.try_acquire()
        {
            let mut last = Arc::clone(&asking.turn).lock_owned().await;
            let now = Instant::now();
            let cooled_down = last.is_none_or(|last| now >= last + self.cooldown);
            if cooled_down && self.wants_fetch(id, kid) {
                // Another key-directory may know the key already.
                self.have_others_fetched(id).await;
            }
            if cooled_down && self.wants_fetch(id, kid) {
                *last = Some(now);
                let this = Arc::clone(self);
                // To its end, also when the caller gives up: what the store keeps must be told here, too.
                let fetch = tokio::spawn(async move {
                    this.refresh(id).await;
                    drop(last);
                });
                // A panic in there leaves the keys as they were.
                let _panicked = fetch.await;
            }
        }
        self.of(id)
    }

    fn wants_fetch(&self, id: ProviderId, kid: &str) -> bool {
        let state = self.lock();
        state.providers.get(&id).is_some_and(|entry| {
            let stale = self.clock.now_ms() >= entry.set.fetched_ms.saturating_add(self.stale_ms);
            entry.provider.status == ProviderStatus::Live && (stale || !entry.known.contains(kid))
        })
    }

    /// In `interval`, give or take a tenth, so that providers registered together are not asked together for ever.
    pub(super) fn next_due(&self, interval: Duration) -> Instant {
        Instant::now() + interval.mul_f64(OsRng.unwrap_err().random_range(0.9..1.1))
    }
}

/// What became of fetched keys.
enum Kept {
    Done,
    /// Others are kept that were fetched meanwhile.
    Overtaken,
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
