//! The connection of docs/protocol.md, section 12: from the keys that it gives, our client and server make its bytes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::vectors::Fixed;
use super::{accepted, answering, reading};
use crate::client::{self, Step};
use crate::server::{Accepted, Reading};
use crate::{Limits, Received, Session, StaticKey, Suite};

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

const SERVER_STATIC: [u8; 32] = [2; 32];
const CLIENT_STATIC: [u8; 32] = [3; 32];
const SERVER_EPHEMERAL: [u8; 32] = [4; 32];
const CLIENT_EPHEMERAL: [u8; 32] = [5; 32];

/// The inside of the blocks of hex that begin with this line, in the part of the text behind `heading`.
fn blocks(heading: &str, info: &str) -> Vec<Vec<u8>> {
    let (_, section) = DOCUMENT.split_once(&format!("\n{heading}")).expect("the heading");
    let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let fence = format!("```{info}\n");
    let insides = section.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
    insides.map(|text| hex::decode(text.split_whitespace().collect::<String>()).unwrap()).collect()
}

fn block(heading: &str, info: &str) -> Vec<u8> {
    let mut found = blocks(heading, info);
    assert_eq!(found.len(), 1, "{info}");
    found.remove(0)
}

/// The `success` of section 3.4, with the white space of its line break as in canonical form.
fn success() -> String {
    let (_, rest) = DOCUMENT.split_once("```xml\n<success ").expect("the example");
    let inside = rest.split("\n```").next().unwrap();
    format!("<success {}", inside.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn server() -> Reading {
    let key = Arc::new(StaticKey::from_bytes(SERVER_STATIC));
    Reading::new(&key, Limits::server(), &mut Fixed(SERVER_EPHEMERAL))
}

fn sealed(session: &mut Session, record: &[u8]) -> BytesMut {
    session.sender.queue(record).unwrap();
    session.sender.seal().unwrap();
    session.sender.sealed().split()
}

fn opened(session: &mut Session, frame: &[u8]) -> Bytes {
    session.receiver.feed(frame);
    match session.receiver.next().unwrap() {
        Some(Received::Record(record)) => record,
        other => panic!("{other:?} is no record"),
    }
}

#[test]
fn the_keys_are_those_of_the_table() {
    for private in [SERVER_STATIC, CLIENT_STATIC] {
        let public = hex::encode(StaticKey::from_bytes(private).public());
        assert!(DOCUMENT.contains(&format!("32 bytes `{:02x}`; `{public}`", private[0])), "{public}");
    }
    for (side, private) in [("server", SERVER_EPHEMERAL), ("client", CLIENT_EPHEMERAL)] {
        assert!(DOCUMENT.contains(&format!("| {side} ephemeral private | 32 bytes `{:02x}` |", private[0])));
    }
}

#[test]
fn xx() {
    let frames = blocks("### 12.1 ", "hex");
    let [opening, answer, third, success_frame, ping_frame] = &frames[..] else { panic!("five frames") };
    let (client_hello, server_hello) = (block("## 12. ", "hex client-hello"), block("## 12. ", "hex server-hello"));

    let mut out = BytesMut::new();
    let client_key = StaticKey::from_bytes(CLIENT_STATIC);
    let mut rng = Fixed(CLIENT_EPHEMERAL);
    let client = client::xx(&client_key, Suite::AesGcm, Limits::client(), &mut rng, &mut out).unwrap();
    assert_eq!(out, opening);

    let mut out = BytesMut::new();
    let server = answering(server().feed(opening)).answer(&server_hello, &mut out);
    assert_eq!(out, answer);

    let Step::Answered(hello) = client.feed(answer) else { panic!("the client should have an answer") };
    assert_eq!(hello.server_hello(), &server_hello);
    let mut out = BytesMut::new();
    let mut client = hello.finish(&client_hello, &mut out).unwrap();
    assert_eq!(out, third);
    let Accepted { client_hello: received, session: mut server, .. } = accepted(reading(server).feed(third));
    assert_eq!(received, client_hello);

    let success = success();
    assert_eq!(success.len(), 202);
    assert_eq!(sealed(&mut server, success.as_bytes()), success_frame);
    assert_eq!(opened(&mut client, success_frame), success);
    let ping = block("### 12.1 ", "hex ping-record");
    assert_eq!(sealed(&mut client, &ping[1..]), ping_frame);
    assert_eq!(opened(&mut server, ping_frame), &ping[1..]);
}

#[test]
fn ik() {
    let frames = blocks("### 12.2 ", "hex");
    let [opening, answer, proof] = &frames[..] else { panic!("three frames") };
    let (client_hello, server_hello) = (block("## 12. ", "hex client-hello"), block("## 12. ", "hex server-hello"));

    let mut out = BytesMut::new();
    let client_key = StaticKey::from_bytes(CLIENT_STATIC);
    let server_key = StaticKey::from_bytes(SERVER_STATIC);
    let (suite, limits, mut rng) = (Suite::AesGcm, Limits::client(), Fixed(CLIENT_EPHEMERAL));
    let client =
        client::ik(&client_key, server_key.public(), suite, &client_hello, limits, &mut rng, &mut out).unwrap();
    assert_eq!(out, opening);

    let server = answering(server().feed(opening));
    assert_eq!(server.client_hello().unwrap(), &client_hello);
    let mut out = BytesMut::new();
    let Accepted { session: mut server, .. } = accepted(server.answer(&server_hello, &mut out));
    assert_eq!(out, answer);

    let Step::Answered(hello) = client.feed(answer) else { panic!("the client should have an answer") };
    assert_eq!(hello.server_hello(), &server_hello);
    let mut out = BytesMut::new();
    hello.finish(&mut out).unwrap();
    assert_eq!(out, proof);
    assert!(server.receiver.proved().is_none());
    server.receiver.feed(proof);
    assert!(matches!(server.receiver.next(), Ok(Some(Received::KeepAlive))));
    assert!(server.receiver.proved().is_some());
}
