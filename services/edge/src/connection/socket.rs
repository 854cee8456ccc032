//! The bytes of a connection. Reading takes no memory while nothing arrives; what is to be written leaves in as few
//! system calls as it can.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

const READ_AT_ONCE: usize = 16 * 1024;
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

pub(super) enum Event {
    Read(Bytes),
    /// Everything has been handed to the network.
    Wrote,
    /// The peer is gone.
    Closed,
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

    /// Writes on, and reads if `reading`. Cancel-safe.
    pub(super) async fn turn(&mut self, reading: bool) -> Event {
        poll_fn(|cx| {
            while !self.wire.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, &self.wire) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Event::Closed),
                    Poll::Ready(Ok(written)) => {
                        self.wire.advance(written);
                        self.unflushed = true;
                        if std::mem::take(&mut self.held_up) {
                            self.went_on = Some(Instant::now());
                        }
                        self.progress += written;
                        if self.progress >= PROGRESS {
                            self.progress = 0;
                            self.since = Some(Instant::now());
                        }
                    }
                    Poll::Pending => {
                        self.held_up = true;
                        break;
                    }
                }
            }
            if self.wire.is_empty() && self.unflushed {
                match Pin::new(&mut self.io).poll_flush(cx) {
                    Poll::Ready(Err(_)) => return Poll::Ready(Event::Closed),
                    Poll::Ready(Ok(())) => {
                        if std::mem::take(&mut self.held_up) {
                            self.went_on = Some(Instant::now());
                        }
                        self.unflushed = false;
                        self.wire = BytesMut::new();
                        return Poll::Ready(Event::Wrote);
                    }
                    Poll::Pending => self.held_up = true,
                }
            }
            if !reading {
                return Poll::Pending;
            }
            let mut buffer = [MaybeUninit::uninit(); READ_AT_ONCE];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_)) => Poll::Ready(Event::Closed),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Event::Closed),
                Poll::Ready(Ok(())) => Poll::Ready(Event::Read(Bytes::copy_from_slice(buffer.filled()))),
            }
        })
        .await
    }

    /// Writes everything.
    pub(super) async fn flush(&mut self) -> std::io::Result<()> {
        while !self.is_flushed() {
            if matches!(self.turn(false).await, Event::Closed) {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    /// Says that nothing more will come, then reads to the client's end, so that unread bytes of its do not make the
    /// system throw away what it has not received yet.
    pub(super) async fn close(&mut self) {
        if poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await.is_err() {
            return;
        }
        while matches!(self.turn(true).await, Event::Read(_)) {}
    }
}
