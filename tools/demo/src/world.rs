//! The servers of the demo: Causeway in one process, and two providers; or a deployment that runs already.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use causeway_client::{Address, ProviderTokens, ServerAddress, TokenSource};

use crate::against::Against;
use crate::device::{Deployment, Device};
use crate::process::{Running, binary, run};

/// The operator's own messenger, which bo uses.
pub(crate) const HOME: &str = "home.example";
/// The third party, which ada uses.
pub(crate) const THIRD: &str = "birdy.example";

/// Everything that runs.
pub(crate) struct World {
    folder: PathBuf,
    own: Option<Own>,
    operator: String,
    operator_token: PathBuf,
    /// Where the media-relay is reached.
    media: String,
    home: Provider,
    third: Provider,
    pub(crate) deployment: Deployment,
    /// Where the third party's users connect; the home provider's use the one in `deployment`.
    third_edge: ServerAddress,
}

/// Processes of the demo's own.
struct Own {
    causeway: Running,
    arguments: Vec<String>,
    home: Running,
    third: Running,
}

/// What a provider says of itself: `key=value` words.
#[derive(Clone)]
pub(crate) struct Provider {
    domain: &'static str,
    words: HashMap<String, String>,
}

impl Provider {
    pub(crate) const fn new(domain: &'static str, words: HashMap<String, String>) -> Self {
        Self { domain, words }
    }

    pub(crate) fn said(&self, key: &str) -> anyhow::Result<&str> {
        self.words.get(key).map(String::as_str).with_context(|| format!("{} did not say its {key}", self.domain))
    }
}

impl World {
    /// Starts the three processes, on these ports (0: free ones).
    pub(crate) async fn start(folder: &Path, ports: Ports) -> anyhow::Result<Self> {
        let listen = |port: u16| format!("127.0.0.1:{port}");
        // The providers are on this machine and speak plain http, which only a setting allows.
        let config = folder.join("causeway.toml");
        let settings = format!(
            "[edge]\nlisten = \"{}\"\nwebsocket_listen = \"{}\"\n\n[server]\noperator_listen = \"{}\"\n\n\
             [media]\nlisten = \"{}\"\n\n[media.fetch]\nallow_loopback_http = true\n\n\
             [directory.fetch]\nallow_loopback_http = true\n\n[routing.fetch]\nallow_loopback_http = true\n",
            listen(ports.edge),
            listen(ports.websocket),
            listen(ports.operator),
            listen(ports.media)
        );
        std::fs::write(&config, settings).with_context(|| format!("{} cannot be written", config.display()))?;
        let data = folder.join("server");
        let arguments = ["all", "--data", &text(&data), "--config", &text(&config)].map(ToOwned::to_owned).to_vec();
        let causeway =
            Running::start("causeway", &binary("causeway")?, &arguments, &folder.join("causeway.log")).await?;
        let home = sandbox(folder, HOME, ports.home).await?;
        let third = sandbox(folder, THIRD, ports.third).await?;
        let deployment = Deployment {
            server: causeway.said("edge")?.parse().context("address of the edge")?,
            name: causeway.said("deployment")?.to_owned(),
            root: causeway.said("root")?.parse().context("root key")?,
        };
        // A restart must come back at the same addresses.
        pin(&config, &causeway)?;
        Ok(Self {
            folder: folder.to_owned(),
            operator: causeway.said("operator")?.to_owned(),
            operator_token: data.join("keys/operator.token"),
            media: causeway.said("media")?.to_owned(),
            home: Provider::new(HOME, home.ready.clone()),
            third: Provider::new(THIRD, third.ready.clone()),
            third_edge: deployment.server.clone(),
            deployment,
            own: Some(Own { causeway, arguments, home, third }),
        })
    }

    /// What runs already.
    pub(crate) fn against(folder: &Path, running: &Against) -> anyhow::Result<Self> {
        let root = std::fs::read_to_string(&running.root_file)
            .with_context(|| format!("{} cannot be read", running.root_file.display()))?;
        let [first, .., last] = running.edges.as_slice() else { anyhow::bail!("--edge must be given twice at least") };
        Ok(Self {
            folder: folder.to_owned(),
            own: None,
            operator: running.operator.clone(),
            operator_token: running.operator_token_file.clone(),
            media: running.media_url.clone(),
            home: running.provider(HOME, &running.home_url),
            third: running.provider(THIRD, &running.third_url),
            third_edge: first.parse().context("--edge")?,
            deployment: Deployment {
                server: last.parse().context("--edge")?,
                name: running.deployment.clone(),
                root: root.trim().parse().context("--root-file")?,
            },
        })
    }

    /// Tells Causeway of a provider, as an operator would.
    pub(crate) async fn register(&self, domain: &str) -> anyhow::Result<String> {
        let (name, kind) = if domain == HOME { ("Home Messenger", "home") } else { ("Birdy", "third-party") };
        let provider = self.provider(domain);
        // The home provider's users upload to the operator's own media-relay.
        let (media_host, media_prefix) = if domain == HOME {
            let host = self.media.split_once("://").map_or(self.media.as_str(), |(_, host)| host);
            (host, format!("{}/v1/blobs/", self.media))
        } else {
            (provider.said("host")?, provider.said("media_prefix")?.to_owned())
        };
        let token_file = text(&self.operator_token);
        let mut arguments = vec![
            "provider",
            "--operator",
            &self.operator,
            "--operator-token-file",
            &token_file,
            "register",
            "--domain",
            domain,
            "--name",
            name,
            "--kind",
            kind,
            "--issuer",
            provider.said("issuer")?,
            "--host",
            provider.said("host")?,
            "--media-prefix",
            &media_prefix,
        ];
        if media_host != provider.said("host")? {
            arguments.extend(["--host", media_host]);
        }
        let arguments: Vec<_> = arguments.into_iter().map(ToOwned::to_owned).collect();
        run(&binary("causewayctl")?, &arguments).await
    }

    /// Where a device keeps its state.
    pub(crate) fn device_state(&self, user: &Address, device: &str) -> PathBuf {
        self.folder.join(format!("{}-{device}.db", user.local()))
    }

    /// Switches a user's device on.
    pub(crate) async fn device(&self, user: &Address, device: &str) -> anyhow::Result<Device> {
        let state = self.device_state(user, device);
        let name = format!("{}'s {device}", user.local());
        let mut deployment = self.deployment.clone();
        if user.provider() == THIRD {
            deployment.server = self.third_edge.clone();
        }
        Device::on(&name, user, &deployment, &state, self.tokens(user)?).await
    }

    /// Where a user's tokens come from.
    pub(crate) fn tokens(&self, user: &Address) -> anyhow::Result<Arc<dyn TokenSource>> {
        Ok(Arc::new(ProviderTokens::new(self.provider(user.provider()).said("token_url")?, user.local())?))
    }

    pub(crate) fn provider(&self, domain: &str) -> &Provider {
        if domain == HOME { &self.home } else { &self.third }
    }

    /// Where the third party's and the home provider's users connect.
    pub(crate) fn edges(&self) -> [&ServerAddress; 2] {
        [&self.third_edge, &self.deployment.server]
    }

    /// True if the processes are the demo's own.
    pub(crate) const fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// SIGKILL to Causeway.
    pub(crate) async fn kill_causeway(&mut self) -> anyhow::Result<()> {
        self.own()?.causeway.kill().await
    }

    /// Starts Causeway again, on the same data.
    pub(crate) async fn restart_causeway(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("causeway.log");
        let own = self.own()?;
        own.causeway = Running::start("causeway", &binary("causeway")?, &own.arguments, &log).await?;
        Ok(())
    }

    fn own(&mut self) -> anyhow::Result<&mut Own> {
        self.own.as_mut().context("the processes are not the demo's own")
    }

    /// Waits until one of the processes ends, which it should not.
    pub(crate) async fn watch(&mut self) -> anyhow::Result<()> {
        let own = self.own()?;
        tokio::select! {
            ended = own.causeway.ended() => ended,
            ended = own.home.ended() => ended,
            ended = own.third.ended() => ended,
        }
    }

    /// SIGTERM to all; each must leave cleanly.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let Some(own) = self.own else { return Ok(()) };
        own.causeway.stop().await?;
        own.home.stop().await?;
        own.third.stop().await
    }
}

/// Where everything listens.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ports {
    pub(crate) edge: u16,
    pub(crate) websocket: u16,
    pub(crate) operator: u16,
    pub(crate) media: u16,
    pub(crate) home: u16,
    pub(crate) third: u16,
}

impl Ports {
    /// The documented ones, for `make run`.
    pub(crate) const FIXED: Self =
        Self { edge: 7443, websocket: 7445, operator: 7444, media: 7446, home: 9001, third: 9002 };
}

async fn sandbox(folder: &Path, domain: &str, port: u16) -> anyhow::Result<Running> {
    let data = folder.join(domain);
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["--data", &text(&data), "--domain", domain, "--listen", &listen].map(ToOwned::to_owned);
    Running::start(domain, &binary("sandbox")?, &arguments, &folder.join(format!("{domain}.log"))).await
}

fn pin(config: &Path, causeway: &Running) -> anyhow::Result<()> {
    let address = |key: &str| Ok::<_, anyhow::Error>(causeway.said(key)?.trim_start_matches("http://").to_owned());
    let mut settings = std::fs::read_to_string(config)?;
    for (line, key) in
        [("listen", "edge"), ("websocket_listen", "websocket"), ("operator_listen", "operator"), ("listen", "media")]
    {
        // Each of the four stands on port 0 once, in this order.
        let free = format!("{line} = \"127.0.0.1:0\"");
        settings = settings.replacen(&free, &format!("{line} = \"{}\"", address(key)?), 1);
    }
    std::fs::write(config, settings).with_context(|| format!("{} cannot be written", config.display()))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
