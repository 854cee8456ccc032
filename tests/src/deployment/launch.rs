//! Processes of the `causeway` binary.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, anyhow};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{Process, Program, Ready, Replica, data, tail};
use crate::{binary, within};

/// Starts `causeway all` and reads what it says when it is ready.
pub(super) async fn all(
    folder: &Path,
    settings: &BTreeMap<String, String>,
    program: Program,
) -> anyhow::Result<(Child, Ready)> {
    let replica = Replica::from(Process::All);
    let mut child = one(folder, settings, replica, program).await?;
    let output = child.stdout.take().context("standard output of causeway")?;
    let line =
        within("causeway becomes ready", async { Ok(BufReader::new(output).lines().next_line().await?) }).await?;
    match line.as_deref().map(parse) {
        Some(ready) => Ok((child, ready?)),
        None => Err(anyhow!("causeway did not start:\n{}", tail(&log_file(folder, replica)))),
    }
}

/// Starts a process, which is not ready yet.
pub(super) async fn one(
    folder: &Path,
    settings: &BTreeMap<String, String>,
    replica: Replica,
    program: Program,
) -> anyhow::Result<Child> {
    let file = folder.join(format!("{replica}.toml"));
    let mut toml = String::new();
    for (field, value) in settings {
        writeln!(toml, "{field} = {value}")?;
    }
    std::fs::write(&file, toml).context("write the configuration")?;
    let log = log_file(folder, replica);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).context("open the log")?;
    let find = match program {
        Program::Present => binary::causeway,
        Program::Earlier => binary::earlier,
    };
    Command::new(tokio::task::spawn_blocking(find).await??)
        .args([replica.process.subcommand().as_ref(), "--data".as_ref(), data(folder).as_os_str()])
        .args(["--config".as_ref(), file.as_os_str()])
        .env_clear()
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {replica}"))
}

pub(super) fn log_file(folder: &Path, replica: Replica) -> PathBuf {
    folder.join(format!("{replica}.log"))
}

/// Reads `causeway: ready name=value ...`.
fn parse(line: &str) -> anyhow::Result<Ready> {
    let words = line.strip_prefix("causeway: ready ").with_context(|| format!("unexpected first line: {line}"))?;
    let values: BTreeMap<_, _> = words.split(' ').filter_map(|word| word.split_once('=')).collect();
    let value = |name| values.get(name).copied().with_context(|| format!("no {name} in: {line}"));
    Ok(Ready {
        edge: value("edge")?.parse()?,
        websocket: value("websocket")?.parse()?,
        media: value("media")?.to_owned(),
        operator: value("operator")?.to_owned(),
        deployment: value("deployment")?.to_owned(),
        root: value("root")?.parse()?,
    })
}
