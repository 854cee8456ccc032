//! Folders for servers' data: removed with their value, or by the next process if theirs was killed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{ServerError, postgres, process};

/// A new folder in the folder for temporary files. What is in it is gone with this value.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held as long as the folder is in use; who can take it may remove the folder.
    _lock: File,
}

impl Folder {
    /// Makes one, and removes those of processes that were killed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create() -> Result<Self, ServerError> {
        let parent = std::env::temp_dir();
        let gate = parent.join(format!("{PREFIX}gate"));
        let failed = |path: &Path| ServerError::io(path.display().to_string());
        let gate_file = OpenOptions::new().create(true).append(true).open(&gate).map_err(failed(&gate))?;
        // Between making a folder and locking it, nobody sweeps.
        gate_file.lock().map_err(failed(&gate))?;
        sweep(&parent);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        // Servers may run as another user than this process: they must reach what is theirs in it, by its name.
        std::fs::DirBuilder::new().mode(0o711).create(&path).map_err(failed(&path))?;
        let lock = path.join("lock");
        let lock = File::create(&lock).map_err(failed(&lock))?;
        lock.lock().map_err(failed(&path))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.path);
    }
}

/// Copies what is in a folder, all of it for `owner` (user and group) if there is one.
pub(crate) fn copy(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(to)?;
    give(to, owner)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target, owner)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            std::fs::set_permissions(&target, PermissionsExt::from_mode(0o600))?;
            give(&target, owner)?;
        }
    }
    Ok(())
}

pub(crate) fn give(path: &Path, owner: Option<(u32, u32)>) -> std::io::Result<()> {
    match owner {
        Some((user, group)) => std::os::unix::fs::chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// The user of this process.
pub(crate) fn user() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid())
}

/// Removes the folders of processes that are gone. What cannot be removed now is left for another time.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !ours || !path.is_dir() {
            continue;
        }
        let Ok(lock) = OpenOptions::new().append(true).open(path.join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            // What was stopped (SIGSTOP) when its parent was killed has not noticed.
            process::kill_in(&path);
            postgres::remove_shared_memory(&path);
            let _gone = std::fs::remove_dir_all(&path);
        }
    }
}

const PREFIX: &str = "causeway-test-";

static NEXT: AtomicU32 = AtomicU32::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lives_as_long_as_its_value_and_one_without_an_owner_is_swept() {
        let kept = Folder::create().unwrap();
        let orphan = std::env::temp_dir().join(format!("{PREFIX}orphan-{}", std::process::id()));
        std::fs::create_dir_all(orphan.join("data")).unwrap();
        File::create(orphan.join("lock")).unwrap();
        let other = Folder::create().unwrap();
        assert!(!orphan.exists());
        assert!(kept.path().exists());
        let path = other.path().to_owned();
        drop(other);
        assert!(!path.exists());
    }
}
