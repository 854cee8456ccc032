//! One client's connection.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use causeway_identity::RootPublicKey;
use causeway_noise::{Alert, PublicKey, Receiver, Sender, StaticKey, client};
use causeway_stanza::End;
use mio::net::TcpStream;

/// The deployment, as its clients know it.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    /// Its name.
    pub(crate) name: String,
    /// The root that clients pin.
    pub(crate) root: RootPublicKey,
    /// The edges' key, once a client has seen its certificate.
    pub(crate) server_key: Option<PublicKey>,
}

/// What a client logs in with.
#[derive(Clone)]
pub(crate) struct Login {
    /// Its edge.
    pub(crate) edge: SocketAddr,
    /// Its key.
    pub(crate) key: Arc<StaticKey>,
    /// Its `ClientHello`, encoded.
    pub(crate) hello: Arc<[u8]>,
}

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

/// A connection under way.
pub(crate) struct Link {
    pub(super) login: Login,
    pub(super) stream: Option<TcpStream>,
    pub(super) handshake: Option<Handshake>,
    pub(super) sender: Option<Sender>,
    pub(super) receiver: Option<Receiver>,
    /// Bytes of the handshake that wait to be written.
    pub(super) out: BytesMut,
    /// Rises with each attempt.
    pub(super) attempt: u32,
    /// When it began to connect.
    pub(super) began: u64,
    /// It is in the list of those that have something to write.
    pub(super) marked: bool,
}

/// A handshake that waits for the server.
pub(super) enum Handshake {
    Xx(client::XxWaiting),
    Ik(client::IkWaiting),
}

impl Link {
    pub(super) fn new(login: Login) -> Self {
        Self {
            login,
            stream: None,
            handshake: None,
            sender: None,
            receiver: None,
            out: BytesMut::new(),
            attempt: 0,
            began: 0,
            marked: false,
        }
    }

    /// Forgets all but the login.
    pub(super) fn clear(&mut self) {
        self.stream = None;
        self.handshake = None;
        self.sender = None;
        self.receiver = None;
        self.out = BytesMut::new();
    }
}

impl From<client::ClientError> for Ended {
    fn from(error: client::ClientError) -> Self {
        match error {
            client::ClientError::Alert(Alert::Overloaded { retry_after_s }) => Self::Busy { retry_after_s },
            other => Self::Broken(other.to_string()),
        }
    }
}
