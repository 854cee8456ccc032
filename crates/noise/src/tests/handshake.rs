//! Handshakes between our own two machines, and what becomes of them when somebody interferes.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::{Alert, Preamble, PreambleError, ReceiveError, Received, write_frame};

#[test]
fn both_patterns_and_suites_establish_a_session() {
    for pattern in PATTERNS {
        for suite in SUITES {
            let (mut client, mut server, last) = establish(pattern, suite);
            assert_eq!(server.pattern, pattern);
            assert_eq!(server.client_hello, CLIENT_HELLO);
            assert_eq!(&server.client_key, client_key().public());
            server.session.receiver.feed(&last);
            if pattern == Pattern::Ik {
                assert_eq!(server.session.receiver.next(), Ok(Some(Received::KeepAlive)));
            }
            exchange(&mut client, &mut server.session);
            exchange(&mut server.session, &mut client);
        }
    }
}

fn exchange(from: &mut Session, to: &mut Session) {
    from.sender.queue(b"hello").unwrap();
    from.sender.seal().unwrap();
    to.receiver.feed(&from.sender.sealed().split());
    assert_eq!(to.receiver.next(), Ok(Some(Received::Record("hello".into()))));
    assert_eq!(to.receiver.next(), Ok(None));
}

#[test]
fn bytes_may_come_one_at_a_time() {
    for pattern in PATTERNS {
        let (client, opening) = Client::start(pattern, Suite::AesGcm, server_key().public());
        let mut server = new_server();
        let (last, all_but_last) = opening.split_last().unwrap();
        for byte in all_but_last {
            server = reading(server.feed(&[*byte]));
        }
        let mut answer = BytesMut::new();
        let state = answering(server.feed(&[*last])).answer(SERVER_HELLO, &mut answer);
        let (_, third) = client.finish(&answer).unwrap();
        if pattern == Pattern::Xx {
            let mut server = reading(state);
            let (last, all_but_last) = third.split_last().unwrap();
            for byte in all_but_last {
                server = reading(server.feed(&[*byte]));
            }
            accepted(server.feed(&[*last]));
        }
    }
}

#[test]
fn each_flipped_bit_of_the_opening_ends_without_a_session() {
    for pattern in PATTERNS {
        for suite in SUITES {
            for bit in 0..8 * Preamble::LEN {
                let (client, mut opening) = Client::start(pattern, suite, server_key().public());
                opening[bit / 8] ^= 1 << (bit % 8);
                let mut answer = BytesMut::new();
                match (new_server().feed(&opening), bit) {
                    // The other pattern and the other suite are known, so the handshake has to notice.
                    (Handshake::Refused(error), 40) => assert_eq!(error.alert(), Alert::Handshake),
                    (Handshake::Refused(error), 48) => {
                        assert_eq!((pattern, error.alert()), (Pattern::Ik, Alert::UseXx));
                    }
                    (Handshake::Answering(server), 48) => {
                        assert_eq!(pattern, Pattern::Xx);
                        server.answer(SERVER_HELLO, &mut answer);
                        assert_eq!(client.finish(&answer).err(), Some(ClientError::Decrypt));
                    }
                    (Handshake::Refused(error), _) => assert_eq!(error.alert(), Alert::Version),
                    _ => panic!("bit {bit} went unnoticed"),
                }
            }
        }
    }
}

#[test]
fn each_flipped_byte_of_each_message_ends_without_a_session() {
    for pattern in PATTERNS {
        let (_, opening) = Client::start(pattern, Suite::AesGcm, server_key().public());
        for at in Preamble::LEN + 2..opening.len() {
            let (client, mut opening) = Client::start(pattern, Suite::AesGcm, server_key().public());
            opening[at] ^= 1;
            let mut answer = BytesMut::new();
            match new_server().feed(&opening) {
                Handshake::Refused(error) => {
                    // An ephemeral key and an encrypted static key, which shows that ours was meant; then the payload.
                    let before_payload = at < Preamble::LEN + 2 + 32 + 48;
                    let expected =
                        if before_payload { HandshakeError::OtherServerKey } else { HandshakeError::Decrypt };
                    assert_eq!((pattern, error), (Pattern::Ik, expected), "byte {at}");
                }
                Handshake::Answering(server) => {
                    assert_eq!(pattern, Pattern::Xx);
                    server.answer(SERVER_HELLO, &mut answer);
                    assert_eq!(client.finish(&answer).err(), Some(ClientError::Decrypt));
                }
                _ => panic!("byte {at} went unnoticed"),
            }
        }
        let answer_len = 2 + 32 + if pattern == Pattern::Xx { 48 } else { 0 } + SERVER_HELLO.len() + 16;
        for at in 2..answer_len {
            let (client, opening) = Client::start(pattern, Suite::AesGcm, server_key().public());
            let mut answer = BytesMut::new();
            answering(new_server().feed(&opening)).answer(SERVER_HELLO, &mut answer);
            assert_eq!(answer.len(), answer_len);
            answer[at] ^= 1;
            assert_eq!(client.finish(&answer).err(), Some(ClientError::Decrypt), "byte {at}");
        }
    }
    for at in 2..2 + 48 + CLIENT_HELLO.len() + 16 {
        let (client, opening) = Client::start(Pattern::Xx, Suite::AesGcm, server_key().public());
        let mut answer = BytesMut::new();
        let state = answering(new_server().feed(&opening)).answer(SERVER_HELLO, &mut answer);
        let (_, mut third) = client.finish(&answer).unwrap();
        third[at] ^= 1;
        let error = refused(reading(state).feed(&third));
        assert_eq!((error, error.alert()), (HandshakeError::Decrypt, Alert::Handshake), "byte {at}");
    }
}

#[test]
fn ik_for_another_server_key_is_sent_to_xx() {
    let rotated = StaticKey::from_bytes([77; 32]);
    for suite in SUITES {
        let (_, opening) = Client::start(Pattern::Ik, suite, rotated.public());
        let error = refused(new_server().feed(&opening));
        assert_eq!((error, error.alert()), (HandshakeError::OtherServerKey, Alert::UseXx));
        let (client, _) = Client::start(Pattern::Ik, suite, rotated.public());
        let told = client.finish(&error.alert().encode()).err().unwrap();
        assert!(told.use_xx());
    }
}

#[test]
fn a_replayed_ik_opening_proves_nothing() {
    let (client, opening) = Client::start(Pattern::Ik, Suite::AesGcm, server_key().public());
    let mut answer = BytesMut::new();
    let mut live = accepted(answering(new_server().feed(&opening)).answer(SERVER_HELLO, &mut answer)).session.receiver;
    let (mut session, mut recorded) = client.finish(&answer).unwrap();
    session.sender.queue(b"a stanza").unwrap();
    session.sender.seal().unwrap();
    recorded.extend_from_slice(session.sender.sealed());

    assert!(live.proved().is_none(), "the opening alone may be a recording");
    live.feed(&recorded);
    assert_eq!(live.next(), Ok(Some(Received::KeepAlive)));
    assert!(live.proved().is_some());

    for seed in 0..1_000 {
        let server = Reading::new(&server_key(), Limits::server(), &mut rng(1_000 + seed));
        let state = answering(server.feed(&opening)).answer(SERVER_HELLO, &mut BytesMut::new());
        let mut receiver = accepted(state).session.receiver;
        receiver.feed(&recorded);
        assert_eq!(receiver.next(), Err(ReceiveError::Decrypt));
        assert!(receiver.proved().is_none());
    }
}

#[test]
fn xx_proves_the_client_at_once() {
    let (_, server, _) = establish(Pattern::Xx, Suite::AesGcm);
    assert!(server.session.receiver.proved().is_some());
}

#[test]
fn records_behind_the_last_message_are_kept_for_the_session() {
    let (client, opening) = Client::start(Pattern::Xx, Suite::AesGcm, server_key().public());
    let mut answer = BytesMut::new();
    let state = answering(new_server().feed(&opening)).answer(SERVER_HELLO, &mut answer);
    let (mut session, mut third) = client.finish(&answer).unwrap();
    session.sender.queue(b"early").unwrap();
    session.sender.seal().unwrap();
    third.extend_from_slice(session.sender.sealed());
    let mut receiver = accepted(reading(state).feed(&third)).session.receiver;
    assert_eq!(receiver.next(), Ok(Some(Received::Record("early".into()))));
}

#[test]
fn what_waits_before_the_end_of_the_handshake_is_bounded() {
    let flood = vec![0xaa; 256 * 1024];
    let preamble = |pattern| Preamble { pattern, suite: Suite::AesGcm }.encode();

    // XX: the first message is a key, so its length alone is enough.
    let server = reading(new_server().feed(&preamble(Pattern::Xx)));
    assert_eq!(refused(server.feed(&[0xaa, 0xaa])), HandshakeError::Malformed);

    // IK: one message at most, however long it says it is.
    let server = reading(new_server().feed(&preamble(Pattern::Ik)));
    assert_eq!(ends_within(server, &flood, 66_000), HandshakeError::OtherServerKey);

    // The third message of XX.
    let (_, opening) = Client::start(Pattern::Xx, Suite::AesGcm, server_key().public());
    let server = reading(answering(new_server().feed(&opening)).answer(SERVER_HELLO, &mut BytesMut::new()));
    assert_eq!(ends_within(server, &flood, 66_000), HandshakeError::Decrypt);

    // More than a frame behind a good message.
    let (_, mut opening) = Client::start(Pattern::Ik, Suite::AesGcm, server_key().public());
    opening.extend_from_slice(&flood);
    assert_eq!(refused(new_server().feed(&opening)), HandshakeError::Malformed);
}

fn ends_within(mut server: Reading, flood: &[u8], limit: usize) -> HandshakeError {
    let mut fed = 0;
    for piece in flood.chunks(1_000) {
        fed += piece.len();
        assert!(fed <= limit, "the server goes on reading");
        server = match server.feed(piece) {
            Handshake::Reading(reading) => reading,
            state => return refused(state),
        };
    }
    panic!("the server never ends");
}

#[test]
fn a_client_sends_no_alerts_and_no_short_messages() {
    for pattern in PATTERNS {
        let preamble = Preamble { pattern, suite: Suite::AesGcm }.encode();
        assert_eq!(refused(reading(new_server().feed(&preamble)).feed(&[0, 0])), HandshakeError::Malformed);
        for len in [1, 31, 33, 79, 95] {
            let mut frame = BytesMut::new();
            write_frame(&mut frame, &vec![7; len]).unwrap();
            let error = refused(reading(new_server().feed(&preamble)).feed(&frame));
            // With room for an encrypted key in it, a message is tried, and fails to open.
            let tried = pattern == Pattern::Ik && len >= 80;
            assert_eq!(error, if tried { HandshakeError::OtherServerKey } else { HandshakeError::Malformed });
        }
    }
}

#[test]
fn another_protocol_is_refused_at_its_first_byte() {
    let error = refused(new_server().feed(b"G"));
    assert_eq!((error, error.alert()), (HandshakeError::Preamble(PreambleError::Magic), Alert::Version));
}

#[test]
fn payloads_that_fit_no_message_are_refused_here() {
    let (_, opening) = Client::start(Pattern::Xx, Suite::AesGcm, server_key().public());
    let mut out = BytesMut::new();
    let state = answering(new_server().feed(&opening)).answer(&vec![0; 65_536], &mut out);
    assert_eq!(refused(state), HandshakeError::HelloTooLong);
    assert!(out.is_empty());
    let long = vec![0; 65_535];
    let started =
        client::ik(&client_key(), server_key().public(), Suite::AesGcm, &long, Limits::client(), &mut rng(1), &mut out);
    assert_eq!(started.err(), Some(ClientError::HelloTooLong));
    assert!(out.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_server_survives_any_bytes_and_accepts_none(
        known_opening in prop::option::of((0_usize..2, 0_usize..2)),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..40),
    ) {
        let mut server = new_server();
        if let Some((pattern, suite)) = known_opening {
            let preamble = Preamble { pattern: PATTERNS[pattern], suite: SUITES[suite] };
            server = reading(server.feed(&preamble.encode()));
        }
        for piece in pieces {
            server = match server.feed(&piece) {
                Handshake::Reading(reading) => reading,
                Handshake::Answering(answering) => match answering.answer(SERVER_HELLO, &mut BytesMut::new()) {
                    Handshake::Reading(reading) => reading,
                    Handshake::Refused(_) => return Ok(()),
                    _ => panic!("random bytes were accepted"),
                },
                Handshake::Refused(_) => return Ok(()),
                Handshake::Accepted(_) => panic!("random bytes were accepted"),
            };
        }
    }

    #[test]
    fn a_client_survives_any_bytes_and_accepts_none(
        pattern in 0_usize..2,
        bytes in prop::collection::vec(any::<u8>(), 0..4000),
    ) {
        let (client, _) = Client::start(PATTERNS[pattern], Suite::AesGcm, server_key().public());
        let answered = match client {
            Client::Xx(waiting) => matches!(waiting.feed(&bytes), Step::Answered(_)),
            Client::Ik(waiting) => matches!(waiting.feed(&bytes), Step::Answered(_)),
        };
        prop_assert!(!answered);
    }
}
