//! Pauses between attempts: exponential, with full jitter, so that clients that lost one server together do not come back
//! together.

use std::time::Duration;

use rand::{Rng as _, RngCore};

use crate::config::Timing;
use crate::random::Random;

/// Longest pause that a server can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// How long a client waits before it connects again after so many `failures` in a row; `asked` is the least pause that the
/// server asks for.
pub fn reconnect_pause<R: RngCore + ?Sized>(
    timing: &Timing,
    failures: u32,
    asked: Option<Duration>,
    random: &mut R,
) -> Duration {
    pause(timing.backoff_first, timing.backoff_longest, failures, asked, random)
}

fn pause<R: RngCore + ?Sized>(
    first: Duration,
    longest: Duration,
    failures: u32,
    asked: Option<Duration>,
    random: &mut R,
) -> Duration {
    let ceiling = first.saturating_mul(1 << failures.min(20)).min(longest);
    asked.unwrap_or_default().min(LONGEST_ASKED) + random.random_range(Duration::ZERO..=ceiling)
}

/// How long to wait before the next attempt.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The attempt was a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The attempt failed; `asked` is the least pause that the server asks for.
    pub(super) fn next(&mut self, asked: Option<Duration>, random: &mut Random) -> Duration {
        let pause = pause(self.first, self.longest, self.failures, asked, random);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_spread() {
        let mut random: Random = Box::new(rand::rngs::StdRng::seed_from_u64(1));
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut ceiling = Duration::from_millis(100);
        for _ in 0..40 {
            assert!(backoff.next(None, &mut random) <= ceiling);
            ceiling = (ceiling * 2).min(Duration::from_secs(5));
        }
        let pauses: Vec<_> = (0..100).map(|_| backoff.next(None, &mut random)).collect();
        assert!(pauses.iter().any(|pause| *pause < Duration::from_secs(1)), "full jitter reaches down");
        assert!(pauses.iter().any(|pause| *pause > Duration::from_secs(4)), "and up");
        backoff.reset();
        assert!(backoff.next(None, &mut random) <= Duration::from_millis(100));
    }

    #[test]
    fn a_server_can_ask_for_a_pause_but_not_for_ever() {
        let mut random: Random = Box::new(rand::rngs::StdRng::seed_from_u64(1));
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        assert!(backoff.next(Some(Duration::from_secs(7)), &mut random) >= Duration::from_secs(7));
        assert!(backoff.next(Some(Duration::MAX), &mut random) <= LONGEST_ASKED + Duration::from_secs(5));
    }
}
