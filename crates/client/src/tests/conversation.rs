//! Two users talk.

use std::time::Duration;

use causeway_identity::MessageId;
use causeway_noise::Suite;

use super::server::{ENCODINGS, Server};
use super::world::{Device, address, config};
use crate::{
    Body, ClientError, Content, EventKind, MemoryStore, MessageClass, RejectReason, Rejection, SendResult, SqliteStore,
};

#[tokio::test]
async fn text_goes_both_ways_in_both_encodings_and_suites() {
    let server = Server::start().await;
    for (number, encoding) in ENCODINGS.into_iter().enumerate() {
        let mut devices = Vec::new();
        for (user, suite) in [("ada", Suite::AesGcm), ("bo", Suite::ChaChaPoly)] {
            let mut config = config(&server, &format!("{user}{number}"));
            (config.encoding, config.suite) = (encoding, suite);
            let device = Device::open(config, std::sync::Arc::new(MemoryStore::new())).await;
            device.client.enlist().await.unwrap();
            devices.push(device);
        }
        let (mut bo, mut ada) = (devices.pop().unwrap(), devices.pop().unwrap());
        let outcome = ada.tell(bo.address(), "hello").await;
        let message = bo.message().await;
        assert_eq!((message.id, message.content.as_text()), (outcome.id, Some("hello")));
        assert_eq!(message.from, ada.client.device().unwrap());
        assert_eq!(message.origin.provider, "birdy.example");
        bo.client.send(ada.address(), Content::text("hallo").in_reply_to(message.id)).await.unwrap();
        let answer = ada.message().await;
        assert_eq!(answer.content.reply_to, Some(message.id));
        for n in 0..20 {
            ada.tell(bo.address(), &format!("a{n}")).await;
            bo.tell(ada.address(), &format!("b{n}")).await;
            assert_eq!(bo.hear().await, format!("a{n}"));
            assert_eq!(ada.hear().await, format!("b{n}"));
        }
    }
}

#[tokio::test]
async fn many_in_flight_keep_their_order_and_one_claim_is_enough() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    for n in 0..300 {
        ada.client.send(bo.address(), Content::text(n.to_string())).await.unwrap();
    }
    for n in 0..300 {
        assert_eq!(bo.hear().await, n.to_string());
    }
    assert_eq!(server.state().stats.claims, 1);
}

#[tokio::test]
async fn messages_wait_for_a_recipient_who_is_away_and_for_a_sender_who_is() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    let bo = Device::new(&server, "bo").await;
    let to = bo.address().clone();
    bo.client.shutdown().await;
    for text in ["one", "two"] {
        ada.tell(&to, text).await;
    }
    let mut bo = bo.restart().await;
    assert_eq!((bo.hear().await, bo.hear().await), ("one".to_owned(), "two".to_owned()));

    server.state().faults.refuse = Some(causeway_stanza::FailureReason::Overloaded);
    server.end(ada.address(), None);
    ada.next(|kind| matches!(kind, EventKind::Disconnected(_)).then_some(())).await;
    let id = ada.client.send(&to, Content::text("three")).await.unwrap();
    assert_eq!(ada.client.outcome(id).await.unwrap(), None);
    let mut ada = ada.restart().await;
    server.state().faults.refuse = None;
    assert_eq!(bo.message().await.id, id);
    assert!(ada.client.wait_outcome(id).await.unwrap().result.is_accepted());
    assert_eq!(
        ada.next(|kind| match kind {
            EventKind::Outcome(outcome) => Some(outcome.id),
            _ => None,
        })
        .await,
        id
    );
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_shown_twice() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    ada.tell(bo.address(), "first").await;
    server.state().faults.lose_outcomes = 3;
    for n in 0..10 {
        ada.client.send(bo.address(), Content::text(n.to_string())).await.unwrap();
    }
    assert_eq!(bo.hear().await, "first");
    for n in 0..10 {
        assert_eq!(bo.hear().await, n.to_string());
    }
    bo.hears_nothing_but(&ada, "last").await;
    assert!(server.state().stats.logins >= 5);
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    server.state().faults.rate_limit = 2;
    server.state().faults.refuse_claims = 2;
    let ids = [
        ada.client.send(bo.address(), Content::text("one")).await.unwrap(),
        ada.client.send(bo.address(), Content::text("two")).await.unwrap(),
    ];
    assert_eq!([bo.message().await.id, bo.message().await.id], ids);
}

#[tokio::test]
async fn nobody_there_is_one_answer() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let bo = Device::new(&server, "bo").await;
    let not_available = SendResult::Rejected(RejectReason::Server(Rejection::NotAvailable));
    let unknown = address("nobody");
    assert!(!ada.client.discover(&unknown).await.unwrap());
    assert_eq!(ada.client.send_and_wait(&unknown, Content::text("?")).await.unwrap().result, not_available);
    ada.tell(bo.address(), "known").await;
    server.state().faults.closed.insert(bo.address().clone());
    assert_eq!(ada.client.send_and_wait(bo.address(), Content::text("?")).await.unwrap().result, not_available);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_at_once() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let bo = Device::new(&server, "bo").await;
    let long = Content::text("x".repeat(64 * 1024 + 1));
    assert!(matches!(ada.client.send(bo.address(), long).await, Err(ClientError::Content(_))));
    let unknown = Content::from(Body::Unknown(vec![1]));
    assert!(matches!(ada.client.send(bo.address(), unknown).await, Err(ClientError::Content(_))));
    let nowhere = MessageId::from_bytes([1; 16]);
    assert!(matches!(ada.client.wait_outcome(nowhere).await, Err(ClientError::UnknownMessage(id)) if id == nowhere));
    let stranger = Device::open(config(&server, "cy"), std::sync::Arc::new(MemoryStore::new())).await;
    let early = stranger.client.send(bo.address(), Content::text("early")).await;
    assert!(matches!(early, Err(ClientError::NotEnlisted)));
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let server = Server::start().await;
    let mut config = config(&server, "ada");
    config.bounds.queue = 3;
    let ada = Device::open(config, std::sync::Arc::new(MemoryStore::new())).await;
    ada.client.enlist().await.unwrap();
    let bo = Device::new(&server, "bo").await;
    server.state().faults.refuse_claims = u32::MAX;
    for _ in 0..3 {
        ada.client.send(bo.address(), Content::text("x")).await.unwrap();
    }
    assert!(matches!(ada.client.send(bo.address(), Content::text("x")).await, Err(ClientError::QueueFull)));
}

#[tokio::test]
async fn typing_is_not_kept_for_later() {
    let server = Server::start().await;
    let mut config = config(&server, "ada");
    config.timing.ephemeral_deadline = Duration::from_millis(1);
    let ada = Device::open(config, std::sync::Arc::new(MemoryStore::new())).await;
    ada.client.enlist().await.unwrap();
    let mut bo = Device::new(&server, "bo").await;
    server.state().faults.refuse_claims = 1;
    let typing = ada.client.send(bo.address(), Body::Typing { started: true }.into()).await.unwrap();
    let text = ada.client.send(bo.address(), Content::text("written")).await.unwrap();
    assert_eq!(ada.client.wait_outcome(typing).await.unwrap().result, SendResult::Dropped);
    let message = bo.message().await;
    assert_eq!((message.id, message.class), (text, MessageClass::Chat));
}

#[tokio::test]
async fn everything_survives_restarts_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let store = async |name: &str| std::sync::Arc::new(SqliteStore::open(folder.path().join(name)).await.unwrap());
    let mut ada = Device::open(config(&server, "ada"), store("ada").await).await;
    let mut bo = Device::open(config(&server, "bo"), store("bo").await).await;
    let device = ada.client.enlist().await.unwrap();
    bo.client.enlist().await.unwrap();
    for round in 0..3 {
        let texts: Vec<_> = (0..5).map(|n| format!("{round}.{n}")).collect();
        for text in &texts {
            ada.tell(bo.address(), text).await;
            bo.tell(ada.address(), text).await;
        }
        // Seen but not done: it comes again.
        let first = bo.next_event(|kind| matches!(kind, EventKind::Message(_)).then_some(())).await;
        bo = bo.restart().await;
        drop(first);
        ada = ada.restart().await;
        assert_eq!(ada.client.enlist().await.unwrap(), device);
        for text in &texts {
            assert_eq!(bo.hear().await, *text);
            assert_eq!(ada.hear().await, *text);
        }
    }
    assert_eq!(server.state().stats.claims, 1 + 1);
}

#[tokio::test]
async fn a_full_inbox_leaves_the_rest_with_the_server() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut config = config(&server, "bo");
    config.bounds.inbox = 5;
    let mut bo = Device::open(config, std::sync::Arc::new(MemoryStore::new())).await;
    bo.client.enlist().await.unwrap();
    let mut held = Vec::new();
    for n in 0..20 {
        ada.tell(bo.address(), &n.to_string()).await;
    }
    for _ in 0..5 {
        held.push(bo.next_event(|kind| matches!(kind, EventKind::Message(_)).then_some(())).await);
    }
    // A round trip: whatever bo acknowledges has been by then.
    bo.client.devices().await.unwrap();
    let (to, id) = (bo.address().clone(), bo.id());
    assert_eq!(server.state().accounts[&to].devices[&id].mailbox.len(), 15);
    assert_eq!(bo.store.inbox_len().await.unwrap(), 5);
    for event in held {
        event.done().await.unwrap();
    }
    for n in 5..20 {
        assert_eq!(bo.hear().await, n.to_string());
    }
    server.until(|state| state.accounts[&to].devices[&id].mailbox.is_empty()).await;
}

#[tokio::test]
async fn what_the_server_would_not_take_is_not_sent() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bos = Vec::new();
    for _ in 0..5 {
        bos.push(Device::new(&server, "bo").await);
    }
    let bo = bos[0].address().clone();
    let too_large = SendResult::Rejected(RejectReason::Server(Rejection::TooLarge));
    let long = Content::text("x".repeat(60_000));
    assert_eq!(ada.client.send_and_wait(&bo, long.clone()).await.unwrap().result, too_large);
    assert_eq!(server.state().stats.submits, 0);
    server.remove_device(&bo, bos[4].id());
    server.remove_device(&bo, bos[3].id());
    // Shorter lists of devices leave more room; the shorter message finds out.
    ada.tell(&bo, "short").await;
    let outcome = ada.client.send_and_wait(&bo, long).await.unwrap();
    assert_eq!(outcome.result, SendResult::Stored);
    assert_eq!((bos[0].hear().await, bos[0].hear().await.len()), ("short".to_owned(), 60_000));
}
