//! Errors of the key-directory. Outcomes that a caller handles are values in the answers; these are failures.

use std::path::PathBuf;

use causeway_fetch::FetchError;
use causeway_postgres::PostgresError;
use causeway_runtime::config::ConfigError;
use causeway_runtime::secret_file::SecretFileError;
use tonic::Status;

use crate::providers::BadSetting;
use crate::store::{OpenError, StoreError};
use crate::token_keys::KeysError;

/// Why the directory cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A setting out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// PostgreSQL cannot be used.
    #[error("the directory's database: {0}")]
    Postgres(#[from] PostgresError),
    /// The database was made from a backup.
    #[error(
        "the directory's database was restored from a backup, or moved: run `causeway after-restore` once, so that nothing is \
         given out twice (docs/backups.md)"
    )]
    PutBack,
    /// Redis cannot be used with these settings.
    #[error("the directory's Redis: {0}")]
    Redis(#[from] causeway_redis::OpenError),
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Fetch(#[from] FetchError),
    /// The file with the operator token cannot be read or made.
    #[error("operator token: {0}")]
    OperatorTokenFile(#[from] SecretFileError),
    /// What the file holds is no token.
    #[error("operator token: {0} must hold 32 to 512 printable ASCII characters: remove it to get a new one")]
    OperatorToken(PathBuf),
    /// The store gave up while serving.
    #[error("the store is gone")]
    StoreLost,
}

/// Why a call could not be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The caller sent what no caller should: names the field.
    #[error("{0}")]
    Field(#[from] BadField),
    /// A setting of a provider is not acceptable; for the operator.
    #[error("{0}")]
    Setting(#[from] BadSetting),
    /// The provider's documents cannot be used; for the operator.
    #[error("{0}")]
    Keys(#[from] KeysError),
    /// Nobody has this name; for the operator.
    #[error("{0}")]
    NotFound(String),
    /// Somebody has this name already; for the operator.
    #[error("{0}")]
    Exists(String),
    /// There is no more room; for the operator.
    #[error("{0}")]
    Full(String),
    /// The store could not answer.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// It took too long.
    #[error("the directory took too long")]
    Overdue,
    /// A task of ours failed.
    #[error("the directory failed")]
    Task,
}

/// A field of a request that is not what the contract says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct BadField {
    field: &'static str,
    problem: String,
}

impl BadField {
    pub(crate) fn new(field: &'static str, problem: &(impl ToString + ?Sized)) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

impl CallError {
    /// True if the caller is not at fault.
    pub(crate) const fn is_ours(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Overdue | Self::Task)
    }

    /// Stable: log field and metric label.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Field(_) => "BAD_FIELD",
            Self::Setting(_) => "BAD_SETTING",
            Self::Keys(_) => "PROVIDER_KEYS",
            Self::NotFound(_) => "NOT_FOUND",
            Self::Exists(_) => "EXISTS",
            Self::Full(_) => "FULL",
            Self::Store(StoreError::Overloaded) => "STORE_OVERLOADED",
            Self::Store(StoreError::Away(_)) => "STORE_AWAY",
            Self::Store(_) => "STORE_FAILED",
            Self::Overdue => "OVERDUE",
            Self::Task => "TASK_FAILED",
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let text = error.to_string();
        match error {
            CallError::Field(_) | CallError::Setting(_) => Self::invalid_argument(text),
            CallError::Keys(_) => Self::failed_precondition(text),
            CallError::NotFound(_) => Self::not_found(text),
            CallError::Exists(_) => Self::already_exists(text),
            CallError::Full(_) => Self::resource_exhausted(text),
            CallError::Store(StoreError::Corrupt(_)) | CallError::Task => Self::internal(text),
            CallError::Store(_) => Self::unavailable(text),
            CallError::Overdue => Self::deadline_exceeded(text),
        }
    }
}
