//! Why media could not be transferred.

use crate::error::ClientError;

/// Why media could not be transferred. Carries nothing that a server sent but a status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// Larger than the bounds allow.
    #[error("more than {max} bytes")]
    TooLarge {
        /// Largest plaintext in bytes.
        max: u64,
    },
    /// The sizes in the message do not belong together.
    #[error("the message's sizes do not fit each other")]
    Sizes,
    /// The ciphertext is not the one that the sender made: changed, cut, extended or put in another order. What was
    /// written so far is genuine, but not the whole.
    #[error("the ciphertext is not what the sender made")]
    Tampered,
    /// Reading the source, writing the copy or the temporary file failed.
    #[error("local file: {0}")]
    File(#[source] std::io::Error),
    /// The URL of a ticket is neither `https` nor `http` on this machine.
    #[error("the server named an unprotected or broken URL")]
    Url,
    /// No ticket could be had from the operator.
    #[error("no ticket: {0}")]
    Ticket(#[from] ClientError),
    /// The provider's own service gave no ticket.
    #[error("the provider gave no ticket: {0}")]
    Provider(&'static str),
    /// The media server refused and will refuse again.
    #[error("the media server answered with status {0}")]
    Refused(u16),
    /// Too many attempts failed, the last one for this reason.
    #[error("given up: {0}")]
    GivenUp(&'static str),
    /// The whole took too long.
    #[error("the transfer took too long")]
    Timeout,
    /// The HTTPS client could not be set up: are the system's CA certificates installed?
    #[error("the HTTPS client could not be set up: are the system's CA certificates installed?")]
    Setup,
}
