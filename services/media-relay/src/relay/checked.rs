//! A stream of ciphertext on its way to a client, held to what was promised of it.

use std::pin::Pin;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};

use crate::http::answer::Refusal;
use crate::http::transfers::Transfer;

/// What the bytes must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// How many.
    pub(crate) len: u64,
    /// Their SHA-256, if all of the blob's bytes come.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// Why a transfer broke off. The client sees a body that is shorter than its `Content-Length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transfer broke off: {0}")]
pub(crate) struct BrokenOff(&'static str);

impl From<BrokenOff> for Refusal {
    fn from(broken: BrokenOff) -> Self {
        if broken.0 == TOO_SLOW { Self::UpstreamTooSlow } else { Self::Upstream }
    }
}

const TOO_SLOW: &str = "too-slow";

/// Passes chunks on as they are asked for, one at a time; nothing is read ahead. With a digest, the last chunk is held
/// back until it is known to be right, so that nobody mistakes wrong bytes for a whole blob.
pub(crate) struct Checked<S> {
    upstream: Pin<Box<S>>,
    left: u64,
    digest: Option<(Context, [u8; 32])>,
    held_back: Bytes,
    transfer: Transfer,
}

impl<S, E> Checked<S>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Send + 'static,
{
    /// Wraps what comes from a store or a provider's host.
    pub(crate) fn new(upstream: S, expected: Expected, transfer: Transfer) -> Self {
        let digest = expected.sha256.map(|sha256| (Context::new(&SHA256), sha256));
        Self { upstream: Box::pin(upstream), left: expected.len, digest, held_back: Bytes::new(), transfer }
    }

    /// As an answer's body. Waits for the first bytes that may go out, so that what fails before them, a small blob with
    /// a wrong digest for instance, still gets an answer of its own.
    pub(crate) async fn into_body(self) -> Result<Body, BrokenOff> {
        let mut rest = Box::pin(self.into_stream());
        match rest.next().await {
            Some(Ok(first)) => Ok(Body::from_stream(stream::iter([Ok(first)]).chain(rest))),
            Some(Err(broken)) => Err(broken),
            None => Ok(Body::empty()),
        }
    }

    /// As a stream that ends with an error when a promise is broken.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static {
        stream::unfold(Some(self), |this| async move {
            let mut this = this?;
            match this.next().await {
                Ok(Some(chunk)) => {
                    this.transfer.moved(chunk.len());
                    Some((Ok(chunk), Some(this)))
                }
                Ok(None) => {
                    this.transfer.ended("complete");
                    None
                }
                Err(reason) => {
                    this.transfer.ended(reason);
                    Some((Err(BrokenOff(reason)), None))
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, &'static str> {
        loop {
            let chunk = match self.transfer.wait(self.upstream.next()).await {
                Ok(Some(Ok(chunk))) if chunk.is_empty() => continue,
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(_))) => return Err("upstream"),
                Ok(None) => return self.finish(),
                Err(_) => return Err(TOO_SLOW),
            };
            self.left = self.left.checked_sub(chunk.len() as u64).ok_or("too-long")?;
            let Some((digest, _)) = &mut self.digest else {
                return Ok(Some(chunk));
            };
            digest.update(&chunk);
            let before = std::mem::replace(&mut self.held_back, chunk);
            if !before.is_empty() {
                return Ok(Some(before));
            }
        }
    }

    /// Upstream has ended: what is held back may go out if all is right.
    fn finish(&mut self) -> Result<Option<Bytes>, &'static str> {
        if self.left > 0 {
            return Err("too-short");
        }
        if let Some((digest, sha256)) = self.digest.take()
            && digest.finish().as_ref() != sha256
        {
            return Err("digest");
        }
        let last = std::mem::take(&mut self.held_back);
        Ok((!last.is_empty()).then_some(last))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::digest;
    use proptest::prelude::*;

    use super::*;
    use crate::http::transfers::{Party, TransferLimits, Transfers};
    use crate::metrics::Direction;

    fn transfer() -> Transfer {
        with_pace(0)
    }

    fn with_pace(min_bytes_per_s: u32) -> Transfer {
        let (idle, total) = (Duration::from_secs(10), Duration::from_secs(60));
        let limits = TransferLimits { max: 1, max_per_account: 1, min_bytes_per_s, idle, total };
        Transfers::new(limits).begin(Direction::Relay, Party::Anyone).unwrap()
    }

    async fn pass(chunks: Vec<Vec<u8>>, expected: Expected) -> (Vec<u8>, Result<(), BrokenOff>) {
        let upstream = stream::iter(chunks.into_iter().map(|chunk| Ok::<_, ()>(Bytes::from(chunk))));
        let mut passed = std::pin::pin!(Checked::new(upstream, expected, transfer()).into_stream());
        let mut bytes = Vec::new();
        while let Some(next) = passed.next().await {
            match next {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(error) => return (bytes, Err(error)),
            }
        }
        (bytes, Ok(()))
    }

    fn sha256(bytes: &[u8]) -> Option<[u8; 32]> {
        digest::digest(&SHA256, bytes).as_ref().try_into().ok()
    }

    #[tokio::test]
    async fn wrong_bytes_never_arrive_whole() {
        let chunks = vec![b"abc".to_vec(), b"".to_vec(), b"def".to_vec()];
        let right = Expected { len: 6, sha256: sha256(b"abcdef") };
        assert_eq!(pass(chunks.clone(), right).await, (b"abcdef".to_vec(), Ok(())));
        let other = Expected { len: 6, sha256: sha256(b"abcdeX") };
        assert_eq!(pass(chunks.clone(), other).await, (b"abc".to_vec(), Err(BrokenOff("digest"))));
        let longer = Expected { len: 7, sha256: None };
        assert_eq!(pass(chunks.clone(), longer).await.1, Err(BrokenOff("too-short")));
        let shorter = Expected { len: 5, ..right };
        assert_eq!(pass(chunks, shorter).await.1, Err(BrokenOff("too-long")));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_trickle_are_cut_off() {
        let silent =
            Checked::new(stream::pending::<Result<Bytes, ()>>(), Expected { len: 1, sha256: None }, transfer());
        let started = tokio::time::Instant::now();
        assert_eq!(std::pin::pin!(silent.into_stream()).next().await, Some(Err(BrokenOff("too-slow"))));
        assert_eq!(started.elapsed(), Duration::from_secs(10));

        // Two and a half bytes a second, of which nothing, as much and more is demanded.
        for (min_bytes_per_s, seconds) in [(0, 60), (2, 60), (3, 30)] {
            let trickle = stream::repeat(()).then(|()| async {
                tokio::time::sleep(Duration::from_millis(400)).await;
                Ok::<_, ()>(Bytes::from_static(b"x"))
            });
            let slow = Checked::new(trickle, Expected { len: 1_000, sha256: None }, with_pace(min_bytes_per_s));
            let (started, mut passed) = (tokio::time::Instant::now(), std::pin::pin!(slow.into_stream()));
            let last = loop {
                match passed.next().await {
                    Some(Ok(_)) => {}
                    end => break end,
                }
            };
            assert_eq!(last, Some(Err(BrokenOff("too-slow"))));
            assert_eq!(started.elapsed(), Duration::from_secs(seconds));
        }
    }

    proptest! {
        #[test]
        fn the_right_bytes_pass_whole_however_they_are_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10),
            checked: bool,
        ) {
            let all = chunks.concat();
            let expected = Expected { len: all.len() as u64, sha256: checked.then(|| sha256(&all)).flatten() };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            prop_assert_eq!(runtime.block_on(pass(chunks, expected)), (all, Ok(())));
        }
    }
}
