//! `causeway-faults`: runs the ledger test, and checks a finished run.

mod planted;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use causeway_faults::checker::{self, Verdict};
use causeway_faults::cluster::ClusterOptions;
use causeway_faults::driver::clustered::Clustered;
use causeway_faults::driver::plain::Plain;
use causeway_faults::driver::run::{self, Plan};
use causeway_faults::events::FaultKind;
use causeway_faults::workload::Shape;
use causeway_faults::{nemesis, report};
use clap::{Args, Parser, Subcommand};
use rand::TryRngCore as _;
use rand::rngs::OsRng;

/// The ledger test: load, faults on purpose, and the checker of the delivery contract.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Loads a deployment, disturbs it, and judges what came of it.
    Run(Run),
    /// Plants one bug after the other in the servers, and says after how many faults each is found.
    Planted {
        /// The `causeway` binary, built with the feature `planted-bugs`.
        #[arg(long)]
        binary: PathBuf,
        /// Bugs, all if none is given.
        #[arg(long, value_delimiter = ',')]
        bugs: Vec<String>,
        /// How the runs are.
        #[command(flatten)]
        run: Run,
        /// The `causeway-simulation` binary, built with the feature `planted-bugs`, for what only it finds.
        #[arg(long)]
        simulation: Option<PathBuf>,
    },
    /// Judges a finished run again from its folder.
    Check {
        /// The run's folder.
        folder: PathBuf,
        /// Asserts what a busy machine may miss, too.
        #[arg(long)]
        strict: bool,
    },
}

#[derive(Args, Clone)]
struct Run {
    /// `one`, `scaled`, `scaled-standby`, ...; `plain`: one process that nobody disturbs.
    #[arg(long, default_value = "one")]
    variant: String,
    /// Workload and faults are made of it. Drawn if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long load and faults go on.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Messages a second.
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Accounts with light devices.
    #[arg(long, default_value_t = 100)]
    accounts: u32,
    /// Accounts with devices of the SDK.
    #[arg(long, default_value_t = 10)]
    sdk_accounts: u32,
    /// Changes a second of consent, devices and keys.
    #[arg(long, default_value_t = 1.5)]
    controls: f64,
    /// Outside quiet periods a fault begins about each so many seconds.
    #[arg(long, default_value_t = 5.0)]
    pace: f64,
    /// Kinds of faults, all if none is given: `kill`, `pause`, `commit-cut`, ...
    #[arg(long, value_delimiter = ',')]
    faults: Vec<FaultKind>,
    /// Only targets that have one of these in their names: `routing`, `edge-1>`, ...
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// Files a second that users upload.
    #[arg(long, default_value_t = 0.5)]
    media: f64,
    /// Asserts what a busy machine may miss, too: repeats on the wire, outcomes soon after a heal and while one process is away.
    #[arg(long)]
    strict: bool,
    /// Seconds that the drain may take.
    #[arg(long, default_value_t = 300)]
    drain: u64,
    /// Says little unless something is wrong.
    #[arg(long)]
    quiet: bool,
    /// Folders of runs are made in this one.
    #[arg(long, default_value = "target/faults")]
    out: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "warn,libsignal_protocol_syft=error".into()),
        )
        .init();
    match Arguments::parse().command {
        Command::Run(arguments) => {
            let seed = seed(&arguments)?;
            show(&format!("seed {seed}, variant {}", arguments.variant));
            let quiet = arguments.quiet;
            let (verdict, folder) = runtime()?.block_on(run(arguments, seed, None))?;
            if quiet && verdict.is_good() {
                show(&report::line(&verdict));
            } else {
                show(&std::fs::read_to_string(folder.join(report::MARKDOWN))?);
                show(&format!("everything of this run is in {}", folder.display()));
            }
            Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Planted { binary, bugs, run, simulation } => planted::all(&binary, simulation.as_deref(), &bugs, &run),
        Command::Check { folder, strict } => {
            let (verdict, faults) = checker::check_folder(&folder, strict)?;
            show(&report::write(&folder, &verdict, &faults)?);
            Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The seed that is given, or a new one.
fn seed(arguments: &Run) -> anyhow::Result<u64> {
    match arguments.seed {
        Some(seed) => Ok(seed),
        None => Ok(u64::from(OsRng.try_next_u32().context("randomness")?)),
    }
}

/// One run, with a planted bug and the binary that has it, or without.
async fn run(arguments: Run, seed: u64, bug: Option<(String, PathBuf)>) -> anyhow::Result<(Verdict, PathBuf)> {
    let (planted, binary) = bug.unzip();
    let name = planted.as_ref().map_or_else(|| arguments.variant.clone(), |bug| format!("{}-{bug}", arguments.variant));
    let plan = Plan {
        seed,
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        drain: Duration::from_secs(arguments.drain),
        shape: Shape {
            accounts: arguments.accounts,
            sdk_accounts: arguments.sdk_accounts,
            rate: arguments.rate,
            controls: arguments.controls,
            media: arguments.media,
        },
        folder: run::folder(&arguments.out, &name, seed),
        variant: arguments.variant,
        planted,
        strict: arguments.strict,
        progress: !arguments.quiet,
    };
    let folder = plan.folder.clone();
    let verdict = if plan.variant == "plain" {
        run::run(&plan, |_faults| Plain::start(&folder)).await?
    } else {
        let variant = plan.variant.parse()?;
        let options = ClusterOptions { variant, seed, folder, settings: Vec::new(), binary };
        let mut nemesis = nemesis::Plan::new(plan.time);
        nemesis.pace = Duration::from_secs_f64(arguments.pace);
        nemesis.targets = arguments.targets;
        if !arguments.faults.is_empty() {
            nemesis.kinds = arguments.faults;
        }
        run::run(&plan, |log| Clustered::start(options, nemesis, log)).await?
    };
    Ok((verdict, plan.folder))
}

#[expect(clippy::print_stdout, reason = "what the person who started it reads")]
fn show(text: &str) {
    println!("{text}");
}
