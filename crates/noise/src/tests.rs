//! What the machines do together, and against a hostile peer.

mod document;
mod handshake;
mod low_order;
mod measure;
mod reference;
mod session;
mod transport;
mod vectors;
mod websocket;

use std::sync::Arc;

use bytes::BytesMut;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::client::{self, ClientError, Step};
use crate::server::{Accepted, Answering, Handshake, HandshakeError, Reading};
use crate::{Limits, Pattern, PublicKey, Session, StaticKey, Suite};

const SUITES: [Suite; 2] = [Suite::AesGcm, Suite::ChaChaPoly];
const PATTERNS: [Pattern; 2] = [Pattern::Xx, Pattern::Ik];
const CLIENT_HELLO: &[u8] = b"client hello";
const SERVER_HELLO: &[u8] = b"server hello";

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn server_key() -> Arc<StaticKey> {
    Arc::new(StaticKey::from_bytes([1; 32]))
}

fn client_key() -> StaticKey {
    StaticKey::from_bytes([2; 32])
}

fn new_server() -> Reading {
    Reading::new(&server_key(), Limits::server(), &mut rng(3))
}

/// A client of either pattern that waits for the server's message.
enum Client {
    Xx(client::XxWaiting),
    Ik(client::IkWaiting),
}

impl Client {
    /// The client and its first bytes.
    fn start(pattern: Pattern, suite: Suite, server_key: &PublicKey) -> (Self, BytesMut) {
        let mut out = BytesMut::new();
        let (key, limits) = (client_key(), Limits::client());
        let client = match pattern {
            Pattern::Xx => Self::Xx(client::xx(&key, suite, limits, &mut rng(4), &mut out).unwrap()),
            Pattern::Ik => {
                Self::Ik(client::ik(&key, server_key, suite, CLIENT_HELLO, limits, &mut rng(4), &mut out).unwrap())
            }
        };
        (client, out)
    }

    /// Its session and last bytes, from the whole of the server's message.
    fn finish(self, answer: &[u8]) -> Result<(Session, BytesMut), ClientError> {
        let mut out = BytesMut::new();
        let session = match self {
            Self::Xx(waiting) => match waiting.feed(answer) {
                Step::Waiting(_) => panic!("the answer is incomplete"),
                Step::Failed(error) => return Err(error),
                Step::Answered(hello) => {
                    assert_eq!(hello.server_hello(), SERVER_HELLO);
                    assert_eq!(hello.server_key(), server_key().public());
                    hello.finish(CLIENT_HELLO, &mut out)?
                }
            },
            Self::Ik(waiting) => match waiting.feed(answer) {
                Step::Waiting(_) => panic!("the answer is incomplete"),
                Step::Failed(error) => return Err(error),
                Step::Answered(hello) => {
                    assert_eq!(hello.server_hello(), SERVER_HELLO);
                    assert_eq!(hello.server_key(), server_key().public());
                    hello.finish(&mut out)?
                }
            },
        };
        Ok((session, out))
    }
}

fn reading(state: Handshake) -> Reading {
    match state {
        Handshake::Reading(reading) => reading,
        _ => panic!("the server should be reading"),
    }
}

fn answering(state: Handshake) -> Answering {
    match state {
        Handshake::Answering(answering) => answering,
        _ => panic!("the server should be answering"),
    }
}

fn accepted(state: Handshake) -> Accepted {
    match state {
        Handshake::Accepted(accepted) => *accepted,
        _ => panic!("the server should have accepted"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "like its siblings: the state is over")]
fn refused(state: Handshake) -> HandshakeError {
    match state {
        Handshake::Refused(error) => error,
        _ => panic!("the server should have refused"),
    }
}

/// A session from both ends. After IK the client's empty record is still in its sender's bytes, returned third.
fn establish(pattern: Pattern, suite: Suite) -> (Session, Accepted, BytesMut) {
    let (client, opening) = Client::start(pattern, suite, server_key().public());
    let mut answer = BytesMut::new();
    let state = answering(new_server().feed(&opening)).answer(SERVER_HELLO, &mut answer);
    let (session, last) = client.finish(&answer).unwrap();
    match pattern {
        Pattern::Xx => (session, accepted(reading(state).feed(&last)), BytesMut::new()),
        Pattern::Ik => (session, accepted(state), last),
    }
}
