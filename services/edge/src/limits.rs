//! Who may connect, and how much memory unread messages may take. Permits are taken before anything is spent on a peer.
//!
//! All of it is of one process: with several edges, an address or a provider has these bounds at each of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use causeway_identity::{Address, ProviderId};
pub(crate) use causeway_runtime::budget::{Budget, Charge};
use tokio::time::Instant;

use crate::arrivals::Arrivals;
use crate::config::EdgeConfig;

/// Files that connections must leave to everything else.
const RESERVED_FILES: usize = 256;

/// How many files this process may have open, where the system tells.
pub(crate) fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    soft_open_files(&limits)
}

fn soft_open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Counts connections in total and by network, and sessions that are nobody's device yet.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: Bound,
    half_open: Bound,
    newcomers: Bound,
    newcomers_per_provider: usize,
    counts: Mutex<Counts>,
}

/// How many in all, and how many of one kind.
#[derive(Debug)]
struct Bound {
    total: usize,
    of_one: usize,
}

#[derive(Debug)]
struct Counts {
    arrivals: Arrivals<Network>,
    connections: Count<Network>,
    half_open: Count<Network>,
    newcomers: Count<Address>,
    newcomers_by_provider: Count<ProviderId>,
}

/// What is not there has no entry, so the map is bounded by the total.
#[derive(Debug)]
struct Count<K> {
    total: usize,
    by_kind: HashMap<K, usize>,
}

impl<K> Default for Count<K> {
    fn default() -> Self {
        Self { total: 0, by_kind: HashMap::new() }
    }
}

/// An IPv4 /24 or an IPv6 /64: about one household or one small site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4([u8; 3]),
    V6([u8; 8]),
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl Bound {
    fn allows<K: Eq + Hash>(&self, count: &Count<K>, kind: &K) -> bool {
        count.total < self.total && count.of(kind) < self.of_one
    }
}

impl<K: Eq + Hash> Count<K> {
    fn of(&self, kind: &K) -> usize {
        self.by_kind.get(kind).copied().unwrap_or(0)
    }

    fn add(&mut self, kind: K) {
        self.total += 1;
        *self.by_kind.entry(kind).or_default() += 1;
    }

    fn remove(&mut self, kind: &K) {
        self.total = self.total.saturating_sub(1);
        if let Some(count) = self.by_kind.get_mut(kind) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_kind.remove(kind);
            }
        }
    }
}

impl Admission {
    /// `open_files` is how many files the process may have open, if that is known: a reserve of them is for links to
    /// other services, stores and logs.
    pub(crate) fn new(config: &EdgeConfig, open_files: Option<usize>) -> Arc<Self> {
        let most = open_files.map_or(usize::MAX, |files| files.saturating_sub(RESERVED_FILES).max(files / 2));
        if config.max_connections > most {
            say_too_many(config.max_connections, most);
        }
        Arc::new(Self {
            connections: Bound { total: config.max_connections.min(most), of_one: config.max_connections_per_network },
            half_open: Bound { total: config.max_half_open, of_one: config.max_half_open_per_network },
            newcomers: Bound { total: config.max_newcomers, of_one: config.max_newcomers_per_user },
            newcomers_per_provider: config.max_newcomers_per_provider,
            counts: Mutex::new(Counts {
                arrivals: Arrivals::new(config, Instant::now()),
                connections: Count::default(),
                half_open: Count::default(),
                newcomers: Count::default(),
                newcomers_by_provider: Count::default(),
            }),
        })
    }

    /// Room for one more connection that has not logged in; `None` when a bound is reached, or when too many come at
    /// once.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Option<Permit> {
        let network = Network::of(peer);
        let mut counts = self.counts();
        if !self.connections.allows(&counts.connections, &network)
            || !self.half_open.allows(&counts.half_open, &network)
            || !counts.arrivals.enter(network, now)
        {
            return None;
        }
        counts.connections.add(network);
        counts.half_open.add(network);
        drop(counts);
        Some(Permit { admission: Arc::clone(self), network, half_open: true })
    }

    /// In how many seconds a connection should come back that finds no room now; longer for each that is told.
    pub(crate) fn book(&self, now: Instant) -> u16 {
        let wait = self.counts().arrivals.book(now);
        u16::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u16::MAX)
    }

    /// Room for one more session that is not enlisted; `None` when a bound is reached. Unlike devices, which have one
    /// session each, such sessions could be opened without end with a single token.
    pub(crate) fn newcomer(self: &Arc<Self>, user: &Address, provider: ProviderId) -> Option<Newcomer> {
        let mut counts = self.counts();
        if !self.newcomers.allows(&counts.newcomers, user)
            || counts.newcomers_by_provider.of(&provider) >= self.newcomers_per_provider
        {
            return None;
        }
        counts.newcomers.add(user.clone());
        counts.newcomers_by_provider.add(provider);
        drop(counts);
        Some(Newcomer { admission: Arc::clone(self), user: user.clone(), provider })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing between lock and unlock can panic half-way; counts stay right.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who chose the number should know that it does not hold; the default is no promise.
fn say_too_many(max_connections: usize, most: usize) {
    const WHAT: &str =
        "edge.max_connections is more than the limit of open files allows: raise it (ulimit -n), or lower the setting";
    if max_connections == EdgeConfig::default().max_connections {
        tracing::info!(max_connections, most, "{WHAT}");
    } else {
        tracing::warn!(max_connections, most, "{WHAT}");
    }
}

/// One admitted connection; gives its place back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    network: Network,
    half_open: bool,
}

impl Permit {
    /// The connection has logged in, and counts as half-open no more.
    pub(crate) fn logged_in(&mut self) {
        if std::mem::replace(&mut self.half_open, false) {
            self.admission.counts().half_open.remove(&self.network);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.logged_in();
        self.admission.counts().connections.remove(&self.network);
    }
}

/// One session that is not enlisted; gives its place back when dropped.
#[derive(Debug)]
pub(crate) struct Newcomer {
    admission: Arc<Admission>,
    user: Address,
    provider: ProviderId,
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.newcomers.remove(&self.user);
        counts.newcomers_by_provider.remove(&self.provider);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::Log;

    fn admission(connections: usize, half_open: usize, per_network: usize) -> Arc<Admission> {
        let config = EdgeConfig {
            max_connections: connections,
            max_half_open: half_open,
            max_half_open_per_network: per_network,
            ..EdgeConfig::default()
        };
        Admission::new(&config, None)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn half_open_connections_are_bounded_in_total_and_by_network() {
        let admission = admission(10, 3, 2);
        let mut first = admission.enter(ip("192.0.2.1"), Instant::now()).unwrap();
        let second = admission.enter(ip("::ffff:192.0.2.200"), Instant::now()).unwrap();
        assert!(
            admission.enter(ip("192.0.2.3"), Instant::now()).is_none(),
            "the network is full, mapped addresses included"
        );
        let third = admission.enter(ip("192.0.3.1"), Instant::now()).unwrap();
        assert!(admission.enter(ip("198.51.100.1"), Instant::now()).is_none(), "the total is full");
        first.logged_in();
        first.logged_in();
        let fourth = admission.enter(ip("192.0.2.3"), Instant::now()).unwrap();
        drop((first, second, third, fourth));
        let counts = admission.counts();
        assert_eq!((counts.connections.total, counts.half_open.total), (0, 0));
        assert!(counts.connections.by_kind.is_empty() && counts.half_open.by_kind.is_empty());
    }

    #[test]
    fn connections_are_bounded_even_when_logged_in() {
        let admission = admission(1, 10, 10);
        let mut only = admission.enter(ip("2001:db8::1"), Instant::now()).unwrap();
        only.logged_in();
        assert!(admission.enter(ip("2001:db8:0:0:1::1"), Instant::now()).is_none());
        drop(only);
        assert!(admission.enter(ip("2001:db8::2"), Instant::now()).is_some());
    }

    #[test]
    fn one_network_does_not_get_all_connections() {
        let config = EdgeConfig::default();
        let admission = Admission::new(&config, None);
        let mut inside = Vec::new();
        // More slowly than handshakes may begin.
        let mut now = Instant::now();
        let enter = |peer: &str, now: Instant| {
            let mut permit = admission.enter(ip(peer), now)?;
            permit.logged_in();
            Some(permit)
        };
        while let Some(permit) = enter("192.0.2.1", now) {
            inside.push(permit);
            now += Duration::from_millis(2);
        }
        assert_eq!(inside.len(), config.max_connections / 10);
        assert!(enter("192.0.2.255", now).is_none());
        assert!(enter("192.0.3.1", now).is_some());
    }

    #[test]
    fn connections_leave_a_reserve_of_open_files() {
        let table = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files";
        assert_eq!(soft_open_files(table), Some(1024));
        assert_eq!(soft_open_files("Max open files  unlimited unlimited files"), None);
        let of = |files| Admission::new(&EdgeConfig::default(), files).connections.total;
        assert_eq!((of(Some(1_024)), of(Some(100)), of(Some(1 << 20)), of(None)), (768, 50, 20_000, 20_000));
    }

    #[test]
    fn a_chosen_number_that_does_not_hold_is_warned_of() {
        let default = EdgeConfig::default().max_connections;
        for (max_connections, lines) in [(default, &["INFO"][..]), (default + 1, &["WARN"]), (500, &[])] {
            let (log, _listening) = Log::listen();
            Admission::new(&EdgeConfig { max_connections, ..EdgeConfig::default() }, Some(1_024));
            assert_eq!(log.lines().len(), lines.len());
            assert!(lines.iter().all(|level| log.count(&[level, "edge.max_connections"]) == 1));
        }
    }

    #[test]
    fn newcomers_are_bounded_by_user_by_provider_and_in_all() {
        let config = EdgeConfig {
            max_newcomers: 4,
            max_newcomers_per_provider: 3,
            max_newcomers_per_user: 2,
            ..EdgeConfig::default()
        };
        let admission = Admission::new(&config, None);
        let enter = |user: &str, provider| {
            let user: Address = format!("{user}@birdy.example").parse().unwrap();
            admission.newcomer(&user, ProviderId::from_bytes([provider; 16]))
        };
        let mut inside = vec![enter("ada", 1).unwrap(), enter("ada", 1).unwrap()];
        assert!(enter("ada", 1).is_none());
        inside.push(enter("eve", 1).unwrap());
        assert!(enter("joe", 1).is_none());
        inside.push(enter("bo", 2).unwrap());
        assert!(enter("cy", 3).is_none());
        inside.clear();
        let counts = admission.counts();
        assert!(counts.newcomers.by_kind.is_empty() && counts.newcomers_by_provider.by_kind.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_a_64() {
        assert_eq!(Network::of(ip("2001:db8::1")), Network::of(ip("2001:db8::ffff:1")));
        assert_ne!(Network::of(ip("2001:db8::1")), Network::of(ip("2001:db8:0:1::1")));
    }

    #[test]
    fn a_budget_is_given_back() {
        let budget = Budget::new(10);
        let first = budget.charge(6).unwrap();
        assert!(budget.charge(5).is_none());
        assert!(budget.charge(usize::MAX).is_none());
        let second = budget.charge(4).unwrap();
        assert_eq!(budget.held(), 10);
        drop((first, second));
        assert_eq!(budget.held(), 0);
    }
}
