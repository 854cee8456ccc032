//! The endpoints for probes.

use anyhow::Context as _;
use causeway_runtime::lifecycle::Lifecycle;
use tokio::net::TcpListener;

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
