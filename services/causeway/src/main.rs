//! The `causeway` binary: `all` runs everything in one process on embedded defaults; `edge`, `routing`, `key-directory`
//! and `media-relay` run one service each. It only composes: what a service does is in its own crate.
//!
//! A failed start is one sentence on standard error that names the field or file and the fix. Exit codes: 0 stopped
//! cleanly, 1 a failure, 2 wrong arguments or configuration.

mod all;
mod config;
mod first_start;
mod health;
#[cfg(test)]
mod reference;
mod single;
mod transport;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use causeway_runtime::lifecycle::Ended;
use causeway_runtime::telemetry::{Identity, Log, Telemetry, TelemetryError};
use causeway_runtime::{sentence, telemetry};
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::config::{Config, Role};

const EXIT_CONFIG: u8 = 2;

/// Messages are short-lived and cross threads: the system's allocator spent a third of all processor time on that, much of it
/// waiting for its own locks (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Messaging interoperability under the Digital Markets Act: the operator's side.
#[derive(Debug, Parser)]
#[command(name = "causeway", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process, data in one folder; the first start makes its keys.
    All(Common),
    /// Client connections.
    Edge(Common),
    /// Who gets what.
    Routing(Common),
    /// Who is who.
    KeyDirectory(Common),
    /// Media.
    MediaRelay(Common),
    /// Read and check the configuration, then leave.
    CheckConfig(Checked),
    /// Run once, before the first start, after the directory's database was restored from a backup or moved
    /// (docs/backups.md): one-time prekeys that may have been handed out are given up.
    AfterRestore(Restored),
    /// Print what can be set, in Markdown: every field, its default, range and meaning.
    ConfigReference,
}

/// What all subcommands take; everything else is in the configuration (docs/operating.md).
#[derive(Debug, Clone, Args)]
struct Common {
    /// Folder for data and keys; made if it is absent.
    #[arg(long, env = "CAUSEWAY_DATA", default_value = ".causeway/data", value_name = "DIR")]
    data: PathBuf,
    /// Configuration file (TOML). Environment variables `CAUSEWAY_EDGE__LISTEN` and the like go before it.
    #[arg(long, env = "CAUSEWAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What `check-config` takes.
#[derive(Debug, Clone, Args)]
struct Checked {
    #[command(flatten)]
    common: Common,
    /// Check what a process of this service uses, as it would at its start. By default everything is checked.
    #[arg(long, value_name = "SERVICE")]
    service: Option<Role>,
}

/// What `after-restore` takes.
#[derive(Debug, Clone, Args)]
struct Restored {
    #[command(flatten)]
    common: Common,
    /// The database is as it was last, and has only been moved: one-time prekeys stay.
    #[arg(long)]
    nothing_lost: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (common, role) = match &arguments.command {
        Command::All(common) => (common, Some(Role::All)),
        Command::Edge(common) => (common, Some(Role::Edge)),
        Command::Routing(common) => (common, Some(Role::Routing)),
        Command::KeyDirectory(common) => (common, Some(Role::KeyDirectory)),
        Command::MediaRelay(common) => (common, Some(Role::MediaRelay)),
        Command::CheckConfig(checked) => (&checked.common, checked.service),
        Command::AfterRestore(restored) => (&restored.common, Some(Role::KeyDirectory)),
        Command::ConfigReference => return print_reference(),
    };
    if let Err(error) = refuse_planted_bugs() {
        return complain(&error, EXIT_CONFIG);
    }
    let config = match Config::load(&common.data, common.config.as_deref(), role) {
        Ok(config) => config,
        Err(error) => return complain(&error, EXIT_CONFIG),
    };
    if matches!(arguments.command, Command::CheckConfig(_)) {
        return say_right(&config, role);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, 1),
    };
    if let Command::AfterRestore(restored) = &arguments.command {
        return match runtime.block_on(Box::pin(after_restore(&config, restored.nothing_lost))) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&sentence::of(error.as_ref()), 1),
        };
    }
    let telemetry = match start_telemetry(&runtime, role, &config) {
        Ok(telemetry) => telemetry,
        Err(error) => return complain(&error, EXIT_CONFIG),
    };
    for (variable, meant) in misspelt(&config) {
        tracing::warn!(variable, meant, "this variable of the environment is no setting; the other one may be meant");
    }
    let ended = runtime.block_on(async {
        // Each future holds its whole configuration: too much for the stack frame of all of them.
        match arguments.command {
            Command::All(common) => Box::pin(all::run(config, &common.data)).await,
            Command::Edge(_) => Box::pin(single::edge(config)).await,
            Command::Routing(_) => Box::pin(single::routing(config)).await,
            Command::KeyDirectory(_) => Box::pin(single::key_directory(config)).await,
            Command::MediaRelay(_) => Box::pin(single::media_relay(config)).await,
            // They have left before.
            Command::CheckConfig(_) | Command::AfterRestore(_) | Command::ConfigReference => Ok(Ended::Clean),
        }
    });
    telemetry.finish();
    match ended {
        Ok(Ended::Clean) => ExitCode::SUCCESS,
        Ok(Ended::Overdue) => complain(&"something did not stop within server.shutdown_grace_ms and was cut off", 1),
        Ok(Ended::Failed) => complain(&"a part failed; the log above says which", 1),
        Err(error) => complain(&sentence::of(error.as_ref()), 1),
    }
}

fn misspelt(config: &Config) -> Vec<(String, String)> {
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    causeway_runtime::config::misspelt(config, variables)
}

/// What `check-config` says if nothing is wrong.
fn say_right(config: &Config, role: Option<Role>) -> ExitCode {
    for (variable, meant) in misspelt(config) {
        let _closed = writeln!(std::io::stderr(), "causeway: note: {variable} is no setting; is {meant} meant?");
    }
    let of = role.as_ref().and_then(clap::ValueEnum::to_possible_value);
    let of = of.map_or_else(|| "everything".to_owned(), |role| role.get_name().to_owned());
    let _closed = writeln!(std::io::stdout(), "the configuration is right, for {of}");
    ExitCode::SUCCESS
}

async fn after_restore(config: &Config, nothing_lost: bool) -> anyhow::Result<()> {
    let given_up = causeway_key_directory::after_restore(&config.directory, nothing_lost).await?.prekeys;
    let mut out = std::io::stdout();
    if nothing_lost {
        writeln!(out, "the directory is at home here from now on; nothing was given up")?;
    } else {
        writeln!(out, "given up: {given_up} one-time prekeys; devices publish new ones at their next login")?;
    }
    if given_up == 0 && !nothing_lost {
        writeln!(std::io::stderr(), "causeway: note: there were none. Is this the database that was restored?")?;
    }
    Ok(())
}

/// Before anything is built, so that it is counted.
fn start_telemetry(runtime: &Runtime, role: Option<Role>, config: &Config) -> Result<Telemetry, TelemetryError> {
    let _within = runtime.enter();
    let service = role.unwrap_or(Role::All).service();
    let who = Identity { service, version: env!("CARGO_PKG_VERSION"), deployment: &config.edge.deployment };
    telemetry::start(Log { filter: &config.log.filter, format: config.log.format }, &config.telemetry, who)
}

fn print_reference() -> ExitCode {
    match std::io::stdout().write_all(include_bytes!("../../../docs/configuration.md")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

/// Whoever asks for a bug on purpose must have a build that has bugs on purpose, which no release is.
fn refuse_planted_bugs() -> Result<(), &'static str> {
    match std::env::var_os("CAUSEWAY_PLANTED_BUG") {
        Some(_) if !cfg!(feature = "planted-bugs") => {
            Err("CAUSEWAY_PLANTED_BUG is set, and this build has no bugs on purpose (feature planted-bugs): unset it")
        }
        _ => Ok(()),
    }
}

fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _closed = writeln!(std::io::stderr(), "causeway: {error}");
    ExitCode::from(code)
}
