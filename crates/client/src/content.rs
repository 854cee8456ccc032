//! What people say to each other, inside the encryption (docs/protocol.md, section 8).
//!
//! To add a kind: a field in `content.proto`, a variant of [`Body`], and one arm in each of `to_wire` and `from_wire`.
//! Clients that do not know it yet keep it as [`Body::Unknown`].

mod media;
mod padding;
mod wire;

pub use media::{Media, MediaKind};
pub(crate) use padding::{pad, unpad};
pub use wire::WireError;
pub(crate) use wire::{Opened, keep, open, seal, seal_nothing, seal_resent, seal_sync};

use std::fmt;

use causeway_identity::MessageId;
use causeway_stanza::MessageClass;

/// One message's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The message that this one answers.
    pub reply_to: Option<MessageId>,
    /// The content proper.
    pub body: Body,
}

/// The kinds of content.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Text, at most 64 KiB of UTF-8.
    Text(String),
    /// Image, video, voice message or file: where its ciphertext is, and the key to it.
    Media(Box<Media>),
    /// A reaction to an earlier message.
    Reaction {
        /// The message reacted to.
        target: MessageId,
        /// One emoji, at most 64 bytes.
        emoji: String,
        /// Takes the reaction back.
        remove: bool,
    },
    /// New text for an earlier message of the same sender.
    Edit {
        /// The message to change.
        target: MessageId,
        /// The new text, at most 64 KiB.
        body: String,
    },
    /// Deletes an earlier message of the same sender.
    Delete {
        /// The message to delete.
        target: MessageId,
    },
    /// Says what became of earlier messages on this device.
    Receipt {
        /// What happened.
        kind: ReceiptKind,
        /// The messages it happened to, at most 256.
        ids: Vec<MessageId>,
    },
    /// The user is writing, or stopped.
    Typing {
        /// False: stopped.
        started: bool,
    },
    /// Sets the conversation's disappearing timer.
    Timer {
        /// 0: messages stay.
        seconds: u32,
    },
    /// Call signalling, opaque to this library, at most 64 KiB.
    Call(Vec<u8>),
    /// A kind that this version does not know: the whole serialised `causeway.content.v1.Content`, to be kept and shown
    /// as unknown. It cannot be sent.
    Unknown(Vec<u8>),
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptKind {
    /// The device has it.
    Delivered,
    /// The user has read it.
    Read,
    /// The user has played it.
    Played,
}

impl Content {
    /// Plain text.
    pub fn text(body: impl Into<String>) -> Self {
        Self::from(Body::Text(body.into()))
    }

    /// Uploaded media.
    pub fn media(media: Media) -> Self {
        Self::from(Body::Media(Box::new(media)))
    }

    /// The same content as an answer to `id`.
    #[must_use]
    pub fn in_reply_to(self, id: MessageId) -> Self {
        Self { reply_to: Some(id), ..self }
    }

    /// The text, when this is a text.
    pub fn as_text(&self) -> Option<&str> {
        match &self.body {
            Body::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The media, when this is media.
    pub fn as_media(&self) -> Option<&Media> {
        match &self.body {
            Body::Media(media) => Some(media),
            _ => None,
        }
    }

    /// The class that this content is sent with.
    pub fn class(&self) -> MessageClass {
        match self.body {
            Body::Typing { .. } => MessageClass::Ephemeral,
            Body::Call(_) => MessageClass::Call,
            _ => MessageClass::Chat,
        }
    }
}

/// Shows the kind and the size: what people say to each other must not slip into a log.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Media(media) => media.fmt(f),
            Self::Reaction { target, remove, .. } => {
                f.debug_struct("Reaction").field("target", target).field("remove", remove).finish_non_exhaustive()
            }
            Self::Edit { target, body } => write!(f, "Edit({target}, {} bytes)", body.len()),
            Self::Delete { target } => write!(f, "Delete({target})"),
            Self::Receipt { kind, ids } => write!(f, "Receipt({kind:?}, {} messages)", ids.len()),
            Self::Typing { started } => write!(f, "Typing({started})"),
            Self::Timer { seconds } => write!(f, "Timer({seconds} s)"),
            Self::Call(signal) => write!(f, "Call({} bytes)", signal.len()),
            Self::Unknown(raw) => write!(f, "Unknown({} bytes)", raw.len()),
        }
    }
}

impl From<Body> for Content {
    fn from(body: Body) -> Self {
        Self { reply_to: None, body }
    }
}
