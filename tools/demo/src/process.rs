//! Real processes: started, waited for by their ready line, killed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);
const RUN: Duration = Duration::from_secs(60);

/// A binary of this workspace, beside the demo's own.
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the demo's own binary")?;
    let path = own.with_file_name(name);
    if !path.is_file() {
        bail!("{} is not built: run `make demo`", path.display());
    }
    Ok(path)
}

/// A running process; it dies with this value.
pub(crate) struct Running {
    child: Child,
    name: String,
    /// What it said of itself when it was ready: `key=value` words.
    pub(crate) ready: HashMap<String, String>,
}

impl Running {
    /// Starts it and waits for its ready line; standard error goes to a log file.
    pub(crate) async fn start(name: &str, program: &Path, arguments: &[String], log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("{} cannot be written", log.display()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(file))
            // Ctrl-C is for the demo, which then stops its processes in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let output = child.stdout.take().context("its standard output is piped")?;
        let mut lines = BufReader::new(output).lines();
        let ready = timeout(START, async {
            while let Some(line) = lines.next_line().await? {
                if line.contains("ready ") {
                    return Ok(line);
                }
            }
            let said = std::fs::read_to_string(log).unwrap_or_default();
            Err(anyhow!("{name} ended at its start: {}", said.lines().last().unwrap_or("it said nothing")))
        })
        .await
        .map_err(|_| anyhow!("{name} was not ready within {} s; see {}", START.as_secs(), log.display()))??;
        // Whatever it says later must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let words = ready.split_whitespace().filter_map(|word| word.split_once('='));
        let ready = words.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Ok(Self { child, name: name.to_owned(), ready })
    }

    /// A word of the ready line.
    pub(crate) fn said(&self, key: &str) -> anyhow::Result<&str> {
        self.ready.get(key).map(String::as_str).with_context(|| format!("{} did not say its {key}", self.name))
    }

    /// SIGKILL: no chance to write anything.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// SIGTERM, and the status it leaves with.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().with_context(|| format!("{} has ended already", self.name))?;
        run(Path::new("kill"), &["-TERM".to_owned(), id.to_string()]).await?;
        let status = timeout(STOP, self.child.wait())
            .await
            .map_err(|_| anyhow!("{} did not stop within {} s", self.name, STOP.as_secs()))??;
        if !status.success() {
            bail!("{} left with {status}", self.name);
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait().await?;
        bail!("{} ended with {status}", self.name);
    }
}

/// Runs a command to its end and gives what it printed.
pub(crate) async fn run(program: &Path, arguments: &[String]) -> anyhow::Result<String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = timeout(RUN, Command::new(program).args(arguments).stdin(Stdio::null()).output())
        .await
        .map_err(|_| anyhow!("{name} took longer than {} s", RUN.as_secs()))?
        .with_context(|| format!("{name} cannot be started"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
