//! Holds the core paths of Causeway to what they cost when that was last looked at (docs/costs.md): instructions,
//! allocations and allocated bytes for each message. These do not depend on how fast or busy the machine is.
//!
//! `paths` has the paths, each a function that does so many operations; `count` runs them under valgrind and counts;
//! `figures` knows what is on record and compares. To add a path: a line in `paths::ALL`, then `make costs RECORD=1`.

mod count;
mod deployment;
mod figures;
mod paths;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::figures::{Figures, Verdict};
use crate::paths::CorePath;

/// What is on record.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.toml");
/// A path that seems to cost more is counted so often in all: the least is what it needs.
const ATTEMPTS: usize = 3;

#[derive(Parser)]
#[command(about = "Counts instructions and allocations of the core paths")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Counts, and compares with what is on record.
    Check {
        /// Only these paths.
        names: Vec<String>,
    },
    /// Counts, and takes that as what is right.
    Record {
        /// Only these paths.
        names: Vec<String>,
    },
    /// Shows where the instructions of a path are spent (callgrind).
    Profile { name: String },
    /// Does so many operations of a path: what is counted.
    Run { name: String, operations: u32 },
}

fn main() -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!cfg!(debug_assertions), "this is built without optimisation: use `make costs`");
    match Arguments::parse().task {
        Task::Check { names } => check(&names),
        Task::Record { names } => record(&names),
        Task::Profile { name } => {
            let file = count::profile(paths::find(&name)?)?;
            say(&format!("callgrind_annotate {} | less", file.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Run { name, operations } => {
            paths::find(&name)?.run(operations)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(names: &[String]) -> anyhow::Result<ExitCode> {
    let figures = Figures::read(Path::new(RECORD))?;
    let here = count::maker()?;
    let tolerance = figures.tolerance(&here);
    if figures.made_with != here {
        say(&format!("NOTE: recorded with {}; this is {here}: more is let through", figures.made_with))?;
    }
    let mut failures = 0_usize;
    let chosen = chosen(names)?;
    for (path, mut cost) in chosen.iter().zip(count::count(&chosen)?) {
        let mut verdict = figures.judge(path.name, cost, tolerance);
        for _ in 1..ATTEMPTS {
            if !matches!(verdict, Verdict::Dearer(_)) {
                break;
            }
            cost = cost.least(count::count(&[path])?[0]);
            verdict = figures.judge(path.name, cost, tolerance);
        }
        say(&format!("{:<16} {cost}", path.name))?;
        if let Some(complaint) = verdict.complaint(path.name) {
            failures += 1;
            say(&complaint)?;
        }
    }
    if names.is_empty() {
        for name in figures.strangers(paths::ALL.iter().map(|path| path.name)) {
            failures += 1;
            say(&format!("{name} is on record, and there is no such path: record anew (make costs RECORD=1)"))?;
        }
    }
    if failures == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    say(
        "If that is meant, record it with `make costs RECORD=1`, and say in the commit what it is for (docs/costs.md).",
    )?;
    Ok(ExitCode::FAILURE)
}

fn record(names: &[String]) -> anyhow::Result<ExitCode> {
    let file = Path::new(RECORD);
    let here = count::maker()?;
    let mut figures = if names.is_empty() { Figures::new(here.clone()) } else { Figures::read(file)? };
    anyhow::ensure!(
        figures.made_with == here,
        "the figures were recorded with {}, this is {here}: record all of them",
        figures.made_with
    );
    let chosen = chosen(names)?;
    for (path, cost) in chosen.iter().zip(count::count(&chosen)?) {
        say(&format!("{:<16} {cost}", path.name))?;
        figures.set(path.name, cost);
    }
    figures.write(file)?;
    Ok(ExitCode::SUCCESS)
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static CorePath>> {
    if names.is_empty() {
        return Ok(paths::ALL.iter().collect());
    }
    names.iter().map(|name| paths::find(name)).collect()
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("standard output")
}
