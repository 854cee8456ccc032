//! Clients that do not keep to the protocol, and networks that do not keep their bytes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use causeway_noise::Alert;
use causeway_proto::routing::v1::edge_event::Event as FromEdge;
use causeway_stanza::{EndReason, FromClient, FromServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Log;
use super::client::{Client, First, Opening, alert, key, shout};
use super::rig::{Rig, soon, token};
use super::sessions::{delivery, message};

#[tokio::test]
async fn a_message_that_is_cut_anywhere_is_not_acted_on() {
    let rig = Rig::start().await;
    let whole = Client::ada(&rig).await.seal(message(1)).len();
    let (session, _) = rig.routing.attached().await;
    assert_eq!(rig.routing.detached().await, session);
    let cuts = (0..8).chain((8..whole - 4).step_by(11)).chain(whole - 4..=whole);
    for (cut, reset) in cuts.flat_map(|cut| [(cut, false), (cut, true)]) {
        let io = TcpStream::connect(rig.addr).await.unwrap();
        if reset {
            // To close is then to send RST.
            io.set_zero_linger().unwrap();
        }
        let key = key(5);
        let mut ada = Client::shake_over(Box::new(io), &rig, &key, &Opening::new(token(&key), 1)).await;
        assert!(matches!(ada.first().await, First::Success(_)));
        let (session, _) = rig.routing.attached().await;
        let wire = ada.seal(message(1));
        ada.io.write_all(&wire[..cut]).await.unwrap();
        if reset {
            drop(ada);
        } else {
            ada.io.shutdown().await.unwrap();
        }
        let mut next = rig.routing.next().await;
        // Of a message that has come whole, a reset may be faster: then the sender hears nothing and sends it again.
        if cut == whole && matches!(next.1, FromEdge::Submit(_)) {
            next = rig.routing.next().await;
        } else {
            assert!(cut < whole || reset, "a whole message is acted on");
        }
        assert!(matches!(next, (id, FromEdge::Detach(_)) if id == session), "cut after {cut}, reset: {reset}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn changed_repeated_and_swapped_frames_end_a_session_at_once() {
    let rig = Rig::start().await;
    type Damage = fn([Vec<u8>; 2]) -> Vec<u8>;
    let damages: [Damage; 4] = [
        |[mut first, second]| {
            let last = first.len() - 1;
            first[last] ^= 1;
            [first, second].concat()
        },
        |[mut first, second]| {
            first[2] ^= 0x80;
            [first, second].concat()
        },
        |[first, second]| [first.clone(), first, second].concat(),
        |[first, second]| [second, first].concat(),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let mut ada = Client::ada(&rig).await;
        rig.routing.attached().await;
        let frames = [ada.seal(message(1)).to_vec(), ada.seal(message(2)).to_vec()];
        ada.io.write_all(&damage(frames)).await.unwrap();
        assert_eq!(ada.next().await, None);
        if index == 2 {
            assert!(matches!(rig.routing.next().await, (_, FromEdge::Submit(_))), "the first was good");
        }
        rig.routing.detached().await;
        assert!(rig.routing.is_quiet());
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_handshake_that_trickles_ends_at_its_deadline_without_a_byte() {
    let rig = Rig::with(|config| config.handshake_timeout_ms = 300).await;
    let started = Instant::now();
    let silent = shout(&rig, b"");
    let trickling = async {
        let mut io = TcpStream::connect(rig.addr).await.unwrap();
        for byte in b"CWAY\x01\x00\x00\x00\x00\x20aaaaaaaaaaaa" {
            if io.write_all(&[*byte]).await.is_err() {
                break;
            }
            let mut answer = [0; 1];
            match tokio::time::timeout(Duration::from_millis(40), io.read(&mut answer)).await {
                Err(_elapsed) => {}
                Ok(read) => {
                    assert_eq!(read.unwrap_or(0), 0);
                    return;
                }
            }
        }
        panic!("it may go on and on");
    };
    let (nothing, ()) = tokio::join!(silent, trickling);
    assert!(nothing.is_empty());
    assert!(started.elapsed() >= Duration::from_millis(300));
    // The same while the upgrade to a WebSocket trickles.
    let mut http = TcpStream::connect(rig.websocket).await.unwrap();
    http.write_all(b"GET /v1/noise HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _reset = soon(http.read_to_end(&mut answer)).await;
    assert!(answer.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn a_surplus_is_told_to_come_back_and_served_after_relief() {
    let rig = Rig::with(|config| config.max_half_open = 3).await;
    let mut ada = Client::ada(&rig).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(TcpStream::connect(rig.addr).await.unwrap());
    }
    for _ in 0..5 {
        assert_eq!(alert(&shout(&rig, b"").await), Some(Alert::Overloaded { retry_after_s: 1 }));
    }
    ada.send(FromClient::Ping(1)).await;
    assert_eq!(ada.next().await, Some(FromServer::Pong(1)), "who is in stays in");
    drop(waiting);
    soon(async {
        loop {
            let mut io = TcpStream::connect(rig.addr).await.unwrap();
            let mut answer = [0; 8];
            // A place is given back when the edge has seen the other side leave.
            if tokio::time::timeout(Duration::from_millis(100), io.read(&mut answer)).await.is_err() {
                return;
            }
        }
    })
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn connections_are_bounded_also_when_logged_in() {
    let rig = Rig::with(|config| config.max_connections = 2).await;
    let first = Client::ada(&rig).await;
    let _second = Client::ada(&rig).await;
    assert!(alert(&shout(&rig, b"").await).is_some());
    drop(first);
    soon(async {
        let key = key(5);
        loop {
            let io = TcpStream::connect(rig.addr).await.unwrap();
            let mut first = [0; 1];
            if tokio::time::timeout(Duration::from_millis(100), io.peek(&mut first)).await.is_err() {
                drop(Client::shake_over(Box::new(io), &rig, &key, &Opening::new(token(&key), 1)).await);
                return;
            }
        }
    })
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn one_token_does_not_open_any_number_of_sessions() {
    let rig = Rig::with(|config| config.max_newcomers_per_user = 2).await;
    let key = key(5);
    let opening = Opening::new(token(&key), 0);
    let first = Client::logged_in(&rig, &key, &opening).await;
    let _second = Client::logged_in(&rig, &key, &opening).await;
    let mut third = Client::shake(&rig, &key, &opening).await;
    let overloaded = First::Failure(causeway_stanza::FailureReason::Overloaded);
    assert_eq!(third.first().await, overloaded);
    drop(first);
    Client::eventually(&rig, &key, &opening).await;
    rig.stop().await;
}

#[tokio::test]
async fn keys_that_nobody_has_are_hardly_asked_for() {
    let rig = Rig::start().await;
    let key = key(5);
    let logins = (0..40).map(async |n| {
        let mut claims = super::rig::claims(&key);
        claims["jti"] = serde_json::json!(format!("t{n}"));
        let kid: &'static str = format!("random-{n}").leak();
        let token = super::rig::Signer::new(kid, 1).sign(&claims);
        let mut client = Client::shake(&rig, &key, &Opening::new(token, 0)).await;
        client.first().await
    });
    let signature = First::Failure(causeway_stanza::FailureReason::TokenSignature);
    assert!(futures::future::join_all(logins).await.iter().all(|first| *first == signature));
    let asked = rig.directory.refetches.load(Ordering::SeqCst);
    assert!((1..10).contains(&asked), "one at a time, and one a second: {asked}");
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stalls_only_itself() {
    let rig = Rig::with(|config| {
        config.write_timeout_ms = 500;
        config.queue_messages = 64;
    })
    .await;
    let mut idle = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    let key = key(6);
    rig.directory.script().devices.insert(2, *key.public());
    let token = super::rig::token_with(&key, |c| c["jti"] = serde_json::json!("other"));
    let mut other = Client::logged_in(&rig, &key, &Opening::new(token, 2)).await;
    rig.routing.attached().await;

    let mut tag = 0;
    while rig.routing.is_quiet() {
        tag += 1;
        rig.routing.say(session, delivery(tag, 200_000)).await;
        other.send(FromClient::Ping(tag)).await;
        assert_eq!(other.next().await, Some(FromServer::Pong(tag)));
    }
    assert_eq!(rig.routing.detached().await, session, "what it did not acknowledge stays with routing");
    // It gets what had been written, and perhaps the reason.
    while idle.next().await.is_some() {}
    rig.stop().await;
}

#[tokio::test]
async fn a_silent_client_does_not_stay_because_its_messages_have_no_outcome() {
    let rig = Rig::with(|config| {
        config.pending_messages = 1;
        config.ping_interval_ms = 200;
        config.write_timeout_ms = 200;
    })
    .await;
    let mut ada = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    ada.send(message(1)).await;
    assert_eq!(rig.routing.submitted().await.0, session);
    // From here on nothing of hers is read.
    assert_eq!(ada.ended().await.reason, EndReason::Timeout);
    assert_eq!(rig.routing.detached().await, session);
    rig.stop().await;
}

#[tokio::test]
async fn a_fast_sender_is_slowed_down_and_loses_nothing() {
    let rig = Rig::with(|config| {
        config.stanzas_per_s = 100;
        config.stanza_burst = 20;
    })
    .await;
    let mut ada = Client::ada(&rig).await;
    rig.routing.attached().await;
    let started = Instant::now();
    for n in 0..70 {
        ada.send(FromClient::Ping(n)).await;
    }
    for n in 0..70 {
        assert_eq!(ada.next().await, Some(FromServer::Pong(n)));
    }
    assert!(started.elapsed() >= Duration::from_millis(450), "{:?}", started.elapsed());
    rig.stop().await;
}

#[tokio::test]
async fn a_record_that_never_ends_is_given_up() {
    let rig = Rig::with(|config| config.record_timeout_ms = 200).await;
    let mut ada = Client::ada(&rig).await;
    rig.routing.attached().await;
    let wire = ada.seal_record(&vec![7; 200_000]);
    ada.io.write_all(&wire[..70_000]).await.unwrap();
    assert_eq!(ada.ended().await.reason, EndReason::Timeout);
    rig.stop().await;
}

#[tokio::test]
async fn spent_tokens_are_bounded_and_full_means_closed() {
    let rig = Rig::with(|config| {
        config.replay_tokens = 1_000;
        config.replay_tokens_per_provider = 1_000;
        config.handshake_burst = 10_000;
    })
    .await;
    let key = key(5);
    let login = |n: u32| {
        let token = super::rig::token_with(&key, |c| c["jti"] = serde_json::json!(format!("t{n}")));
        Opening::new(token, 0)
    };
    for n in 0..1_000 {
        drop(Client::logged_in(&rig, &key, &login(n)).await);
    }
    let mut client = Client::shake(&rig, &key, &login(1_000)).await;
    assert_eq!(client.first().await, First::Failure(causeway_stanza::FailureReason::Overloaded));
    drop(Client::logged_in(&rig, &key, &login(7)).await);
    rig.clock.advance(Duration::from_secs(3_600 + 121));
    assert_eq!(rig.directory.logins.load(Ordering::SeqCst), 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_flood_of_garbage_is_counted_and_not_a_flood_of_lines() {
    let (log, _listening) = Log::listen();
    let rig = Rig::start().await;
    let started = Instant::now();
    let floods = (0..8).map(async |_| {
        for _ in 0..50 {
            shout(&rig, b"garbage, garbage, garbage").await;
        }
    });
    futures::future::join_all(floods).await;
    rig.stop().await;
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    let lines = log.count(&["sent an alert"]);
    assert!((99..=seconds * 99).contains(&lines), "{lines} in {seconds} s");
    let left_out: usize =
        log.lines().iter().filter_map(|line| line.split("left_out=").nth(1)?.parse::<usize>().ok()).sum();
    assert_eq!(lines + left_out, 400);
}
