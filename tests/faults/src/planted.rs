//! Runs with a bug planted in the servers: each must be found.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use causeway_faults::checker::Invariant;
use causeway_faults::events::{self, Fault, FaultKind};

use crate::{Run, run, runtime, seed, show};

/// The table, in the folder of the runs.
const TABLE: &str = "planted.md";
/// Seeds of the simulation until a bug counts as not found.
const SEEDS: &str = "2000";

/// A bug that `services/*/src/planted.rs` knows, and where to look for it.
struct Bug {
    name: &'static str,
    /// What is wrong then.
    what: &'static str,
    /// What must notice.
    breaks: &'static [Invariant],
    hunt: Hunt,
    /// It takes so many times as long as others.
    longer: f64,
}

enum Hunt {
    /// A run of this variant with these faults on targets that have one of these in their names (all, if there are none).
    Run(&'static str, &'static [FaultKind], &'static [&'static str]),
    /// Many seeds of the simulation.
    Simulation,
}

const PROCESSES: &[FaultKind] =
    &[FaultKind::Kill, FaultKind::Pause, FaultKind::Reset, FaultKind::Herd, FaultKind::CutMidway];

const BUGS: [Bug; 12] = [
    Bug {
        name: "ack-before-durable",
        what: "a message is `stored` before it is",
        breaks: &[Invariant::Loss],
        // A commit takes milliseconds, and a kill must hit one: so the disk is slow, full or broken.
        hunt: Hunt::Run("one", &[FaultKind::Kill, FaultKind::SyncSlow, FaultKind::SyncFails, FaultKind::DiskFull], &[]),
        longer: 1.0,
    },
    Bug {
        name: "dedup-off",
        what: "outcomes are not remembered",
        breaks: &[Invariant::Once],
        hunt: Hunt::Run("one", PROCESSES, &[]),
        longer: 1.0,
    },
    Bug {
        name: "order-broken",
        what: "two deliveries in a thousand change places",
        breaks: &[Invariant::Order],
        hunt: Hunt::Run("one", PROCESSES, &[]),
        longer: 1.0,
    },
    Bug {
        name: "consent-cached-too-long",
        what: "changes of consent are not taken in",
        breaks: &[Invariant::Consent],
        hunt: Hunt::Run("one", PROCESSES, &[]),
        longer: 1.0,
    },
    Bug {
        name: "wrong-ack-accepted",
        what: "a tag that was never sent may be acknowledged",
        breaks: &[Invariant::Acks],
        hunt: Hunt::Run("one", PROCESSES, &[]),
        longer: 1.0,
    },
    Bug {
        name: "delete-before-device-ack",
        what: "what is given to a device is erased before it acknowledges",
        breaks: &[Invariant::Loss],
        hunt: Hunt::Run("one", PROCESSES, &[]),
        longer: 1.0,
    },
    Bug {
        name: "presence-trusted",
        what: "what is for a device that was attached lately is not written",
        breaks: &[Invariant::Loss],
        hunt: Hunt::Run("one", PROCESSES, &[]),
        longer: 1.0,
    },
    Bug {
        name: "owner-not-fenced",
        what: "a replica goes on deciding and writing after its lease",
        breaks: &[Invariant::Order, Invariant::Loss, Invariant::Once],
        // Two decide about an account if one of them has lost its lease without noticing (it stood still, or could not reach
        // the store), and one edge has lost its way to it while another has not.
        hunt: Hunt::Run(
            "scaled",
            &[FaultKind::Pause, FaultKind::Cut, FaultKind::Cut, FaultKind::CutBack],
            &[">routing-", "routing-1", "routing-2", "routing-3"],
        ),
        longer: 2.5,
    },
    Bug {
        name: "owner-not-fenced",
        what: "the same in the simulation, over a store that fences nobody",
        breaks: &[Invariant::Order, Invariant::Loss, Invariant::Once],
        hunt: Hunt::Simulation,
        longer: 1.0,
    },
    Bug {
        name: "overtaking",
        what: "a message is let in while one sent before it was refused",
        breaks: &[Invariant::Order],
        hunt: Hunt::Simulation,
        longer: 1.0,
    },
    Bug {
        name: "late-attach-wins",
        what: "of two sessions the one that attaches later counts as the newer one, whichever login began later",
        breaks: &[Invariant::Session],
        hunt: Hunt::Simulation,
        longer: 1.0,
    },
    Bug {
        name: "chain-goes-on",
        what: "what comes behind a write that failed is written all the same",
        breaks: &[Invariant::Order],
        hunt: Hunt::Simulation,
        longer: 1.0,
    },
];

/// Plants all of these bugs, one after the other. The table is written after each, so that what is known is there even if the
/// next is broken off.
pub(crate) fn all(
    binary: &Path,
    simulation: Option<&Path>,
    bugs: &[String],
    arguments: &Run,
) -> anyhow::Result<ExitCode> {
    let binary = program(binary)?;
    if let Some(unknown) = bugs.iter().find(|named| !BUGS.iter().any(|bug| bug.name == **named)) {
        anyhow::bail!("{unknown} is no bug that could be planted");
    }
    std::fs::create_dir_all(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    let mut missed = 0;
    let mut table =
        String::from("| bug | variant | must break | found by | after faults | after s |\n|---|---|---|---|---|---|");
    for bug in BUGS.iter().filter(|bug| bugs.is_empty() || bugs.iter().any(|named| named == bug.name)) {
        show(&format!("planting {}: {}", bug.name, bug.what));
        let (found, row) = match bug.hunt {
            Hunt::Run(variant, faults, targets) => in_run(bug, (variant, faults, targets), &binary, arguments)?,
            Hunt::Simulation => match simulation {
                Some(simulation) => in_simulation(bug, &program(simulation)?, &arguments.out)?,
                None => {
                    (false, format!("| {} | simulation | | NOT LOOKED FOR: `--simulation` is missing | | |", bug.name))
                }
            },
        };
        missed += u32::from(!found);
        show(&row);
        table.push('\n');
        table.push_str(&row);
        std::fs::write(arguments.out.join(TABLE), format!("{table}\n")).context("write the table")?;
    }
    show(&format!("\n{table}"));
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn program(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).context("path of a program")?;
    anyhow::ensure!(path.is_file(), "{} is not there", path.display());
    Ok(path)
}

/// Whether it was found by what must find it, and a row of the table.
fn in_run(
    bug: &Bug,
    (variant, faults, targets): (&str, &[FaultKind], &[&str]),
    binary: &Path,
    arguments: &Run,
) -> anyhow::Result<(bool, String)> {
    let seed = seed(arguments)?;
    let planted = Some((bug.name.to_owned(), wrapper(&arguments.out, binary, bug.name)?));
    let arguments = Run {
        variant: variant.to_owned(),
        minutes: arguments.minutes * bug.longer,
        faults: faults.to_vec(),
        targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        ..arguments.clone()
    };
    let (verdict, folder) = runtime()?.block_on(run(arguments, seed, planted))?;
    let faults: Vec<Fault> = events::read(&folder)?.faults.into_iter().filter(Fault::did_something).collect();
    let head = format!("| {} | {variant} | {} |", bug.name, names(bug.breaks));
    // Another rule may notice too, but that is not what this is about.
    let first = verdict.violations.iter().find(|violation| bug.breaks.contains(&violation.invariant));
    let rules: Vec<_> = verdict.violated.iter().map(|(rule, n)| format!("{rule:?} ({n})")).collect();
    Ok(match first {
        Some(first) => {
            let before = faults.iter().filter(|fault| fault.begin <= first.t).count();
            let after = first.t / 1_000_000;
            (true, format!("{head} {} | {before} of {} | {after} |", rules.join(", "), faults.len()))
        }
        None => {
            let others = if rules.is_empty() { String::new() } else { format!(", but {}", rules.join(", ")) };
            (false, format!("{head} NOT FOUND, seed {seed}{others} | {} | |", faults.len()))
        }
    })
}

fn names(invariants: &[Invariant]) -> String {
    invariants.iter().map(|invariant| format!("{invariant:?}")).collect::<Vec<_>>().join(" or ")
}

fn in_simulation(bug: &Bug, simulation: &Path, out: &Path) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(simulation);
    command.args(["run", "--until-found", "--seeds", SEEDS]).env("CAUSEWAY_PLANTED_BUG", bug.name);
    let promises: Vec<_> = bug.breaks.iter().flat_map(|invariant| invariant.promises()).copied().collect();
    anyhow::ensure!(!promises.is_empty(), "the simulation does not look for what {} breaks", bug.name);
    for promise in &promises {
        command.args(["--promise", promise]);
    }
    let output = command.output().with_context(|| format!("run {}", simulation.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let log = out.join(format!("simulation-{}.txt", bug.name));
    std::fs::write(&log, said.as_bytes()).with_context(|| log.display().to_string())?;
    let figure = |name: &str| {
        let figures = said.lines().rfind(|line| line.contains("seeds=")).unwrap_or_default();
        let value = figures.split_whitespace().filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name);
        value.map_or("?", |(_, value)| value).to_owned()
    };
    let (seeds, faults, others) = (figure("seeds"), figure("faults"), figure("others"));
    anyhow::ensure!(seeds != "?", "the simulation said: {said}{}", String::from_utf8_lossy(&output.stderr));
    let head = format!("| {} | simulation | {} |", bug.name, names(bug.breaks));
    // `seed N: violation WHAT`
    let found = said.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(": violation "));
    let found = found.map(|(seed, what)| (seed, what.split_once(": ").map_or(what, |(rule, _)| rule)));
    Ok(match found {
        // Details are in the file.
        Some((seed, what)) => (true, format!("{head} {what} (seed {seed}) | {faults} in {seeds} seeds | |")),
        None => (false, format!("{head} NOT FOUND (others in {others} seeds) | {faults} in {seeds} seeds | |")),
    })
}

/// A program that starts the servers with the bug.
fn wrapper(out: &Path, binary: &Path, bug: &str) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(out.join(format!("causeway-{bug}")))?;
    let script = format!("#!/bin/sh\nCAUSEWAY_PLANTED_BUG={bug} exec '{}' \"$@\"\n", binary.display());
    std::fs::write(&path, script).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
