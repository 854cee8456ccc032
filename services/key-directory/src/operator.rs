//! The operator token: who has it may register and suspend providers.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_runtime::secret_file;
use rand::rngs::OsRng;
use rand::{RngCore as _, TryRngCore as _};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use zeroize::Zeroizing;

use crate::error::DirectoryError;

const RANDOM_BYTES: usize = 32;
const CHARACTERS: std::ops::RangeInclusive<usize> = 32..=512;

/// Lets calls through that carry `authorization: Bearer <token>`. Keeps the token's hash alone.
#[derive(Clone)]
pub(crate) struct OperatorGuard {
    expected: Arc<Digest>,
}

impl OperatorGuard {
    /// Reads the token, or makes one in a file that only its owner may read.
    pub(crate) fn open(file: &Path) -> Result<Self, DirectoryError> {
        let content = secret_file::read_or_create(file, new_token)?;
        let token = content.trim_ascii();
        if !CHARACTERS.contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
            return Err(DirectoryError::OperatorToken(file.to_owned()));
        }
        Ok(Self { expected: Arc::new(digest(&SHA256, token)) })
    }

    /// True for `Bearer <the operator token>`.
    pub(crate) fn allows(&self, header: &str) -> bool {
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

fn new_token() -> Zeroizing<Vec<u8>> {
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    OsRng.unwrap_err().fill_bytes(&mut *random);
    let mut text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*random).into_bytes());
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
