//! What can go wrong.

use causeway_runtime::secret_file::SecretFileError;

/// Why Redis could not be set up: a setting or a file is wrong. That nobody answers is none of these.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is outside of its range.
    #[error(transparent)]
    Config(#[from] causeway_runtime::config::ConfigError),
    /// The password cannot be read.
    #[error(transparent)]
    Password(#[from] SecretFileError),
    /// The password is no text.
    #[error("the password in redis.password_file is no UTF-8 text: write it as one line")]
    PasswordText,
    /// The file with the trusted certificates cannot be read.
    #[error("redis.ca_file cannot be read ({0}): give the path of a PEM file")]
    CaFile(std::io::Error),
    /// The client does not take the settings.
    #[error("the settings of redis cannot be used ({0})")]
    Settings(String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// It was not sent: Redis is away, or too much is under way. Nothing happened.
    #[error("redis is not there")]
    Away,
    /// It was sent, but no answer came in time: it may have happened, or happen still.
    #[error("redis did not answer")]
    Unknown,
    /// Redis answered that it does not do it. Nothing happened.
    #[error("redis refused: {0}")]
    Refused(String),
    /// The answer is of another shape than expected: it happened.
    #[error("redis answered something else than expected")]
    Shape,
}
