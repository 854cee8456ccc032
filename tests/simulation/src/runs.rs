//! Many seeds, each in a process of its own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

/// One seed in so many is run twice, and must do the same.
const TWICE_EVERY: u64 = 25;
const SOURCE: &str = include_str!("../deterministic.c");

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// At a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Stop at the first seed that finds something.
    #[arg(long)]
    until_found: bool,
    /// Only these promises count as found when broken, each by its text. Seeds in which only others
    /// are, or that break off, are counted apart (`others`).
    #[arg(long = "promise", value_name = "TEXT")]
    promises: Vec<String>,
}

impl Run {
    /// Whether a line `violation PROMISE: WHAT` is about what is looked for.
    fn looks_for(&self, violation: &str) -> bool {
        let promise =
            violation.strip_prefix("violation ").and_then(|rest| rest.split_once(": ")).map(|(promise, _)| promise);
        self.promises.is_empty() || self.promises.iter().any(|text| promise == Some(text.as_str()))
    }
}

#[derive(Default)]
struct Totals {
    figures: BTreeMap<String, u64>,
    broken: Vec<(u64, String)>,
    not_deterministic: Vec<u64>,
}

/// Runs all of them; true if all promises were kept.
pub(crate) fn run(run: &Run) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir().context("a folder for the library")?;
    let library = build_library(folder.path())?;
    let own = std::env::current_exe().context("the path of this program")?;
    #[expect(clippy::disallowed_methods, reason = "how long it took, for the reader")]
    let begun = Instant::now();
    let fixed = addresses_can_be_fixed();
    let (next, totals) = (AtomicU64::new(run.first), Mutex::new(Totals::default()));
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..run.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = run.until_found && totals.lock().is_ok_and(|totals| !totals.broken.is_empty());
                    if seed >= run.first.saturating_add(run.seeds) || over {
                        return;
                    }
                    if let Err(error) = one(run, (&own, &library, fixed), seed, &totals) {
                        if let Ok(mut failed) = failed.lock() {
                            failed.get_or_insert(error);
                        }
                        return;
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_default() {
        return Err(error);
    }
    let totals = totals.into_inner().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    if !fixed {
        writeln!(out, "setarch cannot fix addresses here: that a seed always does the same was not looked at")?;
    }
    for (seed, what) in &totals.broken {
        writeln!(
            out,
            "seed {seed}: {what}\n  again, with all that happened: {} one --seed {seed} --log",
            own.display()
        )?;
    }
    for seed in &totals.not_deterministic {
        writeln!(out, "seed {seed} did not do the same twice")?;
    }
    let figures: Vec<String> = totals.figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let took: Duration = begun.elapsed();
    writeln!(
        out,
        "{} in {:.1} s; {} with broken promises",
        figures.join(" "),
        took.as_secs_f64(),
        totals.broken.len()
    )?;
    Ok(totals.broken.is_empty() && totals.not_deterministic.is_empty())
}

fn one(run: &Run, how: (&Path, &Path, bool), seed: u64, totals: &Mutex<Totals>) -> anyhow::Result<()> {
    let twice = how.2 && seed.is_multiple_of(TWICE_EVERY);
    let output = start(how, seed, twice)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let same = !twice || start(how, seed, true)?.stdout == output.stdout;
    let summary = text.lines().find(|line| line.starts_with("seed=")).map(str::to_owned);
    let violations: Vec<&str> = text.lines().filter(|line| line.starts_with("violation ")).collect();
    let mut totals = totals.lock().map_err(|_| anyhow::anyhow!("another seed failed"))?;
    *totals.figures.entry("seeds".to_owned()).or_default() += 1;
    let mut what = violations.iter().find(|line| run.looks_for(line)).map(|line| (*line).to_owned());
    let mut is_other = what.is_none() && !violations.is_empty();
    match summary {
        Some(summary) => {
            for (name, value) in summary.split_whitespace().filter_map(|word| word.split_once('=')) {
                if let (true, Ok(value)) = (name != "seed", value.parse::<u64>()) {
                    *totals.figures.entry(name.to_owned()).or_default() += value;
                }
            }
        }
        // Nobody knows which promise that breaks.
        None if !run.promises.is_empty() => is_other = true,
        None => what = Some(format!("it broke off: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
    if !run.promises.is_empty() {
        *totals.figures.entry("others".to_owned()).or_default() += u64::from(is_other);
    }
    totals.broken.extend(what.map(|what| (seed, what)));
    if !same {
        totals.not_deterministic.push(seed);
    }
    Ok(())
}

fn start((own, library, fixed): (&Path, &Path, bool), seed: u64, log: bool) -> anyhow::Result<Output> {
    let mut command = match fixed {
        true => {
            let mut command = Command::new("setarch");
            command.arg("--addr-no-randomize").arg(own);
            command
        }
        false => Command::new(own),
    };
    command.arg("one").arg("--seed").arg(seed.to_string());
    if log {
        command.arg("--log");
    }
    command.env("LD_PRELOAD", library).env("CAUSEWAY_SIMULATION_SEED", seed.to_string());
    command.output().context("start a simulation")
}

/// Some orders depend on addresses in memory, so those are the same each time, unless this machine (a container, mostly)
/// forbids it: then runs of one seed may differ.
fn addresses_can_be_fixed() -> bool {
    let tried = Command::new("setarch").args(["--addr-no-randomize", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// The library that makes a process deterministic.
fn build_library(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, library) = (folder.join("deterministic.c"), folder.join("deterministic.so"));
    std::fs::write(&source, SOURCE)?;
    let built = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    let built = built.context("cc is missing: install gcc")?;
    anyhow::ensure!(built.success(), "cc could not build {}", source.display());
    Ok(library)
}
