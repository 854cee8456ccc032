//! Who asks about traces, with no more work than it takes: whoever is not let in costs little.
//!
//! A provider's keys are parsed once, not at each call. Who has shown a good token before is counted before its signature is
//! looked at again. Tokens that nobody has shown before have a rate of their own, so that forged ones cost a bounded number
//! of signatures, and use up nobody's questions. While somebody forges more than that, a new good one may have to wait, as
//! nothing tells it from them; those that were good before do not.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use causeway_identity::token::{KeySet, traces};
use causeway_identity::{Domain, ProviderId};

use crate::directory::Directory;
use crate::limits::TooFast;
use crate::providers::ProviderStatus;

/// Good tokens of a provider that are remembered, by digest.
const GOOD: usize = 8;

/// Why somebody is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotLetIn {
    /// It is nobody's to know why.
    Refused,
    TooFast(TooFast),
}

/// Whoever may ask besides the operator.
pub(super) struct Callers {
    /// Of registered providers, which are few.
    known: Mutex<HashMap<ProviderId, Caller>>,
}

#[derive(Default)]
struct Caller {
    /// As they were published.
    jwks: String,
    keys: Arc<KeySet>,
    /// The newest last.
    good: VecDeque<[u8; 32]>,
}

impl Callers {
    pub(super) fn new() -> Self {
        Self { known: Mutex::default() }
    }

    /// The provider that has signed this token; it has asked one question more.
    pub(super) fn let_in(&self, directory: &Directory, token: &str) -> Result<Domain, NotLetIn> {
        let refused = || NotLetIn::Refused;
        // Of bounded length, and without any key.
        let issuer = traces::peek_issuer(token).map_err(|_| refused())?;
        let of = directory.token_keys.of_issuer(&issuer).ok_or_else(refused)?;
        if of.provider.status != ProviderStatus::Live {
            return Err(refused());
        }
        let provider = of.provider.id;
        let name: [u8; 32] = digest(&SHA256, token.as_bytes()).as_ref().try_into().map_err(|_| refused())?;
        let (keys, known) = self.keys(provider, of.jwks, &name);
        let limits = &directory.limits;
        let verify = || {
            let (audience, now) = (&directory.config.deployment, directory.clock.now());
            traces::verify(token, &keys, &of.provider.settings.issuer, audience, now).map_err(|_| refused())
        };
        let count = || limits.trace(provider).map_err(NotLetIn::TooFast);
        if known {
            count()?;
            // What is over, or of a key that is gone, uses up no more questions.
            verify().inspect_err(|_| self.forget(provider, &name))?;
        } else {
            // Who has a good one is to try again, and not to take it for a bad one.
            limits.strange_trace_token(provider).map_err(NotLetIn::TooFast)?;
            verify()?;
            limits.good_trace_token(provider);
            self.remember(provider, name);
            count()?;
        }
        Ok(of.provider.settings.domain)
    }

    /// The keys of a provider, and whether it has shown this token before.
    fn keys(&self, provider: ProviderId, jwks: String, token: &[u8; 32]) -> (Arc<KeySet>, bool) {
        let mut known = self.lock();
        let caller = known.entry(provider).or_default();
        if caller.jwks != jwks {
            // What cannot be read has no key.
            caller.keys = Arc::new(KeySet::from_jwks(&jwks).unwrap_or_default());
            caller.jwks = jwks;
            caller.good.clear();
        }
        (Arc::clone(&caller.keys), caller.good.contains(token))
    }

    fn remember(&self, provider: ProviderId, token: [u8; 32]) {
        let mut known = self.lock();
        let good = &mut known.entry(provider).or_default().good;
        if good.contains(&token) {
            return;
        }
        if good.len() >= GOOD {
            good.pop_front();
        }
        good.push_back(token);
    }

    fn forget(&self, provider: ProviderId, token: &[u8; 32]) {
        if let Some(caller) = self.lock().get_mut(&provider) {
            caller.good.retain(|good| good != token);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProviderId, Caller>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
