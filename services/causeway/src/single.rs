//! One service a process. The services' own interfaces are gRPC over TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use causeway_edge::{Edge, EdgeDeps};
use causeway_key_directory::KeyDirectory;
use causeway_media_relay::MediaRelay;
use causeway_routing::Routing;
use causeway_runtime::clock::SystemClock;
use causeway_runtime::grpc::{Endpoints, Router, Transport};
use causeway_runtime::lifecycle::{Ended, Lifecycle, stop_signal};
use causeway_runtime::tls::Role;
use tokio::net::TcpListener;

use crate::config::{Config, Role as ServiceRole, ServerConfig};
use crate::{health, transport};

/// What users notice while a service's Redis does not answer (docs/redis.md).
const EDGE_WITHOUT_REDIS: &str = "new logins are refused as overloaded; open sessions go on";
const ROUTING_WITHOUT_REDIS: &str =
    "rates are counted by each replica alone; the order of a device's sessions falls back to clocks";
const MEDIA_WITHOUT_REDIS: &str = "uploads are refused for now; downloads go on";

pub(crate) async fn edge(config: Config) -> anyhow::Result<Ended> {
    let stopped = stop_signal();
    let life = Lifecycle::new();
    health::serve(&config.server, ServiceRole::Edge.service(), &life).await?;
    let several = |urls: &[String]| urls.len() > 1 || urls.iter().any(|url| url.starts_with("dns+"));
    if config.edge.redis.is_none() && several(&config.server.routing_urls) {
        tracing::warn!(
            "there are several routings and no edge.redis: with a second edge, tokens could be replayed there"
        );
    }
    let transport = transport::open(&config, Role::Edge, &life)?;
    let ServerConfig { directory_urls, routing_urls, media_urls, .. } = &config.server;
    let deps = EdgeDeps {
        directory: transport.connect_any(Role::KeyDirectory, directory_urls).context("server.directory_urls")?,
        routing: transport.discover(Role::Routing, routing_urls, &life).context("server.routing_urls")?,
        media: transport.connect_any(Role::MediaRelay, media_urls).context("server.media_urls")?,
    };
    let edge = Edge::build(config.edge, deps, Arc::new(SystemClock)).await?;
    tracing::info!(listen = %edge.local_addr(), "edge is ready");
    health::tell_when_ready(&life, edge.ready());
    health::follow_redis(&life, "edge.redis", edge.redis_health(), EDGE_WITHOUT_REDIS);
    life.spawn_vital("edge", edge.serve(life.clone()));
    Ok(until_stopped(&life, stopped, config.server.shutdown_grace()).await)
}

pub(crate) async fn routing(config: Config) -> anyhow::Result<Ended> {
    let stopped = stop_signal();
    let life = Lifecycle::new();
    health::serve(&config.server, ServiceRole::Routing.service(), &life).await?;
    let transport = transport::open(&config, Role::Routing, &life)?;
    let directory = transport.connect_any(Role::KeyDirectory, &config.server.directory_urls);
    let directory = directory.context("server.directory_urls")?;
    let to_peers = transport.clone();
    let routing = Routing::build(config.routing, directory, Arc::new(SystemClock))
        .await?
        .reach_peers_by(move |url| to_peers.connect(Role::Routing, url).ok());
    listen(&life, &transport, "server.routing_listen", config.server.routing_listen, routing.router()).await?;
    health::follow_redis(&life, "routing.redis", routing.redis_health(), ROUTING_WITHOUT_REDIS);
    life.spawn_vital("routing", routing.serve(life.clone()));
    life.health().ready();
    Ok(until_stopped(&life, stopped, config.server.shutdown_grace()).await)
}

pub(crate) async fn key_directory(config: Config) -> anyhow::Result<Ended> {
    let stopped = stop_signal();
    let life = Lifecycle::new();
    health::serve(&config.server, ServiceRole::KeyDirectory.service(), &life).await?;
    let transport = transport::open(&config, Role::KeyDirectory, &life)?;
    let ServerConfig { directory_listen, operator_listen, .. } = config.server;
    let directory = KeyDirectory::build(config.directory, Arc::new(SystemClock)).await?;
    listen(&life, &transport, "server.directory_listen", directory_listen, directory.internal_router()).await?;
    let routing_urls = &config.server.routing_urls;
    let routings = if config.server.tls.is_some() && *routing_urls == ServerConfig::default().routing_urls {
        tracing::info!("there is no server.routing_urls: delivery traces cannot be shown here");
        Endpoints::fixed([])
    } else {
        transport.discover(Role::Routing, routing_urls, &life).context("server.routing_urls")?
    };
    let operator_router = directory.operator_router(routings);
    listen(&life, &transport, "server.operator_listen", operator_listen, operator_router).await?;
    life.spawn_vital("key-directory", directory.serve(life.clone()));
    life.health().ready();
    Ok(until_stopped(&life, stopped, config.server.shutdown_grace()).await)
}

pub(crate) async fn media_relay(config: Config) -> anyhow::Result<Ended> {
    let stopped = stop_signal();
    let life = Lifecycle::new();
    health::serve(&config.server, ServiceRole::MediaRelay.service(), &life).await?;
    let transport = transport::open(&config, Role::MediaRelay, &life)?;
    let media = MediaRelay::build(config.media, Arc::new(SystemClock)).await?;
    listen(&life, &transport, "server.media_listen", config.server.media_listen, media.router()).await?;
    health::follow_redis(&life, "media.redis", media.redis_health(), MEDIA_WITHOUT_REDIS);
    life.spawn_vital("media-relay", media.serve(life.clone()));
    life.health().ready();
    Ok(until_stopped(&life, stopped, config.server.shutdown_grace()).await)
}

async fn listen(
    life: &Lifecycle,
    transport: &Transport,
    field: &'static str,
    address: SocketAddr,
    router: Router,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{field} {address} cannot be bound: stop what uses the port, or set another one"))?;
    tracing::info!(field, address = %listener.local_addr()?, "interface is ready");
    let (of_server, transport) = (life.clone(), transport.clone());
    life.spawn_vital(field, async move { transport.serve(router, listener, &of_server).await });
    Ok(())
}

async fn until_stopped(life: &Lifecycle, stopped: impl Future<Output = std::io::Result<()>>, grace: Duration) -> Ended {
    let signal = async {
        let _unavailable = stopped.await;
    };
    life.run(signal, grace).await
}
