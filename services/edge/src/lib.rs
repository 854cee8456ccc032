//! The edge owns clients' connections: Noise, the token check, sessions, flow control and drain. Nothing of it is
//! durable: what a device has not acknowledged stays with routing.
//!
//! Called by providers' clients (docs/protocol.md). Calls key-directory (providers' keys, accounts, prekeys, consent),
//! routing (one stream with the events of all sessions) and media-relay (tickets).
//!
//! [`Edge::build`] reads the keys and binds; [`Edge::serve`] runs until drained.
//!
//! Where things are: `listener` accepts, `limits` says who may come in, `connection` is the loop that owns a
//! socket, `session` the state machine behind it, `login` and `replay` decide about tokens, `providers` caches what the
//! directory knows of providers, `link` is the stream to routing, `requests` has a file per `iq`, `report` writes the log's
//! lines about clients.

mod certificate;
mod config;
mod connection;
mod error;
mod keys;
mod limits;
mod link;
mod listener;
mod log_gate;
mod login;
mod metrics;
mod providers;
mod replay;
mod report;
mod requests;
mod session;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use causeway_runtime::clock::SharedClock;
use causeway_runtime::config::Check as _;
use causeway_runtime::grpc::Endpoints;
use causeway_runtime::lifecycle::Lifecycle;
use rand::TryRngCore as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

pub use self::config::EdgeConfig;
pub use self::error::EdgeError;

use self::connection::Shared;
use self::keys::Keys;
use self::limits::Admission;
use self::link::Link;
use self::listener::{Acceptor, Wrapping};
use self::login::Login;
use self::metrics::Metrics;
use self::providers::Providers;
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
    rules: Arc<Rules>,
    deps: EdgeDeps,
    providers: Providers,
    link: Link,
    metrics: Metrics,
    clock: SharedClock,
}

impl Edge {
    /// Checks the settings, reads the key files and binds. The other services need not be there yet.
    ///
    /// # Errors
    /// [`EdgeError`], which names what to mend.
    pub async fn build(config: EdgeConfig, deps: EdgeDeps, clock: SharedClock) -> Result<Self, EdgeError> {
        config.check()?;
        let keys = Keys::load(&config, clock.now())?;
        let (listener, local_addr) = bind("edge.listen", config.listen).await?;
        let websocket = match config.websocket_listen {
            Some(address) => Some(bind("edge.websocket_listen", address).await?),
            None => None,
        };
        let metrics = Metrics::new();
        let link = Link::new(&config, metrics.clone());
        let providers = Providers::new(deps.directory.clone());
        let rules = Arc::new(Rules { config, keys });
        Ok(Self { listener, local_addr, websocket, rules, deps, providers, link, metrics, clock })
    }

    /// Where clients connect by TCP.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where clients connect by WebSocket, if they can.
    pub fn websocket_addr(&self) -> Option<SocketAddr> {
        self.websocket.as_ref().map(|(_, address)| *address)
    }

    /// Resolves when clients can log in: the providers are known and routing is linked. Only while [`Edge::serve`]
    /// runs.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + 'static {
        let (providers, link) = (self.providers.clone(), self.link.clone());
        async move {
            providers.wait_until_filled().await;
            link.wait_until_up().await;
        }
    }

    /// Serves until the lifecycle drains: then no more connections are accepted, each session is told to come back
    /// later, and the link to routing closes after the last has left.
    ///
    /// # Errors
    /// None at present: what happens to single connections ends only them.
    pub async fn serve(self, life: Lifecycle) -> Result<(), EdgeError> {
        let config = &self.rules.config;
        let login =
            Arc::new(Login::new(config, self.providers.clone(), self.deps.directory.clone(), Arc::clone(&self.clock)));
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
            link: self.link.clone(),
            requests,
            metrics: self.metrics,
            report: Arc::clone(&report),
            clock: self.clock,
            drain: life.drain_token(),
        });
        let (connections, services) = (TaskTracker::new(), TaskTracker::new());
        let stop = CancellationToken::new();
        // Also when this future is dropped half-way.
        let _stop_services = stop.clone().drop_guard();
        life.spawn(services.track_future(self.providers.run(stop.clone())));
        let certificate = certificate::look_after(certificate_rules, certificate_clock, stop.clone());
        life.spawn(services.track_future(certificate));
        let stop_counting = stop.clone();
        life.spawn(services.track_future(async move { report.count(stop_counting).await }));
        let routing = self.deps.routing.current().values().next().cloned();
        if let Some(routing) = routing {
            life.spawn(services.track_future(self.link.run(routing, stop.clone())));
        }

        let acceptor = Acceptor::new(shared, life, connections.clone());
        let plain = acceptor.clone().run(self.listener, Wrapping::Plain);
        let wrapped = async {
            if let Some((listener, _)) = self.websocket {
                acceptor.clone().run(listener, Wrapping::WebSocket).await;
            }
        };
        tokio::join!(plain, wrapped);

        connections.close();
        connections.wait().await;
        stop.cancel();
        services.close();
        services.wait().await;
        Ok(())
    }
}

async fn bind(field: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), EdgeError> {
    let failed = |source| EdgeError::Bind { field, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// From one to two times `delay`, so that many edges do not come back as one.
fn jitter(delay: Duration) -> Duration {
    let random = rand::rngs::OsRng.try_next_u32().unwrap_or(0);
    delay + delay.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
