//! The server's end of a new connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::CryptoRng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Connection, receive, send};
use crate::alert::Alert;
use crate::key::{PublicKey, StaticKey};
use crate::preamble::Pattern;
use crate::server::{Handshake, HandshakeError, Reading};
use crate::session::Limits;

/// A client that completed the handshake.
///
/// After XX it is live. After IK all of this may be a replay until `connection.reader.proved()` says otherwise:
/// register, displace and spend nothing before.
pub struct Accepted<S> {
    /// Which handshake it was.
    pub pattern: Pattern,
    /// The client's static key; not checked to be canonical.
    pub client_key: PublicKey,
    /// The client's payload, as it came.
    pub client_hello: Bytes,
    /// The session.
    pub connection: Connection<S>,
}

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client's bytes were refused; it has been told by alert.
    #[error(transparent)]
    Refused(#[from] HandshakeError),
    /// The client closed in the middle of the handshake.
    #[error("the client closed during the handshake")]
    Closed,
    /// The connection failed.
    #[error("the connection failed during the handshake")]
    Io(#[from] io::Error),
}

/// Does the server's side of a handshake.
///
/// `server_hello` makes the payload of the server's message, and is called once, when it is due. A refused client gets
/// the alert for it, and the connection is closed. Give the whole call a deadline: it waits for the client.
///
/// # Errors
/// [`AcceptError`].
pub async fn accept<S, R>(
    mut io: S,
    key: &Arc<StaticKey>,
    limits: Limits,
    rng: &mut R,
    server_hello: impl FnOnce() -> Vec<u8> + Send,
) -> Result<Accepted<S>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    R: CryptoRng + Send + ?Sized,
{
    let mut state = Handshake::Reading(Reading::new(key, limits, rng));
    let mut server_hello = Some(server_hello);
    let mut buffer = BytesMut::new();
    loop {
        state = match state {
            Handshake::Reading(reading) => match receive(&mut io, &mut buffer).await? {
                Some(bytes) => reading.feed(bytes),
                None => return Err(AcceptError::Closed),
            },
            Handshake::Answering(answering) => {
                let payload = server_hello.take().map(|make| make()).unwrap_or_default();
                let mut out = BytesMut::new();
                let next = answering.answer(&payload, &mut out);
                send(&mut io, &mut out).await?;
                next
            }
            Handshake::Accepted(accepted) => {
                return Ok(Accepted {
                    pattern: accepted.pattern,
                    client_key: accepted.client_key,
                    client_hello: accepted.client_hello,
                    connection: Connection::new(io, accepted.session),
                });
            }
            Handshake::Refused(error) => {
                refuse(io, error.alert()).await;
                return Err(AcceptError::Refused(error));
            }
        };
    }
}

/// Sends an alert and closes; for a server that wants no handshake now ([`Alert::Overloaded`]).
///
/// Takes at most a second: what the client has sent meanwhile is read and thrown away, in bounded amount, because
/// closing a connection with unread bytes resets it, and the alert would be lost with it.
pub async fn refuse(mut io: impl AsyncRead + AsyncWrite + Send + Unpin, alert: Alert) {
    let farewell = async {
        io.write_all(&alert.encode()).await?;
        io.shutdown().await?;
        let mut discarded = [0; 1024];
        for _ in 0..MAX_DISCARDED / discarded.len() {
            if io.read(&mut discarded).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // Whether the client still hears it is no concern of ours: the connection is over either way.
    let _told = tokio::time::timeout(FAREWELL, farewell).await;
}

const FAREWELL: Duration = Duration::from_millis(900);
const MAX_DISCARDED: usize = 128 * 1024;
