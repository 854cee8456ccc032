//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::deployment::Store;
use crate::measure::schedule::Spacing;
use crate::scenario::Scenario;
use crate::subject::Kind;

/// What Causeway costs, by named scenarios against real processes on this machine.
#[derive(Debug, Parser)]
#[command(name = "causeway-bench")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs scenarios, each against a fresh deployment.
    Run {
        /// Which, one after the other.
        #[arg(required = true, value_name = "SCENARIO")]
        scenarios: Vec<Scenario>,
        #[command(flatten)]
        options: Box<Options>,
        #[command(flatten)]
        output: Output,
    },
    /// Runs the standard set, in less than ten minutes.
    Standard {
        /// The `causeway` binary, built with optimisation.
        #[arg(long, value_name = "FILE", default_value = "target/release/causeway")]
        server: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Runs the same works on Causeway and on servers to compare with, in less than ten minutes, and shows the ratios.
    Peers {
        /// The `causeway` binary, built with optimisation.
        #[arg(long, value_name = "FILE", default_value = "target/release/causeway")]
        server: PathBuf,
        /// Without these servers.
        #[arg(long, value_name = "SERVER")]
        without: Vec<Kind>,
        #[command(flatten)]
        output: Output,
    },
    /// Puts the tables of a finished run into a document.
    Tables {
        /// What --json has written.
        json: PathBuf,
        /// The document.
        document: PathBuf,
        /// It is a comparison with other servers.
        #[arg(long)]
        peers: bool,
    },
    /// Holds the sessions that the standard input names, for `idle` of another process of this program.
    #[command(hide = true)]
    Hold,
}

/// Where results go besides the standard output.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Everything that was measured, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A document with marks between which tables belong, such as docs/performance.md.
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
}

/// How scenarios are run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The `causeway` binary, built with optimisation.
    #[arg(long, value_name = "FILE", default_value = "target/release/causeway")]
    pub(crate) server: PathBuf,
    /// What is measured: Causeway, in how many processes, or another server.
    #[arg(long, value_enum, default_value_t = Kind::All)]
    pub(crate) deployment: Kind,
    /// Where messages and keys are kept.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    pub(crate) store: Store,
    /// Edges of `--deployment split`.
    #[arg(long, default_value_t = 1, value_parser = bounded::<1, 64>)]
    pub(crate) edges: usize,
    /// Threads of clients.
    #[arg(long, default_value_t = 1, value_parser = bounded::<1, 64>)]
    pub(crate) threads: usize,
    /// Load before anything counts, in seconds.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// Seconds of each repetition.
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Repetitions, one right after the other.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) repeat: u8,
    /// Pairs of a sender and a recipient; for logins, half of the devices.
    #[arg(long, default_value_t = 200, value_parser = bounded::<1, 20_000>)]
    pub(crate) pairs: usize,
    /// Messages without an outcome that a sender has, when it is saturated.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) in_flight: u32,
    /// The same when recipients are away.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) store_in_flight: u32,
    /// Messages that `store` has acknowledged before all processes are killed; 0: they are killed in the middle of it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub(crate) store_messages: u32,
    /// Bytes of a message for each device.
    #[arg(long, default_value_t = 344, value_parser = bounded::<1, 60_000>)]
    pub(crate) body: usize,
    /// Messages a second of `rate` and `mixed`.
    #[arg(long, default_value_t = 2_000.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// How far apart arrivals are.
    #[arg(long, value_enum, default_value_t = Spacing::Poisson)]
    pub(crate) spacing: Spacing,
    /// Sessions of `idle`.
    #[arg(long, default_value_t = 5_000, value_parser = bounded::<1, 500_000>)]
    pub(crate) sessions: usize,
    /// Processes that hold the sessions of `idle`: as many as the limit of descriptors (`ulimit -n`) asks for, if it is not
    /// said. Each edge needs a descriptor for each of its sessions, too.
    #[arg(long, value_parser = bounded::<1, 64>)]
    pub(crate) generators: Option<usize>,
    /// Logins at a time.
    #[arg(long, default_value_t = 32, value_parser = bounded::<1, 4_000>)]
    pub(crate) at_a_time: usize,
    /// Messages that wait in each mailbox of `drain`.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=90_000))]
    pub(crate) messages: u32,
    /// Accounts whose keys are claimed, 100 times each.
    #[arg(long, default_value_t = 600, value_parser = bounded::<1, 20_000>)]
    pub(crate) targets: usize,
    /// Sessions that break off in `storm` and `mixed`.
    #[arg(long, default_value_t = 2_000, value_parser = bounded::<1, 100_000>)]
    pub(crate) storm_sessions: usize,
    /// Messages a second beside a storm.
    #[arg(long, default_value_t = 1_000.0, value_parser = rate)]
    pub(crate) storm_rate: f64,
}

fn bounded<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (LEAST..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("give a number from {LEAST} to {MOST}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.1..=3_600.0).contains(&number) => Ok(number),
        _ => Err("give seconds, from 0.1 to 3600".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.1..=1_000_000.0).contains(&number) => Ok(number),
        _ => Err("give a number a second, from 0.1 to 1000000".to_owned()),
    }
}
