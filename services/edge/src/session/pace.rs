//! How fast something may go on. What is over the pace is not refused: it is read later.

use std::time::Duration;

use tokio::time::Instant;

/// A rate with a burst, as the generic cell rate algorithm has it: one time stamp, no refill task. Units are taken after
/// the fact, so that a large one is never refused; the debt is waited off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Time that one unit takes in the long run.
    unit: Duration,
    /// How far ahead of the long run a session may be.
    ahead: Duration,
    /// When everything taken so far would be through in the long run.
    through: Instant,
}

impl Pace {
    pub(crate) fn new(units_per_s: u32, burst: u32, now: Instant) -> Self {
        let unit = Duration::from_secs(1) / units_per_s.max(1);
        Self { unit, ahead: unit * burst, through: now }
    }

    /// Counts `units` that were taken now.
    pub(crate) fn take(&mut self, units: u32, now: Instant) {
        self.through = self.through.max(now) + self.unit * units;
    }

    /// True if it is as if nothing had ever been taken.
    pub(crate) fn has_whole_burst(&self, now: Instant) -> bool {
        self.through <= now
    }

    /// When the next unit may be taken: in the past if at once.
    pub(crate) fn ready_at(&self) -> Instant {
        self.through.checked_sub(self.ahead).unwrap_or(self.through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_rate_holds() {
        let now = Instant::now();
        let mut pace = Pace::new(10, 5, now);
        pace.take(5, now);
        assert!(pace.ready_at() <= now, "the burst is used up, but not exceeded");
        pace.take(1, now);
        assert_eq!(pace.ready_at(), now + Duration::from_millis(100));
        let later = now + Duration::from_secs(60);
        pace.take(5, later);
        assert!(pace.ready_at() <= later, "an idle time gives one burst back, not many");
        pace.take(20, later);
        assert_eq!(pace.ready_at(), later + Duration::from_secs(2), "a debt is waited off");
    }
}
