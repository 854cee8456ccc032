//! What a reader needs to see of a violation: everything about the message, and what happened around it.

use std::path::Path;

use super::Violation;
use crate::events::Faults;
use crate::ledger::{self, Record};

/// Lines of one timeline.
const MAX: usize = 60;
/// Sessions and faults this long before and after, in microseconds.
const AROUND: u64 = 3_000_000;

/// The lines, in order of time, for each of the violations.
///
/// # Errors
/// The ledger cannot be read.
pub fn timelines(folder: &Path, faults: &Faults, violations: &[Violation]) -> anyhow::Result<Vec<Vec<String>>> {
    let mut about: Vec<Vec<(u64, String)>> = vec![Vec::new(); violations.len()];
    let mut near: Vec<Vec<(u64, String)>> = vec![Vec::new(); violations.len()];
    for record in ledger::read(folder)? {
        let record = record?;
        for (index, violation) in violations.iter().enumerate() {
            let Some(t) = time(&record) else { continue };
            if violation.message.is_some() && message(&record) == violation.message {
                about[index].push((t, line(t, &record)));
            } else if let Some(d) = device(&record) {
                let concerns = violation.device == Some(d) || violation.message.is_some_and(|m| m.device() == d);
                let close = t.abs_diff(violation.t) < 20 * AROUND;
                if concerns && close {
                    near[index].push((t, line(t, &record)));
                }
            }
        }
    }
    let lines = about.into_iter().zip(near).zip(violations).map(|((about, near), violation)| {
        let from = about.first().map_or(violation.t, |(t, _)| *t).saturating_sub(AROUND);
        let to = about.last().map_or(violation.t, |(t, _)| *t).saturating_add(AROUND);
        let mut all = about;
        all.extend(near.into_iter().filter(|(t, _)| (from..=to).contains(t)));
        for fault in &faults.faults {
            let end = fault.end.unwrap_or(u64::MAX);
            if fault.begin <= to && end >= from {
                let what = format!("fault {} {} {} ({})", fault.number, fault.kind, fault.target, fault.how);
                all.push((fault.begin, format!("{:>12.6}  BEGIN {what}", seconds(fault.begin))));
                if let Some(end) = fault.end {
                    all.push((end, format!("{:>12.6}  HEAL  {what}", seconds(end))));
                }
            }
        }
        all.sort_by_key(|(t, _)| *t);
        let left_out = all.len().saturating_sub(MAX);
        let mut lines: Vec<String> = all.into_iter().take(MAX).map(|(_, line)| line).collect();
        if left_out > 0 {
            lines.push(format!("... and {left_out} more"));
        }
        lines
    });
    Ok(lines.collect())
}

fn line(t: u64, record: &Record) -> String {
    // The debug form names every field; the time stands in front.
    format!("{:>12.6}  {record:?}", seconds(t))
}

#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn seconds(t: u64) -> f64 {
    t as f64 / 1_000_000.0
}

fn time(record: &Record) -> Option<u64> {
    match record {
        Record::Submit { t, .. }
        | Record::Again { t, .. }
        | Record::Ack { t, .. }
        | Record::Wire { t, .. }
        | Record::App { t, .. }
        | Record::Login { t, .. }
        | Record::Unknown { t, .. }
        | Record::Up { t, .. }
        | Record::Down { t, .. }
        | Record::Removing { t, .. }
        | Record::Removed { t, .. }
        | Record::WrongAck { t, .. }
        | Record::WrongAckTaken { t, .. }
        | Record::StrayAck { t, .. }
        | Record::Stopped { t, .. }
        | Record::Device { t, .. } => Some(*t),
        _ => None,
    }
}

fn message(record: &Record) -> Option<ledger::MessageNumber> {
    match record {
        Record::Submit { m, .. }
        | Record::Again { m, .. }
        | Record::Ack { m, .. }
        | Record::Wire { m, .. }
        | Record::App { m, .. } => Some(*m),
        _ => None,
    }
}

fn device(record: &Record) -> Option<u32> {
    match record {
        Record::Login { d, .. }
        | Record::Unknown { d, .. }
        | Record::Up { d, .. }
        | Record::Down { d, .. }
        | Record::Removing { d, .. }
        | Record::Removed { d, .. }
        | Record::WrongAck { d, .. }
        | Record::WrongAckTaken { d, .. }
        | Record::StrayAck { d, .. }
        | Record::Stopped { d, .. }
        | Record::Device { d, .. } => Some(*d),
        _ => None,
    }
}
