//! What both roles share of HTTP: bounded connections, single ranges, fixed answers, transfers with deadlines.

pub(crate) mod answer;
pub(crate) mod network;
mod pace;
pub(crate) mod range;
mod timed;
pub(crate) mod transfers;

use std::time::Duration;

use axum::{Extension, Router};
use causeway_runtime::lifecycle::Lifecycle;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::network::Network;
use self::timed::Timed;
use crate::metrics::metrics;
use crate::shares::Shares;

/// Bounds of an HTTP listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; further ones are closed at once.
    pub max_connections: u32,
    /// Open connections of one network (IPv4 /24, IPv6 /64); further ones are closed at once.
    pub max_connections_per_network: u32,
    /// A request head that takes longer ends the connection; also how long an idle connection is kept.
    pub head_timeout: Duration,
    /// A peer that takes nothing of an answer for this long loses its connection.
    pub write_idle: Duration,
    /// A peer that takes fewer bytes of answers a second than this, on average over 30 s in which it is waited for, loses
    /// its connection; 0 for no demand.
    pub min_bytes_per_s: u32,
    /// After this long a connection gets no further request; after twice as long it is cut.
    pub lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            max_connections_per_network: 256,
            head_timeout: Duration::from_secs(5),
            write_idle: Duration::from_secs(15),
            min_bytes_per_s: 1_024,
            lifetime: Duration::from_secs(900),
        }
    }
}

/// Whom a request comes from: in its extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) network: Network,
    /// Questions a second of its network for blobs that are not there: as many as it may have connections, because both are
    /// set with a proxy in mind.
    pub(crate) absent_per_s: u32,
}

/// Largest request head in bytes, and what is held of an answer that its reader does not take.
const BUFFER_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
/// After a failed accept (no file descriptors left, mostly) the next is tried this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTP/1.1 until the lifecycle drains and every open request is answered, or cut at the last call.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, life: Lifecycle) {
    let drain = life.drain_token();
    let (room, open) = (Shares::new(limits.max_connections), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // A surplus connection is closed rather than left to wait: in the listener's queue it would hold up the
            // others, whatever network they are of.
            Ok((stream, peer)) => match room.take(Network::of(peer.ip()), limits.max_connections_per_network) {
                Ok(place) => {
                    let from =
                        Peer { network: Network::of(peer.ip()), absent_per_s: limits.max_connections_per_network };
                    let app = app.clone().layer(Extension(from));
                    let (drain, last_call) = (drain.clone(), life.last_call());
                    life.spawn(open.track_future(async move {
                        tokio::select! {
                            () = serve_connection(stream, app, limits, drain) => {}
                            // Clients go on elsewhere, or from where they were.
                            () = last_call => {}
                        }
                        drop(place);
                    }));
                }
                Err(full) => metrics().connection_refused(full),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a media connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn serve_connection(stream: TcpStream, app: Router, limits: Limits, drain: CancellationToken) {
    let _only_latency = stream.set_nodelay(true);
    let io = TokioIo::new(Timed::new(stream, limits.write_idle, limits.min_bytes_per_s));
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
