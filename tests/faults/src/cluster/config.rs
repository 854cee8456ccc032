//! Which processes there are, with which settings, and the links between them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use causeway_identity::RootPublicKey;
use causeway_test_servers as servers;
use causeway_test_servers::{Folder, Options, Port, PostgresPair, RedisCluster, Sentinel};

use super::service::{Probe, ServiceKind, State, start_all};
use super::stores::PostgresServers;
use super::{Cluster, ClusterOptions, Known, Postgres, PostgresShape, Redis, RedisShape, Service, Store, supervise};
use crate::events::FaultLog;
use crate::preload::Preload;
use crate::proxy::Link;

/// A cluster that is being built.
pub(super) struct Builder {
    options: ClusterOptions,
    log: FaultLog,
    binary: PathBuf,
    logs: PathBuf,
    work: Folder,
    preload: Preload,
    /// Settings of every process.
    common: Settings,
    services: Vec<Arc<Service>>,
    links: BTreeMap<String, Arc<Link>>,
    ports: Vec<Port>,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    /// `mode` and `addresses` where the addresses are the same for all.
    redis_settings: Settings,
    known: Option<Known>,
}

/// `section.field` and a TOML value. The later one counts.
type Settings = Vec<(String, String)>;

/// A process's place: how it is started, and where it listens.
struct Place {
    kind: ServiceKind,
    name: String,
    settings: Settings,
    probe: Probe,
    data: PathBuf,
}

impl Builder {
    pub(super) async fn new(options: ClusterOptions, log: FaultLog, binary: PathBuf) -> anyhow::Result<Self> {
        let logs = options.folder.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        let (work, preload) = tokio::task::spawn_blocking(|| {
            let work = Folder::create()?;
            let preload = Preload::build(work.path())?;
            anyhow::Ok((work, preload))
        })
        .await??;
        let loopback = ["directory", "routing", "media"].map(|section| format!("{section}.fetch.allow_loopback_http"));
        Ok(Self {
            common: loopback.into_iter().map(|field| (field, "true".to_owned())).collect(),
            options,
            log,
            binary,
            logs,
            work,
            preload,
            services: Vec::new(),
            links: BTreeMap::new(),
            ports: Vec::new(),
            postgres: None,
            redis: None,
            redis_settings: Vec::new(),
            known: None,
        })
    }

    /// `causeway all`.
    pub(super) async fn one(&mut self) -> anyhow::Result<()> {
        let mut place = self.all("all")?;
        let (edge, media) = (place.address("edge.listen")?, place.address("media.listen")?);
        let media = format!("http://{}", self.link("clients", "media", media).await?);
        place.set("media.public_base", toml_text(&media));
        let all = self.add(place)?;
        all.start().await?;
        let link = self.link("clients", "all", edge).await?;
        self.known = Some(Known { media, ..known(&all, vec![link])? });
        Ok(())
    }

    /// One process a replica of a service, on shared stores.
    pub(super) async fn scaled(&mut self, postgres: PostgresShape, redis: RedisShape) -> anyhow::Result<()> {
        self.start_postgres(postgres).await?;
        self.start_redis(redis).await?;
        // The first start of a deployment in one process makes its keys.
        let place = self.all("keys")?;
        let keys = place.data.join("keys");
        let first = self.make(place)?;
        first.start().await?;
        let made = known(&first, Vec::new())?;
        first.leave().await.context("the first start")?;

        let text = |path: PathBuf| toml_text(&path.to_string_lossy());
        let files = [
            ("edge.noise_key_file", "noise.key"),
            ("edge.certificate_file", "certificate"),
            ("directory.operator_token_file", "operator.token"),
            ("media.ticket_key_file", "ticket.key"),
        ];
        self.common.extend(files.map(|(field, file)| (field.to_owned(), text(keys.join(file)))));

        let directories = self.replicas(ServiceKind::Directory, "directory", DIRECTORIES)?;
        let medias = self.replicas(ServiceKind::Media, "media", MEDIAS)?;
        let routings = self.replicas(ServiceKind::Routing, "routing", ROUTINGS)?;
        let edges = self.replicas(ServiceKind::Edge, "edge", EDGES)?;
        let of = |places: &[Place], field: &str| -> anyhow::Result<Vec<(String, SocketAddr)>> {
            places.iter().map(|place| Ok((place.name.clone(), place.address(field)?))).collect()
        };
        let directory_targets = of(&directories, "server.directory_listen")?;
        let routing_targets = of(&routings, "server.routing_listen")?;
        let media_targets = of(&medias, "server.media_listen")?;
        let media = format!("http://{}", self.balanced("media", &of(&medias, "media.listen")?).await?);
        let blobs = toml_text(&self.work.path().join("media.blobs").to_string_lossy());
        let operator = format!("http://{}", directories[0].address("server.operator_listen")?);

        let mut clients = Vec::new();
        let mut groups = Vec::new();
        for mut place in directories {
            self.on_postgres(&mut place, "directory").await?;
            self.on_redis(&mut place, "directory").await?;
            groups.push(place);
        }
        for mut place in medias {
            self.on_redis(&mut place, "media").await?;
            place.set("media.public_base", toml_text(&media));
            place.set("media.data_dir", blobs.clone());
            groups.push(place);
        }
        for mut place in routings {
            self.on_postgres(&mut place, "routing").await?;
            self.on_redis(&mut place, "routing").await?;
            self.peers(&mut place, "server.directory_urls", &directory_targets).await?;
            let own = place.address("server.routing_listen")?;
            let advertised = self.link("routings", &place.name, own).await?;
            place.set("routing.advertise_url", toml_text(&format!("http://{advertised}")));
            let name = toml_text(&place.name);
            place.set("routing.name", name);
            groups.push(place);
        }
        for mut place in edges {
            self.on_redis(&mut place, "edge").await?;
            self.peers(&mut place, "server.directory_urls", &directory_targets).await?;
            self.peers(&mut place, "server.routing_urls", &routing_targets).await?;
            self.peers(&mut place, "server.media_urls", &media_targets).await?;
            let own = place.address("edge.listen")?;
            clients.push(self.link("clients", &place.name, own).await?);
            groups.push(place);
        }
        let mut started = Vec::new();
        for place in groups {
            started.push(self.add(place)?);
        }
        // Each waits for what it needs.
        start_all(&started).await?;
        self.known = Some(Known { edges: clients, media, operator, ..made });
        Ok(())
    }

    pub(super) fn finish(self) -> anyhow::Result<Arc<Cluster>> {
        let postgres = self.postgres.map(Store::new);
        let supervisor = tokio::spawn(supervise(self.services.clone(), postgres.clone(), self.log.clone()));
        Ok(Arc::new(Cluster {
            services: self.services,
            supervisor,
            postgres,
            redis: self.redis.map(Store::new),
            links: self.links,
            known: self.known.context("it has been built")?,
            log: self.log,
            options: self.options,
            _ports: self.ports,
            _work: self.work,
        }))
    }

    /// A deployment in one process.
    fn all(&mut self, name: &str) -> anyhow::Result<Place> {
        let mut place = self.place(ServiceKind::All, name, Probe::ReadyLine);
        for field in ["edge.listen", "edge.websocket_listen", "media.listen", "server.operator_listen"] {
            self.listen(&mut place, field)?;
        }
        Ok(place)
    }

    fn replicas(&mut self, kind: ServiceKind, name: &str, count: usize) -> anyhow::Result<Vec<Place>> {
        let listeners: &[&str] = match kind {
            ServiceKind::All => &[],
            ServiceKind::Directory => &["server.directory_listen", "server.operator_listen"],
            ServiceKind::Routing => &["server.routing_listen"],
            ServiceKind::Media => &["server.media_listen", "media.listen"],
            ServiceKind::Edge => &["edge.listen", "edge.websocket_listen"],
        };
        let mut places = Vec::new();
        for number in 1..=count {
            let mut place = self.place(kind, &format!("{name}-{number}"), Probe::ReadyLine);
            for field in listeners {
                self.listen(&mut place, field)?;
            }
            place.probe = Probe::Health(self.listen(&mut place, "server.health_listen")?);
            places.push(place);
        }
        Ok(places)
    }

    fn place(&self, kind: ServiceKind, name: &str, probe: Probe) -> Place {
        let data = self.work.path().join(format!("{name}.data"));
        Place { kind, name: name.to_owned(), settings: Vec::new(), probe, data }
    }

    /// A port for one of its listeners, which it keeps.
    fn listen(&mut self, place: &mut Place, field: &str) -> anyhow::Result<SocketAddr> {
        let port = Port::claim()?;
        let address = port.address();
        self.ports.push(port);
        place.set(field, toml_text(&address.to_string()));
        Ok(address)
    }

    async fn link(&mut self, from: &str, to: &str, target: SocketAddr) -> anyhow::Result<SocketAddr> {
        let name = format!("{from}>{to}");
        let link = Link::open(&name, target, self.options.seed).await.with_context(|| name.clone())?;
        let address = link.address();
        self.links.insert(name, Arc::new(link));
        Ok(address)
    }

    /// A link from clients to several of a kind in turn, as through a load balancer: behind it each has a link of its own.
    async fn balanced(&mut self, to: &str, targets: &[(String, SocketAddr)]) -> anyhow::Result<SocketAddr> {
        let mut behind = Vec::new();
        for (name, target) in targets {
            behind.push(self.link("clients", name, *target).await?);
        }
        let first = *behind.first().context("somebody to go to")?;
        let address = self.link("clients", to, first).await?;
        self.links.get(&format!("clients>{to}")).context("it has just been made")?.balance(behind);
        Ok(address)
    }

    /// Links to each of several, and a setting with their URLs.
    async fn peers(&mut self, place: &mut Place, field: &str, to: &[(String, SocketAddr)]) -> anyhow::Result<()> {
        let mut urls = Vec::new();
        for (name, target) in to {
            let address = self.link(&place.name, name, *target).await?;
            urls.push(toml_text(&format!("http://{address}")));
        }
        place.set(field, format!("[{}]", urls.join(", ")));
        Ok(())
    }

    async fn start_postgres(&mut self, shape: PostgresShape) -> anyhow::Result<()> {
        let control = self.preload.control("postgres")?;
        let options = Options { durable: true, environment: control.environment(), ..Options::default() };
        let servers = tokio::task::spawn_blocking(move || {
            anyhow::Ok(match shape {
                PostgresShape::Single => {
                    let server = servers::Postgres::start_with(options)?;
                    server.create_database()?;
                    PostgresServers::Single(server)
                }
                PostgresShape::Pair => {
                    let mut pair = PostgresPair::start_with(&options)?;
                    pair.primary().create_database()?;
                    PostgresServers::Pair(Box::new(pair))
                }
            })
        })
        .await??;
        self.postgres = Some(Postgres { servers, control, links: [Vec::new(), Vec::new()], primary: 0, held: false });
        Ok(())
    }

    async fn on_postgres(&mut self, place: &mut Place, section: &str) -> anyhow::Result<()> {
        let postgres = self.postgres.as_mut().context("PostgreSQL runs")?;
        let mut ports = vec![postgres.primary().port()];
        if let PostgresServers::Pair(pair) = &mut postgres.servers {
            ports.extend(pair.standby().map(|standby| standby.port()));
        }
        let names: &[&str] = if ports.len() == 1 { &["postgres"] } else { &["postgres-a", "postgres-b"] };
        let mut hosts = Vec::new();
        for (index, (port, name)) in ports.iter().zip(names).enumerate() {
            let address = self.link(&place.name, name, local(*port)).await?;
            let link = self.links.get(&format!("{}>{name}", place.name)).context("it has just been made")?;
            let link = Arc::clone(link);
            self.postgres.as_mut().context("PostgreSQL runs")?.links[index].push(link);
            hosts.push(address.to_string());
        }
        let url = format!("postgres://causeway@{}/{}", hosts.join(","), Postgres::DATABASE);
        place.set(&format!("{section}.store"), toml_text("postgres"));
        place.set(&format!("{section}.postgres.url"), toml_text(&url));
        Ok(())
    }

    async fn start_redis(&mut self, shape: RedisShape) -> anyhow::Result<()> {
        let (links, announcing) = (tokio::runtime::Handle::current(), self.options.seed);
        let mut opened: Vec<Link> = Vec::new();
        let (redis, opened) = tokio::task::spawn_blocking(move || {
            // The address that a server tells others is that of a link to it.
            let mut announce = |port: u16| {
                let name = format!("all>redis-{}", opened.len() + 1);
                let link = links.block_on(Link::open(&name, local(port), announcing));
                let link = link.map_err(|source| servers::ServerError::Io { what: name, source })?;
                let address = link.address();
                opened.push(link);
                Ok(address.port())
            };
            let redis = match shape {
                RedisShape::Single => Redis::Single(servers::Redis::start()?),
                RedisShape::Sentinel => Redis::Sentinel(Sentinel::start_behind(3, &mut announce)?),
                RedisShape::Cluster => Redis::Cluster(RedisCluster::start_behind(true, &mut announce)?),
            };
            anyhow::Ok((redis, opened))
        })
        .await??;
        let addresses: Vec<_> = opened.iter().map(|link| toml_text(&link.address().to_string())).collect();
        if shape == RedisShape::Cluster {
            self.redis_settings = vec![
                ("mode".to_owned(), toml_text("cluster")),
                ("addresses".to_owned(), format!("[{}]", addresses.join(", "))),
            ];
        }
        self.links.extend(opened.into_iter().map(|link| (link.name().to_owned(), Arc::new(link))));
        self.redis = Some(redis);
        Ok(())
    }

    async fn on_redis(&mut self, place: &mut Place, section: &str) -> anyhow::Result<()> {
        let (mode, targets) = match self.redis.as_mut().context("Redis runs")? {
            Redis::Single(server) => ("single", vec![("redis".to_owned(), server.port())]),
            Redis::Sentinel(sentinel) => {
                let sentinels = sentinel.sentinels().iter().enumerate();
                ("sentinel", sentinels.map(|(index, one)| (format!("sentinel-{}", index + 1), one.port())).collect())
            }
            Redis::Cluster(_) => {
                for (field, value) in self.redis_settings.clone() {
                    place.set(&format!("{section}.redis.{field}"), value);
                }
                return Ok(());
            }
        };
        let mut addresses = Vec::new();
        for (name, port) in targets {
            addresses.push(toml_text(&self.link(&place.name, &name, local(port)).await?.to_string()));
        }
        place.set(&format!("{section}.redis.mode"), toml_text(mode));
        place.set(&format!("{section}.redis.addresses"), format!("[{}]", addresses.join(", ")));
        Ok(())
    }

    fn add(&mut self, place: Place) -> anyhow::Result<Arc<Service>> {
        let service = self.make(place)?;
        self.services.push(Arc::clone(&service));
        Ok(service)
    }

    /// Writes a process's configuration.
    fn make(&self, place: Place) -> anyhow::Result<Arc<Service>> {
        let config = self.work.path().join(format!("{}.toml", place.name));
        let mut settings = BTreeMap::new();
        settings.extend(self.common.iter().cloned());
        settings.extend(place.settings);
        settings.extend(self.options.settings.iter().cloned());
        let mut toml = String::new();
        for (field, value) in settings {
            writeln!(toml, "{field} = {value}")?;
        }
        std::fs::write(&config, toml).with_context(|| config.display().to_string())?;
        Ok(Arc::new(Service {
            control: self.preload.control(&place.name)?,
            log: self.logs.join(format!("{}.log", place.name)),
            name: place.name,
            kind: place.kind,
            binary: self.binary.clone(),
            data: place.data,
            config,
            probe: place.probe,
            excused: 0.into(),
            process: tokio::sync::Mutex::new(State::default()),
        }))
    }
}

impl Place {
    fn set(&mut self, field: &str, value: String) {
        self.settings.push((field.to_owned(), value));
    }

    fn address(&self, field: &str) -> anyhow::Result<SocketAddr> {
        let value = self.settings.iter().find(|(name, _)| name == field).map(|(_, value)| value.trim_matches('"'));
        Ok(value.with_context(|| format!("{} has no {field}", self.name))?.parse()?)
    }
}

/// What `causeway all` says of itself.
fn known(all: &Service, edges: Vec<SocketAddr>) -> anyhow::Result<Known> {
    let line = all.ready_line(0).context("it says that it is ready")?;
    let words = line.strip_prefix(super::service::READY).unwrap_or_default().trim();
    let values: BTreeMap<_, _> = words.split(' ').filter_map(|word| word.split_once('=')).collect();
    let value = |name: &str| values.get(name).copied().with_context(|| format!("no {name} in: {line}"));
    Ok(Known {
        edges,
        media: value("media")?.to_owned(),
        operator: value("operator")?.to_owned(),
        operator_token: read_token(&all.data)?,
        deployment: value("deployment")?.to_owned(),
        root: value("root")?.parse::<RootPublicKey>()?,
    })
}

fn read_token(data: &Path) -> anyhow::Result<String> {
    let file = data.join("keys/operator.token");
    Ok(std::fs::read_to_string(&file).with_context(|| file.display().to_string())?.trim().to_owned())
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn toml_text(text: &str) -> String {
    format!("{text:?}")
}

const EDGES: usize = 2;
const ROUTINGS: usize = 3;
const DIRECTORIES: usize = 2;
const MEDIAS: usize = 2;
