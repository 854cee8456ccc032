//! The time between two looks at processes: how much their counters have grown.

use crate::fleet::{Exposition, Seen};

/// A process now, and before if it was there; without that it counts from nothing.
#[derive(Debug)]
pub(super) struct Window<'s> {
    processes: Vec<(&'s Seen, Option<&'s Seen>)>,
    /// There was a look before.
    twice: bool,
}

impl<'s> Window<'s> {
    pub(super) fn new(now: &'s [Seen], before: Option<&'s [Seen]>) -> Self {
        let processes = now.iter().map(|seen| (seen, earlier(seen, before))).collect();
        Self { processes, twice: before.is_some() }
    }

    /// Of one process.
    pub(super) fn of(seen: &'s Seen, before: Option<&'s [Seen]>) -> Self {
        Self { processes: vec![(seen, earlier(seen, before))], twice: before.is_some() }
    }

    /// The value of a level in each process that has it.
    pub(super) fn levels(&self, name: &str) -> impl Iterator<Item = f64> {
        self.processes.iter().filter_map(move |(now, _)| now.metrics.sum(name, &[]))
    }

    /// Growth of a counter a second, of all processes that were there twice; `None` before a second look.
    pub(super) fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        if !self.twice {
            return None;
        }
        let rates = self.processes.iter().filter_map(|(now, before)| {
            let before = (*before)?;
            let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
            let growth = now.metrics.sum(name, labels)? - before.metrics.sum(name, labels).unwrap_or(0.0);
            // A counter that has shrunk began anew.
            (seconds > 0.0 && growth >= 0.0).then_some(growth / seconds)
        });
        rates.reduce(|one, other| one + other)
    }

    /// Whether each process told something both times.
    pub(super) fn is_of_two_looks(&self) -> bool {
        self.processes.iter().all(|(_, before)| before.is_some())
    }

    /// Growth of a counter.
    pub(super) fn growth(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let growths = self.processes.iter().map(|(now, before)| {
            let now = now.metrics.sum(name, labels).unwrap_or(0.0);
            let before = before.and_then(|before| before.metrics.sum(name, labels)).unwrap_or(0.0);
            if before <= now { now - before } else { now }
        });
        growths.fold(0.0, |one, other| one + other)
    }

    /// Growth of a histogram: upper bounds, and counts with those below included.
    pub(super) fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(f64, f64)> {
        let mut grown: Vec<(f64, f64)> = Vec::new();
        for (now, before) in &self.processes {
            let before = before.map(|before| before.metrics.buckets(name, labels)).unwrap_or_default();
            let restarted = |bound: f64, count| before.iter().any(|(known, more)| *known == bound && *more > count);
            let now = now.metrics.buckets(name, labels);
            let anew = now.iter().any(|(bound, count)| restarted(*bound, *count));
            for (bound, count) in now {
                let earlier = before.iter().find(|(known, _)| *known == bound && !anew);
                let count = count - earlier.map_or(0.0, |(_, count)| *count);
                match grown.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, all)) => *all += count,
                    None => grown.push((bound, count)),
                }
            }
        }
        grown.sort_by(|one, other| one.0.total_cmp(&other.0));
        grown
    }

    /// The values that a label has in any process.
    pub(super) fn labels(&self, name: &str, label: &str) -> Vec<String> {
        let all = self.processes.iter().flat_map(|(now, _)| now.metrics.labels(name, label));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The same process, if it told anything and has not been started since.
fn earlier<'s>(seen: &Seen, before: Option<&'s [Seen]>) -> Option<&'s Seen> {
    let started = |seen: &Seen| seen.health.as_ref().ok().and_then(|health| health.started_at);
    let told = |metrics: &Exposition| !metrics.is_empty();
    before?.iter().find(|earlier| {
        earlier.place == seen.place
            && told(&earlier.metrics)
            && told(&seen.metrics)
            && started(earlier) == started(seen)
    })
}

/// The value that this share of all is below, guessed evenly within its bucket.
pub(super) fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let all = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let wanted = share * all;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= wanted {
            if bound.is_infinite() {
                return Some(lower);
            }
            let within = if *count > below { (wanted - below) / (count - below) } else { 1.0 };
            return Some(lower + (bound - lower) * within);
        }
        (lower, below) = (*bound, *count);
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::fleet::Health;

    fn seen(place: &str, started: u64, at: Instant, metrics: &str) -> Seen {
        let health = Health { status: "ready".to_owned(), started_at: Some(started), ..Health::default() };
        let metrics = Exposition::read(metrics.as_bytes());
        Seen { place: place.to_owned(), health: Ok(health), metrics, offset: None, at }
    }

    #[tokio::test]
    async fn counters_grow_and_begin_anew() {
        let (before, name) = (Instant::now(), "causeway_edge_logins_total");
        let now = before + Duration::from_secs(2);
        let text = |count| format!("{name} {count}\n");
        let earlier = [seen("a", 1, before, &text(10)), seen("b", 1, before, &text(50)), seen("c", 1, before, "")];
        let later = [seen("a", 1, now, &text(16)), seen("b", 2, now, &text(4)), seen("d", 1, now, &text(9))];
        let window = Window::new(&later, Some(&earlier));
        assert_eq!(window.rate(name, &[]), Some(3.0), "b was started anew, d is new");
        assert_eq!(window.growth(name, &[]), 6.0 + 4.0 + 9.0);
        assert_eq!(Window::new(&later, None).rate(name, &[]), None);
        assert_eq!(window.rate("causeway_edge_other_total", &[]), None);
        assert_eq!(window.levels(name).sum::<f64>(), 29.0);
    }

    #[test]
    fn quantiles_are_within_their_buckets() {
        let buckets = [(0.1, 50.0), (0.2, 90.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(0.1));
        let p90 = quantile(&buckets, 0.9).unwrap();
        assert!((p90 - 0.2).abs() < 1e-9, "{p90}");
        assert_eq!(quantile(&buckets, 0.99), Some(0.2), "no more is known than that it is above");
        assert_eq!((quantile(&[], 0.5), quantile(&[(0.1, 0.0)], 0.5)), (None, None));
    }
}
