//! The client's end of a new connection.

use std::io;

use bytes::{Bytes, BytesMut};
use rand::CryptoRng;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, receive, send};
use crate::client::{self, ClientError, IkHello, Step, XxHello};
use crate::key::{PublicKey, StaticKey};
use crate::preamble::Suite;
use crate::session::Limits;

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] ClientError),
    /// The server closed in the middle of the handshake.
    #[error("the server closed during the handshake")]
    Closed,
    /// The connection failed.
    #[error("the connection failed during the handshake")]
    Io(#[from] io::Error),
}

impl ConnectError {
    /// See [`ClientError::use_xx`].
    pub const fn use_xx(&self) -> bool {
        matches!(self, Self::Handshake(error) if error.use_xx())
    }
}

/// XX in which the server has answered and the client has told nothing about itself yet. Check the certificate in
/// [`Xx::server_hello`] against [`Xx::server_key`]; then [`Xx::finish`], or drop this to abort.
pub struct Xx<S> {
    io: S,
    hello: XxHello,
}

/// IK in which the server has answered. Check the certificate in [`Ik::server_hello`] against [`Ik::server_key`]; then
/// [`Ik::finish`], or drop this to abort.
pub struct Ik<S> {
    io: S,
    hello: IkHello,
}

/// Starts XX and waits for the server's answer. Give it a deadline.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_xx<S, R>(
    mut io: S,
    key: &StaticKey,
    suite: Suite,
    limits: Limits,
    rng: &mut R,
) -> Result<Xx<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: CryptoRng + ?Sized,
{
    let mut out = BytesMut::new();
    let mut waiting = client::xx(key, suite, limits, rng, &mut out)?;
    send(&mut io, &mut out).await?;
    loop {
        let bytes = receive(&mut io, &mut out).await?.ok_or(ConnectError::Closed)?;
        waiting = match waiting.feed(bytes) {
            Step::Waiting(waiting) => waiting,
            Step::Answered(hello) => return Ok(Xx { io, hello }),
            Step::Failed(error) => return Err(error.into()),
        };
    }
}

/// Starts IK with a server whose key is known and waits for its answer. Give it a deadline. If it fails with
/// [`ConnectError::use_xx`], connect again with XX.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_ik<S, R>(
    mut io: S,
    key: &StaticKey,
    server_key: &PublicKey,
    suite: Suite,
    client_hello: &[u8],
    limits: Limits,
    rng: &mut R,
) -> Result<Ik<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: CryptoRng + ?Sized,
{
    let mut out = BytesMut::new();
    let mut waiting = client::ik(key, server_key, suite, client_hello, limits, rng, &mut out)?;
    send(&mut io, &mut out).await?;
    loop {
        let bytes = receive(&mut io, &mut out).await?.ok_or(ConnectError::Closed)?;
        waiting = match waiting.feed(bytes) {
            Step::Waiting(waiting) => waiting,
            Step::Answered(hello) => return Ok(Ik { io, hello }),
            Step::Failed(error) => return Err(error.into()),
        };
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Xx<S> {
    /// The server's static key, which its certificate must name.
    pub const fn server_key(&self) -> &PublicKey {
        self.hello.server_key()
    }

    /// The server's payload.
    pub const fn server_hello(&self) -> &Bytes {
        self.hello.server_hello()
    }

    /// Sends the client's payload and ends the handshake.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn finish(mut self, client_hello: &[u8]) -> Result<Connection<S>, ConnectError> {
        let mut out = BytesMut::new();
        let session = self.hello.finish(client_hello, &mut out)?;
        send(&mut self.io, &mut out).await?;
        Ok(Connection::new(self.io, session))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ik<S> {
    /// The server's static key, which its certificate must name.
    pub const fn server_key(&self) -> &PublicKey {
        self.hello.server_key()
    }

    /// The server's payload.
    pub const fn server_hello(&self) -> &Bytes {
        self.hello.server_hello()
    }

    /// Sends the empty record that shows that this is no replay, and ends the handshake.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn finish(mut self) -> Result<Connection<S>, ConnectError> {
        let mut out = BytesMut::new();
        let session = self.hello.finish(&mut out)?;
        send(&mut self.io, &mut out).await?;
        Ok(Connection::new(self.io, session))
    }
}
