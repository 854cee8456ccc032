//! The client's side of a handshake, without I/O: feed what arrives, send what comes out.
//!
//! ```text
//! xx() -> XxWaiting --bytes--> XxHello --ClientHello--> Session     the token leaves only with the last step
//! ik() -> IkWaiting --bytes--> IkHello ---------------> Session     ClientHello left with the first message
//! ```
//!
//! Every step consumes the state. Between `*Hello` and the session the caller checks the server's certificate against
//! the key of the handshake; dropping the state instead aborts.

use bytes::{Bytes, BytesMut};
use rand::CryptoRng;

use crate::alert::Alert;
use crate::crypto::{Agreed, Ephemeral, Noise, NoiseError};
use crate::frame::{Frame, FrameReader};
use crate::key::{PublicKey, StaticKey};
use crate::preamble::{Pattern, Preamble, Suite};
use crate::session::{Limits, Peer, Receiver, Sender, Session};

/// What feeding bytes led to.
pub enum Step<W, H> {
    /// More bytes are needed.
    Waiting(W),
    /// The server has answered.
    Answered(H),
    /// The handshake failed; close.
    Failed(ClientError),
}

/// Why a client's handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server sent an alert instead. It is not authenticated: see [`ClientError::use_xx`] and [`Alert`].
    #[error("the server refused the handshake: {0:?}")]
    Alert(Alert),
    /// The server's message does not authenticate: it does not hold the key we know, or somebody is in between.
    #[error("the server's handshake message did not authenticate")]
    Decrypt,
    /// A shared secret is all zero: the server's key, or the one it sent, is of low order.
    #[error("the server's key is of low order")]
    LowOrder,
    /// Not the message that is due.
    #[error("not the handshake message that is due")]
    Malformed,
    /// The ClientHello does not fit into its message.
    #[error("the client hello is too long")]
    HelloTooLong,
}

impl ClientError {
    /// Whether to connect again with XX at once: the server says that it has another key than ours. XX then proves
    /// by certificate which key it has.
    pub const fn use_xx(&self) -> bool {
        matches!(self, Self::Alert(Alert::UseXx))
    }
}

/// Starts XX. The first bytes for the wire are appended to `out`.
///
/// # Errors
/// None that a server can cause.
pub fn xx(
    key: &StaticKey,
    suite: Suite,
    limits: Limits,
    rng: &mut (impl CryptoRng + ?Sized),
    out: &mut BytesMut,
) -> Result<XxWaiting, ClientError> {
    let preamble = Preamble { pattern: Pattern::Xx, suite }.encode();
    let agreed = Agreed { pattern: Pattern::Xx, suite, prologue: &preamble };
    out.extend_from_slice(&preamble);
    start(key, None, &agreed, &[], limits, rng, out).map(XxWaiting)
}

/// Starts IK with a server whose static key is known; `client_hello` leaves with the first message, which whoever
/// records it can replay. The first bytes for the wire are appended to `out`.
///
/// # Errors
/// [`ClientError::LowOrder`] for a key that is nobody's, [`ClientError::HelloTooLong`].
pub fn ik(
    key: &StaticKey,
    server_key: &PublicKey,
    suite: Suite,
    client_hello: &[u8],
    limits: Limits,
    rng: &mut (impl CryptoRng + ?Sized),
    out: &mut BytesMut,
) -> Result<IkWaiting, ClientError> {
    let preamble = Preamble { pattern: Pattern::Ik, suite }.encode();
    let agreed = Agreed { pattern: Pattern::Ik, suite, prologue: &preamble };
    let mut opening = BytesMut::from(&preamble[..]);
    let waiting = start(key, Some(server_key), &agreed, client_hello, limits, rng, &mut opening)?;
    out.extend_from_slice(&opening);
    Ok(IkWaiting(waiting))
}

/// XX: waits for the server's message.
pub struct XxWaiting(Waiting);

/// IK: waits for the server's message.
pub struct IkWaiting(Waiting);

/// XX: has the server's message. Check its certificate, then [`XxHello::finish`]; or drop this to abort, and the
/// client has told nothing about itself.
pub struct XxHello(Hello);

/// IK: has the server's message. Check its certificate, then [`IkHello::finish`]; or drop this to abort.
pub struct IkHello(Hello);

impl XxWaiting {
    /// Takes bytes as they arrive, in pieces of any size.
    pub fn feed(self, bytes: &[u8]) -> Step<Self, XxHello> {
        self.0.feed(bytes, XxWaiting, XxHello)
    }
}

impl IkWaiting {
    /// Takes bytes as they arrive, in pieces of any size.
    pub fn feed(self, bytes: &[u8]) -> Step<Self, IkHello> {
        self.0.feed(bytes, IkWaiting, IkHello)
    }
}

impl XxHello {
    /// The server's static key, which its certificate must name.
    pub const fn server_key(&self) -> &PublicKey {
        &self.0.server_key
    }

    /// The server's payload.
    pub const fn server_hello(&self) -> &Bytes {
        &self.0.server_hello
    }

    /// Ends the handshake: the client's message with this payload is appended to `out`.
    ///
    /// # Errors
    /// [`ClientError::HelloTooLong`].
    pub fn finish(mut self, client_hello: &[u8], out: &mut BytesMut) -> Result<Session, ClientError> {
        self.0.noise.write(client_hello, out)?;
        self.0.into_session()
    }
}

impl IkHello {
    /// The server's static key, which its certificate must name: the one that the handshake began with.
    pub const fn server_key(&self) -> &PublicKey {
        &self.0.server_key
    }

    /// The server's payload.
    pub const fn server_hello(&self) -> &Bytes {
        &self.0.server_hello
    }

    /// Ends the handshake: the empty record that shows the server that this is no replay is appended to `out`.
    ///
    /// # Errors
    /// None that a server can cause.
    pub fn finish(self, out: &mut BytesMut) -> Result<Session, ClientError> {
        let mut session = self.0.into_session()?;
        session.sender.queue(&[]).and_then(|()| session.sender.seal()).map_err(|_| ClientError::Malformed)?;
        out.extend_from_slice(&session.sender.sealed().split());
        Ok(session)
    }
}

struct Waiting {
    frames: FrameReader,
    limits: Limits,
    noise: Noise,
}

struct Hello {
    frames: FrameReader,
    limits: Limits,
    noise: Noise,
    server_key: PublicKey,
    server_hello: Bytes,
}

fn start(
    key: &StaticKey,
    server_key: Option<&PublicKey>,
    agreed: &Agreed<'_>,
    payload: &[u8],
    limits: Limits,
    rng: &mut (impl CryptoRng + ?Sized),
    out: &mut BytesMut,
) -> Result<Waiting, ClientError> {
    let mut noise = Noise::initiator(agreed, key, server_key, Ephemeral::draw(rng))?;
    noise.write(payload, out)?;
    Ok(Waiting { frames: FrameReader::default(), limits, noise })
}

impl Waiting {
    fn feed<W, H>(mut self, bytes: &[u8], wait: fn(Self) -> W, answered: fn(Hello) -> H) -> Step<W, H> {
        self.frames.feed(bytes);
        match self.frames.next() {
            None => Step::Waiting(wait(self)),
            Some(Frame::Alert(alert)) => Step::Failed(ClientError::Alert(alert)),
            Some(Frame::Message(message)) => match self.read(&message) {
                Ok(hello) => Step::Answered(answered(hello)),
                Err(error) => Step::Failed(error),
            },
        }
    }

    fn read(mut self, message: &[u8]) -> Result<Hello, ClientError> {
        let server_hello = self.noise.read(message)?.into();
        let server_key = self.noise.remote_static()?;
        Ok(Hello { frames: self.frames, limits: self.limits, noise: self.noise, server_key, server_hello })
    }
}

impl Hello {
    fn into_session(self) -> Result<Session, ClientError> {
        let keys = self.noise.into_keys()?;
        let receiver = Receiver::new(keys.theirs, self.frames, self.limits, Peer::Live);
        Ok(Session { sender: Sender::new(keys.ours, self.limits), receiver })
    }
}

impl From<NoiseError> for ClientError {
    fn from(error: NoiseError) -> Self {
        match error {
            NoiseError::Decrypt => Self::Decrypt,
            NoiseError::LowOrder => Self::LowOrder,
            NoiseError::PayloadTooLong => Self::HelloTooLong,
            NoiseError::Malformed | NoiseError::Exhausted | NoiseError::Internal => Self::Malformed,
        }
    }
}

/// What the tests of published vectors need: any prologue, and a payload in the first message of XX.
#[cfg(test)]
pub(crate) fn for_vector(
    key: &StaticKey,
    agreed: &Agreed<'_>,
    server_key: Option<&PublicKey>,
    payload: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
    out: &mut BytesMut,
) -> Result<XxWaiting, ClientError> {
    start(key, server_key, agreed, payload, Limits::client(), rng, out).map(XxWaiting)
}

#[cfg(test)]
impl XxHello {
    /// Ends an IK vector without the empty record, which is not among its messages.
    pub(crate) fn finish_ik_vector(self) -> Result<Session, ClientError> {
        self.0.into_session()
    }
}
