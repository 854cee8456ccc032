//! The codecs, as a server uses them for one message: it comes in, is delivered and acknowledged, and its sender is told.

use std::hint::black_box;

use causeway_identity::MessageId;
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{
    Delivery, Encoding, Fate, FromClient, FromServer, Outcome, decode_client, decode_server, encode_client,
    encode_server,
};
use prost::Message as _;

use crate::deployment::{People, submit};

pub(super) fn binary(count: u32) -> anyhow::Result<()> {
    convert(count, Encoding::Binary)
}

pub(super) fn xml(count: u32) -> anyhow::Result<()> {
    convert(count, Encoding::Xml)
}

fn convert(count: u32, encoding: Encoding) -> anyhow::Result<()> {
    let bo = People::BO;
    let submitted = encode_client(encoding, FromClient::Message(submit(1, bo)?));
    let acknowledged = encode_client(encoding, FromClient::Ack(1));
    let delivery = delivery()?;
    let outcome = Outcome { id: MessageId::from_bytes([9; 16]), to: bo.address()?, fate: Fate::Delivered };
    for _ in 0..count {
        black_box(decode_client(encoding, black_box(&submitted))?);
        black_box(encode_server(encoding, FromServer::Message(black_box(delivery.clone()))));
        black_box(decode_client(encoding, black_box(&acknowledged))?);
        black_box(encode_server(encoding, FromServer::Ack(black_box(outcome.clone()))));
    }
    Ok(())
}

/// As routing makes one.
fn delivery() -> anyhow::Result<Delivery> {
    let delivery = pb::Delivery {
        id: vec![9; 16].into(),
        from: format!("{}/1", People::ADA.address()?.as_str()),
        from_account: vec![1; 16].into(),
        class: pb::MessageClass::Chat.into(),
        ts: crate::deployment::NOW_MS,
        tag: 7,
        origin: Some(pb::Origin {
            provider: "birdy.example".to_owned(),
            kind: pb::ProviderKind::ThirdParty.into(),
            protocol: "signal".to_owned(),
            inbox: pb::Inbox::ThirdParty.into(),
        }),
        r#type: pb::EncType::Whisper.into(),
        ciphertext: vec![7; crate::deployment::BODY].into(),
    };
    let stanza = pb::ServerStanza { kind: Some(pb::server_stanza::Kind::Message(delivery)) };
    match decode_server(Encoding::Binary, &stanza.encode_to_vec())? {
        FromServer::Message(delivery) => Ok(delivery),
        other => anyhow::bail!("no delivery: {}", other.name()),
    }
}
