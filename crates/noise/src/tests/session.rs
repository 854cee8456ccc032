//! Records over an established session, and what becomes of it when somebody interferes.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{SUITES, establish};
use crate::{Alert, Limits, Pattern, ReceiveError, Received, RecordError, SendError, Session, Suite};

/// A client and a server in session.
fn pair() -> (Session, Session) {
    let (client, server, _) = establish(Pattern::Xx, Suite::AesGcm);
    (client, server.session)
}

/// The bytes of each record sent as a frame of its own.
fn frames(from: &mut Session, records: &[&[u8]]) -> Vec<BytesMut> {
    let mut frames = Vec::new();
    for record in records {
        from.sender.queue(record).unwrap();
        from.sender.seal().unwrap();
        frames.push(from.sender.sealed().split());
    }
    frames
}

fn record(text: &'static str) -> Result<Option<Received>, ReceiveError> {
    Ok(Some(Received::Record(Bytes::from_static(text.as_bytes()))))
}

#[test]
fn small_records_share_a_message_and_large_ones_span() {
    let (mut client, mut server) = pair();
    for _ in 0..1_000 {
        client.sender.queue(b"0123456789").unwrap();
    }
    client.sender.seal().unwrap();
    assert_eq!(client.sender.queued(), 2 + 1_000 * 11 + 16, "one message");
    server.receiver.feed(&client.sender.sealed().split());
    for _ in 0..1_000 {
        assert_eq!(server.receiver.next(), record("0123456789"));
    }

    let large = vec![5; 256 * 1024];
    client.sender.queue(&large).unwrap();
    client.sender.queue(b"after").unwrap();
    client.sender.seal().unwrap();
    assert_eq!(client.sender.queued(), large.len() + 3 + 6 + 5 * 18, "five messages");
    server.receiver.feed(&client.sender.sealed().split());
    assert_eq!(server.receiver.next(), Ok(Some(Received::Record(large.into()))));
    assert_eq!(server.receiver.next(), record("after"));
    assert_eq!(server.receiver.next(), Ok(None));
    assert!(!server.receiver.is_partial());
}

#[test]
fn a_flipped_bit_anywhere_ends_the_session_for_good() {
    for suite in SUITES {
        let (mut client, _, _) = establish(Pattern::Xx, suite);
        let sent = frames(&mut client, &[b"one", b"two"]);
        for bit in 0..8 * sent[0].len() {
            let (_, accepted, _) = establish(Pattern::Xx, suite);
            let mut receiver = accepted.session.receiver;
            let mut flipped = sent[0].clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            receiver.feed(&flipped);
            receiver.feed(&sent[0]);
            receiver.feed(&sent[1]);
            // A longer length swallows what follows and then fails, or waits for more; none gives a record.
            match receiver.next() {
                Ok(None) => assert!(bit < 16 && receiver.is_partial()),
                Ok(Some(_)) => panic!("bit {bit} went unnoticed"),
                Err(error) => {
                    receiver.feed(&sent[0]);
                    assert_eq!(receiver.next(), Err(error), "later frames are not looked at");
                }
            }
        }
    }
}

#[test]
fn a_repeated_swapped_or_missing_message_ends_the_session() {
    let (mut client, _) = pair();
    let sent = frames(&mut client, &[b"one", b"two", b"three"]);
    for (order, good) in [(&[0, 0, 1][..], 1), (&[1, 0, 2], 0), (&[0, 2], 1), (&[0, 1, 0, 2], 2)] {
        let (_, mut server) = pair();
        for index in order {
            server.receiver.feed(&sent[*index]);
        }
        for _ in 0..good {
            assert!(matches!(server.receiver.next(), Ok(Some(Received::Record(_)))));
        }
        for _ in 0..3 {
            assert_eq!(server.receiver.next(), Err(ReceiveError::Decrypt));
        }
    }
}

#[test]
fn one_sides_messages_are_not_the_others() {
    let (mut client, mut server) = pair();
    let sent = frames(&mut client, &[b"one"]);
    client.receiver.feed(&sent[0]);
    assert_eq!(client.receiver.next(), Err(ReceiveError::Decrypt));
    server.receiver.feed(&sent[0]);
    assert_eq!(server.receiver.next(), record("one"));
}

#[test]
fn an_alert_or_a_bad_length_ends_the_session() {
    let (_, mut server) = pair();
    server.receiver.feed(&Alert::Handshake.encode());
    assert_eq!(server.receiver.next(), Err(ReceiveError::Alert(Alert::Handshake)));

    let (mut client, mut server) = pair();
    server.receiver.feed(&client.seal_raw(&[3, b'o', b'n', b'e', 0x81, 0x00]));
    assert_eq!(server.receiver.next(), record("one"));
    assert_eq!(server.receiver.next(), Err(ReceiveError::Record(RecordError::NotMinimal)));
}

#[test]
fn limits_hold_on_both_sides() {
    let (mut client, mut server) = pair();
    let limit = Limits::client().send_record;
    assert_eq!(client.sender.queue(&vec![0; limit + 1]), Err(SendError::TooLarge { limit }));
    assert_eq!(client.sender.queued(), 0);
    client.sender.limit_records(10);
    assert_eq!(client.sender.queue(&[0; 11]), Err(SendError::TooLarge { limit: 10 }));
    client.sender.limit_records(limit + 1);
    client.sender.queue(&vec![0; limit + 1]).unwrap();
    client.sender.seal().unwrap();
    server.receiver.feed(&client.sender.sealed().split());
    assert_eq!(server.receiver.next(), Err(ReceiveError::Record(RecordError::TooLarge { limit })));

    let (mut client, _) = pair();
    let record = vec![1; limit];
    let mut queued = 0;
    while client.sender.queue(&record).is_ok() {
        queued += 1;
    }
    assert_eq!(queued, 3, "what fits into 1 MiB with its overhead");
    assert_eq!(client.sender.queue(&record), Err(SendError::QueueFull));
    client.sender.seal().unwrap();
    let _written = client.sender.sealed().split();
    client.sender.queue(&record).unwrap();
}

#[test]
fn a_single_record_fits_into_any_empty_queue() {
    let (mut client, _) = pair();
    client.sender.limit_records(4 * 1024 * 1024);
    client.sender.queue(&vec![1; 4 * 1024 * 1024]).unwrap();
    assert_eq!(client.sender.queue(b"x"), Err(SendError::QueueFull));
}

#[test]
fn a_used_up_session_says_so_on_both_sides() {
    let (mut client, mut server) = pair();
    client.set_nonces(u64::MAX - 1);
    server.set_nonces(u64::MAX - 1);
    let sent = frames(&mut client, &[b"last"]);
    server.receiver.feed(&sent[0]);
    assert_eq!(server.receiver.next(), record("last"));
    client.sender.queue(b"one too many").unwrap();
    for _ in 0..2 {
        assert_eq!(client.sender.seal(), Err(SendError::Exhausted));
        assert!(client.sender.sealed().is_empty());
    }
    server.receiver.feed(&sent[0]);
    assert_eq!(server.receiver.next(), Err(ReceiveError::Exhausted));
}

#[test]
fn a_message_without_plaintext_is_nothing() {
    let (mut client, mut server) = pair();
    server.receiver.feed(&client.seal_raw(&[]));
    assert_eq!(server.receiver.next(), Ok(None));
    server.receiver.feed(&client.seal_raw(&[1, 7]));
    assert_eq!(server.receiver.next(), Ok(Some(Received::Record(Bytes::from_static(&[7])))));
    // Shorter than its tag.
    server.receiver.feed(&[0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(server.receiver.next(), Err(ReceiveError::Decrypt));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_of_the_wire_and_of_the_messages_gives_the_same_records(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 1..20),
        messages in 1_usize..700,
        pieces in 1_usize..900,
    ) {
        let (mut client, mut server) = pair();
        let mut plain = BytesMut::new();
        for record in &records {
            crate::record::write(&mut plain, record);
        }
        let mut wire = BytesMut::new();
        for message in plain.chunks(messages) {
            wire.extend_from_slice(&client.seal_raw(message));
        }
        let mut read = Vec::new();
        for piece in wire.chunks(pieces) {
            server.receiver.feed(piece);
            while let Some(Received::Record(record)) = server.receiver.next().unwrap() {
                read.push(record.to_vec());
            }
        }
        prop_assert_eq!(read, records);
        prop_assert!(!server.receiver.is_partial());
    }

    #[test]
    fn any_bytes_end_in_silence_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let (_, mut server) = pair();
        server.receiver.feed(&bytes);
        prop_assert!(!matches!(server.receiver.next(), Ok(Some(_))));
    }
}
