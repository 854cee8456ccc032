//! Removing what nobody will finish or fetch.

use std::io;
use std::path::Path as FilePath;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;

use super::Blobs;
use crate::error::MediaError;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Unfinished uploads of processes that were killed.
    pub orphans: u64,
    /// Blobs past their retention.
    pub expired: u64,
}

impl Blobs {
    /// Removes unfinished uploads that nothing was written to for `orphan_after`, and blobs older than `retention`.
    ///
    /// # Errors
    /// [`MediaError::Store`] and [`MediaError::File`]; the next sweep goes on where this one stopped.
    pub async fn sweep(
        &self,
        now: SystemTime,
        orphan_after: Duration,
        retention: Duration,
    ) -> Result<Swept, MediaError> {
        let orphans = match &self.folder {
            Some(folder) => {
                let blobs = folder.join("blobs");
                let path = blobs.clone();
                let before = now.checked_sub(orphan_after).unwrap_or(SystemTime::UNIX_EPOCH);
                tokio::task::spawn_blocking(move || remove_orphans(&blobs, before))
                    .await
                    .map_err(io::Error::other)
                    .and_then(|removed| removed)
                    .map_err(|source| MediaError::File { path, source })?
            }
            None => 0,
        };
        let expired = self.remove_expired(now, retention).await?;
        Ok(Swept { orphans, expired })
    }

    async fn remove_expired(&self, now: SystemTime, retention: Duration) -> Result<u64, MediaError> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(retention);
        let oldest_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let mut removed = 0;
        let mut listed = self.store.list(Some(&Path::from("blobs")));
        while let Some(meta) = listed.try_next().await? {
            if meta.last_modified.timestamp_millis() < oldest_ms {
                match self.store.delete(&meta.location).await {
                    Ok(()) => removed += 1,
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(removed)
    }
}

/// The folder's store writes to `<name>#<number>` and renames at the end; listing does not show those.
fn remove_orphans(blobs: &FilePath, before: SystemTime) -> io::Result<u64> {
    let mut removed = 0;
    for shard in entries(blobs)? {
        if !shard.file_type()?.is_dir() {
            continue;
        }
        for file in entries(&shard.path())? {
            let unfinished = file.file_name().to_string_lossy().contains('#');
            let old = file.metadata().and_then(|meta| meta.modified()).is_ok_and(|modified| modified < before);
            if unfinished && old && std::fs::remove_file(file.path()).is_ok() {
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn entries(folder: &FilePath) -> io::Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use causeway_runtime::clock::{Clock as _, SystemClock};

    use super::super::BlobId;
    use super::*;

    #[tokio::test]
    async fn orphans_and_old_blobs_go_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"abc").as_ref().try_into().unwrap();
        let id = BlobId::from_bytes([5; 16]);
        let mut put = blobs.put(id, 3, sha256).await.unwrap();
        put.write(bytes::Bytes::from_static(b"abc")).await.unwrap();
        put.commit().await.unwrap();
        // What a killed process leaves behind.
        let orphan = folder.path().join("blobs/05").join(format!("{}#1", BlobId::from_bytes([5; 16])));
        std::fs::write(&orphan, b"ab").unwrap();

        let (hour, day) = (Duration::from_secs(3_600), Duration::from_secs(86_400));
        let now = SystemClock.now();
        assert_eq!(blobs.sweep(now, hour, day).await.unwrap(), Swept::default());
        assert_eq!(blobs.sweep(now + 2 * hour, hour, day).await.unwrap(), Swept { orphans: 1, expired: 0 });
        assert!(!orphan.exists());
        assert_eq!(blobs.size(id).await.unwrap(), Some(3));
        assert_eq!(blobs.sweep(now + 2 * day, hour, day).await.unwrap(), Swept { orphans: 0, expired: 1 });
        assert_eq!(blobs.size(id).await.unwrap(), None);
        let empty = Blobs::in_folder(&folder.path().join("new")).unwrap();
        assert_eq!(empty.sweep(now, hour, day).await.unwrap(), Swept::default());
    }
}
