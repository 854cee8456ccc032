//! `causeway-bench`: what Causeway costs, by named scenarios against real processes on this machine (docs/performance.md).
//!
//! A scenario is a file in `scenario/`: it gets a server that runs ([`deployment`]) with people on it ([`people`]), lets players
//! ([`players`]) decide what their sessions do, which threads of [`engine`] carry, and makes figures of what they and the servers'
//! processes have counted ([`run`], [`measure`]). Another server to compare with is one more [`subject`] and its own [`wire`], with the
//! same players, counts and [`report`].

mod arguments;
mod deployment;
mod engine;
mod holders;
mod measure;
mod people;
mod players;
mod report;
mod run;
mod scenario;
mod standard;
mod subject;
mod wire;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::arguments::{Arguments, Command, Options, Output};
use crate::deployment::settings;
use crate::people::Keys;
use crate::report::document::{self, Place};
use crate::report::machine::Machine;
use crate::report::{Report, compare, progress, table};
use crate::scenario::Scenario;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "error,libsignal_protocol_syft=error".into()),
        )
        .init();
    let done = match Arguments::parse().command {
        Command::Run { scenarios, options, output } => {
            let set = scenarios.into_iter().map(|scenario| (scenario, (*options).clone())).collect();
            all(set, &options.server, &output, document::BENCH)
        }
        Command::Standard { server, output } => {
            standard::standard(&server).and_then(|set| all(set, &server, &output, document::BENCH))
        }
        Command::Peers { server, without, output } => {
            standard::peers(&server, &without).and_then(|set| all(set, &server, &output, document::PEERS))
        }
        Command::Tables { json, document, peers } => {
            tables(&json, &document, if peers { document::PEERS } else { document::BENCH })
        }
        Command::Hold => {
            raise_descriptors();
            holders::hold()
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::step(&format!("causeway-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs them one after the other. One that fails does not keep the others from being run.
fn all(set: Vec<(Scenario, Options)>, server: &Path, output: &Output, place: Place) -> anyhow::Result<()> {
    // Not found out after ten minutes.
    output.document.as_deref().map_or(Ok(()), |file| document::check(file, place))?;
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let keys = Keys::generate()?;
    let mut report = Report { machine: Machine::this(server), settings: settings::NOTE.to_owned(), runs: Vec::new() };
    show(&format!("{}\n{}", report.machine, report.settings));
    let mut failed = Vec::new();
    for (scenario, options) in set {
        match scenario.run(&options, &keys, &runtime) {
            Ok(run) => {
                show(&format!("\n{}", table::text(&run)));
                report.runs.push(run);
            }
            Err(error) => {
                progress::step(&format!("{}: {error:#}", scenario.name()));
                failed.push(scenario.name());
            }
        }
        if let Some(file) = &output.json {
            let json = serde_json::to_vec_pretty(&report)?;
            std::fs::write(file, json).with_context(|| format!("{} cannot be written", file.display()))?;
        }
    }
    if place == document::PEERS {
        show(&format!("\n{}", compare::text(&report)));
    }
    anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    if let Some(file) = &output.document {
        document::write(file, place, &markdown(&report, place))?;
    }
    Ok(())
}

/// What belongs into a place of a document.
fn markdown(report: &Report, place: Place) -> String {
    if place == document::PEERS { compare::markdown(report) } else { table::markdown(report) }
}

fn tables(json: &Path, document: &Path, place: Place) -> anyhow::Result<()> {
    let text = std::fs::read(json).with_context(|| format!("{} cannot be read", json.display()))?;
    let report: Report = serde_json::from_slice(&text).with_context(|| format!("{} is no report", json.display()))?;
    document::write(document, place, &markdown(&report, place))
}

/// As many descriptors as this user may have, for us and for the servers.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let most = 1_000_000;
    // Who may not raise the upper limit gets up to it.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) });
    if raised.is_err() {
        let _kept = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

#[expect(clippy::print_stdout, reason = "what the person who started it reads")]
fn show(text: &str) {
    println!("{text}");
}
