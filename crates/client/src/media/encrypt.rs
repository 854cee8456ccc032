//! From a stream of plaintext to a temporary file of ciphertext.
//!
//! An upload names size and digest before its first byte, so the ciphertext must be known whole. It goes to an unnamed
//! temporary file: the source need not be readable twice, an attempt that broke off can be repeated with the same bytes,
//! and what lies on the disk for a while is encrypted already.

use std::io::SeekFrom;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::error::MediaError;
use super::segments::{FileKey, SEALED, SEGMENT};

/// A ciphertext that is ready to be sent.
#[derive(Debug)]
pub(super) struct Sealed {
    /// At its start.
    pub(super) file: File,
    /// Bytes of ciphertext.
    pub(super) sealed_size: u64,
    /// Of the ciphertext.
    pub(super) sha256: [u8; 32],
    /// Bytes of plaintext.
    pub(super) size: u64,
}

/// Encrypts all of `source`, at most `max` bytes, with a key that was never used before.
///
/// # Errors
/// [`MediaError::TooLarge`], [`MediaError::File`].
pub(super) async fn encrypt<R: AsyncRead + Unpin>(
    mut source: R,
    key: &[u8; 32],
    max: u64,
) -> Result<Sealed, MediaError> {
    let file = tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(std::io::Error::other);
    let mut file = File::from_std(file.and_then(|made| made).map_err(MediaError::File)?);
    let (key, mut digest) = (FileKey::new(key), Context::new(&SHA256));
    let (mut size, mut sealed_size, mut index) = (0_u64, 0_u64, 0_u32);
    let mut segment = read_segment(&mut source).await?;
    loop {
        size += segment.len() as u64;
        if size > max {
            return Err(MediaError::TooLarge { max });
        }
        // Only the next read tells whether this segment is the last one.
        let next = if segment.len() == SEGMENT { read_segment(&mut source).await? } else { Vec::new() };
        let last = next.is_empty();
        key.seal(index, last, &mut segment);
        digest.update(&segment);
        sealed_size += segment.len() as u64;
        file.write_all(&segment).await.map_err(MediaError::File)?;
        if last {
            break;
        }
        index = index.checked_add(1).ok_or(MediaError::TooLarge { max })?;
        segment = next;
    }
    file.flush().await.map_err(MediaError::File)?;
    file.seek(SeekFrom::Start(0)).await.map_err(MediaError::File)?;
    let sha256 = digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
    Ok(Sealed { file, sealed_size, sha256, size })
}

/// A full segment, or what is left.
async fn read_segment<R: AsyncRead + Unpin>(source: &mut R) -> Result<Vec<u8>, MediaError> {
    let mut segment = Vec::with_capacity(SEALED);
    source.take(SEGMENT as u64).read_to_end(&mut segment).await.map_err(MediaError::File)?;
    Ok(segment)
}
