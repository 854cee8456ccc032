//! One process of a deployment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use causeway_test_servers::{Port, Process};

use super::settings::Settings;
use crate::measure::clock;

/// How long a process may take to start or to stop.
const PATIENCE: u64 = 60 * clock::SECOND;
const STEP: Duration = Duration::from_millis(5);
/// What `causeway all` says when it is ready.
const READY: &str = "causeway: ready ";

/// A process, whether it runs or not.
pub(super) struct Part {
    pub(super) role: &'static str,
    pub(super) settings: Settings,
    name: String,
    binary: PathBuf,
    folder: PathBuf,
    data: PathBuf,
    health: Option<SocketAddr>,
    process: Option<Process>,
    /// Length of its log when it was started.
    log_from: usize,
}

impl Part {
    pub(super) fn new(role: &'static str, name: &str, binary: &Path, folder: &Path) -> Self {
        Self {
            role,
            settings: Settings::new(),
            name: name.to_owned(),
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            data: folder.join("data"),
            health: None,
            process: None,
            log_from: 0,
        }
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn share_data(&mut self, other: &Self) {
        self.data.clone_from(&other.data);
    }

    /// Sets a text.
    pub(super) fn set(&mut self, field: &str, text: &str) {
        self.settings.insert(field.to_owned(), format!("{text:?}"));
    }

    /// Gives a listener a port, which it keeps.
    pub(super) fn listen(&mut self, field: &str, ports: &mut Vec<Port>) -> anyhow::Result<SocketAddr> {
        let port = Port::claim()?;
        let address = port.address();
        ports.push(port);
        self.set(field, &address.to_string());
        Ok(address)
    }

    /// It is ready when its endpoint for probes says so.
    pub(super) fn probe_health(&mut self, ports: &mut Vec<Port>) -> anyhow::Result<()> {
        self.health = Some(self.listen("server.health_listen", ports)?);
        Ok(())
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Starts it if it does not run, and waits until it is ready.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        if self.process.as_mut().is_some_and(|process| process.ended().is_none()) {
            return Ok(());
        }
        let mut toml = String::new();
        for (field, value) in &self.settings {
            writeln!(toml, "{field} = {value}")?;
        }
        let config = self.folder.join(format!("{}.toml", self.name));
        std::fs::write(&config, toml).context("write the configuration")?;
        let mut command = causeway_test_servers::command(&self.binary, None);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("CAUSEWAY_") {
                command.env_remove(variable);
            }
        }
        command.arg(self.role).arg("--data").arg(&self.data).arg("--config").arg(&config);
        self.log_from = self.log().len();
        let process = Process::start(command, &self.log_file()).with_context(|| format!("start {}", self.name))?;
        self.process = Some(process);
        let deadline = clock::now() + PATIENCE;
        while !self.is_ready() {
            self.check()?;
            ensure!(clock::now() < deadline, "{} is not ready in time:\n{}", self.name, self.tail());
            std::thread::sleep(STEP);
        }
        Ok(())
    }

    /// SIGTERM, and waits until it has left.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        process.signal("TERM")?;
        if !process.wait(Duration::from_nanos(PATIENCE)) {
            bail!("{} does not stop", self.name);
        }
        self.process = None;
        Ok(())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
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

    /// What it said when it was ready, by name.
    pub(super) fn said(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let line = self.ready_line().context("causeway did not say that it is ready")?;
        let words = line.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        Ok(words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn is_ready(&self) -> bool {
        match self.health {
            Some(address) => is_healthy(address),
            None => self.ready_line().is_some(),
        }
    }

    fn ready_line(&self) -> Option<String> {
        let log = self.log();
        let fresh = log.get(self.log_from..)?;
        fresh.split_inclusive('\n').find(|line| line.starts_with(READY) && line.ends_with('\n')).map(str::to_owned)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Whether the endpoint for probes says that the process is ready.
fn is_healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.get(9..12) == Some(b"200"))
}
