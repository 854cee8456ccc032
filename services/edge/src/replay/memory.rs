//! The tokens that this edge has accepted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use causeway_identity::{DeviceId, NoiseKey, ProviderId};
use causeway_redis::Health;
use tokio::sync::watch;

use super::{KEEP_AFTER_EXPIRY_S, SpendError, Spending, SpentTokens};

/// The tokens that this edge has accepted.
#[derive(Debug)]
pub(super) struct MemoryTokens {
    most: usize,
    most_per_provider: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    providers: HashMap<ProviderId, HashMap<Box<str>, Spent>>,
    by_expiry: BTreeMap<u64, Vec<(ProviderId, Box<str>)>>,
    count: usize,
}

#[derive(Debug)]
struct Spent {
    key: NoiseKey,
    device: Option<DeviceId>,
    burnt: bool,
}

/// What an edge knows of a token by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It was spent otherwise, or is burnt.
    Refused,
    /// It was spent by the same device with the same key.
    Spent,
    /// It was spent with the same key, before there was a device.
    Fits,
    /// It was not spent here.
    Nothing,
    /// It was not spent here, and there is no room for one more.
    Full,
}

impl MemoryTokens {
    /// Remembers so many tokens, and so many of each provider.
    pub(super) fn new(most: usize, most_per_provider: usize) -> Self {
        Self { most, most_per_provider, state: Mutex::default() }
    }

    /// What is known of the token.
    pub(super) fn known(&self, what: &Spending<'_>, now_s: u64) -> Known {
        let mut state = self.state();
        state.forget_expired(now_s);
        match state.find(what) {
            Some(spent) if !spent.allows(what) => Known::Refused,
            Some(spent) if spent.device == what.device => Known::Spent,
            Some(_) => Known::Fits,
            None if self.has_room(&state, what.provider) => Known::Nothing,
            None => Known::Full,
        }
    }

    /// Remembers that the token was spent so.
    pub(super) fn remember(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError> {
        let mut state = self.state();
        state.forget_expired(now_s);
        if let Some(spent) = state.find_mut(what) {
            if !spent.allows(what) {
                return Err(SpendError::Replayed);
            }
            spent.device = what.device;
            return Ok(());
        }
        if !self.has_room(&state, what.provider) {
            return Err(SpendError::Full);
        }
        let spent = Spent { key: what.key, device: what.device, burnt: false };
        state.providers.entry(what.provider).or_default().insert(what.jti.into(), spent);
        state.by_expiry.entry(what.expires_s).or_default().push((what.provider, what.jti.into()));
        state.count += 1;
        Ok(())
    }

    /// A token that is not known stays so.
    pub(super) fn forbid(&self, provider: ProviderId, jti: &str) {
        if let Some(spent) = self.state().providers.get_mut(&provider).and_then(|tokens| tokens.get_mut(jti)) {
            spent.burnt = true;
        }
    }

    fn has_room(&self, state: &State, provider: ProviderId) -> bool {
        let of_provider = state.providers.get(&provider).map_or(0, HashMap::len);
        state.count < self.most && of_provider < self.most_per_provider
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SpentTokens for MemoryTokens {
    async fn check(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError> {
        match self.known(what, now_s) {
            Known::Refused => Err(SpendError::Replayed),
            Known::Spent | Known::Fits | Known::Nothing | Known::Full => Ok(()),
        }
    }

    async fn spend(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError> {
        self.remember(what, now_s)
    }

    fn burn(&self, provider: ProviderId, jti: &str, _expires_s: u64, _now_s: u64) {
        self.forbid(provider, jti);
    }

    fn health(&self) -> Option<watch::Receiver<Health>> {
        None
    }
}

impl Spent {
    /// A client enlists with a token and comes back as a device with the same one; every other change of roles is a
    /// replay. In particular a removed device cannot enlist anew with the token that it used as a device.
    fn allows(&self, what: &Spending<'_>) -> bool {
        !self.burnt && self.key == what.key && (self.device.is_none() || self.device == what.device)
    }
}

impl State {
    fn find(&self, what: &Spending<'_>) -> Option<&Spent> {
        self.providers.get(&what.provider)?.get(what.jti)
    }

    fn find_mut(&mut self, what: &Spending<'_>) -> Option<&mut Spent> {
        self.providers.get_mut(&what.provider)?.get_mut(what.jti)
    }

    fn forget_expired(&mut self, now_s: u64) {
        while let Some(first) = self.by_expiry.first_entry() {
            if first.key().saturating_add(KEEP_AFTER_EXPIRY_S) >= now_s {
                return;
            }
            for (provider, jti) in first.remove() {
                let Some(tokens) = self.providers.get_mut(&provider) else { continue };
                if tokens.remove(&jti).is_some() {
                    self.count -= 1;
                }
                if tokens.is_empty() {
                    self.providers.remove(&provider);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::{self, NOW_S, spending};
    use super::*;

    #[tokio::test]
    async fn keeps_to_the_suite() {
        suite::run(|| MemoryTokens::new(10, 10)).await;
    }

    #[tokio::test]
    async fn memory_is_bounded_and_full_means_closed_until_something_expires() {
        let spent = MemoryTokens::new(3, 2);
        assert_eq!(spent.spend(&spending("a"), NOW_S).await, Ok(()));
        assert_eq!(spent.spend(&spending("b"), NOW_S).await, Ok(()));
        assert_eq!(spent.spend(&spending("c"), NOW_S).await, Err(SpendError::Full), "one provider's share");
        let other = |jti| Spending { provider: ProviderId::from_bytes([2; 16]), ..spending(jti) };
        assert_eq!(spent.spend(&other("a"), NOW_S).await, Ok(()));
        assert_eq!(spent.spend(&other("b"), NOW_S).await, Err(SpendError::Full), "the whole");
        assert_eq!(spent.spend(&spending("a"), NOW_S).await, Ok(()), "what is known goes on");
        let later = NOW_S + 60 + KEEP_AFTER_EXPIRY_S;
        assert_eq!(spent.spend(&other("b"), later).await, Err(SpendError::Full), "kept while the skew may accept it");
        assert_eq!(spent.spend(&other("b"), later + 1).await, Ok(()));
        assert_eq!(spent.state().count, 1);
        assert_eq!(spent.state().providers.len(), 1);
    }
}
