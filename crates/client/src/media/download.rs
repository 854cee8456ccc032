//! Fetch through the operator's relay, then decrypt, segment by segment.

use aws_lc_rs::digest::{Context, SHA256};
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::MediaTransfers;
use super::error::MediaError;
use super::host::{MediaRelay, Ticket};
use super::http::{Attempts, Failed, authorization, protected};
use super::segments::{FileKey, Layout, SEALED};
use crate::content::Media;

impl MediaTransfers {
    /// Fetches `media` through the relay and writes the plaintext to `copy`; gives its size in bytes. Every segment is
    /// checked before it is written. A connection that breaks is resumed behind the last good segment, within the bounds.
    ///
    /// # Errors
    /// [`MediaError`]. What was written until then is genuine but not the whole: throw it away.
    pub async fn download<W: AsyncWrite + Unpin + Send>(
        &self,
        relay: &dyn MediaRelay,
        media: &Media,
        copy: &mut W,
    ) -> Result<u64, MediaError> {
        let max = self.bounds.max_bytes;
        if media.size > max {
            return Err(MediaError::TooLarge { max });
        }
        let layout = Layout::of(media.size).ok_or(MediaError::TooLarge { max })?;
        if layout.sealed_size() != media.ciphertext_size {
            return Err(MediaError::Sizes);
        }
        let attempts = Attempts::new(self.bounds);
        let deadline = attempts.deadline();
        let receiving = self.receive(relay, media, Opening::new(media, layout, copy), attempts);
        tokio::time::timeout_at(deadline, receiving).await.map_err(|_| MediaError::Timeout)??;
        Ok(media.size)
    }

    async fn receive<W: AsyncWrite + Unpin>(
        &self,
        relay: &dyn MediaRelay,
        media: &Media,
        mut opening: Opening<'_, W>,
        mut attempts: Attempts,
    ) -> Result<(), MediaError> {
        let ask = || relay.download_ticket(&media.url, media.ciphertext_size, media.ciphertext_sha256);
        let mut ticket = ask().await?;
        loop {
            let before = opening.index;
            let got = self.get(&ticket, &mut opening).await;
            if opening.index > before {
                attempts.progressed();
            }
            match got {
                Ok(()) => return opening.finish().await,
                Err(Failed::Finally(error)) => return Err(error),
                Err(Failed::Again(reason)) => attempts.pause(reason).await?,
                Err(Failed::Ticket) => {
                    attempts.pause("the relay refused the ticket").await?;
                    ticket = ask().await?;
                }
            }
        }
    }

    /// Fetches from the first segment that is not open yet.
    async fn get<W: AsyncWrite + Unpin>(&self, ticket: &Ticket, opening: &mut Opening<'_, W>) -> Result<(), Failed> {
        let (from, size) = (opening.offset(), opening.layout.sealed_size());
        let mut request = self.http.get(protected(&ticket.url)?).header(AUTHORIZATION, authorization(&ticket.ticket)?);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-{}", size - 1));
        }
        let mut answer = request.send().await.map_err(|_| Failed::Again("the connection to the relay broke"))?;
        check(&answer, from, size)?;
        opening.start_over();
        while let Some(chunk) = answer.chunk().await.map_err(|_| Failed::Again("the relay's answer broke off"))? {
            opening.take(&chunk).await?;
        }
        if opening.is_whole() { Ok(()) } else { Err(Failed::Again("the relay's answer was cut short")) }
    }
}

fn check(answer: &Response, from: u64, size: u64) -> Result<(), Failed> {
    let wanted = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    if answer.status() != wanted {
        return Err(Failed::of_status(answer.status().as_u16()));
    }
    let range = format!("bytes {from}-{}/{size}", size - 1);
    let fits =
        from == 0 || answer.headers().get(CONTENT_RANGE).is_some_and(|value| value.as_bytes() == range.as_bytes());
    if fits { Ok(()) } else { Err(Failed::Again("the relay answered with another range")) }
}

/// A ciphertext that is being opened.
struct Opening<'w, W> {
    key: FileKey,
    layout: Layout,
    /// The segment that is being collected; all before it are written.
    index: u32,
    segment: Vec<u8>,
    /// Over the segments before `index`: what was opened is also what the message named.
    digest: Context,
    sha256: [u8; 32],
    copy: &'w mut W,
}

impl<'w, W: AsyncWrite + Unpin> Opening<'w, W> {
    fn new(media: &Media, layout: Layout, copy: &'w mut W) -> Self {
        Self {
            key: FileKey::new(&media.key),
            layout,
            index: 0,
            segment: Vec::with_capacity(SEALED),
            digest: Context::new(&SHA256),
            sha256: media.ciphertext_sha256,
            copy,
        }
    }

    /// Where the segment that is being collected begins.
    fn offset(&self) -> u64 {
        self.layout.offset(self.index)
    }

    fn is_whole(&self) -> bool {
        self.index == self.layout.segments()
    }

    /// A new connection delivers from [`Opening::offset`].
    fn start_over(&mut self) {
        self.segment.clear();
    }

    async fn take(&mut self, mut bytes: &[u8]) -> Result<(), MediaError> {
        while !bytes.is_empty() {
            if self.is_whole() {
                return Err(MediaError::Tampered);
            }
            let length = self.layout.sealed_len(self.index);
            let (now, later) = bytes.split_at(bytes.len().min(length - self.segment.len()));
            self.segment.extend_from_slice(now);
            bytes = later;
            if self.segment.len() == length {
                self.digest.update(&self.segment);
                let plaintext =
                    self.key.open(self.layout, self.index, &mut self.segment).map_err(|_| MediaError::Tampered)?;
                self.copy.write_all(plaintext).await.map_err(MediaError::File)?;
                self.segment.clear();
                self.index += 1;
            }
        }
        Ok(())
    }

    async fn finish(self) -> Result<(), MediaError> {
        if self.digest.finish().as_ref() != self.sha256 {
            return Err(MediaError::Tampered);
        }
        self.copy.flush().await.map_err(MediaError::File)
    }
}
