//! Who may send how much: rates per account and per provider, and the memory that waiting messages may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use causeway_identity::{AccountId, Domain};
use causeway_redis::counters::Rates;

use crate::config::RoutingConfig;
use crate::message::Sender;
use crate::shared_counters;

/// Rates of senders, which replicas share if there is a Redis. What is idle is forgotten by [`Limits::tidy`], so that the
/// maps hold recent senders only.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) accounts: Arc<Rates<AccountId>>,
    pub(crate) providers: Arc<Rates<Domain>>,
}

impl Limits {
    pub(crate) fn new(config: &RoutingConfig) -> Self {
        let (account, provider) = (shared_counters::account, shared_counters::provider);
        let accounts = Rates::per_second("sent-account", config.account_per_s, config.account_burst, account);
        let providers = Rates::per_second("sent-provider", config.provider_per_s, config.provider_burst, provider);
        Self { accounts: Arc::new(accounts), providers: Arc::new(providers) }
    }

    /// Counts a message of `sender`; an error is how many milliseconds to wait.
    pub(crate) fn count(&self, sender: &Sender) -> Result<(), u64> {
        self.accounts.take(&sender.account, 1).map_err(shared_counters::milliseconds)?;
        self.providers.take(&sender.provider, 1).map_err(shared_counters::milliseconds)
    }

    /// Forgets senders whose allowance is full again.
    pub(crate) fn tidy(&self) {
        self.accounts.tidy();
        self.providers.tidy();
    }
}

/// A number of bytes that may be in use at a time.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    /// Takes `bytes` until the charge is dropped; `None` when there is no room.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.limit)
            })
            .ok()?;
        Some(Charge { budget: Arc::clone(self), bytes })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }
}

/// Bytes of a [`Budget`] in use.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use causeway_identity::DeviceId;

    use super::*;

    fn sender(account: u8, provider: &str) -> Sender {
        Sender {
            account: AccountId::from_bytes([account; 16]),
            device: DeviceId::new(1).unwrap(),
            address: format!("u{account}@{provider}").parse().unwrap(),
            provider: provider.parse().unwrap(),
        }
    }

    #[test]
    fn an_account_and_its_provider_have_a_rate_each() {
        let config = RoutingConfig {
            account_per_s: 1,
            account_burst: 2,
            provider_per_s: 1,
            provider_burst: 3,
            ..RoutingConfig::default()
        };
        let limits = Limits::new(&config);
        let (ada, bo, eve) = (sender(1, "birdy.example"), sender(2, "birdy.example"), sender(3, "other.example"));
        assert!(limits.count(&ada).is_ok() && limits.count(&ada).is_ok());
        let wait = limits.count(&ada).unwrap_err();
        assert!((1..=1_001).contains(&wait), "{wait}");
        assert!(limits.count(&bo).is_ok(), "another account of the provider");
        assert!(limits.count(&bo).is_err(), "the provider's burst is used up");
        assert!(limits.count(&eve).is_ok(), "another provider is not touched");
        limits.tidy();
        assert!(limits.count(&ada).is_err(), "tidying forgets idle senders only");
    }

    #[test]
    fn a_budget_is_given_back() {
        let budget = Budget::new(10);
        let first = budget.charge(6).unwrap();
        assert!(budget.charge(5).is_none());
        let second = budget.charge(4).unwrap();
        drop(first);
        assert_eq!(budget.used(), 4);
        drop(second);
        assert_eq!(budget.used(), 0);
    }
}
