//! Who may send how much: rates per account and per provider, and the memory that waiting messages may take.

pub(crate) use causeway_runtime::budget::{Budget, Charge};

use crate::config::RoutingConfig;
use crate::message::Sender;
use crate::shared_counters::{self, Rate, SenderRates};

/// What senders have sent.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) sent: SenderRates,
}

impl Limits {
    pub(crate) fn new(config: &RoutingConfig) -> Self {
        let account = Rate::each_second("sent-account", config.account_per_s, config.account_burst);
        let provider = Rate::each_second("sent-provider", config.provider_per_s, config.provider_burst);
        Self { sent: SenderRates::new(&account, &provider) }
    }

    /// Counts a message of `sender`; an error is how many milliseconds to wait.
    pub(crate) fn count(&self, sender: &Sender) -> Result<(), u64> {
        self.sent.accounts.take(&sender.account, 1).map_err(shared_counters::milliseconds)?;
        self.sent.providers.take(&sender.provider, 1).map_err(shared_counters::milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_counters::sender;

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
        limits.sent.tidy();
        assert!(limits.count(&ada).is_err(), "tidying forgets idle senders only");
    }
}
