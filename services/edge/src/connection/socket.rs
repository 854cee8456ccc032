//! The bytes of a connection. Reading takes no memory while nothing arrives; what is to be written leaves in as few
//! system calls as it can.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What is thrown away at once.
const WASTE_AT_ONCE: usize = 4 * 1024;
/// The deadline of a write is for so many bytes, or for all if they are fewer: slow networks are no offence.
const PROGRESS: usize = 16 * 1024;

pub(super) struct Socket<T> {
    io: T,
    wire: BytesMut,
    /// Since when [`PROGRESS`] bytes, or all there is, are on their way.
    since: Option<Instant>,
    /// Bytes that have left since then.
    progress: usize,
    /// The network takes no more at the moment.
    held_up: bool,
    /// When it last went on behind that.
    went_on: Option<Instant>,
    /// The stream below may hold bytes back until it is flushed.
    unflushed: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, wire: BytesMut::new(), since: None, progress: 0, held_up: false, went_on: None, unflushed: false }
    }

    /// Where bytes to be written are put. From the first of them on, their deadline runs.
    pub(super) fn wire(&mut self, now: Instant) -> &mut BytesMut {
        self.since.get_or_insert(now);
        &mut self.wire
    }

    /// True if nothing waits to be written.
    pub(super) fn is_flushed(&mut self) -> bool {
        let flushed = self.wire.is_empty() && !self.unflushed;
        if flushed {
            self.since = None;
            self.progress = 0;
        }
        flushed
    }

    /// Since when the network owes progress.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When last the peer was seen to read: bytes left that the network had not taken before.
    pub(super) fn went_on(&self) -> Option<Instant> {
        self.went_on
    }

    /// Writes on; ready when everything has been handed to the network.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.wire.is_empty() {
            let Poll::Ready(written) = Pin::new(&mut self.io).poll_write(cx, &self.wire)? else {
                self.held_up = true;
                return Poll::Pending;
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.progress += written;
            if self.progress >= PROGRESS {
                self.progress = 0;
                self.since = Some(Instant::now());
            }
            self.goes_on();
            // The memory goes with the last of it.
            if written == self.wire.len() {
                self.wire = BytesMut::new();
            } else {
                self.wire.advance(written);
            }
        }
        if self.unflushed {
            let Poll::Ready(()) = Pin::new(&mut self.io).poll_flush(cx)? else {
                self.held_up = true;
                return Poll::Pending;
            };
            self.goes_on();
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn goes_on(&mut self) {
        if std::mem::take(&mut self.held_up) {
            self.went_on = Some(Instant::now());
        }
    }

    /// Reads what is there; nothing at the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }

    /// Writes everything.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_write(cx)).await
    }

    /// Says that nothing more will come, then reads to the client's end, so that unread bytes of its do not make the
    /// system throw away what it has not received yet.
    pub(super) async fn close(&mut self) {
        if poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await.is_err() {
            return;
        }
        while poll_fn(|cx| self.poll_waste(cx)).await.is_ok_and(|wasted| wasted > 0) {}
    }

    fn poll_waste(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); WASTE_AT_ONCE];
        let mut wasted = ReadBuf::uninit(&mut room);
        self.poll_read(cx, &mut wasted).map_ok(|()| wasted.filled().len())
    }
}
