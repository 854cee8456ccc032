//! Whether clocks agree: tokens, certificates and the order of messages depend on them.

use super::Patient;
use super::finding::{Check, Findings};
use crate::screen::seconds;

const MEND: &str =
    "synchronise its clock (timedatectl, chrony): tokens and certificates are refused by clocks that are off";

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    let told: Vec<_> = patient.seen.iter().filter_map(|seen| Some((seen, seen.offset?))).collect();
    let (off, good): (Vec<_>, Vec<_>) = told.iter().partition(|(_, offset)| offset.exceeds(patient.clock_tolerance_ms));
    let apart = |ms: i64| format!("{} {}", span(ms), if ms > 0 { "ahead" } else { "behind" });
    // All of several are off by the same: so it is this machine.
    let least = off.iter().map(|(_, offset)| offset.ms).min();
    let most = off.iter().map(|(_, offset)| offset.ms).max();
    if let (true, true, Some(least), Some(most)) = (good.is_empty(), off.len() > 1, least, most)
        && most.abs_diff(least) <= patient.clock_tolerance_ms
    {
        findings.problem(
            Check::Clocks,
            format!("all {} processes agree, and are {} of this machine", off.len(), apart(least)),
            "synchronise the clock of this machine, or of all others",
        );
        return;
    }
    for (seen, offset) in off {
        findings.problem(
            Check::Clocks,
            format!("the clock of {} is {} of this machine's", seen.name(), apart(offset.ms)),
            MEND,
        );
    }
    if let Some(most) = good.iter().map(|(_, offset)| offset.ms.unsigned_abs()).max() {
        let most = span(i64::try_from(most).unwrap_or(i64::MAX));
        findings.fine_else(Check::Clocks, format!("{} processes within {most} of this machine", good.len()));
    }
}

fn span(ms: i64) -> String {
    seconds(ms.unsigned_abs() as f64 / 1e3)
}
