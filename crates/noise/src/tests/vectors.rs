//! Published vectors through our own framed client and server: the ephemeral keys are what their randomness yields,
//! the prologue is the vector's.

use std::collections::BTreeMap;

use bytes::BytesMut;
use rand::{CryptoRng, RngCore};
use serde::Deserialize;

use super::{accepted, answering, reading};
use crate::client::{self, Step};
use crate::crypto::Agreed;
use crate::server::Reading;
use crate::{Pattern, StaticKey, Suite, write_frame};

#[test]
fn cacophony() {
    run(include_str!("../vectors/cacophony.json"));
}

#[test]
fn snow() {
    run(include_str!("../vectors/snow.json"));
}

/// All four must be there: a vector that is absent fails.
const EXPECTED: [(&str, Pattern, Suite); 4] = [
    ("Noise_XX_25519_AESGCM_SHA256", Pattern::Xx, Suite::AesGcm),
    ("Noise_XX_25519_ChaChaPoly_SHA256", Pattern::Xx, Suite::ChaChaPoly),
    ("Noise_IK_25519_AESGCM_SHA256", Pattern::Ik, Suite::AesGcm),
    ("Noise_IK_25519_ChaChaPoly_SHA256", Pattern::Ik, Suite::ChaChaPoly),
];

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    protocol_name: String,
    init_prologue: Hex,
    init_static: Hex,
    init_ephemeral: Hex,
    init_remote_static: Option<Hex>,
    resp_prologue: Hex,
    resp_static: Hex,
    resp_ephemeral: Hex,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    payload: Hex,
    ciphertext: Hex,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex::decode(text).map(Self)
    }
}

impl Hex {
    fn key(&self) -> [u8; 32] {
        self.0.as_slice().try_into().unwrap()
    }
}

impl Message {
    fn frame(&self) -> BytesMut {
        let mut frame = BytesMut::new();
        write_frame(&mut frame, &self.ciphertext.0).unwrap();
        frame
    }
}

fn run(file: &str) {
    let file: File = serde_json::from_str(file).unwrap();
    let by_name: BTreeMap<_, _> = file.vectors.iter().map(|vector| (vector.protocol_name.as_str(), vector)).collect();
    assert_eq!(file.vectors.len(), EXPECTED.len());
    for (name, pattern, suite) in EXPECTED {
        check(by_name[name], pattern, suite);
    }
}

fn check(vector: &Vector, pattern: Pattern, suite: Suite) {
    assert_eq!(vector.init_prologue.0, vector.resp_prologue.0);
    let agreed = Agreed { pattern, suite, prologue: &vector.init_prologue.0 };
    let client_key = StaticKey::from_bytes(vector.init_static.key());
    let server_key = StaticKey::from_bytes(vector.resp_static.key());
    let known_key = vector.init_remote_static.as_ref().map(Hex::key);
    assert_eq!(known_key.is_some(), pattern == Pattern::Ik);

    let mut messages = vector.messages.iter();
    let mut next = || messages.next().unwrap();

    let first = next();
    let mut out = BytesMut::new();
    let mut rng = Fixed(vector.init_ephemeral.key());
    let client = client::for_vector(&client_key, &agreed, known_key.as_ref(), &first.payload.0, &mut rng, &mut out);
    assert_eq!(out, first.frame(), "first message");

    let server = Reading::for_vector(&server_key, &agreed, &mut Fixed(vector.resp_ephemeral.key()));
    let server = answering(server.feed(&out));
    if pattern == Pattern::Ik {
        assert_eq!(server.client_hello().unwrap(), &first.payload.0);
    }

    let second = next();
    let mut out = BytesMut::new();
    let server = server.answer(&second.payload.0, &mut out);
    assert_eq!(out, second.frame(), "second message");

    let Step::Answered(hello) = client.unwrap().feed(&out) else { panic!("the client should have an answer") };
    assert_eq!(hello.server_hello(), &second.payload.0);
    assert_eq!(hello.server_key(), server_key.public());

    let (mut client, server, client_hello) = match pattern {
        Pattern::Xx => {
            let third = next();
            let mut out = BytesMut::new();
            let session = hello.finish(&third.payload.0, &mut out).unwrap();
            assert_eq!(out, third.frame(), "third message");
            (session, accepted(reading(server).feed(&out)), &third.payload.0)
        }
        Pattern::Ik => (hello.finish_ik_vector().unwrap(), accepted(server), &first.payload.0),
    };
    assert_eq!(server.client_hello, client_hello);
    assert_eq!(&server.client_key, client_key.public());

    let mut server = server.session;
    // Messages take turns, and the client has sent the first.
    let mut transported = 0;
    for (index, message) in vector.messages.iter().enumerate().skip(if pattern == Pattern::Xx { 3 } else { 2 }) {
        let (from, to) = if index % 2 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let frame = from.seal_raw(&message.payload.0);
        assert_eq!(frame, message.frame(), "message {index}");
        assert_eq!(to.open_raw(&frame), message.payload.0);
        transported += 1;
    }
    assert!(transported >= 2, "both directions are covered");
}

/// Randomness that yields one vector's ephemeral key.
pub(super) struct Fixed(pub(super) [u8; 32]);

impl RngCore for Fixed {
    fn next_u32(&mut self) -> u32 {
        panic!("a handshake draws a whole key")
    }

    fn next_u64(&mut self) -> u64 {
        panic!("a handshake draws a whole key")
    }

    fn fill_bytes(&mut self, dst: &mut [u8]) {
        dst.copy_from_slice(&self.0);
    }
}

impl CryptoRng for Fixed {}
