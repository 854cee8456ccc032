//! How fast connections are let in, and when those come back that are not. After a failure every client reconnects at
//! once; what each handshake costs is spent at one rate all the same, and whoever is turned away is told a time of its own:
//! behind everybody who was turned away before.
//!
//! All of it is of one process. Several edges each let in their own rate.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::EdgeConfig;
use crate::session::Pace;

/// Those who were told to come back get this share of the rate, the others the rest.
const BOOKED_SHARE: f64 = 0.75;
/// Nobody is told to wait longer; behind it, the times begin anew.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// At so many networks those are forgotten that have their whole burst again. Others are fewer than a second lets in.
const SWEEP_AT: usize = 4_096;

/// Rates of handshakes, in all and for each kind `K` of client.
#[derive(Debug)]
pub struct Arrivals<K> {
    all: Pace,
    of_one: (u32, u32),
    by_kind: HashMap<K, Pace>,
    least_wait: Duration,
    /// What one of those takes who were told to come back.
    unit: Duration,
    /// Up to when the rate is promised to them.
    booked: Instant,
}

impl<K: Eq + Hash> Arrivals<K> {
    /// By the rates and bursts of `config`.
    pub fn new(config: &EdgeConfig, now: Instant) -> Self {
        let (rate, burst) = (config.handshakes_per_s, config.handshake_burst);
        let of_one = config.handshakes_per_s_per_network.min(rate);
        // A network has the same share of the burst as of the rate.
        let burst_of_one = u64::from(burst) * u64::from(of_one) / u64::from(rate.max(1));
        Self {
            all: Pace::new(rate, burst, now),
            of_one: (of_one, u32::try_from(burst_of_one).unwrap_or(burst).max(1)),
            by_kind: HashMap::new(),
            least_wait: Duration::from_millis(config.overload_retry_ms),
            unit: Duration::from_secs_f64(1.0 / (f64::from(rate.max(1)) * BOOKED_SHARE)),
            booked: now,
        }
    }

    /// Lets one in, if the rates allow it.
    pub fn enter(&mut self, kind: K, now: Instant) -> bool {
        if self.by_kind.len() >= SWEEP_AT {
            self.by_kind.retain(|_, pace| !pace.has_whole_burst(now));
        }
        let (rate, burst) = self.of_one;
        if self.all.ready_at() > now || self.by_kind.get(&kind).is_some_and(|pace| pace.ready_at() > now) {
            return false;
        }
        self.all.take(1, now);
        self.by_kind.entry(kind).or_insert_with(|| Pace::new(rate, burst, now)).take(1, now);
        true
    }

    /// When somebody who is turned away now should come back.
    pub fn book(&mut self, now: Instant) -> Duration {
        self.booked = self.booked.max(now) + self.unit;
        if self.booked > now + LONGEST_WAIT {
            self.booked = now + self.unit;
        }
        (self.booked - now).max(self.least_wait)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn arrivals(now: Instant) -> Arrivals<u8> {
        let config = EdgeConfig { handshakes_per_s: 1_000, handshake_burst: 1_000, ..EdgeConfig::default() };
        Arrivals::new(&config, now)
    }

    /// Everybody comes at once, is told seconds as the alert has them, and comes back somewhere within the last of them.
    #[tokio::test(start_paused = true)]
    async fn a_storm_is_spread_and_is_soon_over() {
        let start = Instant::now();
        let mut arrivals = arrivals(start);
        let mut due: BTreeMap<Instant, u32> = BTreeMap::from([(start, 10_000)]);
        let (mut let_in, mut attempts) = (BTreeMap::<u64, u32>::new(), 0_u32);
        while let Some((at, clients)) = due.pop_first() {
            for client in 0..clients {
                attempts += 1;
                if arrivals.enter(1, at) {
                    *let_in.entry((at - start).as_secs()).or_default() += 1;
                } else {
                    let seconds = arrivals.book(at).as_secs_f64().ceil();
                    // A client adds a little of its own.
                    let own = f64::from(client % 97) / 100.0;
                    *due.entry(at + Duration::from_secs_f64(seconds + own)).or_default() += 1;
                }
            }
        }
        assert_eq!(let_in.values().sum::<u32>(), 10_000);
        let last = *let_in.keys().max().unwrap();
        assert!(last <= 15, "{let_in:?}");
        let mean = 10_000 / u32::try_from(last + 1).unwrap();
        assert!(let_in.values().skip(1).all(|second| *second <= mean * 3 / 2), "{let_in:?}");
        assert!(attempts < 25_000, "hardly anybody is told twice: {attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn times_are_the_longer_the_more_have_been_told_and_bounded() {
        let now = Instant::now();
        let mut arrivals = arrivals(now);
        let mut last = Duration::ZERO;
        for _ in 0..200_000 {
            let wait = arrivals.book(now);
            assert!(wait >= last && wait <= LONGEST_WAIT);
            last = wait;
        }
        assert!(last > Duration::from_secs(200));
        let longest = (0..100_000).map(|_| arrivals.book(now)).max().unwrap();
        assert!(longest <= LONGEST_WAIT);
        assert_eq!(arrivals.book(now + LONGEST_WAIT * 2), Duration::from_secs(1), "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_does_not_take_everything_and_none_is_remembered_for_long() {
        let now = Instant::now();
        let config = EdgeConfig {
            handshakes_per_s: 10_000,
            handshake_burst: 10_000,
            handshakes_per_s_per_network: 100,
            ..EdgeConfig::default()
        };
        let mut arrivals = Arrivals::<u32>::new(&config, now);
        assert_eq!((0..1_000).filter(|_| arrivals.enter(0, now)).count(), 101, "the burst and one");
        assert!(arrivals.enter(1, now));
        let second = |n: u32| now + Duration::from_secs(u64::from(n));
        for n in 0..20_000_u32 {
            arrivals.enter(n, second(n / 1_000));
            assert!(arrivals.by_kind.len() <= SWEEP_AT);
        }
    }
}
