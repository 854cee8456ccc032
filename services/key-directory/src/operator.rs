//! The operator token: who has it may register and suspend providers.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::error::DirectoryError;

const RANDOM_BYTES: usize = 32;
const MIN_CHARACTERS: usize = 32;
const MAX_FILE_BYTES: u64 = 1_024;

/// Lets calls through that carry `authorization: Bearer <token>`. Keeps the token's hash alone.
#[derive(Clone)]
pub(crate) struct OperatorGuard {
    expected: Arc<Digest>,
}

impl OperatorGuard {
    /// Reads the token, or makes one in a file that only its owner may read.
    pub(crate) fn open(file: &Path) -> Result<Self, DirectoryError> {
        let wrong = |problem: String| DirectoryError::OperatorToken { file: file.to_owned(), problem };
        let token = match OpenOptions::new().read(true).open(file) {
            Ok(opened) => {
                let mode = opened.metadata().map_err(|e| wrong(format!("cannot be read: {e}")))?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(wrong("can be read by others: chmod 600 it, or remove it to get a new one".to_owned()));
                }
                let mut text = String::new();
                let read = opened.take(MAX_FILE_BYTES).read_to_string(&mut text);
                read.map_err(|e| wrong(format!("cannot be read: {e}")))?;
                text.trim().to_owned()
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(file).map_err(|error| {
                wrong(format!("cannot be made ({error}): make its folder writable, or set another path"))
            })?,
            Err(error) => {
                return Err(wrong(format!("cannot be read ({error}): it must belong to the user that runs this")));
            }
        };
        if token.len() < MIN_CHARACTERS || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(format!(
                "must hold one line of at least {MIN_CHARACTERS} printable ASCII characters: remove it to get a new one"
            )));
        }
        Ok(Self { expected: Arc::new(digest(&SHA256, token.as_bytes())) })
    }

    fn allows(&self, header: &str) -> bool {
        let Some((scheme, token)) = header.split_once(' ') else { return false };
        let given = digest(&SHA256, token.as_bytes());
        scheme.eq_ignore_ascii_case("bearer")
            && verify_slices_are_equal(given.as_ref(), (*self.expected).as_ref()).is_ok()
    }
}

impl Interceptor for OperatorGuard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if header.is_some_and(|header| self.allows(header)) {
            return Ok(request);
        }
        Err(Status::unauthenticated("this call needs the operator token: authorization: Bearer <token>"))
    }
}

fn create(file: &Path) -> std::io::Result<String> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let mut random = [0; RANDOM_BYTES];
    OsRng.try_fill_bytes(&mut random).map_err(std::io::Error::other)?;
    let token = URL_SAFE_NO_PAD.encode(random);
    // Written under another name first, so that a crash leaves no half of a token.
    let unfinished = file.with_extension("new");
    let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    opened.write_all(token.as_bytes())?;
    opened.write_all(b"\n")?;
    opened.sync_all()?;
    std::fs::rename(&unfinished, file)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(header: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(header) = header {
            request.metadata_mut().insert("authorization", header.parse().unwrap());
        }
        request
    }

    #[test]
    fn the_first_start_makes_a_token_that_later_starts_keep() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made/operator-token");
        let mut first = OperatorGuard::open(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        assert_eq!(token.len(), 43);
        let good = format!("Bearer {token}");
        assert!(first.call(request(Some(&good))).is_ok());
        assert!(OperatorGuard::open(&file).unwrap().call(request(Some(&good))).is_ok());

        let cut = &good[..good.len() - 1];
        for wrong in [None, Some(""), Some("Bearer"), Some("Bearer "), Some(cut), Some(&token), Some("Basic x")] {
            let refusal = first.call(request(wrong)).unwrap_err();
            assert_eq!(refusal.code(), tonic::Code::Unauthenticated, "{wrong:?}");
            assert!(!refusal.message().contains(&token));
        }
    }

    #[test]
    fn files_that_leak_or_are_too_short_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator-token");
        drop(OperatorGuard::open(&file).unwrap());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let message = OperatorGuard::open(&file).err().unwrap().to_string();
        assert!(message.contains("operator-token") && message.contains("chmod 600"), "{message}");

        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        for content in ["", "short", &"\u{e9}".repeat(40)] {
            std::fs::write(&file, content).unwrap();
            assert!(OperatorGuard::open(&file).is_err(), "{content:?}");
        }
    }
}
