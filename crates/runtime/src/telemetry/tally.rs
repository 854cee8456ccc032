//! Counters of what happens with each message: numbers in memory, which are read when somebody asks for metrics. To look
//! a label up among those of an instrument takes longer than most of what is counted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// Threads that count beside each other; more share.
const PLACES: usize = 8;

/// How much of each of `N` kinds has happened in this process.
#[derive(Debug)]
pub struct Tally<const N: usize>([Place<N>; PLACES]);

/// One thread's part, which is on no cache line of another's.
#[derive(Debug)]
#[repr(align(128))]
struct Place<const N: usize>([AtomicU64; N]);

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % PLACES;
}

impl<const N: usize> Tally<N> {
    /// Nothing has happened yet. For a `static`.
    #[expect(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self([const { Place([const { AtomicU64::new(0) }; N]) }; PLACES])
    }

    /// Something of this kind has happened.
    pub fn count(&self, kind: usize) {
        // While a thread ends it has no place of its own any more.
        let place = MINE.try_with(|mine| *mine).unwrap_or(0);
        if let Some(count) = self.0[place].0.get(kind) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So much of this kind has happened.
    pub fn of(&self, kind: usize) -> u64 {
        self.0.iter().filter_map(|place| place.0.get(kind)).map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Tells it under this name from now on, each kind by its labels.
    pub fn tell(
        &'static self,
        meter: &Meter,
        name: &'static str,
        about: &'static str,
        labels: impl Fn(usize) -> Vec<KeyValue>,
    ) {
        let labels: Vec<_> = (0..N).map(labels).collect();
        let counter = meter.u64_observable_counter(name).with_unit("{message}").with_description(about);
        let read = counter.with_callback(move |to| {
            for (kind, labels) in labels.iter().enumerate() {
                to.observe(self.of(kind), labels);
            }
        });
        read.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_count_together() {
        static TALLY: Tally<2> = Tally::new();
        std::thread::scope(|scope| {
            for _ in 0..2 * PLACES {
                scope.spawn(|| (0..100).for_each(|_| TALLY.count(1)));
            }
        });
        TALLY.count(2);
        assert_eq!((TALLY.of(0), TALLY.of(1)), (0, 100 * 2 * PLACES as u64));
    }
}
