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

/// Tells the process's health once `ready` resolves, unless the process is told to stop before.
pub(crate) fn tell_when_ready(life: &Lifecycle, ready: impl Future<Output = ()> + Send + 'static) {
    let health = life.health().clone();
    life.spawn_until_drained(async move {
        ready.await;
        health.ready();
    });
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
    life.spawn_until_drained(async move {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use causeway_runtime::lifecycle::Ended;
    use tokio::time::Instant;

    use super::*;

    /// Far longer than the stop takes.
    const GRACE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_readiness_that_never_comes_holds_no_stop_up() {
        let life = Lifecycle::new();
        tell_when_ready(&life, std::future::pending());
        assert_eq!(life.run(async {}, GRACE).await, Ended::Clean);
    }

    #[tokio::test]
    async fn a_redis_that_is_watched_holds_no_stop_up() {
        let life = Lifecycle::new();
        let (_redis, health) = watch::channel(Redis::Up { since: Instant::now() });
        follow_redis(&life, "redis", Some(health), "nothing");
        assert_eq!(life.run(async {}, GRACE).await, Ended::Clean);
    }

    #[tokio::test]
    async fn readiness_is_told() {
        let life = Lifecycle::new();
        assert_eq!(life.health().status(), "starting");
        tell_when_ready(&life, std::future::ready(()));
        let told = async {
            while life.health().status() != "ready" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(GRACE, told).await.expect("it is told at once");
    }
}
