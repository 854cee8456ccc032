//! Typed stanzas with their two encodings, and the payloads of the handshake; no I/O (docs/protocol.md, sections 3
//! and 5 to 7).
//!
//! A record becomes [`FromClient`] or [`FromServer`] at once, with every bound checked; nothing is left to validate
//! behind it. Both encodings go through one typed form, and XML through the same tables as BINARY (`shapes.rs`), so
//! that they cannot come to mean different things.
//!
//! ```
//! use causeway_stanza::{Encoding, FromClient, decode_client, encode_client};
//! let record = encode_client(Encoding::Xml, FromClient::Ping(7));
//! assert_eq!(record, br#"<ping xmlns="urn:causeway:1" n="7"/>"#);
//! assert_eq!(decode_client(Encoding::Xml, &record), Ok(FromClient::Ping(7)));
//! ```
//!
//! `Debug` of every type here is fit for logs: addresses, texts, keys and ciphertexts print as their length at most.

mod account;
pub mod binary;
mod bounded;
mod error;
pub mod hello;
mod iq;
mod keys;
mod lists;
mod login;
mod media;
mod message;
mod record;
mod shape;
mod shapes;
mod stanza;
#[cfg(any(test, feature = "testing"))]
pub mod strategies;
#[cfg(test)]
mod tests;
mod wire;
pub mod xml;

use bytes::Bytes;

pub use account::{ConsentSettings, Contact, Contacts, Device, Devices, ProviderRule, Report};
pub use bounded::{Blob, List, Text};
pub use error::{Problem, StanzaError};
pub use hello::{ClientHello, ServerHello};
pub use iq::{IqError, PushToken, Request, RequestBody, Response, ResponseBody, Token};
pub use keys::{
    EcPrekey, Enlist, KeyBundle, KeyBundles, KeyCounts, KeysClaim, KeysPublish, OneTime, PublicKey, RegistrationId,
    Signature, SignedPrekey,
};
pub use lists::{
    ContactAction, EncType, Encoding, EndReason, ErrorCode, FailureReason, Inbox, InboxSetting, MessageClass,
    ProviderKind, Reach, Rejection, Status,
};
pub use login::{Enlisted, Success};
pub use media::{MediaDownload, MediaTicket, MediaUpload, Sha256, Url};
pub use message::{
    Ciphertext, Delivery, DeviceIds, DeviceMismatch, Enc, EncList, Fate, Origin, Outcome, Rejected, Submit,
};
pub use record::ServerRecord;
pub use stanza::{End, FromClient, FromServer, Notification};

/// Largest record in bytes that a client may send, and the default of the server's limit.
pub const MAX_RECORD_BYTES: usize = 256 * 1024;
/// Largest record in bytes that a server sends: what was a full record from its sender grows by a third in XML, and
/// gains the sender's address.
pub const MAX_SERVER_RECORD_BYTES: usize = 512 * 1024;

/// Reads what a client sent.
///
/// # Errors
/// What is wrong with it: the session ends with `bad-stanza`.
pub fn decode_client(encoding: Encoding, record: &[u8]) -> Result<FromClient, StanzaError> {
    match encoding {
        Encoding::Binary => binary::decode_client(record),
        Encoding::Xml => xml::decode_client(record),
    }
}

/// The same for a record that may be kept: in BINARY, ciphertexts are not copied out of it unless little of it is known.
///
/// # Errors
/// As [`decode_client`].
pub fn decode_client_shared(encoding: Encoding, record: Bytes) -> Result<FromClient, StanzaError> {
    match encoding {
        Encoding::Binary => binary::decode_client_shared(record),
        Encoding::Xml => xml::decode_client(&record),
    }
}

/// Reads what a server sent.
///
/// # Errors
/// What is wrong with it: the client leaves.
pub fn decode_server(encoding: Encoding, record: &[u8]) -> Result<FromServer, StanzaError> {
    match encoding {
        Encoding::Binary => binary::decode_server(record),
        Encoding::Xml => xml::decode_server(record),
    }
}

/// Writes what a client sends. Whether it fits into a record, the caller checks against the server's limits.
pub fn encode_client(encoding: Encoding, stanza: FromClient) -> Vec<u8> {
    match encoding {
        Encoding::Binary => binary::encode_client(stanza),
        Encoding::Xml => xml::encode_client(stanza),
    }
}

/// Writes what a server sends.
pub fn encode_server(encoding: Encoding, stanza: FromServer) -> Vec<u8> {
    match encoding {
        Encoding::Binary => binary::encode_server(stanza),
        Encoding::Xml => xml::encode_server(stanza),
    }
}

/// What holds for a record in either encoding.
fn bounds(record: &[u8], most: usize) -> Result<(), StanzaError> {
    match record.len() {
        0 => Err(Problem::Empty.into()),
        length if length > most => Err(Problem::TooLarge.into()),
        _ => Ok(()),
    }
}
