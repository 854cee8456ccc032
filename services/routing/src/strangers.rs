//! How many refusals a sender may collect: an account or a provider that asks for many addresses which are not
//! available may ask for no more strangers for a while.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use causeway_identity::{AccountId, Address};
use moka::sync::Cache;
use tokio::time::Instant;

use crate::config::RoutingConfig;
use crate::keyed::Keyed;
use crate::message::Sender;
use crate::shared_counters::{self, Rate, SenderRates};

/// Pairs of sender and recipient that are known to have exchanged something; the least used are forgotten.
const MAX_FAMILIAR: u64 = 200_000;

/// Refusals of senders, and whom they have reached.
#[derive(Debug)]
pub(crate) struct Strangers {
    pub(crate) refused: SenderRates,
    /// The address is hashed with a secret: two of them are as good as never the same.
    familiar: Cache<(AccountId, u64), (), Keyed>,
    hasher: Keyed,
    began: Instant,
}

impl Strangers {
    pub(crate) fn new(config: &RoutingConfig) -> Self {
        let account = each_hour("refused-account", config.account_refusals_per_hour, config.account_refusal_burst);
        let provider = each_hour("refused-provider", config.provider_refusals_per_hour, config.provider_refusal_burst);
        Self {
            refused: SenderRates::new(&account, &provider),
            familiar: Cache::builder().max_capacity(MAX_FAMILIAR).build_with_hasher(Keyed::default()),
            hasher: Keyed::default(),
            began: Instant::now(),
        }
    }

    /// The sender has reached this address; later messages to it are always looked at. What a session has reached last is
    /// noted in `last`, and told again only after a while, so that it is not the least used of all.
    pub(crate) fn reached(&self, sender: &Sender, address: &Address, last: &Last, now: Instant) {
        let period = now.saturating_duration_since(self.began).as_secs() / TOLD_AGAIN_S;
        let reached = self.hasher.hash_one((period, address));
        if last.0.swap(reached, Ordering::Relaxed) == reached {
            return;
        }
        let pair = self.pair(sender, address);
        if self.familiar.get(&pair).is_none() {
            self.familiar.insert(pair, ());
        }
    }

    /// May the sender learn anything about this address? An error is how many milliseconds to wait.
    pub(crate) fn may_ask(&self, sender: &Sender, address: &Address) -> Result<(), u64> {
        let closed = self.refused.accounts.closed(&sender.account).max(self.refused.providers.closed(&sender.provider));
        match closed {
            Some(_) if sender.address == *address || self.familiar.get(&self.pair(sender, address)).is_some() => Ok(()),
            Some(wait) => Err(shared_counters::milliseconds(wait)),
            None => Ok(()),
        }
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, sender: &Sender) {
        // The account only within what its provider has: so the provider's bounds this map too.
        if self.refused.providers.take(&sender.provider, 1).is_ok() {
            let _used_up = self.refused.accounts.take(&sender.account, 1);
        }
    }

    fn pair(&self, sender: &Sender, address: &Address) -> (AccountId, u64) {
        (sender.account, self.hasher.hash_one(address))
    }
}

/// Whom a session has reached last: a number that stands for the address.
#[derive(Debug, Default)]
pub(crate) struct Last(AtomicU64);

/// Seconds after which the same is told again.
const TOLD_AGAIN_S: u64 = 16;

const fn each_hour(kind: &'static str, count: u32, burst: u32) -> Rate {
    Rate { kind, count, time: HOUR, burst }
}

const HOUR: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_counters::sender;

    #[tokio::test(start_paused = true)]
    async fn an_account_and_its_provider_may_collect_so_many_refusals() {
        let config = RoutingConfig {
            account_refusals_per_hour: 60,
            account_refusal_burst: 2,
            provider_refusals_per_hour: 3_600,
            provider_refusal_burst: 3,
            ..RoutingConfig::default()
        };
        let strangers = Strangers::new(&config);
        let (ada, bo, eve) = (sender(1, "birdy.example"), sender(2, "birdy.example"), sender(3, "other.example"));
        let (friend, stranger) = ("friend@home.example".parse().unwrap(), "stranger@home.example".parse().unwrap());
        strangers.reached(&ada, &friend, &Last::default(), Instant::now());
        strangers.refused(&ada);
        assert!(strangers.may_ask(&ada, &stranger).is_ok());
        strangers.refused(&ada);
        assert_eq!(strangers.may_ask(&ada, &stranger), Err(60_001));
        assert!(strangers.may_ask(&ada, &friend).is_ok(), "it has been reached");
        assert!(strangers.may_ask(&ada, &ada.address).is_ok(), "own devices");
        assert!(strangers.may_ask(&bo, &stranger).is_ok(), "another account");
        strangers.refused(&bo);
        assert_eq!(strangers.may_ask(&bo, &stranger), Err(1_001), "the provider's are used up");
        assert!(strangers.may_ask(&eve, &stranger).is_ok(), "another provider");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(strangers.may_ask(&bo, &stranger).is_ok());
        strangers.refused.tidy();
        assert!(strangers.may_ask(&ada, &stranger).is_err(), "tidying forgets only who is idle");
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(strangers.may_ask(&ada, &stranger).is_ok());
        strangers.refused(&ada);
        assert!(strangers.may_ask(&ada, &stranger).is_err(), "one an interval from then on");
        tokio::time::advance(Duration::from_secs(120)).await;
        strangers.refused.tidy();
        assert!(strangers.refused.accounts.is_empty() && strangers.refused.providers.is_empty());
    }
}
