//! What can keep a routing from starting or running.

use std::path::PathBuf;

use causeway_runtime::config::ConfigError;

/// Why a routing cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder of the mailbox cannot be used.
    #[error("mailbox folder {}: {source}; make it a folder that this user can write to", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the mailbox open.
    #[error("mailbox folder {} is in use by another process; stop it, or set another routing.data_dir", .0.display())]
    InUse(PathBuf),
    /// The mailbox file is not one, is damaged, or was written by a newer version.
    #[error("mailbox {}: {reason}", path.display())]
    Mailbox {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The database of the mailbox cannot be used.
    #[error("mailbox: {0}")]
    Database(#[from] causeway_postgres::PostgresError),
    /// Redis cannot be set up.
    #[error("routing.redis: {0}")]
    Redis(#[from] causeway_redis::OpenError),
    /// A part that should run as long as the service has ended; the log says why.
    #[error("a part of routing has ended by itself")]
    Background,
    /// The client for providers' webhooks could not be made.
    #[error("webhook client: {0}")]
    Fetch(String),
}
