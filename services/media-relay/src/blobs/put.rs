//! Writing a blob: streamed, and visible only once its size and digest are right.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};

use super::{BlobId, Blobs, location};
use crate::error::MediaError;

/// A blob that is being written. Dropped before [`Put::commit`], it leaves nothing visible; what it wrote so far is
/// removed, or found by the sweep (a bucket's own, if it is in one) when the process was killed.
pub struct Put {
    way: Way,
    digest: Context,
    written: u64,
    size: u64,
    sha256: [u8; 32],
}

/// How bytes get to the store.
enum Way {
    /// As they come.
    Chunks(Box<dyn MultipartUpload>),
    /// In parts of a least size.
    Parts(Parts),
}

/// What waits to be a part; all of a small blob, which is then written in one request.
struct Parts {
    store: Arc<dyn ObjectStore>,
    location: Path,
    least: usize,
    waiting: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Parts {
    async fn write(&mut self, mut chunk: Bytes) -> Result<(), object_store::Error> {
        while !chunk.is_empty() {
            let room = self.least.saturating_sub(self.waiting.len());
            self.waiting.extend_from_slice(&chunk.split_to(room.min(chunk.len())));
            if self.waiting.len() >= self.least {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), object_store::Error> {
        let part = PutPayload::from_bytes(self.waiting.split().freeze());
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.store.put_multipart(&self.location).await?),
        };
        upload.put_part(part).await
    }

    async fn complete(&mut self) -> Result<(), object_store::Error> {
        if self.upload.is_none() {
            let whole = PutPayload::from_bytes(self.waiting.split().freeze());
            self.store.put(&self.location, whole).await?;
            return Ok(());
        }
        if !self.waiting.is_empty() {
            self.send().await?;
        }
        if let Some(upload) = &mut self.upload {
            upload.complete().await?;
        }
        self.upload = None;
        Ok(())
    }
}

/// A store over the network keeps the parts of an upload until it is told that there will be no more of them.
impl Drop for Parts {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _left_to_the_bucket = upload.abort().await;
            });
        }
    }
}

impl std::fmt::Debug for Put {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Put").field("written", &self.written).finish_non_exhaustive()
    }
}

/// Why a blob was not written. Apart from [`PutError::Store`] the uploader is at fault.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// More bytes came than were announced.
    #[error("longer than announced")]
    TooLong,
    /// Fewer bytes came than were announced.
    #[error("shorter than announced")]
    TooShort,
    /// The bytes have another SHA-256 than was announced.
    #[error("the digest differs")]
    Digest,
    /// The store failed.
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
}

impl Blobs {
    /// Begins to write a blob of `size` bytes with this digest.
    ///
    /// # Errors
    /// [`MediaError::Store`].
    pub async fn put(&self, id: BlobId, size: u64, sha256: [u8; 32]) -> Result<Put, MediaError> {
        let location = location(id);
        let way = if self.parts == 0 {
            Way::Chunks(self.store.put_multipart(&location).await?)
        } else {
            let (store, least) = (Arc::clone(&self.store), self.parts);
            Way::Parts(Parts { store, location, least, waiting: BytesMut::new(), upload: None })
        };
        Ok(Put { way, digest: Context::new(&SHA256), written: 0, size, sha256 })
    }
}

impl Put {
    /// Appends; returns when the store has taken the bytes, so that no more than one chunk, or part, waits in memory.
    ///
    /// # Errors
    /// [`PutError::TooLong`] and [`PutError::Store`].
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), PutError> {
        self.written = self.written.saturating_add(chunk.len() as u64);
        if self.written > self.size {
            return Err(PutError::TooLong);
        }
        self.digest.update(&chunk);
        match &mut self.way {
            Way::Chunks(upload) => upload.put_part(PutPayload::from_bytes(chunk)).await?,
            Way::Parts(parts) => parts.write(chunk).await?,
        }
        Ok(())
    }

    /// Makes the blob visible, durably. Writing the same id again replaces equal bytes by equal bytes.
    ///
    /// # Errors
    /// [`PutError`]; nothing is visible then.
    pub async fn commit(mut self) -> Result<(), PutError> {
        if self.written < self.size {
            return Err(PutError::TooShort);
        }
        if self.digest.clone().finish().as_ref() != self.sha256 {
            return Err(PutError::Digest);
        }
        match &mut self.way {
            Way::Chunks(upload) => drop(upload.complete().await?),
            Way::Parts(parts) => parts.complete().await?,
        }
        Ok(())
    }

    /// Bytes taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }
}
