//! When it is measured: after a warm-up, several windows one right after the other.

use std::time::Duration;

/// How long each part takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Load before anything counts.
    pub(crate) warm_up: Duration,
    /// Each window.
    pub(crate) length: Duration,
    /// How many.
    pub(crate) count: usize,
}

/// Windows on the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    start: u64,
    length: u64,
    count: usize,
}

impl Windows {
    /// Those of this shape, if the load begins at `now`.
    pub(crate) fn from(shape: Shape, now: u64) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4);
        Self { start: now + ns(shape.warm_up), length: ns(shape.length).max(1), count: shape.count }
    }

    /// The window that this time is in.
    pub(crate) fn index(&self, at: u64) -> Option<usize> {
        let index = at.checked_sub(self.start)? / self.length;
        usize::try_from(index).ok().filter(|index| *index < self.count)
    }

    /// When window number `index` begins; that after the last one is the end.
    pub(crate) fn edge(&self, index: usize) -> u64 {
        self.start + self.length * index as u64
    }

    /// When the last one ends.
    pub(crate) fn end(&self) -> u64 {
        self.edge(self.count)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_one_window_or_none() {
        let ms = Duration::from_millis;
        let shape = Shape { warm_up: ms(1), length: ms(2), count: 3 };
        let windows = Windows::from(shape, 1_000_000);
        let index = |at| windows.index(at);
        assert_eq!([0, 1_999_999, 8_000_000, u64::MAX].map(index), [None; 4]);
        assert_eq!([2_000_000, 3_999_999, 4_000_000, 7_999_999].map(index), [Some(0), Some(0), Some(1), Some(2)]);
        assert_eq!((windows.edge(0), windows.end()), (2_000_000, 8_000_000));
    }
}
