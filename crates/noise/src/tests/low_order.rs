//! Points that make a shared secret zero, wherever a peer can send one.

use bytes::BytesMut;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};

use super::{CLIENT_HELLO, Client, SERVER_HELLO, SUITES, answering, client_key, new_server, reading, refused, rng};
use crate::client::{self, ClientError, Step};
use crate::preamble::noise_name;
use crate::server::{Handshake, HandshakeError};
use crate::{Alert, Limits, Pattern, Preamble, write_frame};

/// 0, 1, the two points of order 8, p-1, p and p+1, each also with the bit that X25519 ignores.
fn encodings() -> Vec<[u8; 32]> {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let mut all = Vec::new();
    for point in points {
        let mut bytes: [u8; 32] = hex::decode(point).unwrap().try_into().unwrap();
        all.push(bytes);
        bytes[31] |= 0x80;
        all.push(bytes);
    }
    assert_eq!(all.len(), 14);
    all
}

#[test]
fn as_the_clients_ephemeral_key_in_xx() {
    for suite in SUITES {
        for point in encodings() {
            let mut opening = BytesMut::from(&Preamble { pattern: Pattern::Xx, suite }.encode()[..]);
            write_frame(&mut opening, &point).unwrap();
            let mut out = BytesMut::new();
            let error = refused(answering(new_server().feed(&opening)).answer(SERVER_HELLO, &mut out));
            assert_eq!((error, error.alert()), (HandshakeError::LowOrder, Alert::Handshake));
            assert!(out.is_empty(), "nothing of the server's hello leaves");
        }
    }
}

#[test]
fn as_the_clients_ephemeral_key_in_ik() {
    for suite in SUITES {
        for point in encodings() {
            let (_, mut opening) = Client::start(Pattern::Ik, suite, super::server_key().public());
            opening[10..42].copy_from_slice(&point);
            let error = refused(new_server().feed(&opening));
            assert_eq!((error, error.alert()), (HandshakeError::LowOrder, Alert::Handshake));
        }
    }
}

#[test]
fn as_the_clients_static_key_in_xx() {
    for suite in SUITES {
        for point in encodings() {
            let preamble = Preamble { pattern: Pattern::Xx, suite }.encode();
            let mut liar = liar(Pattern::Xx, suite, &preamble, point);
            let mut opening = BytesMut::from(&preamble[..]);
            write_frame(&mut opening, &message(&mut liar, &[])).unwrap();
            let mut answer = BytesMut::new();
            let server = reading(answering(new_server().feed(&opening)).answer(SERVER_HELLO, &mut answer));
            liar.read_message(&answer[2..], &mut [0; 1024]).unwrap();
            let mut third = BytesMut::new();
            write_frame(&mut third, &message(&mut liar, CLIENT_HELLO)).unwrap();
            assert_eq!(refused(server.feed(&third)), HandshakeError::LowOrder);
        }
    }
}

#[test]
fn as_the_clients_static_key_in_ik() {
    for suite in SUITES {
        for point in encodings() {
            let preamble = Preamble { pattern: Pattern::Ik, suite }.encode();
            let mut liar = liar(Pattern::Ik, suite, &preamble, point);
            let mut opening = BytesMut::from(&preamble[..]);
            write_frame(&mut opening, &message(&mut liar, CLIENT_HELLO)).unwrap();
            assert_eq!(refused(new_server().feed(&opening)), HandshakeError::LowOrder);
        }
    }
}

#[test]
fn as_the_servers_keys() {
    for suite in SUITES {
        for point in encodings() {
            let mut out = BytesMut::new();
            let known = client::ik(&client_key(), &point, suite, CLIENT_HELLO, Limits::client(), &mut rng(1), &mut out);
            assert_eq!(known.err(), Some(ClientError::LowOrder));
            assert!(out.is_empty(), "nothing of the client's hello leaves");

            for pattern in super::PATTERNS {
                let (client, opening) = Client::start(pattern, suite, super::server_key().public());
                let mut answer = BytesMut::new();
                let state = answering(new_server().feed(&opening)).answer(SERVER_HELLO, &mut answer);
                assert!(!matches!(state, Handshake::Refused(_)));
                answer[2..34].copy_from_slice(&point);
                assert_eq!(client.finish(&answer).err(), Some(ClientError::LowOrder));
            }
        }
    }
}

#[test]
fn a_client_survives_whatever_follows_a_bad_key() {
    let (client, _) = Client::start(Pattern::Xx, SUITES[0], super::server_key().public());
    let Client::Xx(waiting) = client else { panic!("XX was asked for") };
    let mut answer = BytesMut::new();
    write_frame(&mut answer, &[0; 31]).unwrap();
    assert!(matches!(waiting.feed(&answer), Step::Failed(ClientError::Malformed)));
}

/// An initiator that claims a static public key of low order. What it computes with it is zero, as for anybody.
fn liar(pattern: Pattern, suite: crate::Suite, prologue: &[u8], claimed: [u8; 32]) -> snow::HandshakeState {
    let params = noise_name(pattern, suite).parse().unwrap();
    let key = [9; 32];
    let server_key = *super::server_key().public();
    let mut builder = snow::Builder::with_resolver(params, Box::new(LyingResolver(claimed)))
        .local_private_key(&key)
        .unwrap()
        .prologue(prologue)
        .unwrap();
    if pattern == Pattern::Ik {
        builder = builder.remote_public_key(&server_key).unwrap();
    }
    builder.build_initiator().unwrap()
}

fn message(state: &mut snow::HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 1024];
    let len = state.write_message(payload, &mut message).unwrap();
    message.truncate(len);
    message
}

struct LyingResolver([u8; 32]);

impl CryptoResolver for LyingResolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(LyingDh { honest: DefaultResolver.resolve_dh(choice)?, claimed: self.0, lies: false }))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Lies about the key that was set, which is the static one; the ephemeral one is generated.
struct LyingDh {
    honest: Box<dyn Dh>,
    claimed: [u8; 32],
    lies: bool,
}

impl Dh for LyingDh {
    fn name(&self) -> &'static str {
        self.honest.name()
    }

    fn pub_len(&self) -> usize {
        self.honest.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.honest.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.lies = true;
        self.honest.set(privkey);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.honest.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        if self.lies { &self.claimed } else { self.honest.pubkey() }
    }

    fn privkey(&self) -> &[u8] {
        self.honest.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        if self.lies {
            out[..32].fill(0);
            return Ok(());
        }
        self.honest.dh(pubkey, out)
    }
}
