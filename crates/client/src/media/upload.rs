//! Encrypt, then send to a media host.

use std::io::SeekFrom;

use rand::TryRngCore as _;
use rand::rngs::OsRng;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::encrypt::{Sealed, encrypt};
use super::error::MediaError;
use super::host::{MediaHost, UploadTicket};
use super::http::{Attempts, Failed, authorization, protected};
use super::{MediaDetails, MediaTransfers};
use crate::content::Media;

impl MediaTransfers {
    /// Encrypts all of `source` under a fresh key, sends the ciphertext to `host`, and gives what the recipients need.
    /// The ciphertext lies in an unnamed temporary file meanwhile. What breaks off is sent again, within the bounds.
    ///
    /// # Errors
    /// [`MediaError`].
    pub async fn upload<R: AsyncRead + Unpin + Send>(
        &self,
        host: &dyn MediaHost,
        source: R,
        details: MediaDetails,
    ) -> Result<Media, MediaError> {
        let mut key = [0; 32];
        OsRng.try_fill_bytes(&mut key).map_err(|_| MediaError::Setup)?;
        let sealed = encrypt(source, &key, self.bounds.max_bytes).await?;
        let attempts = Attempts::new(self.bounds);
        let deadline = attempts.deadline();
        let sending = self.send(host, &sealed, attempts);
        let url = tokio::time::timeout_at(deadline, sending).await.map_err(|_| MediaError::Timeout)??;
        let MediaDetails { kind, mime_type, name, width, height, duration_ms, thumbnail, caption } = details;
        Ok(Media {
            kind,
            url,
            key,
            ciphertext_sha256: sealed.sha256,
            ciphertext_size: sealed.sealed_size,
            size: sealed.size,
            mime_type,
            name,
            width,
            height,
            duration_ms,
            thumbnail,
            caption,
        })
    }

    /// The public URL, once the host has all of it.
    async fn send(&self, host: &dyn MediaHost, sealed: &Sealed, mut attempts: Attempts) -> Result<String, MediaError> {
        let mut ticket = host.upload_ticket(sealed.sealed_size, sealed.sha256).await?;
        loop {
            match self.put(&ticket, sealed).await {
                Ok(()) => return Ok(ticket.public_url),
                Err(Failed::Finally(error)) => return Err(error),
                Err(Failed::Again(reason)) => attempts.pause(reason).await?,
                Err(Failed::Ticket) => {
                    attempts.pause("the host refused the ticket").await?;
                    ticket = host.upload_ticket(sealed.sealed_size, sealed.sha256).await?;
                }
            }
        }
    }

    async fn put(&self, ticket: &UploadTicket, sealed: &Sealed) -> Result<(), Failed> {
        let body = from_start(&sealed.file).await.map_err(|error| Failed::Finally(MediaError::File(error)))?;
        let request = self
            .http
            .put(protected(&ticket.url)?)
            .header(AUTHORIZATION, authorization(&ticket.ticket)?)
            .header(CONTENT_LENGTH, sealed.sealed_size)
            .body(reqwest::Body::wrap_stream(ReaderStream::with_capacity(body, 64 * 1024)));
        let answer = request.send().await.map_err(|_| Failed::Again("the connection to the media host broke"))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(Failed::of_status(status.as_u16())) }
    }
}

/// Another handle to the file, at its start. The handles share one position, so only one is in use at a time.
async fn from_start(file: &File) -> std::io::Result<File> {
    let mut again = file.try_clone().await?;
    again.seek(SeekFrom::Start(0)).await?;
    Ok(again)
}
