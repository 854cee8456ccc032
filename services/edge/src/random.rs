//! The one source of everything random in an edge: session ids, handshakes' ephemeral keys, and the spread of times.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::{OsRng, StdRng};
use rand::{CryptoRng, RngCore, SeedableRng as _, TryRngCore as _};

/// A source of random numbers; cheap to clone, clones share it.
#[derive(Clone)]
pub struct Random(Source);

#[derive(Clone)]
enum Source {
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

impl Random {
    /// The system's.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Repeatable numbers, for simulations only: whoever knows the seed knows the keys of all handshakes.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// From one to two times `delay`, so that many edges do not come back as one.
    pub(crate) fn jitter(&self, delay: Duration) -> Duration {
        delay + delay.mul_f64(f64::from(self.clone().next_u32()) / f64::from(u32::MAX))
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        match &self.0 {
            Source::System => OsRng.unwrap_err().next_u32(),
            Source::Seeded(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).next_u32(),
        }
    }

    fn next_u64(&mut self) -> u64 {
        match &self.0 {
            Source::System => OsRng.unwrap_err().next_u64(),
            Source::Seeded(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64(),
        }
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        match &self.0 {
            Source::System => OsRng.unwrap_err().fill_bytes(bytes),
            Source::Seeded(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes),
        }
    }
}

/// Holds for the system's source; a seeded one makes no such claim and is for simulations.
impl CryptoRng for Random {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_jitter_stays_in_its_range() {
        let delay = Duration::from_millis(50);
        let series = |seed| {
            let random = Random::seeded(seed);
            (0..100).map(|_| random.jitter(delay)).collect::<Vec<_>>()
        };
        assert_eq!(series(1), series(1));
        assert_ne!(series(1), series(2));
        assert!(series(3).iter().all(|jitter| (delay..=delay * 2).contains(jitter)));
    }
}
