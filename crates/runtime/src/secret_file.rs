//! Files with secrets: readable by their owner only, written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A secret is at most this many bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a secret file cannot be used; names the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// Not there or not readable.
    #[error("secret file {path} cannot be read ({source}): make it, or correct the path")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others could read it.
    #[error("secret file {0} can be read by others: chmod 600 it, and consider the secret known")]
    Open(PathBuf),
    /// Larger than any secret.
    #[error("secret file {0} is too large for a secret: correct the path")]
    TooLarge(PathBuf),
    /// It could not be made.
    #[error("secret file {path} cannot be written ({source}): make its folder writable for this user")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Reads a secret of at most 64 KiB from a file that only its owner (and group) may read.
///
/// # Errors
/// [`SecretFileError`].
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(SecretFileError::Open(path.to_owned()));
    }
    let mut secret = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES + 1).read_to_end(&mut secret).map_err(failed)?;
    if secret.len() as u64 > MAX_BYTES {
        return Err(SecretFileError::TooLarge(path.to_owned()));
    }
    Ok(secret)
}

/// Reads the secret, or makes it with `make` when the file is absent: mode 0600, synced, never half written. When two
/// processes make it at once, both get the one that was first.
///
/// # Errors
/// [`SecretFileError`].
pub fn read_or_create(
    path: &Path,
    make: impl FnOnce() -> Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    if !path.exists() {
        create(path, &make())?;
    }
    read(path)
}

/// Makes the file with this content unless it is there already.
///
/// # Errors
/// [`SecretFileError::Write`].
pub fn create(path: &Path, secret: &[u8]) -> Result<(), SecretFileError> {
    let failed = |source| SecretFileError::Write { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
    file.write_all(secret).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    // A link, unlike a rename, never replaces what another process made first.
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft).map_err(failed)?;
    match linked {
        Ok(()) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/token");
        let first = read_or_create(&path, || Zeroizing::new(b"one".to_vec())).unwrap();
        let second = read_or_create(&path, || Zeroizing::new(b"two".to_vec())).unwrap();
        assert_eq!((first.as_slice(), second.as_slice()), (&b"one"[..], &b"one"[..]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("keys")).unwrap().count(), 1, "no draft is left");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read(&path), Err(SecretFileError::Open(_))));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        assert!(read(&absent).unwrap_err().to_string().contains("absent"));
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, "x").unwrap();
        assert!(matches!(create(&blocked.join("key"), b"k"), Err(SecretFileError::Write { .. })));
        let large = folder.path().join("large");
        create(&large, &vec![0; 64 * 1024 + 1]).unwrap();
        assert!(matches!(read(&large), Err(SecretFileError::TooLarge(_))));
    }
}
