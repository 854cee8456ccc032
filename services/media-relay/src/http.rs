//! What both roles share of HTTP: bounded connections, single ranges, fixed answers, transfers with deadlines.

pub(crate) mod answer;
pub(crate) mod range;
mod timed;
pub(crate) mod transfers;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use causeway_runtime::lifecycle::Lifecycle;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::timed::Timed;

/// Bounds of an HTTP listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; further ones wait in the listener's queue.
    pub max_connections: u32,
    /// A request head that takes longer ends the connection; also how long an idle connection is kept.
    pub head_timeout: Duration,
    /// A peer that takes nothing of an answer for this long loses its connection.
    pub write_idle: Duration,
    /// After this long a connection gets no further request; after twice as long it is cut.
    pub lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            head_timeout: Duration::from_secs(10),
            write_idle: Duration::from_secs(15),
            lifetime: Duration::from_secs(900),
        }
    }
}

/// Largest request head in bytes, and what is held of an answer that its reader does not take.
const BUFFER_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
/// After a failed accept (no file descriptors left, mostly) the next is tried this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTP/1.1 until the lifecycle drains and every open request is answered.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, life: Lifecycle) {
    let drain = life.drain_token();
    let connections = Arc::new(Semaphore::new(limits.max_connections as usize));
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => break,
            accepted = async {
                // The permit comes first: what cannot be served is not accepted.
                let permit = Arc::clone(&connections).acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(permit), Ok((stream, _))) => {
                let (app, drain) = (app.clone(), drain.clone());
                life.spawn(async move {
                    serve_connection(stream, app, limits, drain).await;
                    drop(permit);
                });
            }
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, "cannot accept a media connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // Nobody closes the semaphore.
            (Err(_), _) => break,
        }
    }
    drop(listener);
    // All permits back: every connection has ended.
    let _all = connections.acquire_many(limits.max_connections).await;
}

async fn serve_connection(stream: TcpStream, app: Router, limits: Limits, drain: CancellationToken) {
    let _only_latency = stream.set_nodelay(true);
    let io = TokioIo::new(Timed::new(stream, limits.write_idle));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(BUFFER_BYTES)
        .max_headers(MAX_HEADERS);
    let mut connection = std::pin::pin!(builder.serve_connection(io, TowerToHyperService::new(app)));
    let stop_asking = async {
        tokio::select! {
            () = drain.cancelled() => {}
            () = tokio::time::sleep(limits.lifetime) => {}
        }
    };
    tokio::select! {
        // How a connection ends is its peer's business; transfers are counted where they are made.
        _ended = connection.as_mut() => return,
        () = stop_asking => connection.as_mut().graceful_shutdown(),
    }
    let _cut = tokio::time::timeout(limits.lifetime, connection).await;
}
