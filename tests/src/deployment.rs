//! A running deployment: the real binary as one child process, as one for each service, or as several.

mod certificates;
mod launch;
mod places;
mod shape;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use causeway_identity::RootPublicKey;
use causeway_proto::directory::v1::providers_client::ProvidersClient;
use causeway_proto::directory::v1::{
    ListProviders, Provider as Registered, ProviderSettings, ProviderStatus, RegisterProvider, SetProviderStatus,
};
use causeway_runtime::grpc;
use causeway_runtime::grpc::Channel;
use causeway_runtime::tls::Role;
use causeway_test_servers::{Port, Postgres, Redis};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use crate::front::Front;
use crate::store::Store;
use crate::within;

pub use shape::{Process, Replica, Shape};

/// Settings beside the harness's own, as `section.field` and a TOML value.
pub type Settings<'s> = &'s [(&'s str, &'s str)];

/// Whose `causeway` a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Program {
    /// This workspace's.
    #[default]
    Present,
    /// That of the commit in `tests/upgrade/EARLIER`.
    Earlier,
}

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

/// Causeway with its data in a folder of its own, on free ports that it keeps over restarts.
pub struct Deployment {
    // Dropped in this order: processes, then what they use.
    running: BTreeMap<Replica, Child>,
    shape: Shape,
    program: Program,
    fronts: Vec<Front>,
    postgres: Option<Store<Postgres>>,
    redis: Option<Store<Redis>>,
    folder: TempDir,
    /// Settings of all processes.
    settings: BTreeMap<String, String>,
    /// And of each.
    own: BTreeMap<Replica, BTreeMap<String, String>>,
    ports: Vec<Port>,
    ready: Ready,
}

impl Deployment {
    /// Starts one of this shape, with further settings.
    ///
    /// # Errors
    /// The binary cannot be built or does not become ready, or there is no PostgreSQL or Redis for many replicas.
    pub async fn start(shape: Shape, further: Settings<'_>) -> anyhow::Result<Self> {
        Self::start_with(Program::Present, shape, further).await
    }

    /// The same, all of whose processes run this program until [`run`](Self::run) says otherwise.
    ///
    /// # Errors
    /// Those of [`start`](Self::start), and the program cannot be built.
    pub async fn start_with(program: Program, shape: Shape, further: Settings<'_>) -> anyhow::Result<Self> {
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
            ("directory.settings_burst", "1000"),
        ]
        .iter()
        .chain(further)
        {
            settings.insert((*field).to_owned(), (*value).to_owned());
        }
        let folder = tempfile::tempdir().context("folder for the deployment")?;
        // The first start makes the keys, also for a deployment of many processes.
        let all = Replica::from(Process::All);
        let (child, ready) = launch::all(folder.path(), &settings, program).await?;
        // Clients find it again after a restart.
        for (field, address) in [
            ("edge.listen", ready.edge.to_string()),
            ("edge.websocket_listen", ready.websocket.to_string()),
            ("media.listen", authority(&ready.media)?),
            ("server.operator_listen", authority(&ready.operator)?),
        ] {
            settings.insert(field.to_owned(), format!("\"{address}\""));
        }
        let mut net = Self {
            running: BTreeMap::from([(all, child)]),
            shape,
            program,
            fronts: Vec::new(),
            postgres: None,
            redis: None,
            folder,
            settings,
            own: BTreeMap::new(),
            ports: Vec::new(),
            ready,
        };
        if shape != Shape::One {
            let status = net.terminate().await?;
            anyhow::ensure!(status.success(), "the first start ended with {status}");
            net.take_places().await?;
            net.restart().await?;
        }
        Ok(net)
    }

    /// Where it listens, and whom to trust.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Processes that are started from now on run this program.
    pub fn run(&mut self, program: Program) {
        self.program = program;
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        data(self.folder.path())
    }

    /// Where each edge takes connections by TCP, in the order of their numbers; clients that connect to
    /// [`ready`](Self::ready) come to one of them that takes connections.
    ///
    /// # Errors
    /// There is one process.
    pub fn edges(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let edges = self.shape.replicas().into_iter().filter(|replica| replica.process == Process::Edge);
        edges.map(|edge| self.address(edge, "edge.listen")).collect()
    }

    /// PostgreSQL, of a deployment of many replicas.
    ///
    /// # Errors
    /// It has none.
    pub fn postgres(&self) -> anyhow::Result<&Store<Postgres>> {
        self.postgres.as_ref().context("a deployment without PostgreSQL")
    }

    /// Redis, of a deployment of many replicas.
    ///
    /// # Errors
    /// It has none.
    pub fn redis(&self) -> anyhow::Result<&Store<Redis>> {
        self.redis.as_ref().context("a deployment without Redis")
    }

    /// All processes that there are to be, in the order of starting.
    pub fn replicas(&self) -> Vec<Replica> {
        self.shape.replicas()
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
    pub async fn kill_one(&mut self, replica: impl Into<Replica>) -> anyhow::Result<()> {
        let replica = replica.into();
        let mut child = self.running.remove(&replica).with_context(|| format!("{replica} is not running"))?;
        child.kill().await.context("SIGKILL")
    }

    /// SIGTERM to all of it, from the outside in; gives the first exit status that is no success, if there is one.
    ///
    /// # Errors
    /// It does not leave in time.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let mut worst = ExitStatus::default();
        while let Some(replica) = self.running.last_key_value().map(|(replica, _)| *replica) {
            let status = self.terminate_one(replica).await?;
            if worst.success() {
                worst = status;
            }
        }
        Ok(worst)
    }

    /// SIGTERM to one process of many.
    ///
    /// # Errors
    /// It is not running, or does not leave in time.
    pub async fn terminate_one(&mut self, replica: impl Into<Replica>) -> anyhow::Result<ExitStatus> {
        let replica = replica.into();
        self.signal(replica, "-TERM").await?;
        let mut child = self.running.remove(&replica).with_context(|| format!("{replica} is not running"))?;
        within(&format!("{replica} stops"), async { Ok(child.wait().await?) }).await
    }

    /// SIGSTOP to one process of many: its connections stay open, and nothing answers. For good.
    ///
    /// # Errors
    /// It is not running.
    pub async fn pause(&self, replica: impl Into<Replica>) -> anyhow::Result<()> {
        self.signal(replica.into(), "-STOP").await
    }

    async fn signal(&self, replica: Replica, signal: &str) -> anyhow::Result<()> {
        let child = self.running.get(&replica).with_context(|| format!("{replica} is not running"))?;
        let id = child.id().with_context(|| format!("{replica} has ended"))?;
        let sent = Command::new("kill").args([signal, &id.to_string()]).status().await.context("kill")?;
        anyhow::ensure!(sent.success(), "kill {signal} failed");
        Ok(())
    }

    /// Starts one process of many on the same data and ports, and waits until it answers probes, ready or not.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn start_one(&mut self, replica: impl Into<Replica>) -> anyhow::Result<()> {
        let replica = replica.into();
        let child = launch::one(self.folder.path(), &self.settings_of(replica), replica, self.program).await?;
        self.running.insert(replica, child);
        let url = format!("http://{}/live", self.address(replica, "server.health_listen")?);
        within(&format!("{replica} answers probes"), async {
            while reqwest::get(&url).await.is_err() {
                self.assert_alive()?;
                tokio::time::sleep(STEP).await;
            }
            Ok(())
        })
        .await
    }

    /// Starts what is not running, on the same data and ports, and waits until it serves.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let missing: Vec<_> = self.replicas().into_iter().filter(|one| !self.running.contains_key(one)).collect();
        // Replicas of one service at once; those of the next ones find them.
        for replicas in missing.chunk_by(|one, next| one.process == next.process) {
            for replica in replicas {
                let child = match replica.process {
                    Process::All => launch::all(self.folder.path(), &self.settings, self.program).await?.0,
                    _ => {
                        let settings = self.settings_of(*replica);
                        launch::one(self.folder.path(), &settings, *replica, self.program).await?
                    }
                };
                self.running.insert(*replica, child);
            }
            for replica in replicas.iter().filter(|replica| replica.process != Process::All) {
                self.serves(*replica).await?;
            }
        }
        Ok(())
    }

    /// Starts the process that has the directory, which must end by itself, and gives its last words.
    ///
    /// # Errors
    /// It goes on, or ends as if nothing were wrong.
    pub async fn refuses_to_start(&mut self) -> anyhow::Result<String> {
        let replica = self.with_directory()?;
        let mut child = launch::one(self.folder.path(), &self.settings_of(replica), replica, self.program).await?;
        let status = within(&format!("{replica} does not start"), async { Ok(child.wait().await?) }).await?;
        anyhow::ensure!(!status.success(), "{replica} ended with {status}");
        Ok(tail(&launch::log_file(self.folder.path(), replica)))
    }

    /// Runs `causeway after-restore`, and gives what it says. The process that has the directory was started before.
    ///
    /// # Errors
    /// It fails.
    pub async fn after_restore(&self) -> anyhow::Result<String> {
        let replica = self.with_directory()?;
        let mut command = Command::new(crate::program("causeway")?);
        command.arg("after-restore").arg("--data").arg(self.data());
        command.arg("--config").arg(self.folder.path().join(format!("{replica}.toml")));
        let output = within("causeway after-restore", async { Ok(command.output().await?) }).await?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn with_directory(&self) -> anyhow::Result<Replica> {
        let has = |replica: &Replica| matches!(replica.process, Process::All | Process::KeyDirectory);
        self.replicas().into_iter().find(has).context("a key-directory")
    }

    /// Waits until a process says that it is ready.
    async fn serves(&mut self, replica: Replica) -> anyhow::Result<()> {
        let url = format!("http://{}/ready", self.address(replica, "server.health_listen")?);
        let log = launch::log_file(self.folder.path(), replica);
        let child = self.running.get_mut(&replica).with_context(|| format!("{replica} is not running"))?;
        within(&format!("{replica} is ready"), async {
            while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
                anyhow::ensure!(child.try_wait()?.is_none(), "it ended:\n{}", tail(&log));
                // A process tells nobody by itself.
                tokio::time::sleep(STEP).await;
            }
            Ok(())
        })
        .await
    }

    /// What a process says of its health, as soon as that is such.
    ///
    /// # Errors
    /// It is not in time, or there is one process.
    pub async fn health_is(&self, replica: Replica, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let url = format!("http://{}/health", self.address(replica, "server.health_listen")?);
        let mut last = Value::Null;
        let asking = async {
            loop {
                last = serde_json::from_slice(&reqwest::get(&url).await?.bytes().await?)?;
                if wanted(&last) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(STEP).await;
            }
        };
        let asked = within("a process's health", asking).await;
        asked.with_context(|| format!("{replica} said last: {last}"))?;
        Ok(last)
    }

    /// Processor time that a process has used, in clock ticks of Linux (a hundredth of a second).
    ///
    /// # Errors
    /// It is not running, or this is no Linux.
    pub fn processor_ticks(&self, replica: Replica) -> anyhow::Result<u64> {
        let child = self.running.get(&replica).with_context(|| format!("{replica} is not running"))?;
        let id = child.id().with_context(|| format!("{replica} has ended"))?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name before, in parentheses, may hold anything.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        fields.split_ascii_whitespace().skip(11).take(2).map(|ticks| Ok(ticks.parse::<u64>()?)).sum()
    }

    /// What a process answers at `/metrics`.
    ///
    /// # Errors
    /// It does not answer, or there is one process.
    pub async fn metrics(&self, replica: Replica) -> anyhow::Result<String> {
        let url = format!("http://{}/metrics", self.address(replica, "server.health_listen")?);
        let answer = reqwest::get(&url).await.with_context(|| format!("ask {replica} for metrics"))?;
        anyhow::ensure!(answer.status().is_success(), "{replica} answers {}", answer.status());
        Ok(answer.text().await?)
    }

    /// Fails if a process has ended that was not asked to.
    ///
    /// # Errors
    /// One has, with its last words.
    pub fn assert_alive(&mut self) -> anyhow::Result<()> {
        for (replica, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                let log = launch::log_file(self.folder.path(), *replica);
                return Err(anyhow!("{replica} ended: {status}\n{}", tail(&log)));
            }
        }
        Ok(())
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        let logs = self.logs().into_iter().map(|(_, log)| std::fs::read_to_string(log).unwrap_or_default());
        logs.collect::<Vec<_>>().concat()
    }

    /// The logs of all processes that there were.
    fn logs(&self) -> Vec<(Replica, PathBuf)> {
        let first = Replica::from(Process::All);
        let mut all = vec![first];
        all.extend(self.replicas().into_iter().filter(|replica| *replica != first));
        all.into_iter().map(|replica| (replica, launch::log_file(self.folder.path(), replica))).collect()
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
        let channel = self.operator_transport()?.connect(Role::KeyDirectory, &self.ready.operator)?;
        Ok(ProvidersClient::with_interceptor(channel, Bearer(header)))
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
        for (replica, log) in self.logs() {
            eprintln!("--- the log of {replica}\n{}", tail(&log));
        }
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

fn authority(url: &str) -> anyhow::Result<String> {
    Ok(url.strip_prefix("http://").context("an http URL")?.trim_end_matches('/').to_owned())
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn tail(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

const STEP: Duration = Duration::from_millis(10);
