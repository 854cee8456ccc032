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
use causeway_runtime::grpc::{self, Endpoints};
use causeway_runtime::lifecycle::{Ended, Lifecycle, stop_signal};
use tokio::net::TcpListener;
use tonic::transport::server::Router;

use crate::config::Config;
use crate::health;

/// What users notice while a service's Redis does not answer (docs/redis.md).
const EDGE_WITHOUT_REDIS: &str = "new logins are refused as overloaded; open sessions go on";
const ROUTING_WITHOUT_REDIS: &str = "rates are counted by each replica alone; presence is not shown";
const MEDIA_WITHOUT_REDIS: &str = "uploads are refused for now; downloads go on";

pub(crate) async fn edge(config: Config) -> anyhow::Result<Ended> {
    let stopped = stop_signal();
    let life = Lifecycle::new();
    health::serve(&config.server, &life).await?;
    let several = |urls: &[String]| urls.len() > 1 || urls.iter().any(|url| url.starts_with("dns+"));
    if config.edge.redis.is_none() && several(&config.server.routing_urls) {
        tracing::warn!(
            "there are several routings and no edge.redis: with a second edge, tokens could be replayed there"
        );
    }
    let deps = EdgeDeps {
        directory: grpc::connect_any(&config.server.directory_urls).context("server.directory_urls")?,
        routing: Endpoints::discover(&config.server.routing_urls, &life).context("server.routing_urls")?,
        media: grpc::connect_any(&config.server.media_urls).context("server.media_urls")?,
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
    health::serve(&config.server, &life).await?;
    let directory = grpc::connect_any(&config.server.directory_urls).context("server.directory_urls")?;
    let routing = Routing::build(config.routing, directory, Arc::new(SystemClock)).await?;
    listen(&life, "server.routing_listen", config.server.routing_listen, routing.router()).await?;
    health::follow_redis(&life, "routing.redis", routing.redis_health(), ROUTING_WITHOUT_REDIS);
    life.spawn_vital("routing", routing.serve(life.clone()));
    life.health().ready();
    Ok(until_stopped(&life, stopped, config.server.shutdown_grace()).await)
}

pub(crate) async fn key_directory(config: Config) -> anyhow::Result<Ended> {
    let stopped = stop_signal();
    let life = Lifecycle::new();
    health::serve(&config.server, &life).await?;
    let directory = KeyDirectory::build(config.directory, Arc::new(SystemClock)).await?;
    listen(&life, "server.directory_listen", config.server.directory_listen, directory.internal_router()).await?;
    listen(&life, "server.operator_listen", config.server.operator_listen, directory.operator_router()).await?;
    life.spawn_vital("key-directory", directory.serve(life.clone()));
    life.health().ready();
    Ok(until_stopped(&life, stopped, config.server.shutdown_grace()).await)
}

pub(crate) async fn media_relay(config: Config) -> anyhow::Result<Ended> {
    let stopped = stop_signal();
    let life = Lifecycle::new();
    health::serve(&config.server, &life).await?;
    let media = MediaRelay::build(config.media, Arc::new(SystemClock)).await?;
    listen(&life, "server.media_listen", config.server.media_listen, media.router()).await?;
    health::follow_redis(&life, "media.redis", media.redis_health(), MEDIA_WITHOUT_REDIS);
    life.spawn_vital("media-relay", media.serve(life.clone()));
    life.health().ready();
    Ok(until_stopped(&life, stopped, config.server.shutdown_grace()).await)
}

async fn listen(life: &Lifecycle, field: &'static str, address: SocketAddr, router: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{field} {address} cannot be bound: stop what uses the port, or set another one"))?;
    tracing::info!(field, address = %listener.local_addr()?, "interface is ready");
    let of_server = life.clone();
    life.spawn_vital(field, async move { grpc::serve(router, listener, &of_server).await });
    Ok(())
}

async fn until_stopped(life: &Lifecycle, stopped: impl Future<Output = std::io::Result<()>>, grace: Duration) -> Ended {
    let signal = async {
        let _unavailable = stopped.await;
    };
    life.run(signal, grace).await
}
