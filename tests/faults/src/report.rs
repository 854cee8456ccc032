//! A verdict for people and for programs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::checker::figures::Share;
use crate::checker::{Invariant, Latency, Recovery, Rule, Usage, Verdict, timeline};
use crate::events::Faults;

/// The report for people, in a run's folder.
pub const MARKDOWN: &str = "report.md";
/// The report for programs.
pub const JSON: &str = "report.json";

/// Violations that are shown with what led to them.
const SHOWN: usize = 12;

/// Writes both reports into the run's folder; gives the one for people.
///
/// # Errors
/// The ledger cannot be read again, or the files not written.
pub fn write(folder: &Path, verdict: &Verdict, faults: &Faults) -> anyhow::Result<String> {
    let shown = &verdict.violations[..verdict.violations.len().min(SHOWN)];
    let timelines = if shown.is_empty() { Vec::new() } else { timeline::timelines(folder, faults, shown)? };
    let text = markdown(verdict, faults, &timelines)?;
    std::fs::write(folder.join(MARKDOWN), &text).context("write the report")?;
    std::fs::write(folder.join(JSON), serde_json::to_vec_pretty(verdict)?).context("write the report")?;
    Ok(text)
}

/// The verdict of a good run in one line.
pub fn line(verdict: &Verdict) -> String {
    format!("{}; every invariant holds", summary(verdict))
}

/// What happened, in one line.
fn summary(verdict: &Verdict) -> String {
    let (totals, media) = (&verdict.totals, &verdict.totals.media);
    let minutes = minutes(verdict);
    format!(
        "{}: {} faults of {} kinds in {minutes:.1} min ({} more met nothing, {} failed); {} messages, {} acknowledged, {} lost, {} \
         of {} shown twice by the SDK, {} out of order; {} files stored, {} lost",
        verdict.variant,
        verdict.fault_count(),
        verdict.kind_count(),
        verdict.idle_count(),
        verdict.faults_failed.len(),
        totals.submitted,
        totals.acknowledged,
        totals.lost,
        totals.duplicated,
        totals.shown_sdk,
        totals.inversions,
        media.stored,
        media.lost,
    )
}

#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn minutes(verdict: &Verdict) -> f64 {
    verdict.lasted as f64 / 60_000_000.0
}

/// The report as Markdown, with the timelines of its first violations.
///
/// # Errors
/// None in practice.
pub fn markdown(verdict: &Verdict, faults: &Faults, timelines: &[Vec<String>]) -> anyhow::Result<String> {
    let mut text = String::new();
    let out = &mut text;
    let totals = &verdict.totals;
    let planted = verdict.planted.as_ref().map(|bug| format!(", planted bug `{bug}`")).unwrap_or_default();
    writeln!(out, "# Ledger test: variant {}, seed {}{planted}\n", verdict.variant, verdict.seed)?;
    if verdict.is_good() {
        writeln!(out, "**Every invariant holds.** {}.\n", summary(verdict))?;
    } else if let (true, Some(why)) = (verdict.violated.is_empty(), verdict.proves_nothing()) {
        writeln!(out, "**This run proves nothing**: {why}.\n")?;
    } else {
        let rules: Vec<_> = verdict.violated.iter().map(|(rule, count)| format!("{rule:?} ({count})")).collect();
        writeln!(out, "**VIOLATED: {}.** {}.\n", rules.join(", "), summary(verdict))?;
    }
    writeln!(out, "| messages | |\n|---|---|")?;
    let rows = [
        ("submitted", totals.submitted),
        ("submitted again", totals.again),
        ("acknowledged (`delivered`, `stored`)", totals.acknowledged),
        ("acknowledged and lost", totals.lost),
        ("shown on devices of the SDK", totals.shown_sdk),
        ("of these, twice (others drop repeats before they write anything down)", totals.duplicated),
        ("out of order within a pair", totals.inversions),
        ("late, since a refusal was not heard", totals.late_retries),
        ("without an outcome", totals.unknown),
        ("of these, arrived", totals.unknown_arrived),
        ("shown on devices", totals.shown),
        ("deliveries on the wire", totals.wire),
        ("of these, repeats", totals.wire_repeats),
        ("of these, of what was acknowledged", totals.wire_repeats_acknowledged),
        ("decided while consent was closed", totals.while_closed),
        ("named a device that was removed before", totals.to_removed),
        ("of these, accepted (for the other devices)", totals.to_removed_accepted),
        ("logins of removed devices that were refused", totals.logins_of_removed),
        ("files uploaded", totals.media.uploads),
        ("of these, stored", totals.media.stored),
        ("stored, and not to be fetched in the end", totals.media.lost),
        ("refused while something was disturbed", totals.media.refused_in_faults),
    ];
    for (name, count) in rows {
        writeln!(out, "| {name} | {count} |")?;
    }
    for (fetched, count) in &totals.media.downloads {
        writeln!(out, "| files fetched: {} | {count} |", format!("{fetched:?}").to_lowercase())?;
    }
    for (outcome, count) in &totals.outcomes {
        writeln!(out, "| outcome {outcome:?} | {count} |")?;
    }
    for (reason, count) in &totals.rejections {
        writeln!(out, "| rejection {reason} | {count} |")?;
    }
    writeln!(
        out,
        "\n{} devices ({} removed), {} sessions, {} changes of consent, {} prekey bundles, {} wrong acks.\n",
        totals.devices, totals.removed, totals.sessions, totals.consents, totals.bundles, totals.wrong_acks
    )?;
    writeln!(
        out,
        "With no fault near (15 s after the last one was healed): {} of the time.",
        percent(verdict.quiet, verdict.lasted)
    )?;
    if let Some(ms) = verdict.emptied_ms {
        writeln!(out, "Mailboxes and presence were empty {:.1} s after all sessions had ended.", seconds(ms))?;
    }
    writeln!(
        out,
        "\nFrom submission to outcome, in ms:\n\n| | messages | median | p99 | p99.9 | worst |\n|---|---|---|---|---|---|"
    )?;
    for (name, latency) in [("all", verdict.latency), ("with no fault near", verdict.quiet_latency)] {
        let Latency { count, p50, p99, p999, worst } = latency;
        writeln!(out, "| {name} | {count} | {p50:.1} | {p99:.1} | {p999:.0} | {worst:.0} |")?;
    }
    faults_table(out, verdict)?;
    figures_table(out, verdict)?;
    rules_table(out, verdict)?;
    usage_table(out, verdict)?;
    for (why, count) in &totals.stopped {
        writeln!(out, "\nA client of the SDK stopped by itself, {count} times: {why}")?;
    }
    for failed in &verdict.faults_failed {
        writeln!(out, "\nNot as planned: {failed}")?;
    }
    for stayed in &verdict.stayed {
        writeln!(out, "\nTold to leave, and did not as it should: {stayed}")?;
    }
    for (violation, lines) in verdict.violations.iter().zip(timelines) {
        let before = faults.faults.iter().filter(|fault| fault.begin <= violation.t).count();
        writeln!(out, "\n## {:?}: {}\n", violation.invariant, violation.what)?;
        writeln!(out, "seed {}, after {before} faults\n\n```", verdict.seed)?;
        for line in lines {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "```")?;
    }
    Ok(text)
}

fn faults_table(out: &mut String, verdict: &Verdict) -> anyhow::Result<()> {
    if verdict.faults.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{} faults that did something, of {} kinds; {} met nothing that they could do anything to; {} did not go as planned.",
        verdict.fault_count(),
        verdict.kind_count(),
        verdict.idle_count(),
        verdict.faults_failed.len()
    )?;
    writeln!(
        out,
        "Until messages flowed again (times in ms, median / worst; *felt* are those that held up a message for a second"
    )?;
    writeln!(out, "or more, *first* and *last* are the outcomes of what was held up):\n")?;
    writeln!(
        out,
        "| fault | count | met nothing | failed | felt | lasted | first after begin | first after heal | last after heal |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for (kind, of) in &verdict.faults {
        let Recovery { count, idle, failed, felt, lasted, .. } = of;
        write!(out, "| {kind} | {count} | {idle} | {failed} | {felt} | {:.0} / {:.0} ", lasted.median, lasted.worst)?;
        for spread in [of.first_from_begin, of.first_from_heal, of.last_from_heal] {
            if *felt == 0 {
                write!(out, "| - ")?;
            } else {
                write!(out, "| {:.0} / {:.0} ", spread.median, spread.worst)?;
            }
        }
        writeln!(out, "|")?;
    }
    Ok(())
}

fn figures_table(out: &mut String, verdict: &Verdict) -> anyhow::Result<()> {
    let figures = &verdict.figures;
    writeln!(out, "\n| asserted with `--strict` only | goal | this run |\n|---|---|---|")?;
    writeln!(out, "| repeats on the wire, to light devices | at most 1% | {} |", figures.repeats_obedient)?;
    writeln!(out, "| the same, to all devices (wild ones do not acknowledge) | | {} |", figures.repeats)?;
    writeln!(
        out,
        "| senders with an outcome within 10 s of a heal, no other fault near | all | {}; worst {:.0} ms |",
        figures.after_clear_heal, figures.after_clear_heal_worst
    )?;
    writeln!(out, "| the same, whatever else goes on | | {} |", figures.after_heal)?;
    writeln!(
        out,
        "| outcomes within 5 s while one process of several is away | at least 99% | {} |",
        figures.one_away
    )?;
    Ok(())
}

/// Nothing if the processes are not known.
fn usage_table(out: &mut String, verdict: &Verdict) -> anyhow::Result<()> {
    if verdict.usage.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n| before the load and after the drain | memory, MiB | of before | descriptors | of before |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for (name, Usage { bytes, files }) in &verdict.usage {
        writeln!(
            out,
            "| {name} | {} to {} | {} | {} to {} | {} |",
            bytes.0 >> 20,
            bytes.1 >> 20,
            percent(bytes.1, bytes.0),
            files.0,
            files.1,
            percent(files.1, files.0)
        )?;
    }
    Ok(())
}

fn percent(part: u64, of: u64) -> String {
    Share { part, of }.share().map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0))
}

#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn rules_table(out: &mut String, verdict: &Verdict) -> anyhow::Result<()> {
    writeln!(out, "\n| invariant | rule | judged |\n|---|---|---|")?;
    for rule in Rule::ALL {
        let judged = verdict.judged.get(&rule).map_or_else(|| "not judged".to_owned(), ToString::to_string);
        writeln!(out, "| {:?} | {} | {judged} |", rule.invariant(), rule.what())?;
    }
    writeln!(out, "\n| invariant | violations |\n|---|---|")?;
    for rule in Invariant::ALL {
        writeln!(out, "| {rule:?} | {} |", verdict.violated.get(&rule).unwrap_or(&0))?;
    }
    Ok(())
}
