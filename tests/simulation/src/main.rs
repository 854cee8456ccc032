//! Deterministic simulation of delivery: the real edge and routing code, several of each, over a simulated network and in
//! simulated time, with stores that crash, and clients that keep a ledger (docs/faults.md).
//!
//! `one` runs one seed in this process. `run` runs many, each in a process of its own whose randomness comes from the seed,
//! so that a seed always gives the same run.

mod client;
mod clock;
mod directory;
mod ledger;
mod net;
mod people;
mod runs;
mod schedule;
mod world;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "causeway-simulation", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One seed.
    One(One),
    /// Many seeds; ends with a failure if any of them found a promise broken, or was not deterministic.
    Run(runs::Run),
}

#[derive(Debug, Args)]
struct One {
    #[arg(long)]
    seed: u64,
    /// Print all that happened.
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::One(one) => run_one(&one),
        Command::Run(run) => runs::run(&run),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "causeway-simulation: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run_one(one: &One) -> anyhow::Result<bool> {
    if std::env::var_os("CAUSEWAY_SIMULATION_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(std::env::var("CAUSEWAY_SIMULATION_LOG").unwrap_or_default())
            .with_writer(std::io::stderr)
            .init();
    }
    let outcome = world::run(one.seed)?;
    let mut out = std::io::stdout().lock();
    if one.log {
        for line in &outcome.log {
            writeln!(out, "{line}")?;
        }
    }
    writeln!(out, "{}", outcome.summary())?;
    for violation in &outcome.violations {
        writeln!(out, "violation {violation}")?;
    }
    Ok(outcome.violations.is_empty())
}
