//! The edge owns clients' connections: Noise, the token check, sessions, flow control and drain. Nothing of it is
//! durable: what a device has not acknowledged stays with routing.
//!
//! Called by providers' clients (docs/protocol.md). Calls key-directory (providers' keys, accounts, prekeys, consent),
//! routing (a stream to each replica, with the events of all sessions) and media-relay (tickets).
//!
//! [`Edge::build`] reads the keys and binds; [`Edge::serve`] runs until drained.
//!
//! Where things are: `listener` accepts, `limits` and `arrivals` say who may come in, `connection` is the loop that owns a
//! socket, `session` the state machine behind it, `login` and `replay` decide about tokens, `logins` tells which came first, `providers` caches what the
//! directory knows of providers, `links` are the streams to the replicas of routing, `dispatch` decides which
//! of them a session deals with, `requests` has a file per `iq`, `report` writes the log's
//! lines about clients.

mod arrivals;
mod certificate;
mod config;
mod connection;
mod dispatch;
mod error;
mod inbox;
mod keys;
mod limits;
mod link;
mod links;
mod listener;
mod log_gate;
mod login;
mod logins;
mod metrics;
mod pacing;
mod providers;
mod random;
pub mod rendezvous;
mod replay;
mod report;
mod requests;
mod routes;
mod session;
#[cfg(test)]
mod tests;
mod trip;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use causeway_redis::{Holds, Redis};
use causeway_runtime::clock::SharedClock;
use causeway_runtime::config::Check as _;
use causeway_runtime::grpc::Channel;
use causeway_runtime::grpc::Endpoints;
use causeway_runtime::lifecycle::Lifecycle;
use causeway_runtime::planted;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::arrivals::Arrivals;
pub use self::config::EdgeConfig;
pub use self::error::EdgeError;
pub use self::logins::Logins;
pub use self::random::Random;

use self::connection::Shared;
use self::keys::Keys;
use self::limits::Admission;
use self::links::Links;
use self::listener::{Acceptor, Wrapping};
use self::login::Login;
use self::metrics::Metrics;
use self::pacing::Pacing;
use self::providers::Providers;
use self::replay::SpentTokens;
use self::report::Report;
use self::requests::Requests;
use self::session::Rules;

/// The services that an edge calls.
#[derive(Debug, Clone)]
pub struct EdgeDeps {
    /// key-directory's internal services.
    pub directory: Channel,
    /// The replicas of routing.
    pub routing: Endpoints,
    /// media-relay's tickets.
    pub media: Channel,
}

/// An edge that is bound but serves nothing yet.
pub struct Edge {
    listener: TcpListener,
    local_addr: SocketAddr,
    websocket: Option<(TcpListener, SocketAddr)>,
    inside: UnboundEdge,
}

impl Edge {
    /// Checks the settings, reads the key files and binds. The other services need not be there yet.
    ///
    /// # Errors
    /// [`EdgeError`], which names what to mend.
    pub async fn build(config: EdgeConfig, deps: EdgeDeps, clock: SharedClock) -> Result<Self, EdgeError> {
        let inside = UnboundEdge::build(config, deps, clock, Random::system())?;
        let config = &inside.rules.config;
        let (listener, local_addr) = bind("edge.listen", config.listen).await?;
        let websocket = match config.websocket_listen {
            Some(address) => Some(bind("edge.websocket_listen", address).await?),
            None => None,
        };
        Ok(Self { listener, local_addr, websocket, inside })
    }

    /// How the Redis with the spent tokens is, if there is one: while it is degraded, new logins fail.
    pub fn redis_health(&self) -> Option<tokio::sync::watch::Receiver<causeway_redis::Health>> {
        self.inside.spent.health()
    }

    /// Where clients connect by TCP.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where clients connect by WebSocket, if they can.
    pub fn websocket_addr(&self) -> Option<SocketAddr> {
        self.websocket.as_ref().map(|(_, address)| *address)
    }

    /// Resolves when clients can log in: the providers are known and a routing is linked. Only while [`Edge::serve`]
    /// runs.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + 'static {
        self.inside.ready()
    }

    /// Serves until the lifecycle drains: then no more connections are accepted, each session is told to come back
    /// later, and the links to routing close after the last has left.
    ///
    /// # Errors
    /// None at present: what happens to single connections ends only them.
    pub async fn serve(self, life: Lifecycle) -> Result<(), EdgeError> {
        let Self { listener, websocket, inside, .. } = self;
        let running = inside.start(life);
        let plain = running.acceptor.run(listener::accepted(listener), Wrapping::Plain);
        let wrapped = async {
            if let Some((listener, _)) = websocket {
                running.acceptor.run(listener::accepted(listener), Wrapping::WebSocket).await;
            }
        };
        tokio::join!(plain, wrapped);
        running.finish().await;
        Ok(())
    }
}

/// An edge without listeners: connections come from whoever holds it, a simulated network for instance.
pub struct UnboundEdge {
    rules: Arc<Rules>,
    spent: Arc<dyn SpentTokens>,
    logins: Logins,
    deps: EdgeDeps,
    providers: Providers,
    links: Links,
    metrics: Metrics,
    clock: SharedClock,
    random: Random,
}

impl UnboundEdge {
    /// As [`Edge::build`], but binds nothing. Everything random comes from `random`.
    ///
    /// # Errors
    /// [`EdgeError`], which names what to mend.
    pub fn build(config: EdgeConfig, deps: EdgeDeps, clock: SharedClock, random: Random) -> Result<Self, EdgeError> {
        config.check()?;
        let keys = Keys::load(&config, clock.now())?;
        let redis = config.redis.as_ref().map(|redis| Redis::open(redis, "edge", Holds::Spendings)).transpose()?;
        let logins = redis.clone().map_or_else(|| Logins::own(&random), Logins::shared);
        let spent = replay::open(&config, redis);
        let metrics = Metrics::new();
        let links = Links::new(&config, metrics.clone(), random.clone());
        let providers = Providers::new(deps.directory.clone(), random.clone());
        let rules = Arc::new(Rules { config, keys });
        Ok(Self { rules, spent, logins, deps, providers, links, metrics, clock, random })
    }

    /// The same edge, but the order of its logins among those of other edges is told by `logins`: for edges that share a
    /// process and no Redis.
    #[must_use]
    pub fn with_logins(self, logins: Logins) -> Self {
        Self { logins, ..self }
    }

    /// As [`Edge::ready`]. Only while [`UnboundEdge::serve_on`] runs.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + 'static {
        let (providers, links) = (self.providers.clone(), self.links.clone());
        async move {
            providers.wait_until_filled().await;
            links.wait_until_up().await;
        }
    }

    /// As [`Edge::serve`], over connections that were made elsewhere, each with the client's address. After the last of
    /// them, it goes on until the last session has ended.
    ///
    /// # Errors
    /// None at present: what happens to single connections ends only them.
    pub async fn serve_on<T>(
        self,
        life: Lifecycle,
        incoming: impl Stream<Item = io::Result<(T, SocketAddr)>> + Send,
    ) -> Result<(), EdgeError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let running = self.start(life);
        running.acceptor.run(incoming, Wrapping::Plain).await;
        running.finish().await;
        Ok(())
    }

    fn start(self, life: Lifecycle) -> Running {
        let config = &self.rules.config;
        let (providers, directory) = (self.providers.clone(), self.deps.directory.clone());
        let clock = Arc::clone(&self.clock);
        let login = Arc::new(Login::new(config, self.spent, providers, directory, Pacing::new(), clock));
        let requests = Arc::new(Requests::new(
            config,
            self.deps.directory,
            self.deps.media,
            self.providers.clone(),
            Arc::clone(&login),
            self.metrics.clone(),
        ));
        let report = Arc::new(Report::default());
        let (certificate_rules, certificate_clock) = (Arc::clone(&self.rules), Arc::clone(&self.clock));
        let shared = Arc::new(Shared {
            admission: Admission::new(config, limits::open_files()),
            rules: self.rules,
            login,
            logins: self.logins,
            links: self.links.clone(),
            requests,
            metrics: self.metrics,
            report: Arc::clone(&report),
            clock: self.clock,
            random: self.random,
            drain: life.drain_token(),
        });
        let (connections, services) = (TaskTracker::new(), TaskTracker::new());
        let stop = CancellationToken::new();
        life.spawn(services.track_future(self.providers.run(stop.clone())));
        let certificate =
            certificate::look_after(certificate_rules, certificate_clock, life.health().clone(), stop.clone());
        life.spawn(services.track_future(certificate));
        let stop_counting = stop.clone();
        life.spawn(services.track_future(async move { report.count(stop_counting).await }));
        life.spawn(services.track_future(self.links.clone().report(life.health().clone(), stop.clone())));
        life.spawn(services.track_future(self.links.run(self.deps.routing, stop.clone())));
        let acceptor = Acceptor::new(shared, life, connections.clone());
        Running { acceptor, connections, services, stop: stop.drop_guard() }
    }
}

/// What runs while connections are accepted. Dropped half-way, it stops the services.
struct Running {
    acceptor: Acceptor,
    connections: TaskTracker,
    services: TaskTracker,
    stop: DropGuard,
}

impl Running {
    /// Waits for the last session, then stops the services.
    async fn finish(self) {
        let Self { connections, services, stop, .. } = self;
        connections.close();
        connections.wait().await;
        drop(stop);
        services.close();
        services.wait().await;
    }
}

async fn bind(field: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), EdgeError> {
    let failed = |source| EdgeError::Bind { field, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
