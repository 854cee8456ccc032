//! Why an edge cannot be built. What happens to single clients is no error of the edge.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use causeway_identity::{NoiseKeyError, certificate::CertificateError};
use causeway_redis::OpenError;
use causeway_runtime::config::ConfigError;
use causeway_runtime::secret_file::SecretFileError;

/// Why an edge cannot be built; names what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Redis cannot be set up.
    #[error("edge.redis: {0}")]
    Redis(#[from] OpenError),
    /// The file of the static key cannot be used.
    #[error("edge.noise_key_file: {0}")]
    KeyFile(#[from] SecretFileError),
    /// The certificate's file cannot be read.
    #[error("edge.certificate_file: cannot read {path}: {source}; give the path of a readable file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of the static key holds something else.
    #[error("edge.noise_key_file: {path} must hold one line of 64 lower-case hex digits, the X25519 private key")]
    KeyForm {
        /// The file.
        path: PathBuf,
    },
    /// The static key's public half is not fit to be a name.
    #[error("edge.noise_key_file: {path}: {source}; make a new key and certificate")]
    KeyUnfit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NoiseKeyError,
    },
    /// The certificate does not fit the key, the deployment or the time.
    #[error(
        "edge.certificate_file: {path}: {source}; have the root key sign a certificate for this deployment and key"
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Which check failed.
        source: CertificateError,
    },
    /// An address cannot be listened on.
    #[error(
        "{field}: cannot listen on {address}: {source}; is another process there, or is the address not this machine's?"
    )]
    Bind {
        /// The setting.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}
