//! Spent tokens. A `jti` may come again until it expires, but only over the Noise key that it was spent with, and for the
//! device that it was spent for (docs/protocol.md, section 4). Bounded, and closed when full.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use causeway_identity::{DeviceId, NoiseKey, ProviderId};

/// Entries outlive their token by the allowed clock skew and a little more.
const KEEP_AFTER_EXPIRY_S: u64 = 120;

/// Why a token cannot be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpendError {
    /// Its `jti` was spent with another key, for another device, or by a device that was removed since.
    Replayed,
    /// Too many unexpired tokens are remembered already.
    Full,
}

/// What was spent, by whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spending<'a> {
    pub(crate) provider: ProviderId,
    pub(crate) jti: &'a str,
    /// Unix seconds.
    pub(crate) expires_s: u64,
    pub(crate) key: NoiseKey,
    /// `None` for a session that is not enlisted.
    pub(crate) device: Option<DeviceId>,
}

/// The tokens that this edge has accepted.
#[derive(Debug)]
pub(crate) struct SpentTokens {
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

impl SpentTokens {
    pub(crate) fn new(most: usize, most_per_provider: usize) -> Self {
        Self { most, most_per_provider, state: Mutex::default() }
    }

    /// Whether the token could be spent, without spending it.
    pub(crate) fn check(&self, what: &Spending<'_>) -> Result<(), SpendError> {
        match self.state().find(what) {
            Some(spent) if !spent.allows(what) => Err(SpendError::Replayed),
            _ => Ok(()),
        }
    }

    /// Spends the token. To spend it again for the same is no error.
    pub(crate) fn spend(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError> {
        let mut state = self.state();
        state.forget_expired(now_s);
        if let Some(spent) = state.find_mut(what) {
            if !spent.allows(what) {
                return Err(SpendError::Replayed);
            }
            spent.device = what.device;
            return Ok(());
        }
        let of_provider = state.providers.get(&what.provider).map_or(0, HashMap::len);
        if state.count >= self.most || of_provider >= self.most_per_provider {
            return Err(SpendError::Full);
        }
        let spent = Spent { key: what.key, device: what.device, burnt: false };
        state.providers.entry(what.provider).or_default().insert(what.jti.into(), spent);
        state.by_expiry.entry(what.expires_s).or_default().push((what.provider, what.jti.into()));
        state.count += 1;
        Ok(())
    }

    /// The device was removed, or its account withdrawn: the token opens nothing any more.
    pub(crate) fn burn(&self, provider: ProviderId, jti: &str) {
        if let Some(spent) = self.state().providers.get_mut(&provider).and_then(|tokens| tokens.get_mut(jti)) {
            spent.burnt = true;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn key(first: u8) -> NoiseKey {
        let mut bytes = [7; 32];
        bytes[0] = first;
        NoiseKey::new(bytes).unwrap()
    }

    fn spending(jti: &str) -> Spending<'_> {
        Spending {
            provider: ProviderId::from_bytes([1; 16]),
            jti,
            expires_s: NOW_S + 60,
            key: key(1),
            device: DeviceId::new(1).ok(),
        }
    }

    #[test]
    fn the_same_device_comes_back_with_its_token_and_nobody_else() {
        let spent = SpentTokens::new(10, 10);
        let own = spending("a");
        assert_eq!(spent.check(&own), Ok(()));
        assert_eq!(spent.spend(&own, NOW_S), Ok(()));
        assert_eq!(spent.spend(&own, NOW_S), Ok(()));
        let other_key = Spending { key: key(2), ..own };
        assert_eq!(spent.check(&other_key), Err(SpendError::Replayed));
        assert_eq!(spent.spend(&other_key, NOW_S), Err(SpendError::Replayed));
        let other_device = Spending { device: DeviceId::new(2).ok(), ..own };
        assert_eq!(spent.spend(&other_device, NOW_S), Err(SpendError::Replayed));
        let other_provider = Spending { provider: ProviderId::from_bytes([2; 16]), ..other_key };
        assert_eq!(spent.spend(&other_provider, NOW_S), Ok(()));
    }

    #[test]
    fn a_client_enlists_and_returns_but_does_not_enlist_again_once_it_was_a_device() {
        let spent = SpentTokens::new(10, 10);
        let fresh = Spending { device: None, ..spending("a") };
        let device = spending("a");
        assert_eq!(spent.spend(&fresh, NOW_S), Ok(()));
        assert_eq!(spent.spend(&fresh, NOW_S), Ok(()), "its answer was lost");
        assert_eq!(spent.spend(&device, NOW_S), Ok(()));
        assert_eq!(spent.spend(&fresh, NOW_S), Err(SpendError::Replayed));
    }

    #[test]
    fn a_burnt_token_opens_nothing() {
        let spent = SpentTokens::new(10, 10);
        spent.spend(&spending("a"), NOW_S).unwrap();
        spent.burn(spending("a").provider, "a");
        assert_eq!(spent.check(&spending("a")), Err(SpendError::Replayed));
        assert_eq!(spent.spend(&spending("a"), NOW_S), Err(SpendError::Replayed));
    }

    #[test]
    fn memory_is_bounded_and_full_means_closed_until_something_expires() {
        let spent = SpentTokens::new(3, 2);
        assert_eq!(spent.spend(&spending("a"), NOW_S), Ok(()));
        assert_eq!(spent.spend(&spending("b"), NOW_S), Ok(()));
        assert_eq!(spent.spend(&spending("c"), NOW_S), Err(SpendError::Full), "one provider's share");
        let other = |jti| Spending { provider: ProviderId::from_bytes([2; 16]), ..spending(jti) };
        assert_eq!(spent.spend(&other("a"), NOW_S), Ok(()));
        assert_eq!(spent.spend(&other("b"), NOW_S), Err(SpendError::Full), "the whole");
        assert_eq!(spent.spend(&spending("a"), NOW_S), Ok(()), "what is known goes on");
        let later = NOW_S + 60 + KEEP_AFTER_EXPIRY_S;
        assert_eq!(spent.spend(&other("b"), later), Err(SpendError::Full), "kept while the skew may accept it");
        assert_eq!(spent.spend(&other("b"), later + 1), Ok(()));
        assert_eq!(spent.state().count, 1);
        assert_eq!(spent.state().providers.len(), 1);
    }
}
