//! Goals, which a busy machine may miss: repeats on the wire (I3), the time to an outcome after a heal
//! and while one process is away (I11). Every run reports them; they are asserted if that is asked for, and then one that
//! had nothing to judge is missed.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::history::{History, Message};
use super::recovery::has_left;
use super::{Invariant, Verdict, Violation};
use crate::cluster::Variant;
use crate::events::{Fault, FaultKind, Faults};
use crate::ledger::{Kind, MessageNumber};

/// Repeats on the wire, of all deliveries.
pub const REPEATS: f64 = 0.01;
/// After a heal each sender has an outcome within this, in microseconds.
pub const AFTER_HEAL: u64 = 10_000_000;
/// While one process is away, submissions have their outcomes within this, in microseconds.
pub const ONE_AWAY: u64 = 5_000_000;
/// So many of them.
pub const ONE_AWAY_SHARE: f64 = 0.99;
/// Messages that have waited longer than this at a heal are not looked for, in microseconds.
const BEFORE: u64 = 60_000_000;

/// The figures of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Repeats of all deliveries.
    pub repeats: Share,
    /// Repeats of deliveries to light devices, which acknowledge what they read.
    pub repeats_obedient: Share,
    /// Of senders that waited for an outcome at a heal, those that had one within 10 s.
    pub after_heal: Share,
    /// The same after heals that no other fault was near.
    pub after_clear_heal: Share,
    /// The longest time from such a heal to a sender's next outcome, in milliseconds.
    pub after_clear_heal_worst: f64,
    /// Of submissions while one process was away and nothing else was wrong, those with an outcome within 5 s.
    pub one_away: Share,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// So many.
    pub part: u64,
    /// Of so many.
    pub of: u64,
}

impl Share {
    fn count(&mut self, is_part: bool) {
        self.part += u64::from(is_part);
        self.of += 1;
    }

    /// From 0 to 1; `None` of nothing.
    #[expect(clippy::cast_precision_loss, reason = "a statistic")]
    pub fn share(self) -> Option<f64> {
        (self.of > 0).then(|| self.part as f64 / self.of as f64)
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.share() {
            Some(share) => write!(f, "{:.3}% ({} of {})", share * 100.0, self.part, self.of),
            None => f.write_str("none to judge"),
        }
    }
}

impl Figures {
    /// Goals that were not reached; one that had nothing to judge was not. `several`: there is more than one process of a
    /// kind, so that one of them can be away.
    pub fn missed(&self, several: bool) -> Vec<(Invariant, String)> {
        let mut missed = Vec::new();
        if self.repeats_obedient.share().is_none_or(|share| share > REPEATS) {
            missed.push((Invariant::Once, format!("repeats on the wire: {}", self.repeats_obedient)));
        }
        if self.after_clear_heal.share().is_none_or(|share| share < 1.0) {
            let text = format!("senders with an outcome within 10 s of a heal: {}", self.after_clear_heal);
            missed.push((Invariant::Progress, text));
        }
        let away = self.one_away.share();
        if (several || away.is_some()) && away.is_none_or(|share| share < ONE_AWAY_SHARE) {
            let text = format!("outcomes within 5 s while one process was away: {}", self.one_away);
            missed.push((Invariant::Progress, text));
        }
        missed
    }
}

impl Verdict {
    /// Asserts the figures too.
    pub fn be_strict(&mut self) {
        let several = matches!(self.variant.parse(), Ok(Variant::Scaled(..)));
        for (invariant, what) in self.figures.missed(several) {
            *self.violated.entry(invariant).or_insert(0) += 1;
            self.violations.push(Violation { invariant, what, t: self.lasted, message: None, device: None });
        }
    }
}

/// The figures of a run whose records are all taken in.
pub(super) fn figures(history: &History, faults: &Faults) -> Figures {
    let totals = &history.totals;
    let mut figures = Figures {
        repeats: Share { part: totals.wire_repeats, of: totals.wire },
        repeats_obedient: Share { part: totals.light_repeats, of: totals.light_wire },
        ..Figures::default()
    };
    let mut messages: Vec<(u64, MessageNumber, &Message)> = history
        .messages
        .iter()
        // Wild devices stop reading, and hear nothing of outcomes then.
        .filter(|(m, _)| history.devices.get(&m.device()).is_some_and(|sender| sender.kind != Kind::Wild))
        .map(|(m, message)| (message.at, *m, message))
        .collect();
    messages.sort_unstable_by_key(|(at, m, _)| (*at, *m));
    after_heals(history, faults, &messages, &mut figures);
    for (from, to) in one_away(faults) {
        let first = messages.partition_point(|(at, ..)| *at < from);
        let last = messages.partition_point(|(at, ..)| *at < to);
        for (at, m, message) in &messages[first..last] {
            if !has_left(history, *m, *at, at + ONE_AWAY) {
                figures.one_away.count(message.outcome.is_some_and(|(_, t)| t <= at + ONE_AWAY));
            }
        }
    }
    figures
}

fn after_heals(history: &History, faults: &Faults, messages: &[(u64, MessageNumber, &Message)], figures: &mut Figures) {
    let mut outcomes: HashMap<u32, Vec<u64>> = HashMap::new();
    for (_, m, message) in messages {
        outcomes.entry(m.device()).or_default().extend(message.outcome.map(|(_, t)| t));
    }
    outcomes.values_mut().for_each(|times| times.sort_unstable());
    for fault in faults.faults.iter().filter(|fault| fault.did_something()) {
        let Some(heal) = fault.end else { continue };
        let until = heal + AFTER_HEAL;
        let other = |other: &Fault| {
            other.number != fault.number && other.begin < until && other.end.is_none_or(|end| end > heal)
        };
        let is_clear = !faults.faults.iter().any(other);
        let first = messages.partition_point(|(at, ..)| *at < heal.saturating_sub(BEFORE));
        let last = messages.partition_point(|(at, ..)| *at <= heal);
        let waiting: BTreeSet<u32> = messages[first..last]
            .iter()
            .filter(|(_, _, message)| message.outcome.is_none_or(|(_, t)| t > heal))
            .map(|(_, m, _)| m.device())
            .collect();
        for sender in waiting {
            let times = outcomes.get(&sender).map(Vec::as_slice).unwrap_or_default();
            let next = times.get(times.partition_point(|t| *t <= heal)).copied();
            if has_left(history, MessageNumber::new(sender, 0), heal, next.unwrap_or(until).min(until)) {
                continue;
            }
            let in_time = next.is_some_and(|next| next <= until);
            figures.after_heal.count(in_time);
            if is_clear {
                figures.after_clear_heal.count(in_time);
                let removing = history.devices.get(&sender).and_then(|sender| sender.removing);
                let took = next.or(removing).unwrap_or(history.last).saturating_sub(heal);
                #[expect(clippy::cast_precision_loss, reason = "for reading")]
                let took = took as f64 / 1_000.0;
                figures.after_clear_heal_worst = figures.after_clear_heal_worst.max(took);
            }
        }
    }
}

/// Times in which one process of several was away and nothing else was wrong.
fn one_away(faults: &Faults) -> Vec<(u64, u64)> {
    let mut turns: Vec<(u64, bool, &Fault)> = Vec::new();
    for fault in faults.faults.iter().filter(|fault| !fault.idle) {
        turns.push((fault.begin, true, fault));
        turns.extend(fault.end.map(|end| (end, false, fault)));
    }
    turns.sort_by_key(|(t, begins, fault)| (*t, *begins, fault.number));
    let mut under_way: Vec<&Fault> = Vec::new();
    let mut times = Vec::new();
    let mut since = 0;
    for (t, begins, fault) in turns {
        if let [only] = under_way[..]
            && takes_one_away(only)
            && t > since
        {
            times.push((since, t));
        }
        if begins {
            under_way.push(fault);
        } else {
            under_way.retain(|other| other.number != fault.number);
        }
        since = t;
    }
    times
}

/// Of a process that there is more than one of.
fn takes_one_away(fault: &Fault) -> bool {
    let kinds = [FaultKind::Kill, FaultKind::KillStarting, FaultKind::Pause, FaultKind::Drain, FaultKind::Isolate];
    kinds.contains(&fault.kind) && fault.target != "all"
}
