//! Counts and latencies of one window; those of several threads add up.

use hdrhistogram::Histogram;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// Messages whose sender was told `delivered`.
    Delivered,
    /// `stored`.
    Stored,
    /// `dropped` or `rejected`.
    Refused,
    /// Messages that came to a device.
    Arrived,
    /// Messages that were due and could not be sent, since their sender had too many open.
    Shed,
    /// Messages that had no outcome in the end.
    Unfinished,
    /// Sessions that were opened.
    Logins,
    /// Logins that failed or were told to come back.
    Failed,
    /// Claims that were answered with a bundle.
    Claims,
    /// Of these, with one-time keys of both kinds.
    OneTime,
}

/// What has a latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Series {
    /// From when a message was due until a device of its recipient had it.
    Recipient,
    /// Until its sender had the outcome.
    Outcome,
    /// Until it was written to the socket's queue: the generator's own part.
    Late,
    /// From `connect` to `success`.
    Login,
    /// From when a claim was due to its bundle.
    Claim,
}

const COUNTS: usize = Count::OneTime as usize + 1;
const SERIES: usize = Series::Claim as usize + 1;

/// Longest latency that is told apart from longer ones: two minutes.
const LONGEST: u64 = 120 * 1_000_000_000;

/// Counts and latencies of a window.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    counts: [u64; COUNTS],
    series: [Option<Box<Histogram<u64>>>; SERIES],
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: [0; COUNTS], series: [const { None }; SERIES] }
    }
}

impl Tally {
    /// Counts one.
    pub(crate) fn count(&mut self, what: Count) {
        self.add(what, 1);
    }

    /// Counts several.
    pub(crate) fn add(&mut self, what: Count, number: u64) {
        self.counts[what as usize] += number;
    }

    /// How many there were.
    pub(crate) fn get(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }

    /// Messages with a good outcome.
    pub(crate) fn accepted(&self) -> u64 {
        self.get(Count::Delivered) + self.get(Count::Stored)
    }

    /// A latency in nanoseconds.
    pub(crate) fn record(&mut self, series: Series, nanoseconds: u64) {
        self.series[series as usize].get_or_insert_with(|| Box::new(histogram())).saturating_record(nanoseconds);
    }

    /// Milliseconds within which so many of a hundred were; `None` without any.
    pub(crate) fn percentile(&self, series: Series, percent: f64) -> Option<f64> {
        let histogram = self.series[series as usize].as_ref()?;
        Some(histogram.value_at_quantile(percent / 100.0) as f64 / 1e6)
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, others) in self.counts.iter_mut().zip(other.counts) {
            *mine += others;
        }
        for (mine, others) in self.series.iter_mut().zip(&other.series) {
            match (mine, others) {
                (_, None) => {}
                (Some(mine), Some(others)) => {
                    mine.add(&**others).expect("all histograms have the same bounds");
                }
                (mine, Some(others)) => *mine = Some(others.clone()),
            }
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are right")
}

/// Windows of several threads, each window added up.
pub(crate) fn merged(threads: impl IntoIterator<Item = Vec<Tally>>) -> Vec<Tally> {
    let mut all: Vec<Tally> = Vec::new();
    for thread in threads {
        all.resize_with(all.len().max(thread.len()), Tally::default);
        for (mine, others) in all.iter_mut().zip(&thread) {
            mine.merge(others);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_as_if_there_were_one() {
        let (mut one, mut first, mut second) = (Tally::default(), Tally::default(), Tally::default());
        for number in 1..=1_000_u64 {
            let nanoseconds = number * 10_000;
            let part = if number % 3 == 0 { &mut first } else { &mut second };
            for tally in [&mut one, part] {
                tally.record(Series::Recipient, nanoseconds);
                tally.count(Count::Delivered);
            }
        }
        second.record(Series::Login, 5_000_000);
        let all = merged([vec![first], vec![second, Tally::default()], vec![]]);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].accepted(), 1_000);
        for percent in [1.0, 50.0, 99.0, 100.0] {
            assert_eq!(all[0].percentile(Series::Recipient, percent), one.percentile(Series::Recipient, percent));
        }
        assert!((all[0].percentile(Series::Recipient, 99.0).unwrap() - 9.9).abs() < 0.02);
        assert!((all[0].percentile(Series::Login, 100.0).unwrap() - 5.0).abs() < 0.01);
        assert_eq!(all[1].percentile(Series::Recipient, 50.0), None);
    }

    #[test]
    fn what_is_too_long_is_as_long_as_can_be_told() {
        let mut tally = Tally::default();
        tally.record(Series::Claim, u64::MAX);
        tally.record(Series::Claim, 0);
        assert!(tally.percentile(Series::Claim, 100.0).unwrap() >= 120_000.0);
    }
}
