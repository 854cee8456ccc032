//! What the server sends, on its way to where it is written: the length first, then the bytes, without a copy between.
//!
//! Deliveries and outcomes come from within the deployment in the form that BINARY has. Almost all of them need no change
//! then: [`is_plain_delivery`] and [`is_plain_outcome`] are true only of what the typed form would give back as it is.
//! The rest goes through that.

use bytes::BytesMut;
use causeway_identity::{Address, DeviceAddress, Domain};
use causeway_proto::wire::v1 as pb;
use causeway_proto::wire::v1::server_stanza::Kind;
use prost::Message as _;

use crate::error::StanzaError;
use crate::lists::{EncType, Encoding, Inbox, MessageClass, ProviderKind};
use crate::message::{Ciphertext, Delivery, Outcome};
use crate::stanza::FromServer;
use crate::{Text, xml};

/// A record of the server that is not written yet.
#[derive(Debug)]
pub struct ServerRecord(Form);

#[derive(Debug)]
enum Form {
    Binary { stanza: pb::ServerStanza, len: usize },
    Written(Vec<u8>),
}

impl ServerRecord {
    /// The record of any stanza.
    pub fn new(encoding: Encoding, stanza: FromServer) -> Self {
        match encoding {
            Encoding::Binary => Self::binary(stanza.into()),
            Encoding::Xml => Self(Form::Written(xml::encode_server(stanza))),
        }
    }

    /// That of a delivery as routing sends it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn delivery(encoding: Encoding, delivery: pb::Delivery) -> Result<Self, StanzaError> {
        if encoding == Encoding::Binary && is_plain_delivery(&delivery) {
            return Ok(Self::binary(pb::ServerStanza { kind: Some(Kind::Message(delivery)) }));
        }
        Ok(Self::new(encoding, FromServer::Message(Delivery::try_from(delivery)?)))
    }

    /// That of an outcome as routing sends it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn outcome(encoding: Encoding, outcome: pb::Outcome) -> Result<Self, StanzaError> {
        if encoding == Encoding::Binary && is_plain_outcome(&outcome) {
            return Ok(Self::binary(pb::ServerStanza { kind: Some(Kind::Ack(outcome)) }));
        }
        Ok(Self::new(encoding, FromServer::Ack(Outcome::try_from(outcome)?)))
    }

    fn binary(stanza: pb::ServerStanza) -> Self {
        let len = stanza.encoded_len();
        Self(Form::Binary { stanza, len })
    }

    /// How many bytes it takes.
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Binary { len, .. } => *len,
            Form::Written(bytes) => bytes.len(),
        }
    }

    /// Appends it to `out`.
    pub fn write(&self, out: &mut BytesMut) {
        match &self.0 {
            Form::Binary { stanza, .. } => stanza.encode_raw(out),
            Form::Written(bytes) => out.extend_from_slice(bytes),
        }
    }
}

fn is_plain_delivery(delivery: &pb::Delivery) -> bool {
    let is_plain_origin = |origin: &pb::Origin| {
        ProviderKind::try_from(origin.kind).is_ok()
            && Inbox::try_from(origin.inbox).is_ok()
            && Text::<1, 32>::fits(&origin.protocol)
            && Domain::is_valid(&origin.provider)
    };
    delivery.tag != 0
        && delivery.id.len() == 16
        && delivery.from_account.len() == 16
        && MessageClass::try_from(delivery.class).is_ok()
        && EncType::try_from(delivery.r#type).is_ok()
        && Ciphertext::fits(&delivery.ciphertext)
        && delivery.origin.as_ref().is_some_and(is_plain_origin)
        && DeviceAddress::is_canonical(&delivery.from)
}

fn is_plain_outcome(outcome: &pb::Outcome) -> bool {
    matches!(pb::Status::try_from(outcome.status), Ok(pb::Status::Delivered | pb::Status::Stored | pb::Status::Dropped))
        && outcome.reason == 0
        && outcome.devices.is_none()
        && outcome.retry_after_ms == 0
        && outcome.id.len() == 16
        && Address::is_canonical(&outcome.to)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{encode_server, strategies};

    fn written(record: &ServerRecord) -> Vec<u8> {
        let mut out = BytesMut::new();
        record.write(&mut out);
        assert_eq!(out.len(), record.len());
        out.to_vec()
    }

    /// What the typed form makes of it.
    fn delivery_by_type(encoding: Encoding, delivery: pb::Delivery) -> Result<Vec<u8>, StanzaError> {
        Delivery::try_from(delivery).map(|delivery| encode_server(encoding, FromServer::Message(delivery)))
    }

    fn outcome_by_type(encoding: Encoding, outcome: pb::Outcome) -> Result<Vec<u8>, StanzaError> {
        Outcome::try_from(outcome).map(|outcome| encode_server(encoding, FromServer::Ack(outcome)))
    }

    const ENCODINGS: [Encoding; 2] = [Encoding::Binary, Encoding::Xml];

    proptest! {
        #[test]
        fn any_stanza_is_written_as_ever(stanza in strategies::from_server()) {
            for encoding in ENCODINGS {
                prop_assert_eq!(
                    written(&ServerRecord::new(encoding, stanza.clone())),
                    encode_server(encoding, stanza.clone())
                );
            }
        }

        #[test]
        fn a_delivery_by_the_short_way_is_the_same(delivery in strategies::delivery(), spoil in any_spoiling()) {
            let mut delivery = pb::Delivery::from(delivery);
            prop_assert!(is_plain_delivery(&delivery));
            spoil.delivery(&mut delivery);
            for encoding in ENCODINGS {
                let record = ServerRecord::delivery(encoding, delivery.clone());
                prop_assert_eq!(record.map(|record| written(&record)), delivery_by_type(encoding, delivery.clone()));
            }
        }

        #[test]
        fn an_outcome_by_the_short_way_is_the_same(outcome in strategies::outcome(), spoil in any_spoiling()) {
            let mut outcome = pb::Outcome::from(outcome);
            spoil.outcome(&mut outcome);
            for encoding in ENCODINGS {
                let record = ServerRecord::outcome(encoding, outcome.clone());
                prop_assert_eq!(record.map(|record| written(&record)), outcome_by_type(encoding, outcome.clone()));
            }
        }
    }

    /// One thing that is wrong, or unusual.
    #[derive(Debug, Clone)]
    enum Spoiling {
        Nothing,
        Text(String),
        Bytes(Vec<u8>),
        Number(i32),
    }

    fn any_spoiling() -> impl Strategy<Value = (u8, Spoiling)> {
        let text = prop_oneof![
            Just("jose\u{301}@birdy.example/7".to_owned()),
            Just("ada@birdy.example/07".to_owned()),
            Just("ada@birdy.example".to_owned()),
            Just("Birdy.example".to_owned()),
            "\\PC{0,4}",
        ];
        let how = prop_oneof![
            Just(Spoiling::Nothing),
            text.prop_map(Spoiling::Text),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Spoiling::Bytes),
            (-1..12).prop_map(Spoiling::Number),
        ];
        (any::<u8>(), how)
    }

    trait Spoils {
        fn delivery(self, delivery: &mut pb::Delivery);
        fn outcome(self, outcome: &mut pb::Outcome);
    }

    impl Spoils for (u8, Spoiling) {
        fn delivery(self, delivery: &mut pb::Delivery) {
            match (self.1, self.0 % 4, &mut delivery.origin) {
                (Spoiling::Nothing, ..) => {}
                (Spoiling::Text(text), 0 | 1, _) => delivery.from = text,
                (Spoiling::Text(text), 2, Some(origin)) => origin.provider = text,
                (Spoiling::Text(text), 3, Some(origin)) => origin.protocol = text,
                (Spoiling::Bytes(bytes), 0, _) => delivery.id = Bytes::from(bytes),
                (Spoiling::Bytes(bytes), 1, _) => delivery.from_account = Bytes::from(bytes),
                (Spoiling::Bytes(bytes), 2, _) => delivery.ciphertext = Bytes::from(bytes),
                (Spoiling::Bytes(_), _, origin) => *origin = None,
                (Spoiling::Number(number), 0, _) => delivery.class = number,
                (Spoiling::Number(number), 1, _) => delivery.r#type = number,
                (Spoiling::Number(number), 2, Some(origin)) => origin.kind = number,
                (Spoiling::Number(number), 3, Some(origin)) => origin.inbox = number,
                _ => delivery.tag = 0,
            }
        }

        fn outcome(self, outcome: &mut pb::Outcome) {
            match (self.1, self.0 % 4) {
                (Spoiling::Nothing, _) => {}
                (Spoiling::Text(text), _) => outcome.to = text,
                (Spoiling::Bytes(bytes), _) => outcome.id = Bytes::from(bytes),
                (Spoiling::Number(number), 0) => outcome.status = number,
                (Spoiling::Number(number), 1) => outcome.reason = number,
                (Spoiling::Number(_), 2) => outcome.devices = Some(pb::DeviceMismatch::default()),
                (Spoiling::Number(_), _) => outcome.retry_after_ms = 5,
            }
        }
    }
}
