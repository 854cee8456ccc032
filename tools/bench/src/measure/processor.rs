//! Processor time of a process, from /proc.
//!
//! `stat` counts all threads, also those that are gone, in hundredths of a second. `schedstat` of each thread counts
//! nanoseconds, but knows nothing of a thread that has ended. So the fine count is used if all threads of the earlier
//! reading are there in the later one, else the coarse one.

use std::collections::BTreeMap;

use anyhow::Context as _;

/// Clock ticks a second in `stat`: the same on all architectures that Linux shows to programs.
const TICKS: u64 = 100;

/// What a process has used so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// By `stat`, in nanoseconds.
    coarse: u64,
    /// By `schedstat`, in nanoseconds, of each thread.
    threads: BTreeMap<u32, u64>,
}

impl Reading {
    /// Reads a process; with `children`, those of its direct children too, which PostgreSQL works with.
    pub(crate) fn take(process: u32, children: bool) -> anyhow::Result<Self> {
        let mut reading = Self::default();
        reading.add(process, children)?;
        if children {
            for child in children_of(process) {
                // One that ends meanwhile is counted with its parent.
                let _gone = reading.add(child, false);
            }
        }
        Ok(reading)
    }

    fn add(&mut self, process: u32, waited_for: bool) -> anyhow::Result<()> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("processor time of a process")?;
        let ticks = ticks(&stat, waited_for).context("stat of a process")?;
        self.coarse += ticks * (1_000_000_000 / TICKS);
        for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let thread = thread?;
            let Some(id) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(text) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
            if let Some(used) = on_processor(&text) {
                self.threads.insert(id, used);
            }
        }
        Ok(())
    }

    /// Nanoseconds between an earlier reading and this one.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let all_there = earlier.threads.keys().all(|id| self.threads.contains_key(id));
        if all_there && !earlier.threads.is_empty() {
            let sum = |reading: &Self| reading.threads.values().sum::<u64>();
            return sum(self).saturating_sub(sum(earlier));
        }
        self.coarse.saturating_sub(earlier.coarse)
    }
}

/// `utime` and `stime` of a line of `stat`, and with `waited_for` those of children that have ended.
fn ticks(stat: &str, waited_for: bool) -> Option<u64> {
    // The name in parentheses may hold anything, parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // The state, which follows the name, is field 3; utime is 14.
    let count = if waited_for { 4 } else { 2 };
    fields.get(11..11 + count)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

/// Nanoseconds on a processor, the first number of `schedstat`.
fn on_processor(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

fn children_of(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (a ) (b) S 1 4711 4711 0 -1 4194560 2557 90 0 0 123 45 6 7 20 0 1 0 100 1 2 3";

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(ticks(STAT, false), Some(168));
        assert_eq!(ticks(STAT, true), Some(181));
        assert_eq!(ticks("4711 (short) S 1", false), None);
        assert_eq!(ticks("no name", false), None);
        assert_eq!(on_processor("98268 1118711 2\n"), Some(98_268));
        assert_eq!(on_processor(""), None);
    }

    #[test]
    fn a_thread_that_ended_makes_the_count_coarse() {
        let reading = |coarse, threads: &[(u32, u64)]| Reading { coarse, threads: threads.iter().copied().collect() };
        let before = reading(10_000_000, &[(1, 100), (2, 200)]);
        // A new thread has done all that it has done since.
        assert_eq!(reading(20_000_000, &[(1, 150), (2, 210), (3, 40)]).since(&before), 100);
        assert_eq!(reading(20_000_000, &[(1, 150)]).since(&before), 10_000_000);
        assert_eq!(reading(20_000_000, &[]).since(&reading(10_000_000, &[])), 10_000_000);
    }

    #[test]
    fn work_is_seen() {
        let before = Reading::take(std::process::id(), false).unwrap();
        let mut sum = 0_u64;
        for number in 0..20_000_000_u64 {
            sum = std::hint::black_box(sum ^ number.rotate_left(7));
        }
        std::hint::black_box(sum);
        assert!(Reading::take(std::process::id(), false).unwrap().since(&before) > 1_000_000);
    }
}
