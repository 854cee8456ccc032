//! What can go wrong with a call.

use std::time::Duration;

use causeway_identity::MessageId;
use causeway_stanza::ErrorCode;

use crate::config::ConfigError;
use crate::content::WireError;
use crate::event::Ended;
use crate::store::StoreError;

/// Why a call to [`Client`](crate::Client) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration cannot be used.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The local store failed.
    #[error("local store: {0}")]
    Store(#[from] StoreError),
    /// The content cannot be sent.
    #[error("content: {0}")]
    Content(#[from] WireError),
    /// This device is not enlisted: call `enlist` first.
    #[error("this device is not enlisted")]
    NotEnlisted,
    /// So many messages wait to be sent that no more are taken.
    #[error("too many messages wait to be sent")]
    QueueFull,
    /// Too many requests are under way.
    #[error("too many requests are under way")]
    TooManyRequests,
    /// No answer came in time, or there was no connection to ask on.
    #[error("no answer in time")]
    Timeout,
    /// The server did not carry out the request.
    #[error("the server refused: {code}{}", detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Refused {
        /// Why.
        code: ErrorCode,
        /// Come back after this.
        retry_after: Option<Duration>,
        /// For a developer's eyes.
        detail: Option<String>,
    },
    /// The server answered with something that does not fit the request.
    #[error("the server's answer does not fit the request")]
    Protocol,
    /// There is no such message in the outbox, or it is too long ago.
    #[error("no message {0} was sent, or it is too long ago")]
    UnknownMessage(MessageId),
    /// The client has stopped.
    #[error("the client has stopped: {0:?}")]
    Ended(Ended),
}
