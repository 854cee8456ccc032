//! Accepting connections. The loop survives everything that accepting can fail with, takes permits before it spends
//! anything on a peer, and tells a surplus to come back later.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use causeway_noise::{Alert, transport, websocket};
use causeway_runtime::lifecycle::Lifecycle;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Shared};
use crate::limits::Permit;
use crate::metrics::Dropped;

/// After an error that is not one connection's, such as too many open files.
const BACK_OFF: Duration = Duration::from_millis(50);
/// So many connections are accepted before it is others' turn: a crowd that comes at once holds no messages up.
const ACCEPTED_AT_ONCE: u32 = 8;
/// A surplus connection is told why, but only so many at a time; the others are just closed.
const REFUSALS_AT_ONCE: usize = 192;
/// What refuses the upgrade to a WebSocket must have left within this time.
const HTTP_FAREWELL: Duration = Duration::from_millis(900);

/// What the bytes of a connection are wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    Plain,
    WebSocket,
}

/// The connections that a listener accepts.
pub(crate) fn accepted(listener: TcpListener) -> impl Stream<Item = io::Result<(TcpStream, SocketAddr)>> + Send {
    futures::stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(stream, peer)| {
            // Small records must not wait for one another; without the option they only come later.
            let _unsupported = stream.set_nodelay(true);
            (stream, peer)
        });
        Some((accepted, listener))
    })
}

/// Accepts connections and starts their tasks.
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    life: Lifecycle,
    tracker: TaskTracker,
    refusals: Arc<Semaphore>,
}

impl Acceptor {
    pub(crate) fn new(shared: Arc<Shared>, life: Lifecycle, tracker: TaskTracker) -> Self {
        Self { shared, life, tracker, refusals: Arc::new(Semaphore::new(REFUSALS_AT_ONCE)) }
    }

    /// Runs until the drain, or until nothing comes in any more.
    pub(crate) async fn run<T>(
        &self,
        incoming: impl Stream<Item = io::Result<(T, SocketAddr)>> + Send,
        wrapping: Wrapping,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut incoming = pin!(incoming);
        for turn in (0..ACCEPTED_AT_ONCE).cycle() {
            if turn == 0 {
                tokio::task::yield_now().await;
            }
            let accepted = tokio::select! {
                biased;
                () = self.shared.drain.cancelled() => return,
                accepted = incoming.next() => accepted,
            };
            match accepted {
                None => return,
                Some(Ok((stream, peer))) => match self.shared.admission.enter(peer.ip(), Instant::now()) {
                    Some(permit) => self.start(stream, permit, wrapping),
                    None => self.refuse(stream, wrapping),
                },
                Some(Err(error)) if is_of_one_connection(&error) => self.shared.metrics.accept_failed(),
                Some(Err(error)) => {
                    self.shared.metrics.accept_failed();
                    tracing::warn!(kind = ?error.kind(), os = error.raw_os_error(), "cannot accept connections");
                    tokio::select! {
                        biased;
                        () = self.shared.drain.cancelled() => return,
                        () = tokio::time::sleep(BACK_OFF) => {}
                    }
                }
            }
        }
    }

    fn start<T>(&self, stream: T, permit: Permit, wrapping: Wrapping)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let since = Instant::now();
        self.spawn(async move {
            match wrapping {
                Wrapping::Plain => connection::serve(stream, shared, permit, since).await,
                // By itself, so that plain connections have no room for it.
                Wrapping::WebSocket => Box::pin(serve_websocket(stream, shared, permit, since)).await,
            }
        });
    }

    fn refuse<T>(&self, stream: T, wrapping: Wrapping)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.shared.metrics.dropped(Dropped::NoPlace);
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let retry_after_s = self.shared.admission.book(Instant::now());
        let alert = Alert::Overloaded { retry_after_s };
        self.shared.report.alert_sent(alert);
        self.spawn(async move {
            match wrapping {
                Wrapping::Plain => transport::refuse(stream, alert).await,
                Wrapping::WebSocket => {
                    let _told = tokio::time::timeout(HTTP_FAREWELL, refuse_upgrade(stream, retry_after_s)).await;
                }
            }
            drop(permit);
        });
    }

    /// Tracked here for the drain, and by the lifecycle for its deadline.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.life.spawn(self.tracker.track_future(task));
    }
}

async fn serve_websocket<T>(stream: T, shared: Arc<Shared>, permit: Permit, since: Instant)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let deadline = since + shared.rules.config.handshake_timeout();
    let upgrade = Box::pin(tokio::time::timeout_at(deadline, websocket::accept(stream)));
    match shared.drain.run_until_cancelled(upgrade).await {
        Some(Ok(Ok(socket))) => connection::serve(socket, shared, permit, since).await,
        Some(Ok(Err(_))) | None => shared.metrics.dropped(Dropped::Gone),
        Some(Err(_elapsed)) => shared.metrics.dropped(Dropped::Deadline),
    }
}

/// Answers before the request has come, and throws away what comes of it, so that the answer is not lost with it.
async fn refuse_upgrade(mut io: impl AsyncRead + AsyncWrite + Unpin, retry_after_s: u16) -> io::Result<()> {
    const REQUEST_AT_MOST: u64 = 16 * 1024;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry_after_s}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    io.write_all(answer.as_bytes()).await?;
    io.shutdown().await?;
    tokio::io::copy(&mut io.take(REQUEST_AT_MOST), &mut tokio::io::sink()).await?;
    Ok(())
}

/// Errors that say nothing about the next connection.
fn is_of_one_connection(error: &io::Error) -> bool {
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
