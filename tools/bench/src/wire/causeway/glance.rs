//! Reading no more of a stanza than the load needs.
//!
//! A delivery and an outcome are most of what comes, and a client on a telephone has a processor of its own to read all of
//! them with. Here, clients share two processors with the server that is measured, so of these two only the fields that
//! count are looked at; all other stanzas go through the codec.

use causeway_stanza::{Encoding, FromServer, Status, decode_server};

use crate::engine::Ended;

/// What a stanza says.
#[derive(Debug, PartialEq)]
pub(super) enum Glance {
    /// A message for this device.
    Delivery {
        /// Its id.
        id: [u8; 16],
        /// What to acknowledge.
        tag: u64,
    },
    /// What became of one that was sent.
    Outcome {
        /// Its id.
        id: [u8; 16],
        /// What.
        status: Status,
    },
    /// Anything else.
    Other(Box<FromServer>),
}

/// Field numbers of `ServerStanza`, `Delivery` and `Outcome` in proto/causeway/wire/v1/stanza.proto.
const MESSAGE: u64 = 3;
const ACK: u64 = 4;
const ID: u64 = 1;
const DELIVERY_TAG: u64 = 6;
const OUTCOME_STATUS: u64 = 3;

/// Reads a record.
///
/// # Errors
/// It is no stanza.
pub(super) fn glance(record: &[u8]) -> Result<Glance, Ended> {
    if let Some(seen) = quick(record) {
        return Ok(seen);
    }
    let stanza =
        decode_server(Encoding::Binary, record).map_err(|error| Ended::Broken(format!("no stanza: {error}")))?;
    Ok(Glance::Other(Box::new(stanza)))
}

/// A delivery or an outcome in its usual form.
fn quick(record: &[u8]) -> Option<Glance> {
    let mut outer = Fields(record);
    let (kind, Value::Bytes(body)) = outer.next()? else { return None };
    if !outer.0.is_empty() || !(kind == MESSAGE || kind == ACK) {
        return None;
    }
    let (mut id, mut tag, mut status) = (None, 0, 0);
    let mut fields = Fields(body);
    while !fields.0.is_empty() {
        match fields.next()? {
            (ID, Value::Bytes(bytes)) => id = bytes.try_into().ok(),
            (DELIVERY_TAG, Value::Number(number)) if kind == MESSAGE => tag = number,
            (OUTCOME_STATUS, Value::Number(number)) if kind == ACK => status = number,
            _ => {}
        }
    }
    let id = id?;
    if kind == MESSAGE {
        return (tag > 0).then_some(Glance::Delivery { id, tag });
    }
    let status = Status::try_from(i32::try_from(status).ok()?).ok()?;
    Some(Glance::Outcome { id, status })
}

/// Fields of a protobuf message that are not read yet.
struct Fields<'b>(&'b [u8]);

enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

impl<'b> Fields<'b> {
    /// The next one; `None` if there is none or it is of a kind that stanzas do not have.
    fn next(&mut self) -> Option<(u64, Value<'b>)> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for (index, byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use causeway_identity::{AccountId, MessageId};
    use causeway_stanza::{
        Ciphertext, Delivery, EncType, Fate, Inbox, MessageClass, Origin, Outcome, ProviderKind, Rejected, Text,
        encode_server,
    };

    use super::*;

    fn outcome(fate: Fate) -> FromServer {
        let id = MessageId::try_from(&[7; 16][..]).unwrap();
        FromServer::Ack(Outcome { id, to: "ada@birdy.example".parse().unwrap(), fate })
    }

    #[test]
    fn what_counts_is_what_the_codec_reads() {
        let delivery = FromServer::Message(Delivery {
            id: MessageId::try_from(&[9; 16][..]).unwrap(),
            from: "bo@home.example/3".parse().unwrap(),
            from_account: AccountId::try_from(&[1; 16][..]).unwrap(),
            class: MessageClass::Chat,
            ts_ms: 1_700_000_000_000,
            tag: 300,
            origin: Origin {
                provider: "home.example".parse().unwrap(),
                kind: ProviderKind::Home,
                protocol: Text::lossy("signal"),
                inbox: Inbox::Main,
            },
            kind: EncType::Whisper,
            ciphertext: Ciphertext::try_from(Bytes::from(vec![5; 344])).ok().unwrap(),
        });
        let record = encode_server(Encoding::Binary, delivery);
        assert_eq!(glance(&record).unwrap(), Glance::Delivery { id: [9; 16], tag: 300 });

        let limited = Fate::Rejected(Rejected::RateLimited { retry_after_ms: 77 });
        for (fate, status) in
            [(Fate::Delivered, Status::Delivered), (Fate::Stored, Status::Stored), (limited, Status::Rejected)]
        {
            let record = encode_server(Encoding::Binary, outcome(fate));
            assert_eq!(glance(&record).unwrap(), Glance::Outcome { id: [7; 16], status });
        }
    }

    #[test]
    fn all_else_goes_through_the_codec() {
        let record = encode_server(Encoding::Binary, FromServer::Ping(4));
        assert_eq!(glance(&record).unwrap(), Glance::Other(Box::new(FromServer::Ping(4))));
        let record = encode_server(Encoding::Binary, outcome(Fate::Stored));
        for cut in 0..record.len() {
            // No piece of a stanza is taken for a whole one, and none makes this panic.
            assert!(!matches!(glance(&record[..cut]), Ok(Glance::Delivery { .. } | Glance::Outcome { .. })), "{cut}");
        }
        for byte in 0..=255 {
            let _any = glance(&[byte; 40]);
        }
    }
}
