//! The same byte stream over a WebSocket, for browsers and networks that let only HTTP pass (docs/protocol.md,
//! section 2). Message boundaries mean nothing; text is an error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Where a server takes WebSocket connections.
pub const PATH: &str = "/v1/noise";

/// A WebSocket that reads and writes plain bytes. Each write is a binary message.
pub struct WebSocket<S> {
    inner: WebSocketStream<S>,
    arrived: Bytes,
    idle_talk: IdleTalk,
}

/// The HTTP upgrade failed: not a WebSocket, another path, or the connection broke.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The peer answered or asked with something else than the upgrade to [`PATH`].
    #[error("the upgrade to a WebSocket was refused")]
    Refused,
    /// What the peer sent is not HTTP, or not the WebSocket handshake.
    #[error("not a WebSocket handshake")]
    Malformed,
    /// The connection failed.
    #[error("the connection failed during the upgrade")]
    Io(#[from] io::Error),
}

/// Takes a client's upgrade on [`PATH`]; another path is answered with 404. Give it a deadline.
///
/// # Errors
/// [`UpgradeError`].
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> Result<WebSocket<S>, UpgradeError> {
    let inner = tokio_tungstenite::accept_hdr_async_with_config(io, check_path, Some(config())).await?;
    Ok(WebSocket::over(inner))
}

/// Asks a server for the upgrade over a connection to it. `authority` is its name, and port if not 80, for the `Host`
/// header. Give it a deadline.
///
/// # Errors
/// [`UpgradeError`].
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(io: S, authority: &str) -> Result<WebSocket<S>, UpgradeError> {
    let request = format!("ws://{authority}{PATH}").into_client_request()?;
    let (inner, _response) = tokio_tungstenite::client_async_with_config(request, io, Some(config())).await?;
    Ok(WebSocket::over(inner))
}

impl<S> WebSocket<S> {
    fn over(inner: WebSocketStream<S>) -> Self {
        Self { inner, arrived: Bytes::new(), idle_talk: IdleTalk::default() }
    }
}

/// Counts messages that carry nothing. Each costs work, a ping an answer too, so their sender gets only so many.
#[derive(Debug, Default)]
struct IdleTalk {
    since: Option<Instant>,
    heard: u32,
}

impl IdleTalk {
    /// One more came.
    fn hear(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.since.is_none_or(|since| now - since >= IDLE_TALK_PERIOD) {
            (self.since, self.heard) = (Some(now), 0);
        }
        self.heard += 1;
        if self.heard > MAX_IDLE_TALK {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many WebSocket messages without content"));
        }
        Ok(())
    }
}

#[expect(clippy::result_large_err, reason = "the signature is the library's")]
fn check_path(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() == PATH {
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(None);
    *refusal.status_mut() = StatusCode::NOT_FOUND;
    Err(refusal)
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_WRITE)
        .max_message_size(Some(MAX_READ))
        .max_frame_size(Some(MAX_READ))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.arrived.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => self.arrived = bytes,
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => self.idle_talk.hear()?,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a WebSocket text message")));
                }
                Some(Err(error)) => return Poll::Ready(read_end(error)),
            }
        }
        let len = self.arrived.len().min(buf.remaining());
        buf.put_slice(&self.arrived[..len]);
        self.arrived.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(to_io)?;
        let len = buf.len().min(MAX_WRITE);
        let message = Message::Binary(Bytes::copy_from_slice(&buf[..len]));
        Pin::new(&mut self.inner).start_send(message).map_err(to_io)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.inner).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(to_io(error))),
        }
    }
}

/// A peer that goes away without a WebSocket farewell has closed like any other.
fn read_end(error: Error) -> io::Result<()> {
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(()),
        error => Err(to_io(error)),
    }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

impl From<Error> for UpgradeError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::Io(error),
            Error::Http(_) => Self::Refused,
            _ => Self::Malformed,
        }
    }
}

/// Largest message accepted, in bytes: the largest frame of ours, its length included, and a little more. So much is set
/// aside for a peer that has announced a message and not yet sent it.
const MAX_READ: usize = 64 * 1024 + 1024;

/// Pings, pongs and empty messages that a peer may send in one [`IDLE_TALK_PERIOD`].
const MAX_IDLE_TALK: u32 = 16;
const IDLE_TALK_PERIOD: Duration = Duration::from_secs(1);

/// Largest message written, in bytes.
const MAX_WRITE: usize = 64 * 1024;
