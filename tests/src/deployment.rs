//! A running deployment: the real binary as a child process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, anyhow};
use causeway_identity::RootPublicKey;
use causeway_proto::directory::v1::providers_client::ProvidersClient;
use causeway_proto::directory::v1::{
    ListProviders, Provider as Registered, ProviderSettings, ProviderStatus, RegisterProvider, SetProviderStatus,
};
use causeway_runtime::grpc;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
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

/// `causeway all` with its data in a folder of its own, on free ports that it keeps over restarts.
pub struct Deployment {
    child: Child,
    folder: TempDir,
    settings: BTreeMap<String, String>,
    ready: Ready,
}

impl Deployment {
    /// Starts one.
    ///
    /// # Errors
    /// The binary cannot be built or does not become ready.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with further settings.
    ///
    /// # Errors
    /// The binary cannot be built or does not become ready.
    pub async fn start_with(further: Settings<'_>) -> anyhow::Result<Self> {
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
        let (child, ready) = launch(folder.path(), &settings).await?;
        // Clients find it again after a restart.
        for (field, address) in [
            ("edge.listen", ready.edge.to_string()),
            ("edge.websocket_listen", ready.websocket.to_string()),
            ("media.listen", authority(&ready.media)?),
            ("server.operator_listen", authority(&ready.operator)?),
        ] {
            settings.insert(field.to_owned(), format!("\"{address}\""));
        }
        Ok(Self { child, folder, settings, ready })
    }

    /// Where it listens, and whom to trust.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        data(self.folder.path())
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    ///
    /// # Errors
    /// It was dead already.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("SIGKILL")
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Errors
    /// It does not leave in time.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let id = self.child.id().context("the deployment is not running")?;
        let sent = Command::new("kill").args(["-TERM", &id.to_string()]).status().await.context("kill")?;
        anyhow::ensure!(sent.success(), "kill -TERM failed");
        within("the deployment stops", async { Ok(self.child.wait().await?) }).await
    }

    /// Starts it again on the same data and ports.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        (self.child, self.ready) = launch(self.folder.path(), &self.settings).await?;
        Ok(())
    }

    /// Fails if the process has ended.
    ///
    /// # Errors
    /// It has, with its last words.
    pub fn assert_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("the deployment ended: {status}\n{}", log_tail(self.folder.path()))),
        }
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

async fn launch(folder: &Path, settings: &BTreeMap<String, String>) -> anyhow::Result<(Child, Ready)> {
    let file = folder.join("causeway.toml");
    let mut toml = String::new();
    for (field, value) in settings {
        writeln!(toml, "{field} = {value}")?;
    }
    std::fs::write(&file, toml).context("write the configuration")?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log_file(folder)).context("open the log")?;
    let mut child = Command::new(tokio::task::spawn_blocking(binary::causeway).await??)
        .args(["all".as_ref(), "--data".as_ref(), data(folder).as_os_str()])
        .args(["--config".as_ref(), file.as_os_str()])
        .env_clear()
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("start causeway")?;
    let output = child.stdout.take().context("standard output of causeway")?;
    let line =
        within("causeway becomes ready", async { Ok(BufReader::new(output).lines().next_line().await?) }).await?;
    match line.as_deref().map(parse) {
        Some(ready) => Ok((child, ready?)),
        None => Err(anyhow!("causeway did not start:\n{}", log_tail(folder))),
    }
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
