//! Everybody at once, and everybody away at once.

use std::collections::BTreeMap;
use std::time::Duration;

use causeway_noise::Alert;
use causeway_noise::client::ClientError;
use causeway_proto::routing::v1::edge_event::Event as FromEdge;
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{EndReason, Fate, FromClient, FromServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::{Client, Opening, alert, key, shout};
use super::rig::{Rig, soon, token};
use super::sessions::{message, outcome};

#[tokio::test]
async fn of_hundreds_at_once_each_is_told_its_own_time() {
    let rig = Rig::with(|config| {
        config.handshakes_per_s = 40;
        config.handshake_burst = 20;
        config.handshakes_per_s_per_network = 40;
    })
    .await;
    let started = Instant::now();
    // One that is let in is silent until its deadline: to be told apart from one that is turned away.
    let connections = (0..400).map(async |_| {
        let mut io = soon(TcpStream::connect(rig.addr)).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(4), io.read_to_end(&mut answer)).await;
        (closed.is_ok(), alert(&answer))
    });
    let told = futures::future::join_all(connections).await;
    let mut seconds: BTreeMap<u16, u32> = BTreeMap::new();
    for alert in told.iter().filter_map(|(_, alert)| *alert) {
        let Alert::Overloaded { retry_after_s } = alert else { panic!("{alert:?}") };
        *seconds.entry(retry_after_s).or_default() += 1;
    }
    let let_in = u32::try_from(told.iter().filter(|(closed, _)| !closed).count()).unwrap();
    let took = started.elapsed().as_secs_f64();
    assert!(f64::from(let_in) <= 21.0 + took * 40.0, "{let_in} in {took}");
    // At three quarters of the rate: some thirty a second, none twice as many.
    assert!(seconds.len() >= 5 && seconds.values().all(|count| *count <= 60), "{seconds:?}");
    rig.stop().await;
}

#[tokio::test]
async fn whoever_keeps_to_its_time_gets_in() {
    let rig = Rig::with(|config| {
        config.handshakes_per_s = 100;
        config.handshake_burst = 50;
        config.handshakes_per_s_per_network = 100;
    })
    .await;
    let key = key(5);
    rig.directory.script().devices.insert(1, *key.public());
    let opening = Opening::new(token(&key), 1);
    let clients = (0..300).map(async |_| {
        for attempt in 1.. {
            let io = soon(TcpStream::connect(rig.addr)).await.unwrap();
            let Err(error) = Client::try_shake(Box::new(io), &rig.server_key, &key, &opening).await else {
                return attempt;
            };
            let ClientError::Alert(Alert::Overloaded { retry_after_s }) = error else { panic!("{error}") };
            tokio::time::sleep(Duration::from_secs(retry_after_s.max(1).into())).await;
        }
        unreachable!()
    });
    let attempts = soon(futures::future::join_all(clients)).await;
    let mean = f64::from(attempts.iter().sum::<i32>()) / 300.0;
    assert!(mean < 2.5, "{mean}");
    rig.stop().await;
}

/// There are few slots for costly work; who is silent, or leaves, has none.
#[tokio::test]
async fn those_who_say_nothing_or_leave_hold_nobody_up() {
    let rig = Rig::with(|config| config.handshake_timeout_ms = 60_000).await;
    let key = key(5);
    rig.directory.script().devices.insert(1, *key.public());
    let opening = Opening::new(token(&key), 1);
    let clients = (0..40).map(async |_| {
        let silent = soon(TcpStream::connect(rig.addr)).await.unwrap();
        drop(soon(TcpStream::connect(rig.addr)).await.unwrap());
        let mut left_half_way = soon(TcpStream::connect(rig.addr)).await.unwrap();
        left_half_way.write_all(b"C").await.unwrap();
        drop(left_half_way);
        drop(Client::shake(&rig, &key, &opening).await);
        silent
    });
    let silent = soon(futures::future::join_all(clients)).await;
    drop(silent);
    rig.stop().await;
}

#[tokio::test]
async fn a_browser_that_comes_too_early_is_told_by_http() {
    let rig = Rig::with(|config| {
        config.handshakes_per_s = 1;
        config.handshake_burst = 1;
        config.handshakes_per_s_per_network = 1;
    })
    .await;
    while alert(&shout_briefly(&rig).await).is_none() {}
    let mut http = soon(TcpStream::connect(rig.websocket)).await.unwrap();
    http.write_all(b"GET /v1/noise HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(http.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: "), "{answer}");
    rig.stop().await;
}

/// Connects and leaves.
async fn shout_briefly(rig: &Rig) -> Vec<u8> {
    tokio::time::timeout(Duration::from_millis(300), shout(rig, b"")).await.unwrap_or_default()
}

#[tokio::test]
async fn a_drain_lets_what_is_under_way_end_and_nothing_begin() {
    let rig = Rig::with(|config| config.handshake_timeout_ms = 60_000).await;
    let mut ada = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    ada.send(message(1)).await;
    rig.routing.submitted().await;
    // In the middle of the upgrade to a WebSocket.
    let mut http = soon(TcpStream::connect(rig.websocket)).await.unwrap();
    http.write_all(b"GET /v1/noise HTTP/1.1\r\n").await.unwrap();
    let mut other = Client::ada(&rig).await;
    rig.routing.attached().await;
    rig.life.drain();
    assert_eq!(other.ended().await.reason, EndReason::Draining, "nothing was under way here");
    rig.routing.detached().await;
    // It is not read any more, but what it asked before is answered.
    ada.send(message(2)).await;
    rig.routing.say(session, outcome(1, "bo@home.example", pb::Status::Stored)).await;
    assert!(matches!(ada.next().await, Some(FromServer::Ack(outcome)) if outcome.fate == Fate::Stored));
    assert_eq!(ada.ended().await.reason, EndReason::Draining);
    assert!(matches!(rig.routing.next().await, (id, FromEdge::Detach(_)) if id == session));
    let mut rest = Vec::new();
    let _reset = soon(http.read_to_end(&mut rest)).await;
    assert!(rest.is_empty() && TcpStream::connect(rig.websocket).await.is_err());
    rig.stop().await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_those_who_do_not_read_or_get_no_answer() {
    let rig = Rig::start().await;
    let mut unanswered = Client::ada(&rig).await;
    rig.routing.attached().await;
    unanswered.send(message(1)).await;
    rig.routing.submitted().await;
    let _idle = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    for tag in 1..=40 {
        rig.routing.say(session, super::sessions::delivery(tag, 60_000)).await;
    }
    unanswered.send(FromClient::Ping(1)).await;
    assert_eq!(unanswered.next().await, Some(FromServer::Pong(1)));
    let started = Instant::now();
    rig.life.drain();
    assert_eq!(unanswered.ended().await.reason, EndReason::Draining);
    for _ in 0..2 {
        rig.routing.detached().await;
    }
    assert!(started.elapsed() < Duration::from_secs(3), "routing can write it all while the edge waits");
    rig.stop().await;
}

#[tokio::test]
async fn hundreds_that_leave_at_once_are_spread_over_the_window() {
    let rig = Rig::with(|config| {
        config.drain_window_ms = 10_000;
        config.handshake_burst = 10_000;
        config.handshakes_per_s_per_network = 10_000;
        config.handshakes_per_s = 10_000;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(Client::ada(&rig).await);
    }
    rig.life.drain();
    let ends = futures::future::join_all(clients.iter_mut().map(|client| client.ended())).await;
    let mut seconds: BTreeMap<u64, u32> = BTreeMap::new();
    for end in ends {
        assert!(end.reason == EndReason::Draining && end.retry_after_ms < 10_000);
        *seconds.entry(end.retry_after_ms / 1_000).or_default() += 1;
    }
    assert!(seconds.len() == 10 && seconds.values().all(|count| (8..=65).contains(count)), "{seconds:?}");
    rig.stop().await;
}
