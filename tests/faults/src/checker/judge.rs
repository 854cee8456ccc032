//! What can be judged only when everything is known.

use std::collections::HashMap;

use super::history::{AFTERMATH, History};
use super::rules::Rule;
use super::{Invariant, Usage, Verdict, closed, figures, recovery};
use crate::events::{Fault, FaultKind, Faults};
use crate::ledger::{Class, MessageNumber, Outcome};

/// A fault that holds up messages for longer than this after it is healed, in microseconds, is not recovered from.
const RECOVERY: u64 = 60_000_000;

/// Judges the whole of a run.
pub(super) fn judge(mut history: History, faults: &Faults) -> Verdict {
    outcomes(&mut history);
    loss(&mut history);
    rejected(&mut history);
    consent(&mut history);
    drained(&mut history);
    history.media_kept();
    history.judged(Rule::Alive, 1);
    for (t, text) in &faults.bad {
        history.violate(Invariant::Silence, *t, None, None, text.clone());
    }
    let kinds = recovery::by_kind(&history, faults);
    history.judged(Rule::Recovered, kinds.values().map(|recovery| recovery.felt).sum());
    for (kind, recovery) in &kinds {
        if let Some((worst, t)) = recovery.worst_at.filter(|(worst, _)| *worst > RECOVERY) {
            let what = format!(
                "{kind}: the last message it held up had its outcome {} s after it was healed, not counting what time \
                 PostgreSQL was disturbed",
                worst / 1_000_000
            );
            history.violate(Invariant::Progress, t, None, None, what);
        }
    }
    let stayed = leaves(&mut history, faults);
    let (latency, quiet_latency) = recovery::latencies(&history);
    let figures = figures::figures(&history, faults);
    history.totals.media = std::mem::take(&mut history.media.totals);
    history.violations.sort_by_key(|violation| violation.t);
    let quiet = history.quiet();
    let (seed, variant, planted) = history.run.unwrap_or_default();
    Verdict {
        seed,
        variant,
        planted,
        lasted: history.last,
        totals: history.totals,
        judged: history.judged,
        figures,
        violated: history.violated,
        violations: history.violations,
        faults: kinds,
        faults_failed: faults
            .faults
            .iter()
            .filter_map(|fault| Some(format!("{} {}: {}", fault.kind, fault.target, fault.failed.as_ref()?)))
            .collect(),
        latency,
        quiet_latency,
        quiet,
        stayed,
        emptied_ms: history.emptied_ms,
        usage: history.usage.into_iter().filter_map(|(name, usage)| Some((name, used(usage)?))).collect(),
    }
}

/// Of a process that was there both times.
fn used([before, after]: [Option<(u64, u64)>; 2]) -> Option<Usage> {
    let (before, after) = (before?, after?);
    Some(Usage { bytes: (before.0, after.0), files: (before.1, after.1) })
}

/// I11: who is told to leave does so. Gives what did not, whatever else went on.
fn leaves(history: &mut History, faults: &Faults) -> Vec<String> {
    let mut stayed = Vec::new();
    for fault in faults.faults.iter().filter(|fault| matches!(fault.kind, FaultKind::Drain | FaultKind::Rolling)) {
        let Some(end) = fault.end.filter(|_| fault.failed.is_none()) else { continue };
        let is_near = |other: &Fault| {
            other.number != fault.number
                && other.begin <= end
                && other.end.is_none_or(|end| end.saturating_add(AFTERMATH) >= fault.begin)
        };
        let alone = !faults.faults.iter().any(is_near);
        history.judged(Rule::Leaves, u64::from(alone));
        if fault.stayed.is_empty() {
            continue;
        }
        let what = format!("{} {} at {} s: {}", fault.kind, fault.target, fault.begin / 1_000_000, fault.stayed);
        if alone {
            history.violate(Invariant::Progress, end, None, None, format!("with no other fault near, {what}"));
        }
        stayed.push(what);
    }
    stayed
}

fn outcomes(history: &mut History) {
    for message in history.messages.values() {
        match message.outcome {
            Some((outcome, _)) => {
                *history.totals.outcomes.entry(outcome).or_insert(0) += 1;
                history.totals.acknowledged += u64::from(outcome.is_ok());
            }
            None => {
                history.totals.unknown += 1;
                history.totals.unknown_arrived += u64::from(message.got.iter().any(|got| got.shown.is_some()));
            }
        }
    }
}

/// I1.
fn loss(history: &mut History) {
    let mut lost: Vec<(u64, MessageNumber, u32, Outcome)> = Vec::new();
    let (mut judged, mut accepted) = (0, 0);
    for (m, message) in &history.messages {
        let Some((outcome, t)) = message.outcome.filter(|(outcome, _)| outcome.is_ok()) else { continue };
        let kept = match message.class {
            Class::Chat => true,
            Class::Call | Class::Ephemeral => outcome == Outcome::Delivered,
        };
        if !kept {
            continue;
        }
        for d in &message.to {
            let removed = history.devices.get(d).and_then(|device| device.removed);
            accepted += u64::from(removed.is_some_and(|removed| removed < message.at));
            let stayed = history.devices.get(d).is_some_and(|device| device.removing.is_none());
            let shown = message.got.iter().any(|got| got.device == *d && got.shown.is_some());
            judged += u64::from(stayed);
            // A wild device that forgets acknowledges nothing, so what it has acknowledged is shown.
            if stayed && !shown {
                lost.push((t, *m, *d, outcome));
            }
        }
    }
    history.judged(Rule::Kept, judged);
    history.totals.to_removed_accepted = accepted;
    lost.sort_unstable_by_key(|(t, m, d, _)| (*t, *m, *d));
    let mut messages: Vec<_> = lost.iter().map(|(_, m, ..)| *m).collect();
    messages.sort_unstable();
    messages.dedup();
    history.totals.lost = messages.len() as u64;
    let shown_later = later(history);
    for (t, m, d, outcome) in lost {
        let place = match shown_later.get(&(m.device(), d)) {
            Some(greatest) if history.messages.get(&m).is_some_and(|message| message.seq < *greatest) => {
                "in the middle"
            }
            _ => "at the end",
        };
        let what =
            format!("{m} is {outcome:?} and device {d} never shows it ({place} of what it has from that sender)");
        history.violate(Invariant::Loss, t, Some(m), Some(d), what);
    }
}

/// The greatest seq that a device shows of a sender.
fn later(history: &History) -> HashMap<(u32, u32), u32> {
    let mut greatest = HashMap::new();
    for (m, message) in &history.messages {
        for got in message.got.iter().filter(|got| got.shown.is_some()) {
            let seq = greatest.entry((m.device(), got.device)).or_insert(0);
            *seq = message.seq.max(*seq);
        }
    }
    greatest
}

/// I2.
fn rejected(history: &mut History) {
    let (mut wrong, mut judged) = (Vec::new(), 0);
    for (m, message) in &history.messages {
        let Some((Outcome::Rejected, t)) = message.outcome else { continue };
        if message.again > 0 || history.is_disturbed(message.at, t) {
            continue;
        }
        judged += 1;
        wrong.extend(message.got.first().map(|got| (t, *m, got.device)));
    }
    history.judged(Rule::Nowhere, judged);
    wrong.sort_unstable();
    for (t, m, d) in wrong {
        history.violate(Invariant::Rejected, t, Some(m), Some(d), format!("{m} was rejected and came to device {d}"));
    }
}

/// I6.
fn consent(history: &mut History) {
    let mut inward: HashMap<(u32, u32), Vec<(u64, u64)>> = HashMap::new();
    let mut outward: HashMap<u32, Vec<(u64, u64)>> = HashMap::new();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for (m, message) in &history.messages {
        let Some(sender) = history.devices.get(&m.device()).map(|device| device.account) else { continue };
        let (Some(from), Some(to)) = (history.accounts.get(&sender), history.accounts.get(&message.account)) else {
            continue;
        };
        let inward =
            inward.entry((message.account, from.provider)).or_insert_with(|| closed::times(to, from.provider, false));
        let outward = outward.entry(sender).or_insert_with(|| closed::times(from, 0, true));
        let Some(end) = [inward, outward].into_iter().find_map(|times| within(times, message.at)) else { continue };
        let arrived =
            message.got.iter().filter_map(|got| Some((got.wire.map(|(first, _)| first).or(got.shown)?, got.device)));
        let arrived = arrived.min();
        // What is still open when the account opens may be decided then.
        let decided = [arrived.map(|(t, _)| t), message.outcome.map(|(_, t)| t)].into_iter().flatten().min();
        if decided.is_none_or(|t| t >= end) {
            continue;
        }
        tried += 1;
        if let Some((t, d)) = arrived {
            wrong.push((t, *m, d, message.account));
        }
    }
    history.totals.while_closed = tried;
    history.judged(Rule::Closed, tried);
    wrong.sort_unstable();
    for (t, m, d, account) in wrong {
        let what = format!(
            "{m} was sent while it was confirmed that it may not reach account {account}, and came to device {d}"
        );
        history.violate(Invariant::Consent, t, Some(m), Some(d), what);
    }
}

/// The end of the time that `t` is in.
fn within(times: &[(u64, u64)], t: u64) -> Option<u64> {
    let next = times.partition_point(|(_, end)| *end <= t);
    times.get(next).filter(|(begin, _)| *begin < t).map(|(_, end)| *end)
}

/// I11, but for recovery.
fn drained(history: &mut History) {
    let t = history.last;
    if !history.ended {
        history.violate(Invariant::Progress, t, None, None, "the run did not end in order".to_owned());
    }
    let mut stuck: Vec<(u32, String)> = Vec::new();
    let staying = history.devices.values().filter(|device| device.removing.is_none()).count() as u64;
    history.judged(Rule::Finished, staying);
    for (d, device) in &history.devices {
        if device.removing.is_some() {
            continue;
        }
        match device.drained {
            Some((0, 0)) => {}
            Some((waiting, open)) => stuck.push((*d, format!("device {d} ended with {waiting} waiting, {open} open"))),
            None => stuck.push((*d, format!("device {d} did not finish in the drain"))),
        }
    }
    stuck.sort_unstable();
    for (d, what) in stuck {
        history.violate(Invariant::Progress, t, None, Some(d), what);
    }
}
