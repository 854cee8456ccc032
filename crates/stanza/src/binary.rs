//! The BINARY encoding: protobuf.
//!
//! Before prost sees a record, a walk without allocations holds it against the tables: known fields have their wire
//! type and range, singular fields and oneofs are there once, repeated ones within their bound, groups nowhere. So
//! what prost allocates is bounded by the record's own length, whatever it says. Unknown fields are skipped.

use bytes::Bytes;
use prost::Message;

use crate::error::{At, Problem, StanzaError};
use crate::shape::{Field, Form, Shape, Value};
use crate::shapes;
use crate::stanza::{FromClient, FromServer};
use crate::wire::{Fields, Packed, RawValue};
use crate::{MAX_RECORD_BYTES, MAX_SERVER_RECORD_BYTES, bounds};

/// Reads what a client sent.
///
/// # Errors
/// What is wrong with it.
pub fn decode_client(record: &[u8]) -> Result<FromClient, StanzaError> {
    bounds(record, MAX_RECORD_BYTES)?;
    decode::<causeway_proto::wire::v1::ClientStanza>(record, &shapes::CLIENT)?.try_into()
}

/// The same, but ciphertexts are parts of the record, and keep it; unless most of a long record is nothing that is known,
/// which would be kept with them and be counted by nobody.
///
/// # Errors
/// What is wrong with it.
pub fn decode_client_shared(record: Bytes) -> Result<FromClient, StanzaError> {
    bounds(&record, MAX_RECORD_BYTES)?;
    walk(&record, &shapes::CLIENT)?;
    let len = record.len();
    let read = |record| causeway_proto::wire::v1::ClientStanza::decode(record).map_err(|_| Problem::Protobuf);
    let mut stanza = read(record)?;
    if len > SHARED_IN_ANY_CASE && stanza.encoded_len() < len / 2 {
        stanza = read(Bytes::from(stanza.encode_to_vec()))?;
    }
    stanza.try_into()
}

/// Records up to this length are kept whole, whatever is in them.
const SHARED_IN_ANY_CASE: usize = 1_024;

/// Reads what a server sent.
///
/// # Errors
/// What is wrong with it.
pub fn decode_server(record: &[u8]) -> Result<FromServer, StanzaError> {
    bounds(record, MAX_SERVER_RECORD_BYTES)?;
    decode::<causeway_proto::wire::v1::ServerStanza>(record, &shapes::SERVER)?.try_into()
}

/// Writes what a client sends.
pub fn encode_client(stanza: FromClient) -> Vec<u8> {
    causeway_proto::wire::v1::ClientStanza::from(stanza).encode_to_vec()
}

/// Writes what a server sends.
pub fn encode_server(stanza: FromServer) -> Vec<u8> {
    causeway_proto::wire::v1::ServerStanza::from(stanza).encode_to_vec()
}

/// A message that has stood the walk.
pub(crate) fn decode<M: Message + Default>(bytes: &[u8], shape: &'static Shape) -> Result<M, StanzaError> {
    debug_assert!(bytes.len() <= MAX_SERVER_RECORD_BYTES, "callers bound the length");
    walk(bytes, shape)?;
    M::decode(bytes).map_err(|_| Problem::Protobuf.into())
}

/// Holds a message against its table.
fn walk(message: &[u8], shape: &'static Shape) -> Result<(), StanzaError> {
    // No message of the protocol has a field number above 31.
    let mut seen = [0_u16; 32];
    let mut arms = 0;
    for raw in Fields::new(message) {
        let raw = raw?;
        let Some(field) = shape.by_number(raw.number) else { continue };
        let counted = match (field.form, raw.value) {
            (Form::Items(_, Value::U32), RawValue::Bytes(packed)) => walk_packed(packed, field)?,
            _ => 1,
        };
        let times = &mut seen[raw.number as usize & 31];
        // Neither is above a field's bound by more than one, and no bound is near to what fits here.
        *times = times.saturating_add(u16::try_from(counted).unwrap_or(u16::MAX));
        if usize::from(*times) > field.times.most() {
            let problem = if field.times.most() == 1 { Problem::Repeated } else { Problem::TooMany };
            return Err(problem).at(field.name);
        }
        match (field.form, raw.value) {
            (Form::Element(inner), RawValue::Bytes(bytes)) => {
                if shape.choice {
                    arms += 1;
                }
                if arms > 1 {
                    return Err(Problem::Repeated).at(field.name);
                }
                match field.times.most() {
                    1 => walk(bytes, inner).at(field.name)?,
                    _ => walk(bytes, inner).at_index(field.name, usize::from(*times) - 1)?,
                }
            }
            (Form::Attribute(value), RawValue::Varint(number)) => in_range(value, number).at(field.name)?,
            (Form::Items(_, value @ Value::U32), RawValue::Varint(number)) => in_range(value, number).at(field.name)?,
            (Form::Items(_, Value::U32), RawValue::Bytes(_)) => {}
            (
                Form::Content
                | Form::Bytes
                | Form::Attribute(Value::Text | Value::Id | Value::Bytes)
                | Form::Items(_, Value::Text),
                RawValue::Bytes(_),
            ) => {}
            _ => return Err(Problem::WireType).at(field.name),
        }
    }
    Ok(())
}

/// Items of a packed field; stops counting at the bound.
fn walk_packed(packed: &[u8], field: &Field) -> Result<usize, StanzaError> {
    let mut count = 0;
    for number in Packed::new(packed) {
        in_range(Value::U32, number.at(field.name)?).at(field.name)?;
        count += 1;
        if count > field.times.most() {
            return Err(Problem::TooMany).at(field.name);
        }
    }
    Ok(count)
}

/// Protobuf cuts numbers that are too large for their field down to size; here they are refused.
fn in_range(value: Value, number: u64) -> Result<(), Problem> {
    let most = match value {
        Value::U32 => u64::from(u32::MAX),
        Value::U64 => u64::MAX,
        Value::Bool => 1,
        Value::Name(_) if number > i32::MAX as u64 => return Err(Problem::UnknownValue),
        Value::Name(_) => u64::MAX,
        Value::Text | Value::Id | Value::Bytes => return Err(Problem::WireType),
    };
    if number > most { Err(Problem::Range) } else { Ok(()) }
}
