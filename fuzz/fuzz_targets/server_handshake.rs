//! The server's handshake: any bytes, and honest bytes that were changed on the way. Nobody is accepted whose bytes
//! are not the honest client's.
//!
//! Input: choice (bits 0 and 1: pattern and suite; bits 2 and 3: raw bytes, raw bytes behind a good opening, or
//! edits to the honest opening), size of pieces, then the bytes or edits.
#![no_main]

use bytes::BytesMut;
use causeway_fuzz::{CLIENT_HELLO, Edits, Opening, SERVER_HELLO, client_key, rng, server_key};
use causeway_noise::Limits;
use causeway_noise::server::{Handshake, Reading};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [choice, size, rest @ ..] = data else { return };
    let mut stream = BytesMut::new();
    let mut honest = false;
    match (choice >> 2) & 3 {
        0 => stream.extend_from_slice(rest),
        1 => {
            Opening::new(*choice, &mut stream);
            stream.truncate(8);
            stream.extend_from_slice(rest);
        }
        _ => {
            Opening::new(*choice, &mut stream);
            honest = !Edits(rest).apply(&mut stream);
        }
    }
    run(&stream, usize::from(*size).max(1), honest);
});

fn run(stream: &[u8], size: usize, honest: bool) {
    let mut state = Handshake::Reading(Reading::new(&server_key(), Limits::server(), &mut rng(3)));
    for piece in stream.chunks(size) {
        state = match state {
            Handshake::Reading(reading) => reading.feed(piece),
            _ => return,
        };
        if let Handshake::Answering(answering) = state {
            state = answering.answer(SERVER_HELLO, &mut BytesMut::new());
        }
        match &state {
            Handshake::Refused(error) => {
                assert!(!honest, "{error}");
                error.alert().encode();
                return;
            }
            Handshake::Accepted(accepted) => {
                // Whether honest or raw, only these bytes authenticate; and they could be a recording.
                assert_eq!(accepted.client_hello, CLIENT_HELLO);
                assert_eq!(&accepted.client_key, client_key().public());
                assert!(accepted.session.receiver.proved().is_none());
                return;
            }
            Handshake::Reading(_) | Handshake::Answering(_) => {}
        }
    }
}
