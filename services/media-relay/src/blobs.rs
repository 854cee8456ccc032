//! Ciphertext in an object store: written whole and checked, or not at all.
//!
//! A folder or a bucket; another backend of `object_store` is one more way to make a [`Blobs`].

mod bucket;
mod id;
mod put;
mod sweep;

use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};

pub use self::bucket::BucketConfig;
#[cfg(test)]
pub(crate) use self::bucket::PART_BYTES;
pub use self::id::{BlobId, BlobIdError};
pub use self::put::{Put, PutError};
pub use self::sweep::Swept;
use crate::error::MediaError;

/// One folder or bucket of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The folder, when the store is one: unfinished uploads of killed processes are looked for in it.
    folder: Option<PathBuf>,
    /// Bytes of a part of an upload, all but the last one; 0 if they may be as small as they come.
    parts: usize,
}

/// A blob that is being read.
pub struct Reading {
    /// Bytes of the whole blob.
    pub size: u64,
    /// The wanted bytes.
    pub stream: BoxStream<'static, Result<Bytes, object_store::Error>>,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Blobs {
    /// The blobs in `folder`, which is made if it is absent. Writes are on disk when they are acknowledged.
    ///
    /// # Errors
    /// [`MediaError::File`] when the folder cannot be made or written to.
    pub fn in_folder(folder: &FilePath) -> Result<Self, MediaError> {
        let failed = |source| MediaError::File { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let probe = folder.join(".writable");
        std::fs::write(&probe, []).and_then(|()| remove(&probe)).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), folder: Some(folder.to_owned()), parts: 0 })
    }

    /// Bytes of the blob; `None` if there is none.
    ///
    /// # Errors
    /// [`MediaError::Store`].
    pub async fn size(&self, id: BlobId) -> Result<Option<u64>, MediaError> {
        match self.store.head(&location(id)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the blob, or the given bytes of it, which must lie inside; `None` if there is none.
    ///
    /// # Errors
    /// [`MediaError::Store`].
    pub async fn read(&self, id: BlobId, range: Option<Range<u64>>) -> Result<Option<Reading>, MediaError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        match self.store.get_opts(&location(id), options).await {
            Ok(got) => Ok(Some(Reading { size: got.meta.size, stream: got.into_stream() })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Another replica that starts on the same folder may have removed it already.
fn remove(file: &FilePath) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where a blob lies: spread over 256 folders.
fn location(id: BlobId) -> Path {
    let name = id.to_string();
    Path::from(format!("blobs/{}/{name}", &name[..2]))
}
