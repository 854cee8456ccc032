//! Writing a blob: streamed, and visible only once its size and digest are right.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};

use super::{BlobId, Blobs, location};
use crate::error::MediaError;

/// A blob that is being written. Dropped before [`Put::commit`], it leaves nothing visible; what it wrote so far is
/// removed, or found by the sweep when the process was killed.
pub struct Put {
    upload: Box<dyn MultipartUpload>,
    digest: Context,
    written: u64,
    size: u64,
    sha256: [u8; 32],
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
        let upload = self.store.put_multipart(&location(id)).await?;
        Ok(Put { upload, digest: Context::new(&SHA256), written: 0, size, sha256 })
    }
}

impl Put {
    /// Appends; returns when the store has taken the bytes, so that no more than one chunk waits in memory.
    ///
    /// # Errors
    /// [`PutError::TooLong`] and [`PutError::Store`].
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), PutError> {
        self.written = self.written.saturating_add(chunk.len() as u64);
        if self.written > self.size {
            return Err(PutError::TooLong);
        }
        self.digest.update(&chunk);
        self.upload.put_part(PutPayload::from_bytes(chunk)).await?;
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
        self.upload.complete().await?;
        Ok(())
    }

    /// Bytes taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }
}
