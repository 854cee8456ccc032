//! Between [`Content`] and `causeway.content.v1`. Everything that comes in is bounded here.

use bytes::Bytes;
use causeway_identity::{Address, MessageId};
use causeway_proto::content::v1 as pb;
use prost::Message;

use super::{Body, Content, Media, MediaKind, ReceiptKind};

/// Longest text, edit, caption or call signal in bytes.
const MAX_TEXT: usize = 64 * 1024;
/// Longest thumbnail in bytes.
const MAX_THUMBNAIL: usize = 16 * 1024;
/// Most message ids in a receipt.
const MAX_RECEIPT_IDS: usize = 256;
/// Longest media URL in bytes.
const MAX_URL: usize = 2048;
/// Longest file name in bytes.
const MAX_NAME: usize = 255;
/// Longest MIME type in bytes.
const MAX_MIME: usize = 128;
/// Longest emoji in bytes.
const MAX_EMOJI: usize = 64;
/// Most stanzas that a repeated message may name.
const MAX_INSTEAD_OF: usize = 4;

/// Why content cannot be sent, or was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not the protobuf message that it should be.
    #[error("not a content message")]
    Malformed,
    /// The id inside is not the id of the stanza.
    #[error("the content is of another message")]
    OtherId,
    /// A field is longer than it may be.
    #[error("{0} is too long")]
    TooLong(&'static str),
    /// A field does not hold what it should.
    #[error("{0} is not acceptable")]
    Field(&'static str),
    /// Unknown content is for showing, not for sending.
    #[error("content of an unknown kind cannot be sent")]
    UnknownKind,
}

/// Content as it was found in a ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opened {
    /// For this device's user.
    Content { id: MessageId, sent_at_ms: u64, content: Content, instead_of: Vec<MessageId> },
    /// From another device of this user: what was sent to whom.
    /// `stanza` is the message that said so, `id` the one that was sent.
    Sync { stanza: MessageId, id: MessageId, to: Address, sent_at_ms: u64, content: Content },
    /// Nothing to learn.
    Nothing,
}

/// The serialised content of message `id`, not padded.
///
/// # Errors
/// What [`open`] would refuse at the other end.
pub(crate) fn seal(id: MessageId, sent_at_ms: u64, content: &Content) -> Result<Vec<u8>, WireError> {
    Ok(to_wire(id, sent_at_ms, content)?.encode_to_vec())
}

/// What the user's own other devices are told of the sealed content `sent` that went to `to`.
pub(crate) fn seal_sync(id: MessageId, now_ms: u64, to: &Address, sent: &[u8]) -> Vec<u8> {
    let sync = pb::Sync { to: to.as_str().to_owned(), content: Bytes::copy_from_slice(sent) };
    envelope(id, now_ms, pb::content::Body::Sync(sync)).encode_to_vec()
}

/// The sealed content `sent` once more, for a device that could not read the stanzas `instead_of`.
pub(crate) fn seal_resent(id: MessageId, now_ms: u64, sent: &[u8], instead_of: &[MessageId]) -> Vec<u8> {
    let resent = pb::Resent {
        content: Bytes::copy_from_slice(sent),
        instead_of: instead_of.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
    };
    envelope(id, now_ms, pb::content::Body::Resent(resent)).encode_to_vec()
}

/// For a device that must be addressed but has nothing to learn.
pub(crate) fn seal_nothing(id: MessageId, now_ms: u64) -> Vec<u8> {
    envelope(id, now_ms, pb::content::Body::Nothing(pb::Nothing {})).encode_to_vec()
}

/// `content` as it is kept in a store; unlike [`seal`] it takes unknown content too. [`open`] reads it.
pub(crate) fn keep(id: MessageId, sent_at_ms: u64, content: &Content) -> Result<Vec<u8>, WireError> {
    match &content.body {
        Body::Unknown(raw) => Ok(raw.clone()),
        _ => seal(id, sent_at_ms, content),
    }
}

/// Reads the content of the stanza `stanza`.
pub(crate) fn open(stanza: MessageId, bytes: &[u8]) -> Result<Opened, WireError> {
    let outer = decode(bytes)?;
    if id(&outer.id)? != stanza {
        return Err(WireError::OtherId);
    }
    match outer.body {
        Some(pb::content::Body::Nothing(_)) => Ok(Opened::Nothing),
        Some(pb::content::Body::Resent(resent)) => {
            if resent.instead_of.len() > MAX_INSTEAD_OF {
                return Err(WireError::TooLong("resent.instead_of"));
            }
            let instead_of = resent.instead_of.iter().map(|bytes| id(bytes)).collect::<Result<_, _>>()?;
            open_inner(decode(&resent.content)?, &resent.content, instead_of)
        }
        _ => open_inner(outer, bytes, Vec::new()),
    }
}

fn open_inner(wire: pb::Content, raw: &[u8], instead_of: Vec<MessageId>) -> Result<Opened, WireError> {
    let (stanza, sent_at_ms) = (id(&wire.id)?, wire.sent_at_ms);
    let Some(pb::content::Body::Sync(sync)) = wire.body else {
        return Ok(Opened::Content { id: stanza, sent_at_ms, content: from_wire(wire, raw)?, instead_of });
    };
    let to = sync.to.parse().map_err(|_| WireError::Field("sync.to"))?;
    let inner = decode(&sync.content)?;
    let (id, sent_at_ms) = (id(&inner.id)?, inner.sent_at_ms);
    Ok(Opened::Sync { stanza, id, to, sent_at_ms, content: from_wire(inner, &sync.content)? })
}

fn decode(bytes: &[u8]) -> Result<pb::Content, WireError> {
    pb::Content::decode(bytes).map_err(|_| WireError::Malformed)
}

fn envelope(id: MessageId, sent_at_ms: u64, body: pb::content::Body) -> pb::Content {
    pb::Content { id: Bytes::copy_from_slice(id.as_bytes()), sent_at_ms, reply_to: None, body: Some(body) }
}

fn id(bytes: &[u8]) -> Result<MessageId, WireError> {
    MessageId::try_from(bytes).map_err(|_| WireError::Field("id"))
}

fn within(field: &'static str, length: usize, longest: usize) -> Result<(), WireError> {
    if length > longest { Err(WireError::TooLong(field)) } else { Ok(()) }
}

fn to_wire(id: MessageId, sent_at_ms: u64, content: &Content) -> Result<pb::Content, WireError> {
    let bytes = |id: &MessageId| Bytes::copy_from_slice(id.as_bytes());
    let body = match &content.body {
        Body::Text(body) => pb::content::Body::Text(pb::Text { body: body.clone() }),
        Body::Media(media) => pb::content::Body::Media(media_to_wire(media)),
        Body::Reaction { target, emoji, remove } => {
            pb::content::Body::Reaction(pb::Reaction { target: bytes(target), emoji: emoji.clone(), remove: *remove })
        }
        Body::Edit { target, body } => pb::content::Body::Edit(pb::Edit { target: bytes(target), body: body.clone() }),
        Body::Delete { target } => pb::content::Body::Delete(pb::Delete { target: bytes(target) }),
        Body::Receipt { kind, ids } => {
            let kind = match kind {
                ReceiptKind::Delivered => pb::ReceiptKind::Delivered,
                ReceiptKind::Read => pb::ReceiptKind::Read,
                ReceiptKind::Played => pb::ReceiptKind::Played,
            };
            pb::content::Body::Receipt(pb::Receipt { kind: kind.into(), ids: ids.iter().map(bytes).collect() })
        }
        Body::Typing { started } => pb::content::Body::Typing(pb::Typing { started: *started }),
        Body::Timer { seconds } => pb::content::Body::Timer(pb::Timer { seconds: *seconds }),
        Body::Call(payload) => pb::content::Body::Call(pb::CallSignal { payload: Bytes::copy_from_slice(payload) }),
        Body::Unknown(_) => return Err(WireError::UnknownKind),
    };
    let mut wire = envelope(id, sent_at_ms, body);
    wire.reply_to = content.reply_to.as_ref().map(|id| pb::Quote { id: bytes(id) });
    // Whatever the other end would refuse is refused here.
    let raw = wire.encode_to_vec();
    from_wire(wire.clone(), &raw)?;
    Ok(wire)
}

fn from_wire(wire: pb::Content, raw: &[u8]) -> Result<Content, WireError> {
    let reply_to = wire.reply_to.map(|quote| id(&quote.id)).transpose()?;
    let unknown = || Body::Unknown(raw.to_vec());
    let body = match wire.body {
        Some(pb::content::Body::Text(text)) => {
            within("text", text.body.len(), MAX_TEXT)?;
            Body::Text(text.body)
        }
        Some(pb::content::Body::Media(media)) => match media_from_wire(media)? {
            Some(media) => Body::Media(Box::new(media)),
            None => unknown(),
        },
        Some(pb::content::Body::Reaction(reaction)) => {
            within("reaction", reaction.emoji.len(), MAX_EMOJI)?;
            Body::Reaction { target: id(&reaction.target)?, emoji: reaction.emoji, remove: reaction.remove }
        }
        Some(pb::content::Body::Edit(edit)) => {
            within("edit", edit.body.len(), MAX_TEXT)?;
            Body::Edit { target: id(&edit.target)?, body: edit.body }
        }
        Some(pb::content::Body::Delete(delete)) => Body::Delete { target: id(&delete.target)? },
        Some(pb::content::Body::Receipt(receipt)) => {
            within("receipt", receipt.ids.len(), MAX_RECEIPT_IDS)?;
            let ids = receipt.ids.iter().map(|bytes| id(bytes)).collect::<Result<_, _>>()?;
            match receipt.kind() {
                pb::ReceiptKind::Delivered => Body::Receipt { kind: ReceiptKind::Delivered, ids },
                pb::ReceiptKind::Read => Body::Receipt { kind: ReceiptKind::Read, ids },
                pb::ReceiptKind::Played => Body::Receipt { kind: ReceiptKind::Played, ids },
                pb::ReceiptKind::Unspecified => unknown(),
            }
        }
        Some(pb::content::Body::Typing(typing)) => Body::Typing { started: typing.started },
        Some(pb::content::Body::Timer(timer)) => Body::Timer { seconds: timer.seconds },
        Some(pb::content::Body::Call(call)) => {
            within("call", call.payload.len(), MAX_TEXT)?;
            Body::Call(call.payload.to_vec())
        }
        // One inside another is no content; without a body it is of a kind that came after this version.
        Some(pb::content::Body::Sync(_) | pb::content::Body::Resent(_) | pb::content::Body::Nothing(_)) => {
            return Err(WireError::Malformed);
        }
        None => {
            within("unknown content", raw.len(), MAX_TEXT)?;
            unknown()
        }
    };
    Ok(Content { reply_to, body })
}

fn media_to_wire(media: &Media) -> pb::Media {
    let kind = match media.kind {
        MediaKind::Image => pb::MediaKind::Image,
        MediaKind::Video => pb::MediaKind::Video,
        MediaKind::Voice => pb::MediaKind::Voice,
        MediaKind::File => pb::MediaKind::File,
    };
    pb::Media {
        kind: kind.into(),
        url: media.url.clone(),
        key: Bytes::copy_from_slice(&media.key),
        ciphertext_sha256: Bytes::copy_from_slice(&media.ciphertext_sha256),
        ciphertext_size: media.ciphertext_size,
        size: media.size,
        mime_type: media.mime_type.clone(),
        name: media.name.clone(),
        width: media.width,
        height: media.height,
        duration_ms: media.duration_ms,
        thumbnail: Bytes::copy_from_slice(&media.thumbnail),
        caption: media.caption.clone(),
    }
}

/// `None`: a kind of media that this version does not know.
fn media_from_wire(media: pb::Media) -> Result<Option<Media>, WireError> {
    let kind = match media.kind() {
        pb::MediaKind::Image => MediaKind::Image,
        pb::MediaKind::Video => MediaKind::Video,
        pb::MediaKind::Voice => MediaKind::Voice,
        pb::MediaKind::File => MediaKind::File,
        pb::MediaKind::Unspecified => return Ok(None),
    };
    within("media.url", media.url.len(), MAX_URL)?;
    within("media.mime_type", media.mime_type.len(), MAX_MIME)?;
    within("media.name", media.name.len(), MAX_NAME)?;
    within("media.thumbnail", media.thumbnail.len(), MAX_THUMBNAIL)?;
    within("media.caption", media.caption.len(), MAX_TEXT)?;
    // A name with a path could make a careless application write outside its folder.
    if media.name.contains(['/', '\\', '\0']) || media.name == ".." || media.name == "." {
        return Err(WireError::Field("media.name"));
    }
    let array = |field, bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| WireError::Field(field));
    Ok(Some(Media {
        kind,
        key: array("media.key", &media.key)?,
        ciphertext_sha256: array("media.ciphertext_sha256", &media.ciphertext_sha256)?,
        url: media.url,
        ciphertext_size: media.ciphertext_size,
        size: media.size,
        mime_type: media.mime_type,
        name: media.name,
        width: media.width,
        height: media.height,
        duration_ms: media.duration_ms,
        thumbnail: media.thumbnail.to_vec(),
        caption: media.caption,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId::from_bytes([7; 16]);
    const OTHER: MessageId = MessageId::from_bytes([8; 16]);

    fn media() -> Media {
        Media {
            kind: MediaKind::Image,
            url: "https://media.birdy.example/v1/blobs/1".to_owned(),
            key: [1; 32],
            ciphertext_sha256: [2; 32],
            ciphertext_size: 1016,
            size: 1000,
            mime_type: "image/png".to_owned(),
            name: "cat.png".to_owned(),
            width: 10,
            height: 20,
            duration_ms: 0,
            thumbnail: vec![3; 20],
            caption: "my cat".to_owned(),
        }
    }

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        let bodies = [
            Body::Text("hello".to_owned()),
            Body::Media(Box::new(media())),
            Body::Reaction { target: OTHER, emoji: "👍".to_owned(), remove: false },
            Body::Edit { target: OTHER, body: "hallo".to_owned() },
            Body::Delete { target: OTHER },
            Body::Receipt { kind: ReceiptKind::Played, ids: vec![OTHER, ID] },
            Body::Typing { started: true },
            Body::Timer { seconds: 60 },
            Body::Call(vec![1, 2, 3]),
        ];
        for body in bodies {
            let content = Content::from(body).in_reply_to(OTHER);
            let sealed = seal(ID, 5, &content).unwrap();
            assert_eq!(
                open(ID, &sealed).unwrap(),
                Opened::Content { id: ID, sent_at_ms: 5, content, instead_of: vec![] }
            );
            assert_eq!(open(OTHER, &sealed), Err(WireError::OtherId));
        }
    }

    #[test]
    fn sync_and_repeats_carry_the_original() {
        let content = Content::text("hello");
        let sealed = seal(ID, 5, &content).unwrap();
        let to: Address = "bo@home.example".parse().unwrap();
        let sync = seal_sync(OTHER, 6, &to, &sealed);
        assert_eq!(
            open(OTHER, &sync).unwrap(),
            Opened::Sync { stanza: OTHER, id: ID, to, sent_at_ms: 5, content: content.clone() }
        );
        let resent = seal_resent(OTHER, 6, &sealed, &[ID]);
        assert_eq!(
            open(OTHER, &resent).unwrap(),
            Opened::Content { id: ID, sent_at_ms: 5, content, instead_of: vec![ID] }
        );
        assert_eq!(open(OTHER, &seal_nothing(OTHER, 6)).unwrap(), Opened::Nothing);
    }

    #[test]
    fn a_later_kind_is_kept_whole() {
        // Field 99, length-delimited: nothing that this version knows.
        let mut later = pb::Content { id: Bytes::copy_from_slice(ID.as_bytes()), ..Default::default() }.encode_to_vec();
        later.extend_from_slice(&[0x9a, 0x06, 0x02, b'h', b'i']);
        let Opened::Content { content, .. } = open(ID, &later).unwrap() else { panic!("not content") };
        assert_eq!(content.body, Body::Unknown(later));
        assert_eq!(seal(ID, 0, &content), Err(WireError::UnknownKind));
    }

    #[test]
    fn what_is_too_long_or_dangerous_is_refused_at_both_ends() {
        let refused = |body: Body, error: WireError| assert_eq!(seal(ID, 0, &body.into()), Err(error));
        refused(Body::Text("x".repeat(MAX_TEXT + 1)), WireError::TooLong("text"));
        refused(Body::Receipt { kind: ReceiptKind::Read, ids: vec![ID; 257] }, WireError::TooLong("receipt"));
        for name in ["../x", "a/b", "a\\b", "..", "a\0"] {
            refused(Body::Media(Box::new(Media { name: name.to_owned(), ..media() })), WireError::Field("media.name"));
        }
        let nested = seal_resent(OTHER, 0, &seal_nothing(ID, 0), &[ID]);
        assert_eq!(open(OTHER, &nested), Err(WireError::Malformed));
        assert_eq!(open(ID, &[0xff; 20]), Err(WireError::Malformed));
    }
}
