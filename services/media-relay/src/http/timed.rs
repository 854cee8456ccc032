//! A socket whose writes must make progress.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::pace::Pace;

/// Fails with `TimedOut` when the peer takes nothing for `idle`, or too little while it is waited for, so that a reader
/// that stopped or crawls cannot hold a connection and what is buffered for it.
#[derive(Debug)]
pub(super) struct Timed<S> {
    inner: S,
    idle: Duration,
    pace: Pace,
    /// There while a write waits.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// When the peer is given up if it takes nothing.
    until: Instant,
    /// Since when the pace has not been told of the waiting.
    since: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl<S> Timed<S> {
    /// Wraps a socket whose peer must take something every `idle`, and so many bytes a second on average.
    pub(super) fn new(inner: S, idle: Duration, min_bytes_per_s: u32) -> Self {
        Self { inner, idle, pace: Pace::new(min_bytes_per_s), waiting: None }
    }

    fn wrote(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.pace.moved(*bytes);
        }
        self.timed(cx, result)
    }

    fn timed<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Self { idle, pace, waiting, .. } = self;
        if result.is_ready() {
            let fast = waiting.take().is_none_or(|waiting| pace.waited(waiting.since.elapsed()));
            return if fast { result } else { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) };
        }
        let waiting = waiting.get_or_insert_with(|| {
            let since = Instant::now();
            let until = since + *idle;
            let sleep = Box::pin(tokio::time::sleep_until(until.min(since + pace.left())));
            Waiting { until, since, sleep }
        });
        loop {
            ready!(waiting.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= waiting.until || !pace.waited(now - waiting.since) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            waiting.since = now;
            waiting.sleep.as_mut().reset(waiting.until.min(now + pace.left()));
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.timed(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.timed(cx, result)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_is_noticed_and_a_slow_one_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut timed = Timed::new(ours, Duration::from_secs(10), 0);
        let reader = tokio::spawn(async move {
            let mut got = [0; 4];
            for _ in 0..16 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                theirs.read_exact(&mut got).await.unwrap();
            }
            theirs
        });
        timed.write_all(&[7; 64]).await.unwrap();
        let _theirs = reader.await.unwrap();
        timed.write_all(&[7; 16]).await.unwrap();
        assert_eq!(timed.write_all(&[7; 1]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_crawls_is_cut_off_and_one_that_keeps_the_pace_is_not() {
        for (bytes_per_s, kept) in [(16, true), (14, false)] {
            let (ours, mut theirs) = tokio::io::duplex(16);
            let mut timed = Timed::new(ours, Duration::from_secs(10), 15);
            let reader = tokio::spawn(async move {
                let mut got = vec![0; bytes_per_s];
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if theirs.read_exact(&mut got).await.is_err() {
                        return;
                    }
                }
            });
            let started = Instant::now();
            let written = timed.write_all(&[7; 1_600]).await;
            assert_eq!(written.is_ok(), kept);
            assert!(kept || (30..=60).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
            drop(timed);
            reader.await.unwrap();
        }
    }
}
