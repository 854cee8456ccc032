//! The client's handshake: any bytes, and an honest server's bytes that were changed on the way. No server is believed
//! whose bytes are not the honest one's.
//!
//! Input: choice (bits 0 and 1: pattern and suite; bit 2: raw bytes or edits to the honest answer), size of pieces,
//! then the bytes or edits.
#![no_main]

use bytes::{Bytes, BytesMut};
use causeway_fuzz::{Edits, Opening, SERVER_HELLO, rng, server_key};
use causeway_noise::client::Step;
use causeway_noise::server::{Handshake, Reading};
use causeway_noise::{Limits, PublicKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [choice, size, rest @ ..] = data else { return };
    let mut opening = BytesMut::new();
    let client = Opening::new(*choice, &mut opening);
    let mut stream = BytesMut::new();
    let mut honest = false;
    if choice & 4 == 0 {
        stream.extend_from_slice(rest);
    } else {
        let server = Reading::new(&server_key(), Limits::server(), &mut rng(3));
        let Handshake::Answering(answering) = server.feed(&opening) else { panic!("the opening is good") };
        answering.answer(SERVER_HELLO, &mut stream);
        honest = !Edits(rest).apply(&mut stream);
    }
    let size = usize::from(*size).max(1);
    let believed = match client {
        Opening::Xx(waiting) => feed(waiting, &stream, size, |waiting, piece| match waiting.feed(piece) {
            Step::Waiting(waiting) => Fed::More(waiting),
            Step::Answered(hello) => Fed::Answered(*hello.server_key(), hello.server_hello().clone()),
            Step::Failed(_) => Fed::Failed,
        }),
        Opening::Ik(waiting) => feed(waiting, &stream, size, |waiting, piece| match waiting.feed(piece) {
            Step::Waiting(waiting) => Fed::More(waiting),
            Step::Answered(hello) => Fed::Answered(*hello.server_key(), hello.server_hello().clone()),
            Step::Failed(_) => Fed::Failed,
        }),
    };
    match believed {
        Some((key, hello)) => {
            assert_eq!(&key, server_key().public());
            assert_eq!(hello, SERVER_HELLO);
        }
        None => assert!(!honest),
    }
});

enum Fed<W> {
    More(W),
    Answered(PublicKey, Bytes),
    Failed,
}

fn feed<W>(mut waiting: W, stream: &[u8], size: usize, step: fn(W, &[u8]) -> Fed<W>) -> Option<(PublicKey, Bytes)> {
    for piece in stream.chunks(size) {
        waiting = match step(waiting, piece) {
            Fed::More(waiting) => waiting,
            Fed::Answered(key, hello) => return Some((key, hello)),
            Fed::Failed => return None,
        };
    }
    None
}
