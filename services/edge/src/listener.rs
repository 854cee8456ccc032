//! Accepting connections. The loop survives everything that accepting can fail with, takes permits before it spends
//! anything on a peer, and tells a surplus to come back later.

use std::sync::Arc;
use std::time::Duration;

use causeway_noise::{Alert, transport, websocket};
use causeway_runtime::lifecycle::Lifecycle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Shared};
use crate::limits::Permit;
use crate::metrics::Dropped;

/// After an error that is not one connection's, such as too many open files.
const BACK_OFF: Duration = Duration::from_millis(50);
/// A surplus connection is told why, but only so many at a time; the others are just closed.
const REFUSALS_AT_ONCE: usize = 64;

/// What the bytes of a connection are wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    Plain,
    WebSocket,
}

/// Accepts connections and starts their tasks.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) life: Lifecycle,
    pub(crate) tracker: TaskTracker,
    refusals: Arc<Semaphore>,
}

impl Acceptor {
    pub(crate) fn new(shared: Arc<Shared>, life: Lifecycle, tracker: TaskTracker) -> Self {
        Self { shared, life, tracker, refusals: Arc::new(Semaphore::new(REFUSALS_AT_ONCE)) }
    }

    /// Runs until the drain.
    pub(crate) async fn run(self, listener: TcpListener, wrapping: Wrapping) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shared.drain.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => match self.shared.admission.enter(peer.ip()) {
                    Some(permit) => self.start(stream, permit, wrapping),
                    None => self.refuse(stream, wrapping),
                },
                Err(error) if is_of_one_connection(&error) => self.shared.metrics.accept_failed(),
                Err(error) => {
                    self.shared.metrics.accept_failed();
                    tracing::warn!(kind = ?error.kind(), os = error.raw_os_error(), "cannot accept connections");
                    tokio::select! {
                        () = tokio::time::sleep(BACK_OFF) => {}
                        () = self.shared.drain.cancelled() => return,
                    }
                }
            }
        }
    }

    fn start(&self, stream: TcpStream, permit: Permit, wrapping: Wrapping) {
        let shared = Arc::clone(&self.shared);
        // Small records must not wait for one another; without the option they only come later.
        let _unsupported = stream.set_nodelay(true);
        let since = Instant::now();
        self.spawn(async move {
            match wrapping {
                Wrapping::Plain => connection::serve(stream, shared, permit, since).await,
                Wrapping::WebSocket => {
                    let deadline = since + shared.rules.config.handshake_timeout();
                    match tokio::time::timeout_at(deadline, websocket::accept(stream)).await {
                        Ok(Ok(socket)) => connection::serve(socket, shared, permit, since).await,
                        Ok(Err(_)) => shared.metrics.dropped(Dropped::Gone),
                        Err(_elapsed) => shared.metrics.dropped(Dropped::Deadline),
                    }
                }
            }
        });
    }

    fn refuse(&self, stream: TcpStream, wrapping: Wrapping) {
        self.shared.metrics.dropped(Dropped::NoPlace);
        if wrapping == Wrapping::WebSocket {
            return;
        }
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let wait_ms = self.shared.rules.config.overload_retry_ms;
        let alert = Alert::Overloaded { retry_after_s: u16::try_from(wait_ms.div_ceil(1_000)).unwrap_or(u16::MAX) };
        self.shared.report.alert_sent(alert);
        self.spawn(async move {
            transport::refuse(stream, alert).await;
            drop(permit);
        });
    }

    /// Tracked here for the drain, and by the lifecycle for its deadline.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.life.spawn(self.tracker.track_future(task));
    }
}

/// Errors that say nothing about the next connection.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::PermissionDenied
            | ErrorKind::TimedOut
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
    )
}
