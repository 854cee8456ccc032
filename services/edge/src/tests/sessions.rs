//! What an open session does.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use causeway_noise::FrameReader;
use causeway_proto::directory::v1 as dir;
use causeway_proto::routing::v1::edge_event::Event as FromEdge;
use causeway_proto::routing::v1::routing_event::Event as ToEdge;
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{
    ConsentSettings, Contact, EndReason, ErrorCode, Fate, FromClient, FromServer, Notification, Reach, Request,
    RequestBody, Response, ResponseBody,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::client::{Client, Opening, device, key};
use super::rig::{ACCOUNT, NOW_S, Rig, birdy, provider, soon, token, token_with};

pub(super) fn submit(id: u8) -> pb::Submit {
    pb::Submit {
        id: Bytes::copy_from_slice(&[id; 16]),
        to: "bo@home.example".to_owned(),
        class: pb::MessageClass::Chat.into(),
        enc: vec![pb::Enc {
            device: 1,
            reg: 2,
            r#type: pb::EncType::Whisper.into(),
            ciphertext: Bytes::from(vec![id; 200]),
        }],
    }
}

pub(crate) fn message(id: u8) -> FromClient {
    FromClient::Message(submit(id).try_into().unwrap())
}

pub(super) fn message_to(id: u8, to: &str) -> FromClient {
    FromClient::Message(pb::Submit { to: to.to_owned(), ..submit(id) }.try_into().unwrap())
}

pub(super) fn outcome(id: u8, to: &str, status: pb::Status) -> ToEdge {
    let id = Bytes::copy_from_slice(&[id; 16]);
    ToEdge::Outcome(pb::Outcome { id, to: to.to_owned(), status: status.into(), ..pb::Outcome::default() })
}

pub(super) fn delivery(tag: u64, size: usize) -> ToEdge {
    ToEdge::Deliver(pb::Delivery {
        id: Bytes::copy_from_slice(&[tag as u8; 16]),
        from: "bo@home.example/1".to_owned(),
        from_account: Bytes::copy_from_slice(&[2; 16]),
        class: pb::MessageClass::Chat.into(),
        ts: 5,
        tag,
        origin: Some(pb::Origin {
            provider: "home.example".to_owned(),
            kind: pb::ProviderKind::Home.into(),
            protocol: "signal".to_owned(),
            inbox: pb::Inbox::Main.into(),
        }),
        r#type: pb::EncType::Whisper.into(),
        ciphertext: Bytes::from(vec![3; size]),
    })
}

fn iq(id: u64, body: RequestBody) -> FromClient {
    FromClient::Iq(Request { id: NonZeroU64::new(id).unwrap(), body })
}

async fn ask(client: &mut Client, id: u64, body: RequestBody) -> ResponseBody {
    client.send(iq(id, body)).await;
    answer(client, id).await
}

async fn answer(client: &mut Client, id: u64) -> ResponseBody {
    match client.next().await {
        Some(FromServer::Iq(Response { id: answered, body })) if answered.get() == id => body,
        other => panic!("{other:?}"),
    }
}

fn error(body: ResponseBody) -> ErrorCode {
    match body {
        ResponseBody::Error(error) => error.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn messages_deliveries_and_acks_pass_in_order() {
    let rig = Rig::start().await;
    let mut ada = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;

    for id in 1..=20 {
        ada.send(message(id)).await;
    }
    for id in 1..=20 {
        match rig.routing.next().await {
            (from, FromEdge::Submit(submitted)) => assert_eq!((from, submitted.message), (session, Some(submit(id)))),
            (_, other) => panic!("{other:?}"),
        }
    }
    let outcome = pb::Outcome {
        id: Bytes::copy_from_slice(&[1; 16]),
        to: "bo@home.example".to_owned(),
        status: pb::Status::Stored.into(),
        ..pb::Outcome::default()
    };
    rig.routing.say(session, ToEdge::Outcome(outcome)).await;
    assert!(matches!(ada.next().await, Some(FromServer::Ack(outcome)) if outcome.fate == Fate::Stored));

    for tag in 1..=200 {
        rig.routing.say(session, delivery(tag, 3_000)).await;
    }
    for tag in 1..=200 {
        assert!(matches!(ada.next().await, Some(FromServer::Message(delivery)) if delivery.tag == tag));
    }
    for tag in [150, 20, 150, 200] {
        ada.send(FromClient::Ack(tag)).await;
    }
    assert_eq!(rig.routing.next().await, (session, FromEdge::Processed(150)));
    assert_eq!(rig.routing.next().await, (session, FromEdge::Processed(200)));

    let changed = pb::notification::Kind::ConsentChanged(pb::ConsentChanged {});
    rig.routing.say(session, ToEdge::Notify(pb::Notification { kind: Some(changed) })).await;
    assert_eq!(ada.next().await, Some(FromServer::Notification(Notification::ConsentChanged)));

    ada.send(FromClient::Ack(201)).await;
    assert_eq!(ada.ended().await.reason, EndReason::BadAck);
    assert_eq!(rig.routing.detached().await, session);
    assert!(rig.routing.is_quiet());
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_that_never_pauses_does_not_use_up_the_queue() {
    let rig = Rig::with(|config| {
        config.queue_bytes = 1024 * 1024;
        config.total_queue_bytes = 16 * 1024 * 1024;
    })
    .await;
    let mut ada = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    for tag in 1..=20 {
        rig.routing.say(session, delivery(tag, 10_000)).await;
    }
    for tag in 21..=400 {
        rig.routing.say(session, delivery(tag, 10_000)).await;
        assert!(matches!(ada.next().await, Some(FromServer::Message(delivery)) if delivery.tag == tag - 20));
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_is_ready_together_shares_few_noise_messages() {
    let rig = Rig::start().await;
    let mut ada = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    rig.routing.say_all(session, (1..=200).map(|tag| delivery(tag, 100))).await;
    let (mut frames, mut messages, mut records) = (FrameReader::default(), 0, 0);
    while records < 200 {
        let mut buffer = [0; 16 * 1024];
        let read = soon(ada.io.read(&mut buffer)).await.unwrap();
        frames.feed(&buffer[..read]);
        while frames.next().is_some() {
            messages += 1;
        }
        ada.session.receiver.feed(&buffer[..read]);
        while ada.session.receiver.next().unwrap().is_some() {
            records += 1;
        }
    }
    assert!(messages <= 20, "{messages}");
    rig.stop().await;
}

#[tokio::test]
async fn what_is_no_stanza_ends_the_session_and_nothing_behind_it_counts() {
    let rig = Rig::start().await;
    let good = causeway_stanza::encode_client(causeway_stanza::Encoding::Binary, message(1));
    let too_large = vec![1; 262_145];
    for (record, behind) in [(&b"\xff\xff\xff"[..], true), (b"<message", true), (&too_large, false)] {
        let mut ada = Client::ada(&rig).await;
        let (session, _) = rig.routing.attached().await;
        let mut wire = ada.seal_record(record).to_vec();
        if behind {
            wire.extend_from_slice(&ada.seal_record(&good));
        }
        ada.io.write_all(&wire).await.unwrap();
        assert_eq!(ada.ended().await.reason, EndReason::BadStanza);
        assert_eq!(rig.routing.detached().await, session);
        assert!(rig.routing.is_quiet());
    }
    rig.stop().await;
}

#[tokio::test]
async fn every_request_reaches_its_service() {
    let rig = Rig::start().await;
    let mut ada = Client::ada(&rig).await;
    let address: causeway_identity::Address = "bo@home.example".parse().unwrap();
    let settings: ConsentSettings = pb::ConsentSettings {
        interop: true,
        providers: Vec::new(),
        inbox: pb::InboxSetting::Combined.into(),
        reach: pb::Reach::Everyone.into(),
    }
    .try_into()
    .unwrap();
    let publish: causeway_stanza::KeysPublish = pb::KeysPublish::default().try_into().unwrap();
    let claim = pb::KeysClaim { address: address.to_string(), devices: vec![] }.try_into().unwrap();

    let counts = ResponseBody::KeyCounts(pb::KeyCounts { ec: 3, kyber: 4 }.into());
    assert_eq!(ask(&mut ada, 1, RequestBody::KeysCount).await, counts);
    assert_eq!(ask(&mut ada, 2, RequestBody::KeysPublish(publish)).await, counts);
    let ResponseBody::KeyBundles(bundles) = ask(&mut ada, 3, RequestBody::KeysClaim(claim)).await else { panic!() };
    assert_eq!(bundles.account.as_bytes(), &ACCOUNT);
    let ResponseBody::Devices(devices) = ask(&mut ada, 4, RequestBody::DevicesList).await else { panic!() };
    assert_eq!(devices.len(), 1);
    assert_eq!(ask(&mut ada, 5, RequestBody::DeviceRemove(device(4))).await, ResponseBody::Done);
    assert_eq!(ask(&mut ada, 6, RequestBody::ConsentGet).await, ResponseBody::Consent(settings.clone()));
    assert_eq!(
        ask(&mut ada, 7, RequestBody::ConsentSet(settings.clone())).await,
        ResponseBody::Consent(settings.clone())
    );
    let contacts = ConsentSettings { reach: Reach::Contacts, ..settings };
    assert_eq!(error(ask(&mut ada, 8, RequestBody::ConsentSet(contacts)).await), ErrorCode::BadRequest);
    assert_eq!(error(ask(&mut ada, 9, RequestBody::Contact(Contact::List)).await), ErrorCode::Unsupported);
    let report = pb::Report { address: address.to_string(), ..pb::Report::default() }.try_into().unwrap();
    assert_eq!(error(ask(&mut ada, 10, RequestBody::Report(report)).await), ErrorCode::Unsupported);
    assert_eq!(error(ask(&mut ada, 11, RequestBody::Discover(address)).await), ErrorCode::NotAvailable);
    assert_eq!(ask(&mut ada, 12, RequestBody::Push(None)).await, ResponseBody::Done);
    assert_eq!(ask(&mut ada, 13, RequestBody::Withdraw).await, ResponseBody::Done);
    let asked = rig.directory.script().asked.clone();
    assert_eq!(
        asked,
        [
            "count",
            "publish",
            "claim",
            "devices",
            "remove-device",
            "consent-get",
            "consent-set",
            "discover",
            "push",
            "withdraw"
        ]
    );

    rig.directory.broken.store(true, Ordering::SeqCst);
    let ResponseBody::Error(unavailable) = ask(&mut ada, 14, RequestBody::KeysCount).await else { panic!() };
    assert_eq!(unavailable.code, ErrorCode::Unavailable);
    assert!(unavailable.retry_after_ms > 0);
    rig.stop().await;
}

#[tokio::test]
async fn media_tickets_are_for_the_right_users_and_hosts() {
    let rig = Rig::start().await;
    let mut ada = Client::ada(&rig).await;
    let upload =
        || RequestBody::MediaUpload(pb::MediaUpload { size: 5, sha256: vec![1; 32].into() }.try_into().unwrap());
    let download = |url: &str| {
        let download = pb::MediaDownload { url: url.to_owned(), size: 5, sha256: vec![1; 32].into() };
        RequestBody::MediaDownload(download.try_into().unwrap())
    };
    assert_eq!(error(ask(&mut ada, 1, upload()).await), ErrorCode::NotAvailable, "a third party has its own host");
    let url = "https://media.crow.example/v1/blobs/x";
    let ResponseBody::MediaTicket(ticket) = ask(&mut ada, 2, download(url)).await else { panic!() };
    assert_eq!(ticket.url.as_str(), url);
    for other in ["https://media.evil.example/v1/blobs/x", "https://media.crow.example/v1/blobs/../x"] {
        assert_eq!(error(ask(&mut ada, 3, download(other)).await), ErrorCode::NotAvailable);
    }

    let mut home = provider(3, "home", &birdy());
    home.set_kind(pb::ProviderKind::Home);
    rig.directory.put(home);
    let key = key(5);
    let token = token_with(&key, |c| c["iss"] = json!("https://id.home.example"));
    let mut bo = Client::eventually(&rig, &key, &Opening::new(token, 1)).await;
    let ResponseBody::Error(quota) = ask(&mut bo, 1, upload()).await else { panic!() };
    assert_eq!((quota.code, quota.retry_after_ms), (ErrorCode::RateLimited, 1_234));
    rig.stop().await;
}

#[tokio::test]
async fn a_session_that_is_not_enlisted_may_only_enlist_and_then_is_that_device() {
    let rig = Rig::start().await;
    let key = key(5);
    let mut new = Client::logged_in(&rig, &key, &Opening::new(token(&key), 0)).await;
    assert_eq!(error(ask(&mut new, 1, RequestBody::KeysCount).await), ErrorCode::NotEnlisted);
    new.send(message(1)).await;
    assert!(matches!(new.next().await, Some(FromServer::Ack(outcome)) if outcome.fate.status().as_str() == "rejected"));
    assert!(rig.directory.script().asked.is_empty() && rig.routing.is_quiet());

    let key = || pb::SignedPrekey { id: 1, public_key: vec![5; 33].into(), signature: vec![6; 64].into() };
    let enlist = || -> RequestBody {
        let enlist = pb::Enlist {
            registration_id: 9,
            identity_key: vec![5; 33].into(),
            signed_prekey: Some(key()),
            last_resort_kyber: Some(key()),
            ..pb::Enlist::default()
        };
        RequestBody::Enlist(enlist.try_into().unwrap())
    };
    let ResponseBody::Enlisted(enlisted) = ask(&mut new, 2, enlist()).await else { panic!() };
    assert_eq!((enlisted.account.as_bytes(), enlisted.device), (&ACCOUNT, device(9)));
    let (session, attach) = rig.routing.attached().await;
    assert_eq!((attach.device_id, attach.registration_id), (9, 9));
    rig.routing.say(session, delivery(1, 10)).await;
    assert!(matches!(new.next().await, Some(FromServer::Message(_))));
    assert_eq!(error(ask(&mut new, 3, enlist()).await), ErrorCode::AlreadyEnlisted);
    assert!(matches!(ask(&mut new, 4, RequestBody::KeysCount).await, ResponseBody::KeyCounts(_)));
    new.send(message(2)).await;
    assert!(matches!(rig.routing.next().await, (_, FromEdge::Submit(_))));
    rig.stop().await;
}

#[tokio::test]
async fn open_requests_are_bounded_and_one_id_is_one_request() {
    let rig = Rig::with(|config| {
        config.open_requests = 8;
        config.concurrent_requests = 3;
    })
    .await;
    let gate = Arc::new(Semaphore::new(0));
    rig.directory.script().gate = Some(Arc::clone(&gate));
    let mut ada = Client::ada(&rig).await;
    for id in 1..=8 {
        ada.send(iq(id, RequestBody::KeysCount)).await;
    }
    ada.send(FromClient::Ping(1)).await;
    assert_eq!(ada.next().await, Some(FromServer::Pong(1)), "a session goes on beside its requests");
    soon(async {
        while rig.directory.script().asked.len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(rig.directory.script().asked.len(), 3, "three at a time");
    gate.add_permits(8);
    let mut answered = Vec::new();
    while answered.len() < 8 {
        let Some(FromServer::Iq(response)) = ada.next().await else { panic!() };
        answered.push(response.id.get());
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3, 4, 5, 6, 7, 8]);

    ada.send(iq(1, RequestBody::KeysCount)).await;
    ada.send(iq(1, RequestBody::KeysCount)).await;
    assert_eq!(ada.ended().await.reason, EndReason::BadStanza, "the same id twice");

    let mut ada = Client::ada(&rig).await;
    for id in 1..=9 {
        ada.send(iq(id, RequestBody::KeysCount)).await;
    }
    assert_eq!(ada.ended().await.reason, EndReason::BadStanza, "one more than the bound");
    rig.stop().await;
}

#[tokio::test]
async fn a_fresh_token_prolongs_a_session_and_a_bad_one_does_not() {
    let rig = Rig::start().await;
    let key = key(5);
    let mut ada = Client::ada(&rig).await;
    let refresh = |change: fn(&mut serde_json::Value)| {
        let token = token_with(&key, |c| {
            c["jti"] = json!("fresh");
            c["exp"] = json!(NOW_S + 7_200);
            change(c);
        });
        RequestBody::TokenRefresh(token.try_into().unwrap())
    };
    type Change = fn(&mut serde_json::Value);
    let bad: [(Change, &str); 7] = [
        (|c| c["sub"] = json!("eve"), "token-binding"),
        (|c| c["iss"] = json!("https://id.crow.example"), "token-signature"),
        (|c| c["iss"] = json!("https://id.nobody.example"), "provider-unknown"),
        (|c| c["cnf"] = json!({ "kid": "AAAA" }), "token-binding"),
        (|c| c["exp"] = json!(NOW_S + 3_600), "token-expired"),
        (|c| c["exp"] = json!(NOW_S + 1), "token-expired"),
        (|c| c["exp"] = json!("soon"), "token-malformed"),
    ];
    for (id, (change, reason)) in (1..).zip(bad) {
        let ResponseBody::Error(error) = ask(&mut ada, id, refresh(change)).await else { panic!() };
        assert_eq!((error.code, error.detail.as_str()), (ErrorCode::TokenRefused, reason));
    }
    assert_eq!(ask(&mut ada, 20, refresh(|_| {})).await, ResponseBody::Done);
    rig.clock.advance(Duration::from_secs(7_200));
    assert!(matches!(ask(&mut ada, 21, RequestBody::KeysCount).await, ResponseBody::KeyCounts(_)));
    // The clock is looked at every few seconds, and whenever a client says something.
    rig.clock.advance(Duration::from_secs(300));
    assert_eq!(ada.ended().await.reason, EndReason::TokenExpired);
    rig.stop().await;
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_then_dropped() {
    let rig = Rig::with(|config| config.ping_interval_ms = 400).await;
    let mut ada = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    let Some(FromServer::Ping(n)) = ada.next().await else { panic!() };
    ada.send(FromClient::Pong(n)).await;
    assert!(matches!(ada.next().await, Some(FromServer::Ping(_))), "an answer starts a new interval");
    assert_eq!(ada.ended().await.reason, EndReason::Timeout);
    assert_eq!(rig.routing.detached().await, session);

    // Keep-alives count as a sign of life.
    let mut ada = Client::ada(&rig).await;
    for _ in 0..20 {
        let keep_alive = ada.seal_record(&[]);
        ada.io.write_all(&keep_alive).await.unwrap();
        super::client::stays_silent(&mut ada, Duration::from_millis(50)).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn routing_ends_a_replaced_session() {
    let rig = Rig::start().await;
    let mut ada = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    let replaced = pb::End { reason: pb::EndReason::Replaced.into(), retry_after_ms: 0 };
    rig.routing.say(session, delivery(1, 10)).await;
    rig.routing.say(session, ToEdge::End(replaced)).await;
    assert!(matches!(ada.next().await, Some(FromServer::Message(_))));
    // It cannot acknowledge any more.
    ada.send(FromClient::Ack(1)).await;
    assert_eq!(ada.ended().await.reason, EndReason::Replaced);
    loop {
        match rig.routing.next().await {
            (_, FromEdge::Detach(_)) => break,
            // The ack may have come before the end.
            (_, FromEdge::Processed(1)) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_suspension_ends_the_providers_sessions_and_no_others() {
    let rig = Rig::start().await;
    let key = key(5);
    let mut ada = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    let mut crow = provider(2, "crow", &birdy());
    rig.directory.put(crow.clone());
    let crows = token_with(&key, |c| c["iss"] = json!("https://id.crow.example"));
    let mut other = Client::eventually(&rig, &key, &Opening::new(crows, 0)).await;
    let mut suspended = provider(1, "birdy", &birdy());
    suspended.set_status(dir::ProviderStatus::Suspended);
    rig.directory.put(suspended);
    assert_eq!(ada.ended().await.reason, EndReason::ProviderSuspended);
    assert_eq!(rig.routing.detached().await, session);
    other.send(FromClient::Ping(1)).await;
    assert_eq!(other.next().await, Some(FromServer::Pong(1)));
    crow.set_status(dir::ProviderStatus::Suspended);
    rig.directory.put(crow);
    assert_eq!(other.ended().await.reason, EndReason::ProviderSuspended);
    rig.stop().await;
}

#[tokio::test]
async fn the_directory_may_be_away_but_what_it_says_when_it_is_back_holds() {
    let rig = Rig::start().await;
    let mut ada = Client::ada(&rig).await;
    rig.directory.break_watch();
    ada.send(FromClient::Ping(1)).await;
    assert_eq!(ada.next().await, Some(FromServer::Pong(1)));
    // The next watch does not name the provider any more.
    rig.directory.script().providers.retain(|provider| provider.domain != "birdy.example");
    rig.directory.break_watch();
    assert_eq!(ada.ended().await.reason, EndReason::ProviderSuspended);
    rig.stop().await;
}

#[tokio::test]
async fn a_drain_tells_everybody_detaches_and_leaves() {
    let rig = Rig::with(|config| config.drain_window_ms = 5_000).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Client::ada(&rig).await);
        rig.routing.attached().await;
    }
    // One that is in the middle of its handshake.
    let mut early = tokio::net::TcpStream::connect(rig.addr).await.unwrap();
    early.write_all(b"CWAY").await.unwrap();
    let mut ready = Client::ada(&rig).await;
    ready.send(FromClient::Ping(1)).await;
    assert_eq!(ready.next().await, Some(FromServer::Pong(1)));
    rig.routing.attached().await;
    rig.life.drain();
    let mut waits = Vec::new();
    for client in clients.iter_mut().chain([&mut ready]) {
        let end = client.ended().await;
        assert_eq!(end.reason, EndReason::Draining);
        assert!(end.retry_after_ms < 5_000);
        waits.push(end.retry_after_ms);
    }
    waits.dedup();
    assert!(waits.len() > 1, "spread");
    for _ in 0..6 {
        rig.routing.detached().await;
    }
    let addr = rig.addr;
    drop((clients, ready));
    rig.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
