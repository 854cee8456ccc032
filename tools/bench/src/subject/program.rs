//! A server's program, which runs in this process's care and never as a system service.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use causeway_test_servers::Process;

use crate::measure::clock;

/// How long it may take to start or to stop.
const PATIENCE: u64 = 90 * clock::SECOND;
const STEP: Duration = Duration::from_millis(10);

/// A program, whether it runs or not.
pub(super) struct Program {
    name: &'static str,
    /// What it says when it serves.
    ready: &'static str,
    log: PathBuf,
    process: Option<Process>,
}

impl Program {
    /// One that logs to a file.
    pub(super) fn new(name: &'static str, ready: &'static str, log: &Path) -> Self {
        Self { name, ready, log: log.to_owned(), process: None }
    }

    /// Starts it, and waits until it serves.
    pub(super) fn start(&mut self, command: Command) -> anyhow::Result<()> {
        let before = self.logged().len();
        self.process =
            Some(Process::start(command, &self.log).with_context(|| format!("{} does not start", self.name))?);
        let deadline = clock::now() + PATIENCE;
        while !self.logged().get(before..).is_some_and(|fresh| fresh.contains(self.ready)) {
            self.check()?;
            ensure!(clock::now() < deadline, "{} is not ready in time:\n{}", self.name, self.tail());
            std::thread::sleep(STEP);
        }
        Ok(())
    }

    /// Fails if it has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.process.as_mut().and_then(Process::ended) {
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.tail()),
            None => Ok(()),
        }
    }

    /// Its process id, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// SIGTERM, and waits until it has ended.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal("TERM")?;
        ensure!(process.wait(Duration::from_nanos(PATIENCE)), "{} does not stop", self.name);
        Ok(())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    fn logged(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn tail(&self) -> String {
        let log = self.logged();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
