//! Messages on their way out.

use bytes::Bytes;
use causeway_identity::{Address, DeviceId, MessageId};
use causeway_stanza::{EncType, MessageClass};

use super::SignalAddress;
use crate::event::SendResult;

/// A message from the moment `send` takes it until it is forgotten.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Place in the order of sending; rises from 1 and is never used again.
    pub seq: u64,
    /// The stanza's id; every attempt has the same.
    pub id: MessageId,
    /// To whom.
    pub to: Address,
    /// How.
    pub class: MessageClass,
    /// What for.
    pub purpose: Purpose,
    /// Serialised content before padding; for a retry request, what goes out as it is.
    pub content: Vec<u8>,
    /// Ciphertexts made so far. They are kept over attempts, because the session has moved on with each.
    pub sealed: Vec<SealedFor>,
    /// How often the list of devices was mended.
    pub repairs: u32,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// What became of it.
    pub result: Option<SendResult>,
    /// Unix milliseconds; 0: not finished.
    pub finished_ms: u64,
}

impl Outgoing {
    /// What the queue needs to know of it.
    pub fn header(&self) -> OutgoingHeader {
        OutgoingHeader {
            seq: self.seq,
            id: self.id,
            to: self.to.clone(),
            class: self.class,
            created_ms: self.created_ms,
            is_message: self.purpose == Purpose::Message,
        }
    }
}

/// Leaves out the content.
impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("seq", &self.seq).field("id", &self.id).finish_non_exhaustive()
    }
}

/// An [`Outgoing`] without its bulk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingHeader {
    /// Place in the order of sending.
    pub seq: u64,
    /// The stanza's id.
    pub id: MessageId,
    /// To whom.
    pub to: Address,
    /// How.
    pub class: MessageClass,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// The application sent it and hears of its outcome.
    pub is_message: bool,
}

/// What an outgoing message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The application sent it.
    Message,
    /// Tells the user's other devices of a sent message.
    Sync,
    /// Asks a sender to send again.
    RetryRequest,
    /// Repeats a message for one device; the others are addressed with nothing.
    Resend {
        /// The device that could not read it.
        device: SignalAddress,
        /// The identity key that the message was encrypted for; if it has changed, nothing is sent.
        identity: Vec<u8>,
        /// The message that it could not read first.
        original: MessageId,
        /// All stanzas that carried it so far.
        instead_of: Vec<MessageId>,
    },
}

/// A ciphertext for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedFor {
    /// The device.
    pub device: DeviceId,
    /// Its registration id when this was made.
    pub registration_id: u32,
    /// Its identity key when this was made, 33 bytes; empty when nothing was encrypted.
    pub identity: Vec<u8>,
    /// What kind of ciphertext.
    pub kind: EncType,
    /// The ciphertext.
    pub ciphertext: Bytes,
}
