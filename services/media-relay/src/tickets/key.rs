//! The file with the ticket key.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rand::TryRngCore as _;
use rand::rngs::OsRng;

use crate::error::MediaError;

/// The key in `path`, made if the file is absent. Two processes that start at once end up with the same key.
pub(super) fn open(path: &Path) -> Result<[u8; 32], MediaError> {
    match fs::read(path) {
        Ok(bytes) => check(path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path).map_err(|source| MediaError::File { path: path.to_owned(), source })?;
            let bytes = fs::read(path).map_err(|source| MediaError::File { path: path.to_owned(), source })?;
            check(path, &bytes)
        }
        Err(source) => Err(MediaError::File { path: path.to_owned(), source }),
    }
}

fn check(path: &Path, bytes: &[u8]) -> Result<[u8; 32], MediaError> {
    let wrong = |problem| MediaError::Key { path: path.to_owned(), problem };
    let metadata = fs::metadata(path).map_err(|source| MediaError::File { path: path.to_owned(), source })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(wrong("may be read by others: set its mode to 0600"));
    }
    bytes.try_into().map_err(|_| wrong("is not 32 bytes long: delete it, and a new one is made (open tickets end)"))
}

/// Writes a whole key beside `path` and links it there, so that nobody ever reads half of one.
fn make(path: &Path) -> io::Result<()> {
    let mut key = [0; 32];
    let mut suffix = [0; 8];
    OsRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
    OsRng.try_fill_bytes(&mut suffix).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", hex::encode(suffix)));
    let draft = Path::new(&name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(&key)?;
    file.sync_all()?;
    let linked = fs::hard_link(draft, path);
    fs::remove_file(draft)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/ticket.key");
        let key = open(&path).unwrap();
        assert_eq!(open(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft stays");

        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("0600"));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"short").unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("32 bytes"));
        assert!(matches!(open(folder.path()), Err(MediaError::File { .. })));
    }
}
