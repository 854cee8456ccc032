//! Asking for a message again. The request is libsignal's decryption-error message. Its time stamp, which Signal uses to
//! name the message, here carries the first 6 bytes of the stanza's id, big-endian: 48 bits, so that languages whose
//! numbers are doubles can write it.

use causeway_identity::{DeviceId, MessageId};
use causeway_stanza::EncType;
use libsignal_protocol::{
    CiphertextMessageType, DecryptionErrorMessage, PlaintextContent, PublicKey, Timestamp,
    extract_decryption_error_message_from_serialized_content,
};

use super::SignalError;

/// What a device that cannot read a message sends to its sender, as `enc type="plaintext"`.
pub(crate) fn ask_again(
    id: MessageId,
    sender: DeviceId,
    kind: EncType,
    ciphertext: &[u8],
) -> Result<Vec<u8>, SignalError> {
    let name = id.as_bytes()[..6].iter().fold(0, |name: u64, byte| name << 8 | u64::from(*byte));
    let kind = match kind {
        EncType::Prekey => CiphertextMessageType::PreKey,
        EncType::Whisper => CiphertextMessageType::Whisper,
        EncType::SenderKey | EncType::Plaintext => CiphertextMessageType::SenderKey,
    };
    let make =
        |kind| DecryptionErrorMessage::for_original(ciphertext, kind, Timestamp::from_epoch_millis(name), sender.get());
    // What cannot even be parsed names no ratchet key.
    let request = make(kind).or_else(|_| make(CiphertextMessageType::SenderKey))?;
    Ok(PlaintextContent::from(request).serialized().to_vec())
}

/// Such a request, read.
#[derive(Debug, Clone)]
pub(crate) struct RetryRequest {
    /// The beginning of the message's id.
    pub(crate) id_prefix: [u8; 6],
    /// The device that sent it. Every device of the account gets the request; the others have nothing to do.
    pub(crate) device: DeviceId,
    /// The ratchet key that the message was under.
    pub(crate) ratchet_key: Option<PublicKey>,
}

impl RetryRequest {
    /// Reads what [`ask_again`] made; `None` when it is something else.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let plaintext = PlaintextContent::try_from(bytes).ok()?;
        let request = extract_decryption_error_message_from_serialized_content(plaintext.body()).ok()?;
        let name = request.timestamp().epoch_millis();
        if name >> 48 != 0 {
            return None;
        }
        let mut id_prefix = [0; 6];
        id_prefix.copy_from_slice(&name.to_be_bytes()[2..]);
        Some(Self {
            id_prefix,
            device: DeviceId::new(request.device_id()).ok()?,
            ratchet_key: request.ratchet_key().copied(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_message_and_device() {
        let id = MessageId::from_bytes([0xff, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let sender = DeviceId::new(7).unwrap();
        let bytes = ask_again(id, sender, EncType::Whisper, b"garbage").unwrap();
        let read = RetryRequest::read(&bytes).unwrap();
        assert_eq!((read.id_prefix, read.device), ([0xff, 2, 3, 4, 5, 6], sender));
        assert!(read.ratchet_key.is_none());
    }

    #[test]
    fn anything_else_is_none() {
        for bytes in [&b""[..], b"\xc0", b"\xc0\x80", b"\x33hello", &[0xc0; 100]] {
            assert!(RetryRequest::read(bytes).is_none());
        }
    }
}
