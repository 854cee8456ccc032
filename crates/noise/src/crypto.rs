//! The one place that names snow: building and stepping its handshake, with primitives of aws-lc-rs and our randomness.

mod agreement;
mod cipher;
mod hash;
mod resolver;

pub(crate) use agreement::KeyPair;
pub(crate) use resolver::{Ephemeral, Resolver};

use std::sync::Arc;

use bytes::BytesMut;
use snow::{Builder, HandshakeState, StatelessTransportState};

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

/// The keys of an established session, shared by its two directions.
pub(crate) type TransportKeys = Arc<StatelessTransportState>;

/// A handshake under way.
pub(crate) struct Noise(Box<HandshakeState>);

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
        builder.build_initiator().map(|state| Self(Box::new(state))).map_err(|_| NoiseError::Internal)
    }

    pub(crate) fn responder(agreed: &Agreed<'_>, key: &StaticKey, ephemeral: Ephemeral) -> Result<Self, NoiseError> {
        let state = builder(agreed, key, ephemeral)?.build_responder().map_err(|_| NoiseError::Internal)?;
        Ok(Self(Box::new(state)))
    }

    /// The payload of the peer's next handshake message.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut payload = vec![0; message.len()];
        let len = self.0.read_message(message, &mut payload).map_err(NoiseError::from)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// Appends our next handshake message to `out` as a frame.
    pub(crate) fn write(&mut self, payload: &[u8], out: &mut BytesMut) -> Result<(), NoiseError> {
        if payload.len() > MAX_HANDSHAKE_PAYLOAD {
            return Err(NoiseError::PayloadTooLong);
        }
        let mut message = vec![0; payload.len() + HANDSHAKE_OVERHEAD];
        let len = self.0.write_message(payload, &mut message).map_err(NoiseError::from)?;
        frame::write(out, &message[..len]).map_err(|_| NoiseError::Internal)
    }

    /// The peer's static key, once a message has told it.
    pub(crate) fn remote_static(&self) -> Result<PublicKey, NoiseError> {
        self.0.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(NoiseError::Internal)
    }

    /// The session's keys, after the last message.
    pub(crate) fn into_keys(self) -> Result<TransportKeys, NoiseError> {
        self.0.into_stateless_transport_mode().map(Arc::new).map_err(|_| NoiseError::Internal)
    }
}

/// Appends one transport message with this plaintext to `out` as a frame.
pub(crate) fn seal(
    keys: &StatelessTransportState,
    nonce: u64,
    plaintext: &[u8],
    out: &mut BytesMut,
) -> Result<(), NoiseError> {
    let message_len = plaintext.len() + TAG;
    let header = frame::header(message_len).ok_or(NoiseError::PayloadTooLong)?;
    let start = out.len();
    out.reserve(header.len() + message_len);
    out.extend_from_slice(&header);
    out.resize(start + header.len() + message_len, 0);
    let sealed = keys.write_message(nonce, plaintext, &mut out[start + header.len()..]).map_err(NoiseError::from);
    if sealed.is_err() {
        out.truncate(start);
    }
    sealed.map(|_| ())
}

/// Appends the plaintext of one transport message to `out`; on failure `out` is as it was.
pub(crate) fn open(
    keys: &StatelessTransportState,
    nonce: u64,
    message: &[u8],
    out: &mut BytesMut,
) -> Result<(), NoiseError> {
    let plaintext_len = message.len().checked_sub(TAG).ok_or(NoiseError::Malformed)?;
    let start = out.len();
    out.resize(start + plaintext_len, 0);
    let opened = keys.read_message(nonce, message, &mut out[start..]).map_err(NoiseError::from);
    if opened.is_err() {
        out.truncate(start);
    }
    opened.map(|_| ())
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
