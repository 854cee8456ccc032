//! How fast a peer must be.

use std::time::Duration;

/// Over this much waiting the rate is taken.
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// Adds up how long a peer was waited for and what it moved meanwhile. What it is not waited for does not count: neither
/// our own disk nor the time between two requests makes a peer slow.
#[derive(Debug)]
pub(super) struct Pace {
    min_bytes: u64,
    waited: Duration,
    moved: u64,
}

impl Pace {
    /// At least so many bytes a second; 0 for no demand.
    pub(super) fn new(min_bytes_per_s: u32) -> Self {
        Self { min_bytes: u64::from(min_bytes_per_s) * WINDOW.as_secs(), waited: Duration::ZERO, moved: 0 }
    }

    /// After this much more waiting [`Pace::waited`] takes the rate.
    pub(super) fn left(&self) -> Duration {
        WINDOW.saturating_sub(self.waited)
    }

    /// Bytes have moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// The peer was waited for; false when it has been too slow.
    pub(super) fn waited(&mut self, time: Duration) -> bool {
        self.waited += time;
        if self.waited < WINDOW {
            return true;
        }
        let fast = self.moved >= self.min_bytes;
        (self.waited, self.moved) = (Duration::ZERO, 0);
        fast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_taken_window_by_window() {
        let mut pace = Pace::new(1_024);
        pace.moved(30 * 1_024);
        assert!(pace.waited(Duration::from_secs(29)));
        assert_eq!(pace.left(), Duration::from_secs(1));
        assert!(pace.waited(Duration::from_secs(1)));
        pace.moved(30 * 1_024 - 1);
        assert!(!pace.waited(Duration::from_secs(100)));
        let mut any = Pace::new(0);
        assert!(any.waited(Duration::from_secs(100)));
    }
}
