//! A deployment of real processes on this machine.

pub(crate) mod certificates;
mod part;
pub(crate) mod provider;
pub(crate) mod settings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use causeway_identity::RootPublicKey;
use causeway_runtime::tls::Role;
use causeway_test_servers::{Folder, Options, Port, Postgres};
use clap::ValueEnum;
use tokio::runtime::Runtime;

use self::part::Part;
use self::provider::{Operator, Provider};
use self::settings::Settings;
use crate::wire::causeway::Net;

/// How many processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `causeway all`.
    All,
    /// Key-directory, routing, media-relay and edges, each a process of its own, over gRPC with mutual TLS.
    Split,
}

/// Where messages and keys are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// In files.
    Sqlite,
    /// In a PostgreSQL of this deployment's own, which syncs.
    Postgres,
}

/// What a deployment is made of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The `causeway` binary.
    pub(crate) server: PathBuf,
    /// How many processes.
    pub(crate) kind: Kind,
    /// Where messages and keys are kept.
    pub(crate) store: Store,
    /// Edges of [`Kind::Split`].
    pub(crate) edges: usize,
    /// Settings beside those of all.
    pub(crate) further: Settings,
}

/// A running deployment.
pub(crate) struct Deployment {
    // Dropped in this order: processes, then what they use.
    parts: Vec<Part>,
    postgres: Option<Postgres>,
    edges: Vec<SocketAddr>,
    name: String,
    root: RootPublicKey,
    providers: Vec<Provider>,
    _ports: Vec<Port>,
    _folder: Folder,
}

/// A process to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    /// What it is: `all`, `edge`, `postgres`, ...
    pub(crate) role: &'static str,
    /// Its process id.
    pub(crate) id: u32,
    /// Its children do its work.
    pub(crate) children: bool,
}

impl Deployment {
    /// Starts one, registers two providers with it, and waits until it serves.
    pub(crate) fn start(plan: &Plan, runtime: &Runtime) -> anyhow::Result<Self> {
        ensure!(
            plan.server.is_file(),
            "{} is not there: run `cargo build --release -p causeway`",
            plan.server.display()
        );
        ensure!((1..=64).contains(&plan.edges), "there can be 1 to 64 edges");
        // A deployment that others build anew under us is another one.
        let folder = Folder::create()?;
        let binary = folder.path().join("causeway");
        std::fs::copy(&plan.server, &binary).context("copy the binary")?;
        let mut ports = Vec::new();
        let postgres = if plan.store == Store::Postgres { Some(start_postgres()?) } else { None };

        // The first start makes the keys, and tells of the providers in plain text.
        let mut common = settings::common();
        common.extend(plan.further.clone());
        if let Some((_, url)) = &postgres {
            common.extend(settings::postgres(url));
        }
        let mut all = Part::new("all", "all", &binary, folder.path());
        all.settings = common.clone();
        for field in ["edge.listen", "edge.websocket_listen", "media.listen", "server.operator_listen"] {
            all.listen(field, &mut ports)?;
        }
        let peers = all.listen("server.routing_listen", &mut ports)?;
        all.set("routing.advertise_url", &format!("http://{peers}"));
        all.start()?;
        let said = all.said()?;
        let word = |name: &str| said.get(name).with_context(|| format!("causeway did not say its {name}"));
        let name = word("deployment")?.clone();
        let root = word("root")?.parse::<RootPublicKey>().context("the root")?;
        let token = std::fs::read_to_string(all.data().join("keys/operator.token")).context("the operator token")?;
        let operator = Operator { url: word("operator")?.clone(), token: token.trim().to_owned() };
        let providers = provider::DOMAINS.iter().enumerate().map(|(index, domain)| {
            runtime.block_on(Provider::start(folder.path(), domain, index == 0, &name, &operator))
        });
        let providers = providers.collect::<anyhow::Result<Vec<_>>>()?;

        let (parts, edges) = match plan.kind {
            Kind::All => {
                let edge = word("edge")?.parse().context("the edge's address")?;
                (vec![all], vec![edge])
            }
            Kind::Split => {
                all.stop()?;
                let keys = certificates::make(&folder.path().join("tls"), &name)?;
                split(plan, &all, &common, &keys, &mut ports, folder.path(), &binary)?
            }
        };
        let postgres = postgres.map(|(server, _)| server);
        let mut deployment = Self { parts, postgres, edges, name, root, providers, _ports: ports, _folder: folder };
        deployment.start_again()?;
        Ok(deployment)
    }

    /// SIGKILL to all processes of ours, and to PostgreSQL's.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        for part in &mut self.parts {
            part.kill()?;
        }
        if let Some(postgres) = &mut self.postgres {
            postgres.kill()?;
        }
        Ok(())
    }

    /// SIGTERM to all processes of ours, from the outside in.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.parts.iter_mut().rev().try_for_each(Part::stop)
    }

    /// Starts what does not run, and waits until all of it serves.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        if let Some(postgres) = &mut self.postgres {
            postgres.start_again()?;
        }
        self.parts.iter_mut().try_for_each(Part::start)
    }

    /// Fails if a process has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.parts.iter_mut().try_for_each(Part::check)
    }

    /// Its processes.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let ours = self.parts.iter().filter_map(|part| {
            let id = part.id()?;
            Some(Watched { role: part.role, id, children: false })
        });
        let mut all: Vec<_> = ours.collect();
        all.extend(self.postgres.as_ref().and_then(watched_postgres));
        all
    }

    /// The deployment, as its clients know it.
    pub(crate) fn net(&self) -> Net {
        Net::new(&self.name, self.root)
    }

    /// Where clients connect.
    pub(crate) fn edges(&self) -> &[SocketAddr] {
        &self.edges
    }

    /// The providers: the operator's own, then a third party.
    pub(crate) fn providers(&self) -> &[Provider] {
        &self.providers
    }
}

/// The processes of a deployment whose keys are there already.
fn split(
    plan: &Plan,
    first: &Part,
    common: &Settings,
    keys: &Path,
    ports: &mut Vec<Port>,
    folder: &Path,
    binary: &Path,
) -> anyhow::Result<(Vec<Part>, Vec<SocketAddr>)> {
    let mut shared: BTreeMap<String, String> = common.clone();
    let mut part = |role: &'static str, name: &str, listeners: &[&str]| -> anyhow::Result<(Part, Vec<SocketAddr>)> {
        let mut part = Part::new(role, name, binary, folder);
        // All work on the data that the first start has made.
        part.share_data(first);
        part.probe_health(ports)?;
        let addresses = listeners.iter().map(|field| part.listen(field, ports)).collect::<anyhow::Result<Vec<_>>>()?;
        let own = keys.join(role);
        for (field, file) in [("certificate_file", "tls.crt"), ("key_file", "tls.key"), ("ca_file", "ca.crt")] {
            part.set(&format!("server.tls.{field}"), &own.join(file).to_string_lossy());
        }
        Ok((part, addresses))
    };
    let (directory, at_directory) =
        part(Role::KeyDirectory.name(), "key-directory", &["server.directory_listen", "server.operator_listen"])?;
    let (mut routing, at_routing) = part(Role::Routing.name(), "routing", &["server.routing_listen"])?;
    let (media, at_media) = part(Role::MediaRelay.name(), "media-relay", &["server.media_listen", "media.listen"])?;
    let url = |address: &SocketAddr| format!("https://localhost:{}", address.port());
    routing.set("routing.advertise_url", &url(&at_routing[0]));
    for (field, address) in [
        ("server.directory_urls", &at_directory[0]),
        ("server.routing_urls", &at_routing[0]),
        ("server.media_urls", &at_media[0]),
    ] {
        shared.insert(field.to_owned(), format!("[{:?}]", url(address)));
    }
    let mut parts = vec![directory, routing, media];
    let mut edges = Vec::new();
    for number in 1..=plan.edges {
        let (edge, at) = part(Role::Edge.name(), &format!("edge-{number}"), &["edge.listen", "edge.websocket_listen"])?;
        edges.push(at[0]);
        parts.push(edge);
    }
    for part in &mut parts {
        for (field, value) in &shared {
            part.settings.entry(field.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok((parts, edges))
}

/// A PostgreSQL as it is measured with, and the URL of an empty database.
pub(crate) fn start_postgres() -> anyhow::Result<(Postgres, String)> {
    let settings = settings::POSTGRES_SERVER.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = Postgres::start_with(Options { durable: true, settings, ..Options::default() })?;
    let url = server.create_database()?;
    Ok((server, url))
}

/// The processes of one, while it runs.
pub(crate) fn watched_postgres(server: &Postgres) -> Option<Watched> {
    let file = std::fs::read_to_string(server.data().join("postmaster.pid")).ok()?;
    let id = file.lines().next()?.trim().parse().ok()?;
    Some(Watched { role: "postgres", id, children: true })
}
