//! Arrivals that do not wait for anybody: when each message is due is settled beforehand, and its latency counts from then.
//! A server that stands still is charged for all who would have come meanwhile.

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::clock::SECOND;

/// How far arrivals are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spacing {
    /// Each independent of the others, as those of many users are.
    Poisson,
    /// All equally far.
    Even,
}

/// Times at which something is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    spacing: Spacing,
    /// Nanoseconds between two, on average.
    interval: f64,
    /// When the next is due.
    next: f64,
    rng: StdRng,
}

impl Schedule {
    /// `rate` a second from `start` on, in nanoseconds.
    pub(crate) fn new(rate: f64, start: u64, spacing: Spacing, seed: u64) -> Self {
        let interval = SECOND as f64 / rate.max(1e-6);
        let mut schedule = Self { spacing, interval, next: start as f64, rng: StdRng::seed_from_u64(seed) };
        schedule.step();
        schedule
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> u64 {
        self.next as u64
    }

    /// The next one if it is due by `now`. Ask again until there is none.
    pub(crate) fn due(&mut self, now: u64) -> Option<u64> {
        let next = self.next();
        if next > now {
            return None;
        }
        self.step();
        Some(next)
    }

    fn step(&mut self) {
        self.next += match self.spacing {
            Spacing::Even => self.interval,
            // 1 - x is in (0, 1], whose logarithm is finite.
            Spacing::Poisson => -(1.0 - self.rng.random::<f64>()).ln() * self.interval,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out_however_late_it_is_asked_for() {
        let mut even = Schedule::new(1_000.0, 0, Spacing::Even, 1);
        assert_eq!(even.due(999_999), None);
        assert_eq!(even.due(1_000_000), Some(1_000_000));
        // Half a second in which nobody looked: all of it is due, each at its own time.
        let late: Vec<_> = std::iter::from_fn(|| even.due(501_000_000)).collect();
        assert_eq!(late.len(), 500);
        assert_eq!((late[0], late[499]), (2_000_000, 501_000_000));
        assert_eq!(even.next(), 502_000_000);
    }

    #[test]
    fn independent_arrivals_have_the_rate_and_are_the_same_for_a_seed() {
        let times = |seed| {
            let mut schedule = Schedule::new(2_000.0, 5_000, Spacing::Poisson, seed);
            std::iter::from_fn(|| schedule.due(10 * SECOND)).collect::<Vec<_>>()
        };
        let times_once = times(7);
        assert!((19_300..20_700).contains(&times_once.len()), "{}", times_once.len());
        assert!(times_once.is_sorted() && times_once[0] >= 5_000);
        assert_eq!(times_once, times(7));
        assert_ne!(times_once, times(8));
        // Of independent arrivals about e^-1 of all gaps are longer than the mean.
        let long = times_once.windows(2).filter(|pair| pair[1] - pair[0] > 500_000).count();
        assert!((0.33..0.41).contains(&(long as f64 / times_once.len() as f64)));
    }
}
