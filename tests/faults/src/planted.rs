//! Runs with a bug planted in the servers: each must be found.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use causeway_faults::checker::Invariant;
use causeway_faults::events::{self, FaultKind};

use crate::{Run, run, runtime, seed, show};

/// Bugs that `services/*/src/planted.rs` knows, and what finds them.
const BUGS: [(&str, &str); 8] = [
    ("ack-before-durable", "a message is `stored` before it is"),
    ("dedup-off", "outcomes are not remembered"),
    ("order-broken", "two deliveries in a thousand change places"),
    ("consent-cached-too-long", "changes of consent are not taken in"),
    ("wrong-ack-accepted", "a tag that was never sent may be acknowledged"),
    ("delete-before-device-ack", "what is given to a device is erased before it acknowledges"),
    ("presence-trusted", "what is for a device that was attached lately is not written"),
    ("owner-not-fenced", "a replica goes on deciding and writing after its lease"),
];

/// Plants all of these bugs, one after the other.
pub(crate) fn all(binary: &Path, bugs: &[String], arguments: &Run) -> anyhow::Result<ExitCode> {
    let binary = std::path::absolute(binary).context("path of the binary")?;
    anyhow::ensure!(binary.is_file(), "{} is not there", binary.display());
    let mut missed = 0;
    let mut table = String::from("| bug | found by | after faults | after s |\n|---|---|---|---|");
    for (bug, what) in BUGS.iter().filter(|(bug, _)| bugs.is_empty() || bugs.iter().any(|named| named == bug)) {
        // One process has no leases.
        if *bug == "owner-not-fenced" && arguments.variant == "one" {
            continue;
        }
        show(&format!("planting {bug}: {what}"));
        let seed = seed(arguments)?;
        let wrapper = wrapper(&arguments.out, &binary, bug)?;
        let planted = Some(((*bug).to_owned(), wrapper));
        let mut arguments = arguments.clone();
        if *bug == "owner-not-fenced" {
            focus_on_owners(&mut arguments);
        }
        let (verdict, folder) = runtime()?.block_on(run(arguments.clone(), seed, planted))?;
        let faults = events::read(&folder)?.faults;
        // Of progress there may be too little for other reasons.
        let first = verdict.violations.iter().find(|violation| violation.invariant != Invariant::Progress);
        let row = match first.or(verdict.violations.first()) {
            Some(first) => {
                let before = faults.iter().filter(|fault| fault.begin <= first.t).count();
                let rules: Vec<_> = verdict.violated.iter().map(|(rule, n)| format!("{rule:?} ({n})")).collect();
                format!("| {bug} | {} | {before} of {} | {} |", rules.join(", "), faults.len(), first.t / 1_000_000)
            }
            None => {
                missed += 1;
                format!("| {bug} | NOT FOUND, seed {seed} | {} | |", faults.len())
            }
        };
        show(&row);
        table.push('\n');
        table.push_str(&row);
    }
    std::fs::write(arguments.out.join("planted.md"), &table).context("write the table")?;
    show(&format!("\n{table}"));
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Two decide about an account if one of them has lost its lease without noticing (it stood still, or could not reach the
/// store), and one edge has lost its way to it while another has not.
fn focus_on_owners(arguments: &mut Run) {
    let parts = [">routing-", "routing-1", "routing-2", "routing-3"];
    arguments.targets = parts.map(str::to_owned).to_vec();
    arguments.faults = vec![FaultKind::Pause, FaultKind::Cut, FaultKind::Cut, FaultKind::CutBack];
}

/// A program that starts the servers with the bug.
fn wrapper(out: &Path, binary: &Path, bug: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let path = std::path::absolute(out.join(format!("causeway-{bug}")))?;
    let script = format!("#!/bin/sh\nCAUSEWAY_PLANTED_BUG={bug} exec '{}' \"$@\"\n", binary.display());
    std::fs::write(&path, script).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
