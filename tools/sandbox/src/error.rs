//! What can go wrong, each in one sentence that says how to mend it.

use std::net::SocketAddr;
use std::path::PathBuf;

use causeway_media_relay::MediaError;
use causeway_runtime::secret_file::SecretFileError;

/// Why a stand-in provider cannot start or do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Reachable for others.
    #[error("{0} is no loopback address: the sandbox hands out tokens without a password, so give 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The port is taken or not allowed.
    #[error("cannot listen on {address} ({source}): stop what listens there, or give another port, 0 for any")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder cannot be used.
    #[error("the folder {path} cannot be used ({source}): make it writable for this user, or give another with --data")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file with a secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// A file holds no signing key.
    #[error("{0} is no signing key of the sandbox: remove it, and a new one is made")]
    Key(PathBuf),
    /// The webhook secret is not one.
    #[error("{0} holds no webhook secret (whsec_ and base64): remove it, and a new one is made")]
    WebhookSecret(PathBuf),
    /// The cryptographic library refused to make or use a key; not expected.
    #[error("a signing key could not be made or used")]
    Crypto,
    /// Not a user that an address can name.
    #[error("user: must be 1 to 128 bytes without @, / and invisible characters")]
    User,
    /// Not a Noise key.
    #[error("noise_key: must be base64url without padding of a 32-byte X25519 public key")]
    NoiseKey,
    /// Not a lifetime.
    #[error("ttl_s: must be between 1 and 86400")]
    Lifetime,
    /// The media host cannot start.
    #[error(transparent)]
    Media(#[from] MediaError),
}
