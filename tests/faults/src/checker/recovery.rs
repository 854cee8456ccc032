//! How long it takes until messages flow again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{History, Message};
use crate::events::Faults;
use crate::ledger::MessageNumber;

/// A message that has waited this long at some moment of a fault was held up by it, in microseconds.
const HELD_UP: u64 = 1_000_000;
/// How long PostgreSQL may take to be itself again, in microseconds.
const SETTLES: u64 = 5_000_000;
/// Faults before which nobody looks for messages that they held up, in microseconds.
const BEFORE: u64 = 30_000_000;

/// How faults of one kind were recovered from. Times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// How many were done as planned and met something.
    pub count: u64,
    /// Beside these: how many met nothing that they could do anything to.
    pub idle: u64,
    /// Beside these: how many did not go as planned.
    pub failed: u64,
    /// Of those that met something, those that held up a message for a second or more.
    pub felt: u64,
    /// From begin to heal.
    pub lasted: Spread,
    /// From begin to the next outcome of a message that was held up.
    pub first_from_begin: Spread,
    /// From heal to the next outcome of a message that was held up.
    pub first_from_heal: Spread,
    /// From heal to the last outcome of those that were held up.
    pub last_from_heal: Spread,
    /// The worst of these in microseconds, not counting what time the store was [disturbed](Disturbed) itself, and when.
    #[serde(skip)]
    pub worst_at: Option<(u64, u64)>,
}

/// Median and worst, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of them were faster.
    pub median: f64,
    /// None was slower.
    pub worst: f64,
}

/// Times from submission to outcome, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Messages.
    pub count: u64,
    /// Half of them were faster.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// None was slower.
    pub worst: f64,
}

impl Spread {
    fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        Self { median: at(&times, 0.5), worst: at(&times, 1.0) }
    }
}

impl Latency {
    fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        Self {
            count: times.len() as u64,
            p50: at(&times, 0.5),
            p99: at(&times, 0.99),
            p999: at(&times, 0.999),
            worst: at(&times, 1.0),
        }
    }
}

/// The time at this share of a sorted list, in milliseconds.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a statistic")]
fn at(times: &[u64], share: f64) -> f64 {
    let place = ((times.len().saturating_sub(1)) as f64 * share).round() as usize;
    times.get(place).map_or(0.0, |time| *time as f64 / 1_000.0)
}

/// From submission to outcome of all messages whose sender did not leave by itself meanwhile, and of those of them that
/// no fault was near.
pub(super) fn latencies(history: &History) -> (Latency, Latency) {
    let (mut all, mut quiet) = (Vec::new(), Vec::new());
    for (m, message) in &history.messages {
        let Some((_, t)) = message.outcome else { continue };
        if has_left(history, *m, message.at, t) {
            continue;
        }
        all.push(t - message.at);
        if !history.is_disturbed(message.at, t) {
            quiet.push(t - message.at);
        }
    }
    (Latency::of(all), Latency::of(quiet))
}

/// When PostgreSQL, or somebody's way to it, was disturbed. There is one, so what follows it is its recovery and not that of a
/// fault before.
struct Disturbed(Vec<(u64, u64)>);

impl Disturbed {
    fn of(faults: &Faults) -> Self {
        let store = faults.faults.iter().filter(|fault| fault.did_something() && fault.target.contains("postgres"));
        let mut times: Vec<_> =
            store.map(|fault| (fault.begin, fault.end.unwrap_or(u64::MAX).saturating_add(SETTLES))).collect();
        times.sort_unstable();
        times.dedup_by(|next, before| {
            let overlaps = next.0 <= before.1;
            if overlaps {
                before.1 = before.1.max(next.1);
            }
            overlaps
        });
        Self(times)
    }

    /// How much of the time between these it was.
    fn between(&self, from: u64, to: u64) -> u64 {
        self.0.iter().map(|(begin, end)| (*end).min(to).saturating_sub((*begin).max(from))).sum()
    }
}

/// Faults by kind.
pub(super) fn by_kind(history: &History, faults: &Faults) -> BTreeMap<String, Recovery> {
    let mut messages: Vec<(u64, MessageNumber, &Message)> =
        history.messages.iter().map(|(m, message)| (message.at, *m, message)).collect();
    messages.sort_unstable_by_key(|(at, m, _)| (*at, *m));
    let disturbed = Disturbed::of(faults);
    let mut kinds: BTreeMap<String, (u64, u64, Vec<Felt>)> = BTreeMap::new();
    for fault in &faults.faults {
        let (count, idle, felt) = kinds.entry(fault.kind.name()).or_default();
        if fault.idle {
            *idle += 1;
            continue;
        }
        *count += u64::from(fault.did_something());
        let heal = fault.end.unwrap_or(history.last);
        let from = messages.partition_point(|(at, ..)| *at < fault.begin.saturating_sub(BEFORE));
        let to = messages.partition_point(|(at, ..)| *at < heal);
        let mut held_up = messages[from..to].iter().filter_map(|(at, m, message)| {
            let (_, t) = message.outcome?;
            let is_held_up = t > fault.begin && t.min(heal).saturating_sub((*at).max(fault.begin)) > HELD_UP;
            (is_held_up && !has_left(history, *m, *at, t)).then_some(t)
        });
        let first = held_up.next();
        let (first, last) = held_up.fold((first, first), |(first, last), t| (first.min(Some(t)), last.max(Some(t))));
        felt.push((fault.begin, heal, first.zip(last)));
    }
    let of = |(kind, (count, idle, faults)): (String, (u64, u64, Vec<Felt>))| {
        let failed = faults.len() as u64 - count;
        (kind, Recovery { count, idle, failed, ..recovery(&faults, &disturbed) })
    };
    kinds.into_iter().map(of).collect()
}

/// Begin, heal, and the first and the last outcome of what was held up.
type Felt = (u64, u64, Option<(u64, u64)>);

fn recovery(faults: &[Felt], disturbed: &Disturbed) -> Recovery {
    let felt =
        || faults.iter().filter_map(|(begin, heal, felt)| felt.map(|(first, last)| (*begin, *heal, first, last)));
    Recovery {
        felt: felt().count() as u64,
        lasted: Spread::of(faults.iter().map(|(begin, heal, _)| heal - begin).collect()),
        first_from_begin: Spread::of(felt().map(|(begin, _, first, _)| first - begin).collect()),
        first_from_heal: Spread::of(felt().map(|(_, heal, first, _)| first.saturating_sub(heal)).collect()),
        last_from_heal: Spread::of(felt().map(|(_, heal, _, last)| last.saturating_sub(heal)).collect()),
        worst_at: felt()
            .map(|(_, heal, _, last)| (last.saturating_sub(heal).saturating_sub(disturbed.between(heal, last)), heal))
            .max(),
        ..Recovery::default()
    }
}

/// Whether the sender left by itself between these times, or was to be removed before the second: who is gone hears nothing.
pub(super) fn has_left(history: &History, m: MessageNumber, from: u64, to: u64) -> bool {
    history.devices.get(&m.device()).is_some_and(|sender| {
        let next = sender.left.partition_point(|t| *t < from);
        sender.removing.is_some_and(|t| t <= to) || sender.left.get(next).is_some_and(|t| *t <= to)
    })
}
