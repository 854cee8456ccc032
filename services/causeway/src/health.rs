//! What probes are told, and the endpoints where they ask.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use causeway_redis::Health as Redis;
use causeway_runtime::clock::SystemClock;
use causeway_runtime::health::{About, Part};
use causeway_runtime::lifecycle::Lifecycle;
use causeway_runtime::telemetry;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::config::ServerConfig;

/// Answers probes from now on, if that is configured, until the process leaves.
pub(crate) async fn serve(config: &ServerConfig, service: &'static str, life: &Lifecycle) -> anyhow::Result<()> {
    let build = option_env!("CAUSEWAY_BUILD").unwrap_or_default();
    let about = About { service, version: env!("CARGO_PKG_VERSION"), build };
    life.health().identify(about, Arc::new(SystemClock));
    let Some(address) = config.health_listen else { return Ok(()) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("server.health_listen {address} cannot be bound: stop what uses the port, or set another one")
    })?;
    tracing::info!(field = "server.health_listen", address = %listener.local_addr()?, "interface is ready");
    let router = life.health().router().merge(telemetry::exposition().router());
    telemetry::observe_health(life.health());
    // Not by the lifecycle: it answers also while everything else drains.
    tokio::spawn(answer(listener, router, PATIENCE));
    Ok(())
}

/// Connections of probes at a time. One more takes the place of the oldest: a probe asks at once and is answered at once, so
/// whoever holds connections open keeps none out.
const AT_ONCE: usize = 64;
/// From a probe's connection to the end of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After an accept that failed, out of descriptors for instance.
const PAUSE: Duration = Duration::from_millis(100);

async fn answer(listener: TcpListener, router: axum::Router, patience: Duration) {
    let mut open = VecDeque::<AbortHandle>::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        open.retain(|connection| !connection.is_finished());
        if open.len() >= AT_ONCE
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::spawn(async move {
            let mut server = http1::Builder::new();
            let answered = server.keep_alive(false).serve_connection(TokioIo::new(stream), service);
            let _too_slow_or_gone = tokio::time::timeout(patience, answered).await;
        });
        open.push_back(connection.abort_handle());
    }
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
    use causeway_runtime::lifecycle::Ended;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
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

    #[tokio::test]
    async fn who_asks_nothing_keeps_no_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Lifecycle::new().health().router();
        let answering = tokio::spawn(answer(listener, router, 10 * GRACE));
        let mut silent = Vec::new();
        for _ in 0..2 * AT_ONCE {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /live HTTP/1.1\r\n").await.unwrap();
            silent.push(stream);
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET /live HTTP/1.1\r\nhost: probe\r\n\r\n").await.unwrap();
        let mut answered = String::new();
        let answer = probe.read_to_string(&mut answered);
        tokio::time::timeout(GRACE, answer).await.expect("it waits for none of them").unwrap();
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        answering.abort();
    }
}
