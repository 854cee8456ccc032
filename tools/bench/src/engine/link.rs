//! One client's connection.

use causeway_stanza::End;
use mio::net::TcpStream;

use super::wire::Wire;

/// Why a session or an attempt is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The server closed, as it does after a goodbye.
    Closed,
    /// The server takes no more now.
    Busy {
        /// Seconds until the next attempt.
        retry_after_s: u16,
    },
    /// The server has ended the session.
    Told(End),
    /// The login was refused.
    Refused(String),
    /// Something does not work.
    Broken(String),
}

impl Ended {
    /// Something does not work.
    pub(crate) fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken(format!("{error:#}"))
    }
}

/// A connection under way.
pub(crate) struct Link<W: Wire> {
    pub(super) login: W::Login,
    pub(super) stream: Option<TcpStream>,
    pub(super) wire: Option<W>,
    /// Rises with each attempt.
    pub(super) attempt: u32,
    /// When it began to connect.
    pub(super) began: u64,
    /// It is in the list of those that have something to write.
    pub(super) marked: bool,
}

impl<W: Wire> Link<W> {
    pub(super) fn new(login: W::Login) -> Self {
        Self { login, stream: None, wire: None, attempt: 0, began: 0, marked: false }
    }

    /// Forgets all but the login.
    pub(super) fn clear(&mut self) {
        self.stream = None;
        self.wire = None;
    }
}
