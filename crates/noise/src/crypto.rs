//! The one place that names snow: building and stepping its handshake, with primitives of aws-lc-rs and our randomness.

mod agreement;
mod cipher;
mod hash;
mod resolver;

pub(crate) use agreement::KeyPair;
pub(crate) use cipher::Key;
pub(crate) use resolver::{Ephemeral, Resolver};

use std::sync::Arc;

use bytes::BytesMut;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::frame::{self, MAX_MESSAGE};
use crate::key::{PublicKey, StaticKey};
use crate::preamble::{Pattern, Suite, noise_name};

/// Why a Noise message could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoiseError {
    /// Authentication failed: tampered with, or made for other keys.
    Decrypt,
    /// A shared secret is all zero: the peer sent a point of low order.
    LowOrder,
    /// Too short to be the message that is due.
    Malformed,
    /// The payload does not fit into a Noise message.
    PayloadTooLong,
    /// 2^64-1 messages have passed.
    Exhausted,
    /// The library was used out of order; cannot be reached from outside.
    Internal,
}

/// The keys of an established session.
pub(crate) struct Keys {
    /// For what we send.
    pub(crate) ours: Key,
    /// For what the peer sends.
    pub(crate) theirs: Key,
}

/// A handshake under way.
pub(crate) struct Noise {
    state: Box<HandshakeState>,
    suite: Suite,
}

/// What both sides of a handshake agree on beforehand.
pub(crate) struct Agreed<'a> {
    pub(crate) pattern: Pattern,
    pub(crate) suite: Suite,
    pub(crate) prologue: &'a [u8],
}

impl Noise {
    pub(crate) fn initiator(
        agreed: &Agreed<'_>,
        key: &StaticKey,
        server_key: Option<&PublicKey>,
        ephemeral: Ephemeral,
    ) -> Result<Self, NoiseError> {
        let mut builder = builder(agreed, key, ephemeral)?;
        if let Some(server_key) = server_key {
            builder = builder.remote_public_key(server_key).map_err(|_| NoiseError::Internal)?;
        }
        let state = builder.build_initiator().map_err(|_| NoiseError::Internal)?;
        Ok(Self { state: Box::new(state), suite: agreed.suite })
    }

    pub(crate) fn responder(agreed: &Agreed<'_>, key: &StaticKey, ephemeral: Ephemeral) -> Result<Self, NoiseError> {
        let state = builder(agreed, key, ephemeral)?.build_responder().map_err(|_| NoiseError::Internal)?;
        Ok(Self { state: Box::new(state), suite: agreed.suite })
    }

    /// The payload of the peer's next handshake message.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut payload = vec![0; message.len()];
        let len = self.state.read_message(message, &mut payload).map_err(NoiseError::from)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// Appends our next handshake message to `out` as a frame.
    pub(crate) fn write(&mut self, payload: &[u8], out: &mut BytesMut) -> Result<(), NoiseError> {
        if payload.len() > MAX_HANDSHAKE_PAYLOAD {
            return Err(NoiseError::PayloadTooLong);
        }
        let mut message = vec![0; payload.len() + HANDSHAKE_OVERHEAD];
        let len = self.state.write_message(payload, &mut message).map_err(NoiseError::from)?;
        frame::write(out, &message[..len]).map_err(|_| NoiseError::Internal)
    }

    /// The peer's static key, once a message has told it.
    pub(crate) fn remote_static(&self) -> Result<PublicKey, NoiseError> {
        self.state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(NoiseError::Internal)
    }

    /// The session's keys, after the last message. They are taken out of the library, which would keep the schedules of both
    /// for as long as the session is.
    pub(crate) fn into_keys(mut self) -> Result<Keys, NoiseError> {
        if !self.state.is_handshake_finished() {
            return Err(NoiseError::Internal);
        }
        let (initiators, responders) = self.state.dangerously_get_raw_split();
        let key = |bytes| Key::new(self.suite, Zeroizing::new(bytes));
        let (initiators, responders) = (key(initiators), key(responders));
        Ok(if self.state.is_initiator() {
            Keys { ours: initiators, theirs: responders }
        } else {
            Keys { ours: responders, theirs: initiators }
        })
    }
}

/// Bytes that authentication adds to a Noise message.
pub(crate) const TAG: usize = 16;

/// What a handshake message adds to its payload at most: an ephemeral key, an encrypted static key, a tag.
const HANDSHAKE_OVERHEAD: usize = 32 + 32 + TAG + TAG;

/// Largest payload that fits into any of the handshake messages.
pub(crate) const MAX_HANDSHAKE_PAYLOAD: usize = MAX_MESSAGE - HANDSHAKE_OVERHEAD;

fn builder<'a>(agreed: &Agreed<'a>, key: &'a StaticKey, ephemeral: Ephemeral) -> Result<Builder<'a>, NoiseError> {
    let params = noise_name(agreed.pattern, agreed.suite).parse().map_err(|_| NoiseError::Internal)?;
    Builder::with_resolver(params, Box::new(Resolver::new(Arc::clone(key.pair()), ephemeral)))
        .local_private_key(&key.pair().private()[..])
        .and_then(|builder| builder.prologue(agreed.prologue))
        .map_err(|_| NoiseError::Internal)
}

impl From<snow::Error> for NoiseError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Decrypt => Self::Decrypt,
            snow::Error::Dh => Self::LowOrder,
            snow::Error::Input => Self::Malformed,
            snow::Error::State(snow::error::StateProblem::Exhausted) => Self::Exhausted,
            _ => Self::Internal,
        }
    }
}
