//! Handshakes and sessions over anything that reads and writes bytes with tokio.
//!
//! No function here has a deadline of its own except [`refuse`]: wrap calls in `tokio::time::timeout`.

mod accept;
mod connect;
mod halves;

pub use accept::{AcceptError, Accepted, accept, refuse};
pub use connect::{ConnectError, Ik, Xx, connect_ik, connect_xx};
pub use halves::{ReadError, Reader, WriteError, Writer};

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::session::Session;

/// An established session over a connection, as two halves that one select loop, or two tasks, can use.
pub struct Connection<S> {
    /// The peer's records.
    pub reader: Reader<ReadHalf<S>>,
    /// Ours to the peer.
    pub writer: Writer<WriteHalf<S>>,
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    fn new(io: S, session: Session) -> Self {
        let (read, write) = tokio::io::split(io);
        Self { reader: Reader::new(read, session.receiver), writer: Writer::new(write, session.sender) }
    }
}

/// The next bytes of a handshake; `None` when the peer has closed.
async fn receive<'a>(io: &mut (impl AsyncRead + Unpin), buffer: &'a mut BytesMut) -> io::Result<Option<&'a [u8]>> {
    buffer.clear();
    buffer.reserve(READ);
    let read = io.read_buf(buffer).await?;
    Ok((read > 0).then_some(&buffer[..]))
}

/// Writes all of `out` and empties it.
async fn send(io: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<()> {
    io.write_all_buf(out).await?;
    io.flush().await
}

/// A handshake is small.
const READ: usize = 2 * 1024;
