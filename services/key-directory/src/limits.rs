//! Rate limits of the directory, each per key, in memory: a restart forgives.
//!
//! Several key-directories count together by way of Redis, so that a user gets no more from two of them than from one,
//! but for what they have not told each other yet. Without Redis each counts alone: with `n` of them a user may get `n`
//! times as much. That is a brake that is weaker, and no wall that falls: what limits protect beyond that (one-time
//! prekeys are never given twice, accounts have 16 devices) is in the store.

mod limiter;
mod name;

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId, ProviderId};

use causeway_redis::counters::Shared;

use self::limiter::Limiter;
use self::name::Named;
use crate::accounts::Record;
use crate::config::DirectoryConfig;

/// All limiters of the directory.
pub(crate) struct Limits {
    enlist_address: Limiter<Address>,
    enlist_provider: Limiter<()>,
    publish: Limiter<(AccountId, DeviceId)>,
    /// Addresses, as account ids are renewed by withdrawing and enlisting again.
    settings: Limiter<Address>,
    settings_provider: Limiter<()>,
    /// Claimant and target. Of the claimant only the address, as it is what a token proves: account and device ids are
    /// renewed at will, by withdrawing or removing and enlisting again.
    claim: Limiter<(Address, AccountId)>,
    /// Targets, by the claimant's provider.
    claim_provider: Limiter<AccountId>,
    /// Targets, by their own provider.
    claim_target: Limiter<AccountId>,
    misses: Limiter<Address>,
    misses_provider: Limiter<()>,
    traces: Limiter<()>,
    /// Here alone: it is this process's time that they cost.
    strange_trace_tokens: Limiter<()>,
}

/// Too much; the time after which it may work again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFast {
    pub(crate) retry_after: Duration,
}

impl Limits {
    pub(crate) fn new(config: &DirectoryConfig) -> Self {
        let share = config.limiter_states;
        let together = config.redis.is_some();
        let limit = Plan { share, together };
        Self {
            enlist_address: limit.of("directory-enlist-address", config.enlist_burst, config.enlist_interval_ms),
            enlist_provider: Plan { share: 1, together }.of(
                "directory-enlist-provider",
                config.enlist_provider_burst,
                config.enlist_provider_interval_ms,
            ),
            publish: limit.of("directory-publish", config.publish_burst, config.publish_interval_ms),
            settings: limit.of("directory-settings", config.settings_burst, config.settings_interval_ms),
            settings_provider: Plan { share: 1, together }.of(
                "directory-settings-provider",
                config.settings_provider_burst,
                config.settings_provider_interval_ms,
            ),
            claim: limit.of("directory-claim", config.claim_burst, config.claim_interval_ms),
            claim_provider: limit.of(
                "directory-claim-provider",
                config.claim_provider_burst,
                config.claim_provider_interval_ms,
            ),
            claim_target: limit.of(
                "directory-claim-target",
                config.claim_target_burst,
                config.claim_target_interval_ms,
            ),
            misses: limit.of("directory-misses", config.miss_burst, config.miss_interval_ms),
            misses_provider: Plan { share: 1, together }.of(
                "directory-misses-provider",
                config.miss_provider_burst,
                config.miss_provider_interval_ms,
            ),
            traces: Plan { share: 1, together }.of("directory-traces", TRACES_BURST, TRACES_INTERVAL_MS),
            strange_trace_tokens: Limiter::new(STRANGE_TOKENS_BURST, STRANGE_TOKENS_INTERVAL_MS, 1),
        }
    }

    /// One question of a provider about delivery traces.
    pub(crate) fn trace(&self, provider: ProviderId) -> Result<(), TooFast> {
        self.traces.take(provider, ())
    }

    /// One trace token that names this provider and has not been found good before; it counts unless
    /// [`Self::good_trace_token`] takes it back.
    pub(crate) fn strange_trace_token(&self, provider: ProviderId) -> Result<(), TooFast> {
        self.strange_trace_tokens.reserve(provider, &())
    }

    /// It was good.
    pub(crate) fn good_trace_token(&self, provider: ProviderId) {
        self.strange_trace_tokens.give_back(provider, &());
    }

    /// What key-directories tell each other.
    pub(crate) fn to_share(&self) -> Vec<Arc<dyn Shared>> {
        let all = [
            self.enlist_address.to_share(),
            self.enlist_provider.to_share(),
            self.publish.to_share(),
            self.settings.to_share(),
            self.settings_provider.to_share(),
            self.claim.to_share(),
            self.claim_provider.to_share(),
            self.claim_target.to_share(),
            self.misses.to_share(),
            self.misses_provider.to_share(),
            self.traces.to_share(),
        ];
        all.into_iter().flatten().collect()
    }

    /// Forgets what has been told and is of no interest any more. To be called now and then.
    pub(crate) fn tidy(&self) {
        self.enlist_address.tidy();
        self.enlist_provider.tidy();
        self.publish.tidy();
        self.settings.tidy();
        self.settings_provider.tidy();
        self.claim.tidy();
        self.claim_provider.tidy();
        self.claim_target.tidy();
        self.misses.tidy();
        self.misses_provider.tidy();
        self.traces.tidy();
        self.strange_trace_tokens.tidy();
    }

    /// One enlistment. The provider counts first, so that addresses beyond its rate take no room; what the address's own
    /// limit refuses does not count against the provider, so that one user cannot use up the rate of all.
    pub(crate) fn enlist(&self, address: &Address, provider: ProviderId) -> Result<(), TooFast> {
        take_of_both(&self.enlist_provider, &self.enlist_address, provider, address)
    }

    /// One publication of prekeys by a device of this account.
    pub(crate) fn publish(&self, of: &Record, device: DeviceId) -> Result<(), TooFast> {
        self.publish.take(of.provider.id, (of.account, device))
    }

    /// One change by a device of this account to what is kept of it, counted as [`Self::enlist`] counts.
    pub(crate) fn change_settings(&self, of: &Record) -> Result<(), TooFast> {
        take_of_both(&self.settings_provider, &self.settings, of.provider.id, &of.address)
    }

    /// One claim of `to`'s bundles by a device of `from`; false: without one-time keys, because `to` has given away
    /// enough of them, to this provider or to all.
    pub(crate) fn claim(&self, from: &Record, to: &Record) -> Result<bool, TooFast> {
        self.claim.take(from.provider.id, (from.address.clone(), to.account))?;
        // No room is as good as a used-up budget: conversations start all the same.
        Ok(self.claim_provider.take(from.provider.id, to.account).is_ok()
            && self.claim_target.take(to.provider.id, to.account).is_ok())
    }

    /// One address that `from` asks about, counted as a miss until [`Self::hit`] takes it back: who has missed too often
    /// learns nothing from hits either.
    pub(crate) fn look_up(&self, from: &Record) -> Result<(), TooFast> {
        let provider = from.provider.id;
        self.misses.reserve(provider, &from.address)?;
        self.misses_provider.reserve(provider, &()).inspect_err(|_| self.misses.give_back(provider, &from.address))
    }

    /// The address that `from` asked about is not available.
    pub(crate) fn missed(&self, from: &Record) {
        self.misses.tell(from.provider.id, from.address.clone());
        self.misses_provider.tell(from.provider.id, ());
    }

    /// The address that `from` asked about is available.
    pub(crate) fn hit(&self, from: &Record) {
        self.misses.give_back(from.provider.id, &from.address);
        self.misses_provider.give_back(from.provider.id, &());
    }
}

/// Questions about delivery traces that a provider may ask at once, and then one in each interval: each looks through all
/// that the replicas of routing keep.
const TRACES_BURST: u32 = 20;
const TRACES_INTERVAL_MS: u64 = 1_000;
/// Trace tokens in the name of one provider of which the signature is verified in vain, at about 0.1 ms each: 20 ms of each
/// second. It takes as many forged ones to make a new good one wait.
const STRANGE_TOKENS_BURST: u32 = 200;
const STRANGE_TOKENS_INTERVAL_MS: u64 = 5;

/// Counts one of a provider's and one of an address's, or none of either.
fn take_of_both(
    of_provider: &Limiter<()>,
    of_address: &Limiter<Address>,
    provider: ProviderId,
    address: &Address,
) -> Result<(), TooFast> {
    of_provider.reserve(provider, &())?;
    of_address.take(provider, address.clone()).inspect_err(|_| of_provider.give_back(provider, &()))?;
    of_provider.tell(provider, ());
    Ok(())
}

/// How limiters are made.
#[derive(Clone, Copy)]
struct Plan {
    share: usize,
    together: bool,
}

impl Plan {
    fn of<K: Hash + Eq + Clone + Named>(self, kind: &'static str, burst: u32, interval_ms: u64) -> Limiter<K> {
        let limiter = Limiter::new(burst, interval_ms, self.share);
        if self.together { limiter.shared(kind, burst) } else { limiter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consent::Consent;
    use crate::providers::{ProviderKind, ProviderRef, ProviderStatus};

    fn record(account: u32, provider: u8) -> Record {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&account.to_be_bytes());
        Record {
            account: AccountId::from_bytes(id),
            address: format!("user{account}@p{provider}.example").parse().unwrap(),
            provider: ProviderRef {
                id: ProviderId::from_bytes([provider; 16]),
                domain: format!("p{provider}.example").parse().unwrap(),
                kind: ProviderKind::ThirdParty,
                status: ProviderStatus::Live,
            },
            devices: Vec::new(),
            consent: Consent::default(),
        }
    }

    /// Minutes until claims by these have taken a hundred one-time keys of one account.
    async fn minutes_to_drain(claimants: &[Record]) -> u32 {
        let (limits, target) = (Limits::new(&DirectoryConfig::default()), record(1_000_000, 9));
        let mut taken = 0;
        for minute in 0.. {
            for claimant in claimants {
                while taken < 100 && limits.claim(claimant, &target) == Ok(true) {
                    taken += 1;
                }
            }
            if taken == 100 {
                return minute;
            }
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        unreachable!("claims go on for ever")
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_keys_last_for_hours() {
        assert_eq!(minutes_to_drain(&[record(1, 1)]).await, 84 * 5, "one account");
        let many: Vec<Record> = (0..500).map(|n| record(n, 1)).collect();
        assert_eq!(minutes_to_drain(&many).await, 40 * 3, "all accounts of a provider");
    }

    #[tokio::test(start_paused = true)]
    async fn a_claimant_is_an_account_and_each_target_counts_by_itself() {
        let limits = Limits::new(&DirectoryConfig::default());
        let (from, target) = (record(1, 1), record(2, 2));
        for _ in 0..16 {
            assert_eq!(limits.claim(&from, &target), Ok(true));
        }
        assert_eq!(limits.claim(&from, &target), Err(TooFast { retry_after: Duration::from_secs(300) }));
        assert_eq!(limits.claim(&from, &record(3, 2)), Ok(true));
        assert_eq!(limits.claim(&target, &target), Ok(true), "one's own account too");
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_budgets_of_a_provider_and_of_a_target_claims_go_on_without_one_time_keys() {
        let limits = Limits::new(&DirectoryConfig::default());
        let target = record(1_000_000, 9);
        let with_keys = |provider: u8, claimants: std::ops::Range<u32>| {
            claimants.filter(|n| limits.claim(&record(*n, provider), &target).expect("answered")).count()
        };
        assert_eq!(with_keys(1, 0..100), 60);
        assert_eq!(with_keys(2, 100..200), 60, "what one provider was refused does not count for all");
        assert_eq!(with_keys(3, 200..300), 60);
        assert_eq!(with_keys(4, 300..400), 20);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(with_keys(5, 400..500), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_enlists_again_is_the_same_claimant() {
        let limits = Limits::new(&DirectoryConfig::default());
        let (mut from, target) = (record(1, 1), record(2, 2));
        for _ in 0..16 {
            limits.claim(&from, &target).unwrap();
        }
        from.account = AccountId::from_bytes([77; 16]);
        assert!(limits.claim(&from, &target).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn two_hundred_misses_an_hour_and_five_thousand_of_a_provider() {
        let limits = Limits::new(&DirectoryConfig::default());
        let walk = |from: &Record| (0..1_000).take_while(|_| limits.look_up(from).is_ok()).count();
        let ada = record(1, 1);
        for _ in 0..1_000 {
            limits.look_up(&ada).unwrap();
            limits.hit(&ada);
        }
        assert_eq!(walk(&ada), 200);
        assert_eq!(limits.look_up(&ada), Err(TooFast { retry_after: Duration::from_secs(18) }));
        assert_eq!((2..100).map(|n| walk(&record(n, 1))).sum::<usize>(), 4_800);
        assert_eq!(limits.look_up(&record(200, 1)), Err(TooFast { retry_after: Duration::from_millis(720) }));
        assert_eq!(walk(&record(1, 2)), 200, "users of another provider have a budget of their own");
        let mut passed = 0;
        for _ in 0..3_600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            passed += walk(&ada);
        }
        assert_eq!(passed, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn enlistments_count_per_provider_and_address() {
        let config = DirectoryConfig {
            enlist_provider_burst: 10,
            enlist_provider_interval_ms: 60_000,
            ..DirectoryConfig::default()
        };
        let limits = Limits::new(&config);
        let provider = ProviderId::from_bytes([1; 16]);
        let address = |n: u32| format!("user{n}@birdy.example").parse().unwrap();
        for _ in 0..6 {
            limits.enlist(&address(0), provider).unwrap();
        }
        for _ in 0..10 {
            let refused = limits.enlist(&address(0), provider).unwrap_err();
            assert_eq!(refused.retry_after, Duration::from_secs(20), "and the others' rate is not used up");
        }
        for n in 1..5 {
            limits.enlist(&address(n), provider).unwrap();
        }
        assert_eq!(limits.enlist(&address(9), provider).unwrap_err().retry_after, Duration::from_secs(60));
        assert!(limits.enlist(&address(9), ProviderId::from_bytes([2; 16])).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn settings_count_per_address_and_provider() {
        let limits = Limits::new(&DirectoryConfig { settings_provider_burst: 50, ..DirectoryConfig::default() });
        let changes = |of: &Record| (0..1_000).take_while(|_| limits.change_settings(of).is_ok()).count();
        let mut ada = record(1, 1);
        assert_eq!(changes(&ada), 20);
        assert_eq!(limits.change_settings(&ada), Err(TooFast { retry_after: Duration::from_secs(1) }));
        ada.account = AccountId::from_bytes([77; 16]);
        assert_eq!(changes(&ada), 0, "who enlists again is the same");
        assert_eq!([2, 3].map(|user| changes(&record(user, 1))), [20, 10], "what was refused is not used up");
        let refused = limits.change_settings(&record(4, 1)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(20));
        assert_eq!(changes(&record(5, 2)), 20, "users of another provider do not wait");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([changes(&ada), changes(&record(4, 1))], [1, 20]);
    }
}
