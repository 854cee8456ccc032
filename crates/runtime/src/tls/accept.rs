//! Connections that come in: a handshake each, several at a time, and then who it is.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::files::validity;
use super::identity::{Identity, Role};
use super::metrics::{Metrics, Side};
use super::sources::Sources;
use super::verify::readable;
use super::{HANDSHAKE_TIMEOUT, Tls};

/// Handshakes at a time; further connections wait to be accepted.
const HANDSHAKES: usize = 512;
/// Connections that have finished theirs and wait to be served.
const FINISHED: usize = 16;
/// Whoever connects is to say something within this.
const FIRST_BYTES: Duration = Duration::from_secs(2);
/// A connection is cut at this age, or up to [`SPREAD`] before, so that it does not outlive the removal of its peer's authority for
/// long. Peers connect anew; they are told to some hours before (`grpc.rs`).
const LARGEST_AGE: Duration = Duration::from_secs(24 * 3_600);
/// So that connections that were opened together do not end together.
const SPREAD: Duration = Duration::from_secs(4 * 3_600);
/// After an accept that failed, out of descriptors for instance.
const PAUSE: Duration = Duration::from_millis(100);
/// Failed handshakes are logged at most this often: whoever reaches the port can cause them.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Who makes the calls of a connection: in the extensions of each of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) role: Role,
    pub(crate) metrics: Metrics,
}

/// A connection whose other side is known.
pub(crate) struct Secured {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    /// Of the peer's certificate, or of the time that any connection has.
    end: Pin<Box<Sleep>>,
}

/// The connections that come in to `listener` and have proved who they are, until what this returns is dropped.
pub(crate) fn incoming(listener: TcpListener, tls: Tls) -> ReceiverStream<io::Result<Secured>> {
    let (sender, receiver) = mpsc::channel(FINISHED);
    tokio::spawn(accept(listener, tls, sender));
    ReceiverStream::new(receiver)
}

async fn accept(listener: TcpListener, tls: Tls, sender: mpsc::Sender<io::Result<Secured>>) {
    let (mut handshakes, sources) = (JoinSet::new(), Sources::default());
    let mut log = Log::default();
    loop {
        tokio::select! {
            () = sender.closed() => return,
            Some(finished) = handshakes.join_next() => match finished {
                Ok((_, Ok(secured))) => {
                    if sender.send(Ok(secured)).await.is_err() {
                        return;
                    }
                }
                Ok((peer, Err(error))) => {
                    tls.0.metrics.handshake_failed(Side::Server);
                    log.failed(peer, &error);
                }
                Err(error) => tracing::error!(%error, "a handshake broke off"),
            },
            accepted = listener.accept(), if handshakes.len() < HANDSHAKES => match accepted {
                Ok((stream, peer)) => {
                    let Some(begun) = sources.begin(peer.ip()) else {
                        tls.0.metrics.handshake_failed(Side::Server);
                        log.failed(peer, &io::Error::other("too many handshakes of this address at a time"));
                        continue;
                    };
                    let tls = tls.clone();
                    handshakes.spawn(async move {
                        let secured = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(stream, &tls)).await;
                        drop(begun);
                        (peer, secured.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())))
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn handshake(stream: TcpStream, tls: &Tls) -> io::Result<Secured> {
    stream.set_nodelay(true)?;
    tokio::time::timeout(FIRST_BYTES, stream.readable()).await??;
    let stream = TlsAcceptor::from(tls.server()).accept(stream).await.map_err(readable)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("no client certificate"))?;
    // It was verified in the handshake; this only reads again what it says.
    let identity = Identity::of(certificate).map_err(io::Error::other)?;
    let caller = Caller { role: identity.role, metrics: tls.0.metrics.clone() };
    let (_, not_after) = validity(certificate).ok_or_else(|| io::Error::other("a certificate without an end"))?;
    let left = not_after.duration_since(tls.0.clock.now()).unwrap_or_default();
    let end = Box::pin(tokio::time::sleep(left.min(age())));
    Ok(Secured { stream, caller, end })
}

/// How old a connection gets, another time for each.
fn age() -> Duration {
    // A number that nobody foresees is enough to spread them.
    let drawn = RandomState::new().build_hasher().finish();
    LARGEST_AGE - SPREAD.mul_f64(drawn as f64 / u64::MAX as f64)
}

/// Failed handshakes in the log, not more often than people read.
#[derive(Default)]
struct Log {
    last: Option<Instant>,
    silent: u64,
}

impl Log {
    fn failed(&mut self, peer: SocketAddr, error: &io::Error) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < LOG_EVERY) {
            self.silent += 1;
            return;
        }
        tracing::warn!(%peer, %error, more = self.silent, "a peer is refused: its TLS handshake failed");
        (self.last, self.silent) = (Some(now), 0);
    }
}

impl Connected for Secured {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Whatever is written, HTTP/2 always reads too.
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection is past its end")));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
