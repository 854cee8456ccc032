//! A process of ours: started, killed, paused, drained, and started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use causeway_test_servers::{Process, ServerError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::preload::Control;

/// What a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// Everything.
    All,
    /// Who is who.
    Directory,
    /// Who gets what.
    Routing,
    /// Media.
    Media,
    /// Client connections.
    Edge,
}

impl ServiceKind {
    /// The subcommand of `causeway`.
    pub(super) fn subcommand(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Directory => "key-directory",
            Self::Routing => "routing",
            Self::Media => "media-relay",
            Self::Edge => "edge",
        }
    }
}

/// How to see that a process is ready.
#[derive(Debug, Clone, Copy)]
pub(super) enum Probe {
    /// It says so on its standard output.
    ReadyLine,
    /// `/ready` of its endpoint for probes.
    Health(SocketAddr),
}

/// A process of the deployment.
pub struct Service {
    pub(super) name: String,
    pub(super) kind: ServiceKind,
    pub(super) binary: PathBuf,
    pub(super) data: PathBuf,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) probe: Probe,
    pub(super) control: Control,
    /// It is allowed to end while this is not 0: its disk fails.
    pub(super) excused: AtomicU32,
    pub(super) process: Mutex<State>,
}

/// What is known of the process.
#[derive(Debug, Default)]
pub(super) struct State {
    running: Option<Process>,
    /// It was started and nobody has stopped it since.
    wanted: bool,
    /// Length of the log when it was started.
    log_from: u64,
}

impl Service {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it serves.
    pub fn kind(&self) -> ServiceKind {
        self.kind
    }

    /// Where its data is.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its disk and its clock.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Its process id, while it runs.
    pub async fn id(&self) -> Option<u32> {
        self.process.lock().await.running.as_ref().map(Process::id)
    }

    /// From now on it may end by itself, or no more.
    pub fn excuse(&self, excused: bool) {
        if excused {
            self.excused.fetch_add(1, Ordering::SeqCst);
        } else {
            self.excused.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(super) fn is_excused(&self) -> bool {
        self.excused.load(Ordering::SeqCst) > 0
    }

    /// Starts it and waits until it is ready. One that ends before it is ready, since what it needs is not there, is
    /// started again, as an orchestrator would do it.
    ///
    /// # Errors
    /// It is not ready in time.
    pub async fn start(&self) -> anyhow::Result<()> {
        let mut state = self.process.lock().await;
        if let Some(process) = &mut state.running
            && process.ended().is_none()
        {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.spawn(&mut state)?;
            match self.until_ready(&mut state, deadline).await? {
                Some(status) if Instant::now() < deadline => {
                    tracing::info!(service = self.name, status, "ended before it was ready");
                    tokio::time::sleep(BETWEEN_STARTS).await;
                }
                Some(status) => bail!("{} ended with {status} instead of being ready:\n{}", self.name, self.tail()),
                None => return Ok(()),
            }
        }
    }

    /// Starts it and kills it after a while, ready or not.
    ///
    /// # Errors
    /// It cannot be started at all.
    pub async fn start_and_kill(&self, after: Duration) -> anyhow::Result<()> {
        let mut state = self.process.lock().await;
        self.spawn(&mut state)?;
        tokio::time::sleep(after).await;
        kill(&mut state).await
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// There is no `kill`.
    pub async fn kill(&self) -> anyhow::Result<()> {
        kill(&mut *self.process.lock().await).await
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// There is no `kill`.
    pub async fn pause(&self) -> anyhow::Result<()> {
        self.signal(Process::pause).await
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// There is no `kill`.
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.signal(Process::resume).await
    }

    /// SIGTERM, and waits until it has left.
    ///
    /// # Errors
    /// It does not leave in time (it is killed then), or not with success.
    pub async fn leave(&self) -> anyhow::Result<()> {
        let mut state = self.process.lock().await;
        state.wanted = false;
        let Some(process) = &mut state.running else { return Ok(()) };
        process.signal("TERM")?;
        let deadline = Instant::now() + LEAVING;
        let status = loop {
            match process.ended() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    kill(&mut state).await?;
                    bail!("it does not leave in {} s", LEAVING.as_secs());
                }
                None => tokio::time::sleep(STEP).await,
            }
        };
        state.running = None;
        // Its last words say why.
        let tail = self.tail();
        ensure!(status.success(), "it left with {status}: {}", tail.lines().last().unwrap_or_default());
        Ok(())
    }

    pub(super) async fn heal(&self) -> anyhow::Result<()> {
        self.control.heal()?;
        self.resume().await?;
        self.start().await
    }

    /// What to say if it has ended although nobody wanted that. Says nothing while somebody is at work with it.
    pub(super) async fn ended_by_itself(&self) -> Option<String> {
        let mut state = self.process.try_lock().ok()?;
        if !state.wanted {
            return None;
        }
        let status = state.running.as_mut()?.ended()?;
        state.running = None;
        Some(format!("{} ended by itself with {status}", self.name))
    }

    pub(super) fn usage(&self) -> Option<(String, u64, u64)> {
        let state = self.process.try_lock().ok()?;
        let id = state.running.as_ref()?.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
        let descriptors = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?.count() as u64;
        Some((self.name.clone(), resident * 1_024, descriptors))
    }

    async fn signal(
        &self,
        send: impl FnOnce(&mut Process) -> Result<(), ServerError> + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut state = self.process.lock().await;
        let Some(mut process) = state.running.take() else { return Ok(()) };
        let (process, sent) = tokio::task::spawn_blocking(move || {
            let sent = send(&mut process);
            (process, sent)
        })
        .await?;
        state.running = Some(process);
        Ok(sent?)
    }

    fn spawn(&self, state: &mut State) -> anyhow::Result<()> {
        let mut command = causeway_test_servers::command(&self.binary, None);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CAUSEWAY_") {
                command.env_remove(name);
            }
        }
        command.envs(self.control.environment()).env("RUST_BACKTRACE", "1");
        command.arg(self.kind.subcommand()).arg("--data").arg(&self.data).arg("--config").arg(&self.config);
        state.log_from = std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        state.running = Some(Process::start(command, &self.log).with_context(|| format!("start {}", self.name))?);
        state.wanted = true;
        Ok(())
    }

    /// Gives how it has ended if it has; `None` when it is ready.
    async fn until_ready(&self, state: &mut State, deadline: Instant) -> anyhow::Result<Option<String>> {
        let log_from = state.log_from;
        let process = state.running.as_mut().context("it was started")?;
        loop {
            if let Some(status) = process.ended() {
                return Ok(Some(status.to_string()));
            }
            let ready = match self.probe {
                Probe::ReadyLine => self.ready_line(log_from).is_some(),
                Probe::Health(address) => healthy(address).await,
            };
            if ready {
                return Ok(None);
            }
            ensure!(Instant::now() < deadline, "{} is not ready in time:\n{}", self.name, self.tail());
            tokio::time::sleep(STEP).await;
        }
    }

    /// What it said when it was ready.
    pub(super) fn ready_line(&self, from: u64) -> Option<String> {
        let log = std::fs::read(&self.log).ok()?;
        let log = String::from_utf8_lossy(log.get(usize::try_from(from).ok()?..)?);
        // A whole line.
        log.split_inclusive('\n').find(|line| line.starts_with(READY) && line.ends_with('\n')).map(str::to_owned)
    }

    fn tail(&self) -> String {
        tail(&self.log)
    }
}

async fn kill(state: &mut State) -> anyhow::Result<()> {
    state.wanted = false;
    let Some(mut process) = state.running.take() else { return Ok(()) };
    tokio::task::spawn_blocking(move || process.kill()).await?.context("SIGKILL")
}

/// Whether the endpoint for probes says that the process is ready.
async fn healthy(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), ask).await;
    matches!(answer, Ok(Ok(answer)) if answer.get(9..12) == Some(b"200"))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Starts several at once.
pub(super) async fn start_all(services: &[Arc<Service>]) -> anyhow::Result<()> {
    futures::future::try_join_all(services.iter().map(|service| service.start())).await.map(drop)
}

pub(super) const READY: &str = "causeway: ready ";
const PATIENCE: Duration = Duration::from_secs(90);
const LEAVING: Duration = Duration::from_secs(60);
const BETWEEN_STARTS: Duration = Duration::from_millis(300);
const STEP: Duration = Duration::from_millis(10);
