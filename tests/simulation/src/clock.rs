//! The time of day in the simulation: simulated time, each host with an error of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causeway_runtime::clock::Clock;

/// When simulations begin, Unix seconds.
pub(crate) const BEGIN_S: u64 = 1_800_000_000;

/// A host's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SimulatedClock {
    /// By how much it is ahead.
    pub(crate) ahead: Duration,
}

impl Clock for SimulatedClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(BEGIN_S) + turmoil::sim_elapsed().unwrap_or_default() + self.ahead
    }
}
