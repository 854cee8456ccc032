//! What probes are told, and the endpoints where they ask.

use anyhow::Context as _;
use causeway_redis::Health as Redis;
use causeway_runtime::health::Part;
use causeway_runtime::lifecycle::Lifecycle;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::ServerConfig;

/// Answers probes from now on, if that is configured, until the process leaves.
pub(crate) async fn serve(config: &ServerConfig, life: &Lifecycle) -> anyhow::Result<()> {
    let Some(address) = config.health_listen else { return Ok(()) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("server.health_listen {address} cannot be bound: stop what uses the port, or set another one")
    })?;
    tracing::info!(field = "server.health_listen", address = %listener.local_addr()?, "interface is ready");
    let router = life.health().router();
    // Not by the lifecycle: it answers also while everything else drains.
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "probes are not answered any more");
        }
    });
    Ok(())
}

/// Tells the process's health of a service's Redis; `meaning` is what its users notice while it does not answer.
pub(crate) fn follow_redis(
    life: &Lifecycle,
    part: &'static str,
    redis: Option<watch::Receiver<Redis>>,
    meaning: &'static str,
) {
    let Some(mut redis) = redis else { return };
    let health = life.health().clone();
    life.spawn(async move {
        loop {
            let state = match &*redis.borrow_and_update() {
                Redis::Up { .. } => Part::Up,
                Redis::Degraded { .. } => Part::Degraded(meaning.to_owned()),
            };
            health.report(part, state);
            if redis.changed().await.is_err() {
                return;
            }
        }
    });
}
