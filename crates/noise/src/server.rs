//! The server's side of a handshake, without I/O: feed what arrives, send what comes out.
//!
//! ```text
//! Reading --bytes--> Answering --ServerHello--> Reading (XX: third message) --bytes--> Accepted
//!                                          \--> Accepted (IK)
//! any of them --> Refused
//! ```
//!
//! Every step consumes the state, so one that was left cannot be used. At most one handshake message (64 KiB) is ever
//! held.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rand::CryptoRng;

use crate::alert::Alert;
use crate::crypto::{Agreed, Ephemeral, Noise, NoiseError};
use crate::frame::{Frame, FrameReader, MAX_MESSAGE};
use crate::key::{PublicKey, StaticKey};
use crate::preamble::{Pattern, Preamble, PreambleError};
use crate::session::{Limits, Peer, Receiver, Sender, Session};

/// Where a handshake stands.
pub enum Handshake {
    /// More bytes are needed.
    Reading(Reading),
    /// The client's first message is good: the ServerHello is due.
    Answering(Answering),
    /// The handshake is over.
    Accepted(Box<Accepted>),
    /// It failed: send the alert of this error, then close.
    Refused(HandshakeError),
}

/// Waits for the opening or for a message of the client.
pub struct Reading {
    frames: FrameReader,
    limits: Limits,
    stage: Stage,
}

enum Stage {
    Opening { key: Arc<StaticKey>, ephemeral: Ephemeral },
    First(First, Noise),
    Third(Noise),
}

/// Which first message is due.
enum First {
    /// An ephemeral key and nothing else.
    Xx,
    Ik,
    /// Published vectors have a payload here, for which this protocol has no use.
    #[cfg(test)]
    XxWithPayload,
}

/// Has the client's first message and waits for the ServerHello.
pub struct Answering {
    frames: FrameReader,
    limits: Limits,
    noise: Noise,
    asked: Asked,
}

enum Asked {
    Xx,
    Ik { client_key: PublicKey, client_hello: Bytes },
}

/// A client that completed the handshake.
///
/// After XX it is live. After IK all of this may be a replay until [`Receiver::proved`] says otherwise: register,
/// displace and spend nothing before.
pub struct Accepted {
    /// Which handshake it was.
    pub pattern: Pattern,
    /// The client's static key; not checked to be canonical.
    pub client_key: PublicKey,
    /// The client's payload, as it came.
    pub client_hello: Bytes,
    /// The session.
    pub session: Session,
}

/// Why a handshake was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The opening is none of ours.
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    /// The client's key in an IK first message does not open with our static key: made for an earlier key of ours, or
    /// changed on the way. The two cannot be told apart, and the client loses nothing by trying XX, where it checks our
    /// certificate again.
    #[error("the first message was made for another static key")]
    OtherServerKey,
    /// A message does not authenticate.
    #[error("a handshake message did not authenticate")]
    Decrypt,
    /// A shared secret is all zero: the client sent a point of low order.
    #[error("the client sent a point of low order")]
    LowOrder,
    /// A frame is not the message that is due: too short, too long, an alert, or more than one at a time.
    #[error("not the handshake message that is due")]
    Malformed,
    /// The ServerHello does not fit into its message: a fault of the server's own.
    #[error("the server hello is too long")]
    HelloTooLong,
}

impl HandshakeError {
    /// What to tell the client.
    pub const fn alert(&self) -> Alert {
        match self {
            Self::Preamble(_) => Alert::Version,
            Self::OtherServerKey => Alert::UseXx,
            Self::Decrypt | Self::LowOrder | Self::Malformed | Self::HelloTooLong => Alert::Handshake,
        }
    }
}

impl Reading {
    /// Begins with a connection of which nothing was read.
    pub fn new(key: &Arc<StaticKey>, limits: Limits, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let stage = Stage::Opening { key: Arc::clone(key), ephemeral: Ephemeral::draw(rng) };
        Self { frames: FrameReader::default(), limits, stage }
    }

    /// Takes bytes as they arrive, in pieces of any size.
    pub fn feed(mut self, bytes: &[u8]) -> Handshake {
        self.frames.feed(bytes);
        self.advance().unwrap_or_else(Handshake::Refused)
    }

    fn advance(self) -> Result<Handshake, HandshakeError> {
        match self.stage {
            Stage::Opening { key, ephemeral } => opening(self.frames, self.limits, key, ephemeral),
            Stage::First(due, noise) => first(self.frames, self.limits, due, noise),
            Stage::Third(noise) => third(self.frames, self.limits, noise),
        }
    }
}

impl Answering {
    /// The client's payload, if it came with the first message (IK). Whoever sends it may be replaying it.
    pub const fn client_hello(&self) -> Option<&Bytes> {
        match &self.asked {
            Asked::Xx => None,
            Asked::Ik { client_hello, .. } => Some(client_hello),
        }
    }

    /// Appends the server's message with this payload to `out`.
    pub fn answer(self, server_hello: &[u8], out: &mut BytesMut) -> Handshake {
        self.try_answer(server_hello, out).unwrap_or_else(Handshake::Refused)
    }

    fn try_answer(mut self, server_hello: &[u8], out: &mut BytesMut) -> Result<Handshake, HandshakeError> {
        self.noise.write(server_hello, out)?;
        match self.asked {
            // The third message cannot have been made yet, so what has arrived is looked at with what comes next.
            Asked::Xx => third(self.frames, self.limits, self.noise),
            Asked::Ik { client_key, client_hello } => {
                let keys = self.noise.into_keys()?;
                let receiver = Receiver::new(keys.theirs, self.frames, self.limits, Peer::Replayable);
                let session = Session { sender: Sender::new(keys.ours, self.limits), receiver };
                let accepted = Accepted { pattern: Pattern::Ik, client_key, client_hello, session };
                Ok(Handshake::Accepted(Box::new(accepted)))
            }
        }
    }
}

fn opening(
    mut frames: FrameReader,
    limits: Limits,
    key: Arc<StaticKey>,
    ephemeral: Ephemeral,
) -> Result<Handshake, HandshakeError> {
    let arrived = frames.buffer();
    let front = &arrived[..arrived.len().min(Preamble::LEN)];
    let Some(preamble) = Preamble::decode(front)? else {
        return Ok(Handshake::Reading(Reading { frames, limits, stage: Stage::Opening { key, ephemeral } }));
    };
    let prologue = arrived.split_to(Preamble::LEN);
    let agreed = Agreed { pattern: preamble.pattern, suite: preamble.suite, prologue: &prologue };
    let noise = Noise::responder(&agreed, &key, ephemeral)?;
    let due = match preamble.pattern {
        Pattern::Xx => First::Xx,
        Pattern::Ik => First::Ik,
    };
    first(frames, limits, due, noise)
}

fn first(mut frames: FrameReader, limits: Limits, due: First, mut noise: Noise) -> Result<Handshake, HandshakeError> {
    // An XX message without payload is exactly a key, so anything else is refused before it is even received.
    if matches!(due, First::Xx) && frames.announced().is_some_and(|announced| announced != XX_FIRST) {
        return Err(HandshakeError::Malformed);
    }
    let Some(message) = next_message(&mut frames)? else {
        return Ok(Handshake::Reading(Reading { frames, limits, stage: Stage::First(due, noise) }));
    };
    let asked = match due {
        First::Xx => noise.read(&message).map(|_| Asked::Xx)?,
        #[cfg(test)]
        First::XxWithPayload => noise.read(&message).map(|_| Asked::Xx)?,
        First::Ik => {
            let client_hello = noise.read(&message).map_err(|error| match (error, noise.remote_static()) {
                // Not even the client's key, the first thing that is encrypted, could be read.
                (NoiseError::Decrypt, Err(_)) => HandshakeError::OtherServerKey,
                (other, _) => other.into(),
            })?;
            Asked::Ik { client_key: noise.remote_static()?, client_hello: client_hello.into() }
        }
    };
    Ok(Handshake::Answering(Answering { frames, limits, noise, asked }))
}

fn third(mut frames: FrameReader, limits: Limits, mut noise: Noise) -> Result<Handshake, HandshakeError> {
    let Some(message) = next_message(&mut frames)? else {
        return Ok(Handshake::Reading(Reading { frames, limits, stage: Stage::Third(noise) }));
    };
    let client_hello = noise.read(&message)?.into();
    let client_key = noise.remote_static()?;
    let keys = noise.into_keys()?;
    let receiver = Receiver::new(keys.theirs, frames, limits, Peer::Live);
    let session = Session { sender: Sender::new(keys.ours, limits), receiver };
    Ok(Handshake::Accepted(Box::new(Accepted { pattern: Pattern::Xx, client_key, client_hello, session })))
}

/// The message at the front, if it is complete.
fn next_message(frames: &mut FrameReader) -> Result<Option<BytesMut>, HandshakeError> {
    if frames.announced() == Some(0) {
        return Err(HandshakeError::Malformed); // only servers send alerts
    }
    let message = match frames.next() {
        Some(Frame::Message(message)) => Some(message),
        Some(Frame::Alert(_)) => return Err(HandshakeError::Malformed),
        None => None,
    };
    if frames.buffered() > MAX_BUFFERED {
        return Err(HandshakeError::Malformed);
    }
    Ok(message)
}

impl From<NoiseError> for HandshakeError {
    fn from(error: NoiseError) -> Self {
        match error {
            NoiseError::Decrypt => Self::Decrypt,
            NoiseError::LowOrder => Self::LowOrder,
            NoiseError::PayloadTooLong => Self::HelloTooLong,
            NoiseError::Malformed | NoiseError::Exhausted | NoiseError::Internal => Self::Malformed,
        }
    }
}

#[cfg(test)]
impl Reading {
    /// Continues after an opening, with the prologue of a published vector.
    pub(crate) fn for_vector(key: &StaticKey, agreed: &Agreed<'_>, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let noise = Noise::responder(agreed, key, Ephemeral::draw(rng)).unwrap();
        let due = match agreed.pattern {
            Pattern::Xx => First::XxWithPayload,
            Pattern::Ik => First::Ik,
        };
        Self { frames: FrameReader::default(), limits: Limits::server(), stage: Stage::First(due, noise) }
    }
}

/// An ephemeral key alone.
const XX_FIRST: usize = 32;

/// Most bytes that may wait before the handshake ends: a frame.
const MAX_BUFFERED: usize = 2 + MAX_MESSAGE;
