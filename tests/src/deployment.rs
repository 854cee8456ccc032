//! A running deployment: the real binary as one child process, or as one for each service.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use causeway_identity::RootPublicKey;
use causeway_proto::directory::v1::providers_client::ProvidersClient;
use causeway_proto::directory::v1::{
    ListProviders, Provider as Registered, ProviderSettings, ProviderStatus, RegisterProvider, SetProviderStatus,
};
use causeway_runtime::grpc;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::{binary, within};

/// Settings beside the harness's own, as `section.field` and a TOML value.
pub type Settings<'s> = &'s [(&'s str, &'s str)];

/// What `causeway all` says when it is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The edge's TCP listener.
    pub edge: SocketAddr,
    /// The edge's WebSocket listener.
    pub websocket: SocketAddr,
    /// The media-relay's base URL.
    pub media: String,
    /// The operator API's URL.
    pub operator: String,
    /// The deployment's name.
    pub deployment: String,
    /// The root that clients pin.
    pub root: RootPublicKey,
}

/// How many processes a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `causeway all`.
    One,
    /// One for each service, which speak over TCP.
    Many,
}

/// A process of a deployment, by its subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// Everything.
    All,
    /// Who is who.
    KeyDirectory,
    /// Who gets what.
    Routing,
    /// Media.
    MediaRelay,
    /// Client connections.
    Edge,
}

impl Shape {
    /// In the order of starting.
    fn processes(self) -> &'static [Process] {
        match self {
            Self::One => &[Process::All],
            Self::Many => &[Process::KeyDirectory, Process::Routing, Process::MediaRelay, Process::Edge],
        }
    }
}

impl Process {
    fn subcommand(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::KeyDirectory => "key-directory",
            Self::Routing => "routing",
            Self::MediaRelay => "media-relay",
            Self::Edge => "edge",
        }
    }
}

/// Causeway with its data in a folder of its own, on free ports that it keeps over restarts.
pub struct Deployment {
    shape: Shape,
    running: BTreeMap<Process, Child>,
    folder: TempDir,
    settings: BTreeMap<String, String>,
    ready: Ready,
}

impl Deployment {
    /// Starts one of this shape, with further settings.
    ///
    /// # Errors
    /// The binary cannot be built or does not become ready.
    pub async fn start(shape: Shape, further: Settings<'_>) -> anyhow::Result<Self> {
        let mut settings = BTreeMap::new();
        for (field, value) in [
            ("server.operator_listen", "\"127.0.0.1:0\""),
            ("edge.listen", "\"127.0.0.1:0\""),
            ("edge.websocket_listen", "\"127.0.0.1:0\""),
            ("media.listen", "\"127.0.0.1:0\""),
            ("media.fetch.allow_loopback_http", "true"),
            ("directory.fetch.allow_loopback_http", "true"),
            ("routing.fetch.allow_loopback_http", "true"),
            // One machine plays many users.
            ("directory.keys_cooldown_ms", "100"),
            ("directory.enlist_burst", "100"),
            ("directory.claim_burst", "1000"),
        ]
        .iter()
        .chain(further)
        {
            settings.insert((*field).to_owned(), (*value).to_owned());
        }
        let folder = tempfile::tempdir().context("folder for the deployment")?;
        // The first start makes the keys, also for a deployment of many processes.
        let (child, ready) = launch_all(folder.path(), &settings).await?;
        // Clients find it again after a restart.
        for (field, address) in [
            ("edge.listen", ready.edge.to_string()),
            ("edge.websocket_listen", ready.websocket.to_string()),
            ("media.listen", authority(&ready.media)?),
            ("server.operator_listen", authority(&ready.operator)?),
        ] {
            settings.insert(field.to_owned(), format!("\"{address}\""));
        }
        let running = BTreeMap::from([(Process::All, child)]);
        let mut net = Self { shape, running, folder, settings, ready };
        if shape == Shape::Many {
            let status = net.terminate().await?;
            anyhow::ensure!(status.success(), "the first start ended with {status}");
            net.choose_internal_ports().await?;
            net.restart().await?;
        }
        Ok(net)
    }

    /// Where the services of a deployment of many processes find each other.
    async fn choose_internal_ports(&mut self) -> anyhow::Result<()> {
        let mut held = Vec::new();
        for service in ["directory", "routing", "media"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("find a free port")?;
            let address = listener.local_addr()?;
            // Held until all are chosen, so that no two are the same.
            held.push(listener);
            self.settings.insert(format!("server.{service}_listen"), format!("\"{address}\""));
            self.settings.insert(format!("server.{service}_urls"), format!("[\"http://{address}\"]"));
        }
        Ok(())
    }

    /// Where it listens, and whom to trust.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        data(self.folder.path())
    }

    /// SIGKILL to all of it: nothing is flushed, nobody is told.
    ///
    /// # Errors
    /// It was dead already.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.running.is_empty(), "nothing is running");
        while let Some((_, mut child)) = self.running.pop_first() {
            child.kill().await.context("SIGKILL")?;
        }
        Ok(())
    }

    /// SIGKILL to one process of many.
    ///
    /// # Errors
    /// It is not running.
    pub async fn kill_one(&mut self, process: Process) -> anyhow::Result<()> {
        let mut child = self.running.remove(&process).with_context(|| format!("{process:?} is not running"))?;
        child.kill().await.context("SIGKILL")
    }

    /// SIGTERM to all of it, from the outside in; gives the first exit status that is no success, if there is one.
    ///
    /// # Errors
    /// It does not leave in time.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let mut worst = ExitStatus::default();
        while let Some((process, mut child)) = self.running.pop_last() {
            let id = child.id().with_context(|| format!("{process:?} has ended"))?;
            let sent = Command::new("kill").args(["-TERM", &id.to_string()]).status().await.context("kill")?;
            anyhow::ensure!(sent.success(), "kill -TERM failed");
            let status = within("a process stops", async { Ok(child.wait().await?) }).await?;
            if worst.success() {
                worst = status;
            }
        }
        Ok(worst)
    }

    /// Starts what is not running, on the same data and ports.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        for process in self.shape.processes() {
            if self.running.contains_key(process) {
                continue;
            }
            let child = match process {
                Process::All => launch_all(self.folder.path(), &self.settings).await?.0,
                _ => self.launch_one(*process).await?,
            };
            self.running.insert(*process, child);
        }
        Ok(())
    }

    /// Starts a service on its own and waits until it accepts connections.
    async fn launch_one(&self, process: Process) -> anyhow::Result<Child> {
        let mut child = spawn(self.folder.path(), &self.settings, process).await?;
        let field = match process {
            Process::All => anyhow::bail!("not one service"),
            Process::KeyDirectory => "server.operator_listen",
            Process::Routing => "server.routing_listen",
            Process::MediaRelay => "server.media_listen",
            Process::Edge => "edge.websocket_listen",
        };
        let address = self.settings.get(field).with_context(|| field.to_owned())?;
        let address: SocketAddr = address.trim_matches('"').parse()?;
        within(&format!("{process:?} accepts connections"), async {
            while TcpStream::connect(address).await.is_err() {
                anyhow::ensure!(child.try_wait()?.is_none(), "it ended:\n{}", log_tail(self.folder.path()));
                // A process on its own tells by nothing but its socket.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        })
        .await?;
        Ok(child)
    }

    /// Fails if a process has ended that was not asked to.
    ///
    /// # Errors
    /// One has, with its last words.
    pub fn assert_alive(&mut self) -> anyhow::Result<()> {
        for (process, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                return Err(anyhow!("{process:?} ended: {status}\n{}", log_tail(self.folder.path())));
            }
        }
        Ok(())
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.folder.path())).unwrap_or_default()
    }

    /// The operator API, with a token of the caller's choice.
    ///
    /// # Errors
    /// The address or the token is unusable.
    pub fn operator_api(
        &self,
        token: &str,
    ) -> anyhow::Result<ProvidersClient<tonic::service::interceptor::InterceptedService<Channel, Bearer>>> {
        let header = format!("Bearer {token}").parse().context("operator token")?;
        Ok(ProvidersClient::with_interceptor(grpc::connect(&self.ready.operator)?, Bearer(header)))
    }

    /// The operator token that the first start made.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn operator_token(&self) -> anyhow::Result<String> {
        let file = self.data().join("keys/operator.token");
        let token = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(token.trim().to_owned())
    }

    /// Registers a provider, as an operator does.
    ///
    /// # Errors
    /// Refused.
    pub async fn register(&self, settings: ProviderSettings) -> anyhow::Result<Registered> {
        let mut api = self.operator_api(&self.operator_token()?)?;
        let request = grpc::call(RegisterProvider { settings: Some(settings) });
        Ok(api.register(request).await.context("register a provider")?.into_inner())
    }

    /// Suspends a provider, or brings it back.
    ///
    /// # Errors
    /// Refused.
    pub async fn set_status(&self, domain: &str, status: ProviderStatus) -> anyhow::Result<Registered> {
        let mut api = self.operator_api(&self.operator_token()?)?;
        let request = SetProviderStatus { domain: domain.to_owned(), status: status.into() };
        Ok(api.set_status(grpc::call(request)).await.context("set a provider's status")?.into_inner())
    }

    /// All registered providers.
    ///
    /// # Errors
    /// Refused.
    pub async fn providers(&self) -> anyhow::Result<Vec<Registered>> {
        let mut api = self.operator_api(&self.operator_token()?)?;
        let list = api.list(grpc::call(ListProviders::default())).await.context("list providers")?;
        Ok(list.into_inner().providers)
    }
}

/// A test that fails shows what the server said; of others the test runner keeps it to itself.
impl Drop for Deployment {
    #[expect(clippy::print_stderr, reason = "captured by the test runner, unlike a write to standard error")]
    fn drop(&mut self) {
        eprintln!("--- the deployment's log\n{}", log_tail(self.folder.path()));
    }
}

/// Adds the operator token to calls.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Starts `causeway all` and reads what it says when it is ready.
async fn launch_all(folder: &Path, settings: &BTreeMap<String, String>) -> anyhow::Result<(Child, Ready)> {
    let mut child = spawn(folder, settings, Process::All).await?;
    let output = child.stdout.take().context("standard output of causeway")?;
    let line =
        within("causeway becomes ready", async { Ok(BufReader::new(output).lines().next_line().await?) }).await?;
    match line.as_deref().map(parse) {
        Some(ready) => Ok((child, ready?)),
        None => Err(anyhow!("causeway did not start:\n{}", log_tail(folder))),
    }
}

async fn spawn(folder: &Path, settings: &BTreeMap<String, String>, process: Process) -> anyhow::Result<Child> {
    let file = folder.join("causeway.toml");
    let mut toml = String::new();
    for (field, value) in settings {
        writeln!(toml, "{field} = {value}")?;
    }
    std::fs::write(&file, toml).context("write the configuration")?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log_file(folder)).context("open the log")?;
    let subcommand = process.subcommand();
    Command::new(tokio::task::spawn_blocking(binary::causeway).await??)
        .args([subcommand.as_ref(), "--data".as_ref(), data(folder).as_os_str()])
        .args(["--config".as_ref(), file.as_os_str()])
        .env_clear()
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start causeway {subcommand}"))
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

fn authority(url: &str) -> anyhow::Result<String> {
    Ok(url.strip_prefix("http://").context("an http URL")?.trim_end_matches('/').to_owned())
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn log_tail(folder: &Path) -> String {
    let log = std::fs::read_to_string(log_file(folder)).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
