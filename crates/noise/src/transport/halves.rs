//! The two directions of an established session.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use crate::record::Received;
use crate::session::{Proved, ReceiveError, Receiver, SendError, Sender};

/// Why no more records come.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What the peer sent ends the session. The same error comes ever after.
    #[error(transparent)]
    Session(#[from] ReceiveError),
    /// The connection closed in the middle of a record. Nothing of it is handed out.
    #[error("the connection closed in the middle of a record")]
    Truncated,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// Why records could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The record was not taken.
    #[error(transparent)]
    Session(#[from] SendError),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// Reads the peer's records.
pub struct Reader<R> {
    io: R,
    receiver: Receiver,
    partial_since: Option<Instant>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(io: R, receiver: Receiver) -> Self {
        Self { io, receiver, partial_since: None }
    }

    /// The next record; `None` when the peer has closed between two records. It says nothing about whether the peer
    /// meant to: a network can close too.
    ///
    /// Cancel-safe: whatever was received before this future is dropped is there for the next call. Reads from the
    /// connection only when no complete record waits, so a caller that does not call it holds the peer back.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&mut self) -> Result<Option<Received>, ReadError> {
        loop {
            if let Some(received) = self.receiver.next()? {
                self.partial_since = None;
                return Ok(Some(received));
            }
            if self.receiver.is_partial() {
                self.partial_since.get_or_insert_with(Instant::now);
            }
            if poll_fn(|cx| self.poll_receive(cx)).await? == 0 {
                return if self.receiver.is_partial() { Err(ReadError::Truncated) } else { Ok(None) };
            }
        }
    }

    /// Takes what has arrived, and tells how many bytes. The room for it is on the stack, so that waiting takes none.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); READ_AT_ONCE];
        let mut arrived = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut arrived))?;
        self.receiver.feed(arrived.filled());
        Poll::Ready(Ok(arrived.filled().len()))
    }

    /// Bytes of memory that buffers hold.
    #[cfg(test)]
    pub(crate) fn held(&mut self) -> usize {
        self.receiver.held()
    }

    /// The proof that the peer is live: after XX from the start, after IK from its first record on.
    pub fn proved(&self) -> Option<Proved> {
        self.receiver.proved()
    }

    /// When the record began that is under way since the last complete one: it deserves a deadline.
    pub const fn partial_since(&self) -> Option<Instant> {
        self.partial_since
    }
}

/// Most bytes that one system call reads.
const READ_AT_ONCE: usize = 16 * 1024;

/// Writes records to the peer.
pub struct Writer<W> {
    io: W,
    sender: Sender,
    unflushed: bool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(io: W, sender: Sender) -> Self {
        Self { io, sender, unflushed: false }
    }

    /// Queues a record without sending it; an empty one is a keep-alive. Records that are queued between two flushes
    /// share Noise messages and system calls.
    ///
    /// # Errors
    /// [`SendError`]; on [`SendError::QueueFull`] flush first.
    pub fn queue(&mut self, record: &[u8]) -> Result<(), SendError> {
        self.sender.queue(record)
    }

    /// Bytes that wait for [`Writer::flush`]; 0 means that there is nothing to flush.
    pub fn queued(&self) -> usize {
        self.sender.queued().max(usize::from(self.unflushed))
    }

    /// Sends all that is queued. Give it a deadline: the peer decides how fast it reads.
    ///
    /// Cancel-safe: what was not written before this future is dropped stays queued, and the next call goes on there.
    ///
    /// # Errors
    /// [`WriteError`]; then the session is over.
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        self.sender.seal()?;
        while !self.sender.sealed().is_empty() {
            self.unflushed = true;
            let written = self.io.write(self.sender.sealed()).await?;
            if written == 0 {
                return Err(WriteError::Io(io::ErrorKind::WriteZero.into()));
            }
            self.sender.sealed().advance(written);
        }
        self.sender.shrink();
        if self.unflushed {
            self.io.flush().await?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Queues one record and sends all that is queued.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn send(&mut self, record: &[u8]) -> Result<(), WriteError> {
        self.queue(record)?;
        self.flush().await
    }

    /// Sends all that is queued and tells the peer that no more comes. Give it a deadline.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn close(&mut self) -> Result<(), WriteError> {
        self.flush().await?;
        Ok(self.io.shutdown().await?)
    }

    /// Bytes of memory that buffers hold.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.sender.held()
    }

    /// Sets the largest record that the peer accepts, in bytes, once it has said so.
    pub fn limit_records(&mut self, bytes: usize) {
        self.sender.limit_records(bytes);
    }
}
