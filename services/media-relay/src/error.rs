//! What can go wrong, and who is at fault.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use causeway_runtime::secret_file::SecretFileError;

/// Why the service cannot start or go on. Each message names what to mend.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The listener's address cannot be had.
    #[error("media.listen: cannot bind {address}: {source}")]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A folder or file cannot be used.
    #[error("media: cannot use {path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file with the ticket key cannot be used.
    #[error("media.ticket_key_file: {0}")]
    Secret(#[from] SecretFileError),
    /// The ticket key has a wrong length.
    #[error("media.ticket_key_file: {path} is not 32 bytes long: delete it, and a new one is made (open tickets end)")]
    Key {
        /// Which file.
        path: PathBuf,
    },
    /// Redis cannot be set up.
    #[error("media.redis: {0}")]
    Redis(#[from] causeway_redis::OpenError),
    /// The object store answered with an error.
    #[error("media: object store: {0}")]
    Store(#[from] object_store::Error),
    /// The guarded HTTP client cannot be built.
    #[error("media.fetch: {0}")]
    Fetch(#[from] causeway_fetch::FetchError),
    /// The public base is no usable URL.
    #[error("media.public_base: must be an http or https URL without user, query and fragment")]
    PublicBase,
}

/// Why somebody gets no ticket. The caller is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A field of the request is not acceptable.
    #[error("{field}: {problem}")]
    Field {
        /// Its name in `media.proto`.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The ciphertext is larger than this service carries.
    #[error("size: at most {max} bytes")]
    TooLarge {
        /// Largest ciphertext in bytes.
        max: u64,
    },
    /// The account has used up its bytes of the day, or got too many tickets lately.
    #[error("the account's quota is used up")]
    Quota {
        /// When asking again makes sense.
        retry_after: Duration,
    },
}
