//! What clients and one kind of server say to each other: Causeway's clients and those of a server to compare with are moved by
//! the same threads and players.

use std::net::SocketAddr;

use bytes::BytesMut;

use super::link::Ended;
use crate::wire::mark::Mark;

/// How a client shakes hands, where there is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// As at the first time.
    Xx,
    /// As one that knows the server's key; XX if none is known.
    Ik,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its recipient has acknowledged it.
    Delivered,
    /// The server answers for it.
    Stored,
    /// Neither.
    Refused,
}

/// What a server says.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen<O> {
    /// The session is open.
    Opened {
        /// Messages that wait for this client, if the server tells.
        waiting: Option<u64>,
    },
    /// A message for this client.
    Delivery(Mark),
    /// What became of one that it has sent.
    Outcome(Mark, Fate),
    /// Anything else.
    Other(O),
}

/// One client's side of a connection: bytes that came are fed to it, what they say is asked for, and what is to be written
/// waits in it.
pub(crate) trait Wire: Sized + 'static {
    /// What all clients of a thread know of the server.
    type Net: Clone + Send + 'static;
    /// What one logs in with.
    type Login: Clone + Send + 'static;
    /// A message that is encoded once and sent many times.
    type Message: Clone + Send + 'static;
    /// What only this kind of server says.
    type Other;

    /// Where to connect.
    fn server(login: &Self::Login) -> SocketAddr;

    /// A connection that is being made.
    fn begin(net: &Self::Net, login: &Self::Login, pattern: Pattern) -> Result<Self, Ended>;

    /// Takes bytes that came.
    fn feed(&mut self, net: &mut Self::Net, login: &Self::Login, bytes: &[u8]) -> Result<(), Ended>;

    /// The next of what they say; `None` until more bytes come.
    fn next(&mut self) -> Result<Option<Seen<Self::Other>>, Ended>;

    /// Queues a message; false if it cannot be taken now.
    fn submit(&mut self, message: &mut Self::Message, mark: Mark) -> Result<bool, Ended>;

    /// Queues the acknowledgement of all deliveries that were seen, unless each was acknowledged as it was seen.
    fn acknowledge(&mut self) -> Result<(), Ended>;

    /// Queues a goodbye; the server then closes.
    fn leave(&mut self) -> Result<(), Ended>;

    /// What is to be written now.
    fn waiting(&mut self) -> Result<&mut BytesMut, Ended>;
}
