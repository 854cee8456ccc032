//! The XML encoding (docs/protocol.md, section 5): a small, strict part of XML 1.0, of which all other parsers that
//! accept it make the same tree.
//!
//! `tree` makes elements of bytes, `read` makes a protobuf message of them by the tables, which then goes the way that
//! a BINARY record goes; `write` goes back. `watch` notices excessive depth before a record is complete.

mod read;
pub(crate) mod tree;
mod watch;
mod write;

pub use watch::DepthWatch;

use crate::error::{Problem, StanzaError};
use crate::stanza::{FromClient, FromServer};
use crate::{MAX_RECORD_BYTES, MAX_SERVER_RECORD_BYTES, binary, bounds, shapes};

/// The namespace of every element; it is the default namespace, and no other may be declared.
pub const NAMESPACE: &str = "urn:causeway:1";
/// Most elements inside each other.
pub const MAX_DEPTH: usize = 16;
/// Most attributes of one element.
pub const MAX_ATTRIBUTES: usize = 64;
/// Most elements of a stanza; the largest that makes sense has 769.
pub const MAX_ELEMENTS: usize = 1024;

/// Reads what a client sent.
///
/// # Errors
/// What is wrong with it.
pub fn decode_client(record: &[u8]) -> Result<FromClient, StanzaError> {
    bounds(record, MAX_RECORD_BYTES)?;
    let root = tree::parse(record)?;
    if root.name == "iq" && matches!(root.attribute("type"), Some("result" | "error")) {
        return Ok(FromClient::UnsolicitedIq);
    }
    let message = read::message(&root, &shapes::CLIENT)?;
    binary::decode::<causeway_proto::wire::v1::ClientStanza>(&message, &shapes::CLIENT)?.try_into()
}

/// Reads what a server sent.
///
/// # Errors
/// What is wrong with it.
pub fn decode_server(record: &[u8]) -> Result<FromServer, StanzaError> {
    bounds(record, MAX_SERVER_RECORD_BYTES)?;
    let root = tree::parse(record)?;
    let message = read::message(&root, &shapes::SERVER)?;
    binary::decode::<causeway_proto::wire::v1::ServerStanza>(&message, &shapes::SERVER)?.try_into()
}

/// Writes what a client sends, in canonical form: no white space, attributes and elements in the order of the tables.
pub fn encode_client(stanza: FromClient) -> Vec<u8> {
    if stanza == FromClient::UnsolicitedIq {
        return format!("<iq xmlns=\"{NAMESPACE}\" type=\"result\"/>").into_bytes();
    }
    write::document(&binary::encode_client(stanza), &shapes::CLIENT)
}

/// Writes what a server sends, in canonical form.
pub fn encode_server(stanza: FromServer) -> Vec<u8> {
    write::document(&binary::encode_server(stanza), &shapes::SERVER)
}

/// The one namespace declaration that is accepted.
fn is_ours(namespace: &str) -> Result<(), Problem> {
    if namespace == NAMESPACE { Ok(()) } else { Err(Problem::Namespace) }
}
