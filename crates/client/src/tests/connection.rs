//! Connections come and go.

use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{CertificateError, RootKey};
use causeway_stanza::{EndReason, FailureReason};

use super::server::{DEPLOYMENT, Server, token_for};
use super::world::{Device, address, config};
use crate::{Client, ClientConfig, DisconnectReason, Ended, EventKind, MemoryStore};

async fn disconnected(device: &mut Device) -> DisconnectReason {
    device
        .next(|kind| match kind {
            EventKind::Disconnected(down) => Some(down.reason.clone()),
            _ => None,
        })
        .await
}

async fn connected(device: &mut Device) -> crate::Connected {
    device
        .next(|kind| match kind {
            EventKind::Connected(up) => Some(*up),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn the_second_connection_takes_one_round_trip_less_and_no_new_token() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    assert!(!connected(&mut ada).await.resumed);
    server.end(ada.address(), Some(EndReason::Draining));
    assert_eq!(disconnected(&mut ada).await, DisconnectReason::Server(EndReason::Draining));
    assert!(connected(&mut ada).await.resumed);
    {
        let state = server.state();
        assert_eq!(state.stats.resumed, 1);
        assert_eq!(state.stats.tokens[0], state.stats.tokens[1]);
    }
    let mut ada = ada.restart().await;
    assert!(connected(&mut ada).await.resumed, "the server's key is kept");
}

#[tokio::test]
async fn a_server_with_a_new_key_is_verified_anew() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    connected(&mut ada).await;
    server.new_static_key();
    server.end(ada.address(), None);
    assert!(!connected(&mut ada).await.resumed);
    server.end(ada.address(), None);
    assert!(connected(&mut ada).await.resumed, "and then known");
}

#[tokio::test]
async fn a_server_that_is_not_who_it_must_be_never_sees_the_token() {
    let server = Server::start().await;
    let stranger = RootKey::from_seed([1; 32]);
    let root = RootKey::from_seed([42; 32]);
    let cases: [(&RootKey, &str, i64, i64, CertificateError); 4] = [
        (&stranger, DEPLOYMENT, -10, 10, CertificateError::UnknownRoot),
        (&root, "other.causeway", -10, 10, CertificateError::Deployment),
        (&root, DEPLOYMENT, -20, -10, CertificateError::Expired),
        (&root, DEPLOYMENT, 100, 200, CertificateError::NotYetValid),
    ];
    for (root, deployment, from, to, error) in cases {
        server.recertify(root, deployment, from, to);
        let mut ada = Device::open(config(&server, "ada"), Arc::new(MemoryStore::new())).await;
        let down = ada
            .next(|kind| match kind {
                EventKind::Disconnected(down) => Some(down.clone()),
                _ => None,
            })
            .await;
        assert_eq!(down.reason, DisconnectReason::Certificate(error));
        assert!(down.clock_ahead_ms.is_some_and(|ahead| ahead.abs() < 60_000), "{down:?}");
        ada.client.shutdown().await;
    }
    assert!(server.state().stats.tokens.is_empty());
}

#[tokio::test]
async fn a_known_server_whose_certificate_is_over_gets_no_stanza() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    server.recertify(&RootKey::from_seed([42; 32]), DEPLOYMENT, -20, -10);
    server.end(ada.address(), None);
    loop {
        if disconnected(&mut ada).await == DisconnectReason::Certificate(CertificateError::Expired) {
            break;
        }
    }
}

#[tokio::test]
async fn refusals_that_time_may_mend_are_retried_and_others_end_the_client() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    for reason in [FailureReason::ProviderSuspended, FailureReason::TokenSignature, FailureReason::TokenExpired] {
        server.state().faults.refuse = Some(reason);
        server.end(ada.address(), None);
        loop {
            if disconnected(&mut ada).await == DisconnectReason::Login(reason) {
                break;
            }
        }
        server.state().faults.refuse = None;
        connected(&mut ada).await;
    }
    server.state().faults.refuse = Some(FailureReason::DeviceKey);
    server.end(ada.address(), None);
    ada.next(|kind| matches!(kind, EventKind::Ended(Ended::Login(FailureReason::DeviceKey))).then_some(())).await;
}

#[tokio::test]
async fn a_token_that_was_refused_is_not_used_again() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    server.state().faults.refuse = Some(FailureReason::TokenExpired);
    server.end(ada.address(), None);
    loop {
        if disconnected(&mut ada).await == DisconnectReason::Login(FailureReason::TokenExpired) {
            break;
        }
    }
    server.state().faults.refuse = None;
    connected(&mut ada).await;
    let tokens = server.state().stats.tokens.clone();
    assert_ne!(tokens.first(), tokens.last());
}

#[tokio::test]
async fn a_token_is_renewed_before_it_is_over() {
    let server = Server::start().await;
    let config = config(&server, "ada");
    #[expect(clippy::disallowed_methods, reason = "the test's tokens have a real clock")]
    let now_s = crate::clock::ms(std::time::SystemTime::now()) / 1000;
    // 61 s is just enough to log in with, so that the next one is due at once.
    let source = move |_| async move { Ok(token_for(&address("ada"), 1, now_s + 61)) };
    let (client, _events) = Client::open(config, Arc::new(MemoryStore::new()), Arc::new(source)).await.unwrap();
    client.enlist().await.unwrap();
    server.until(|state| !state.stats.refreshed.is_empty()).await;
}

#[tokio::test]
async fn a_provider_without_tokens_is_asked_again() {
    let server = Server::start().await;
    let config: ClientConfig = config(&server, "ada");
    let failures = Arc::new(std::sync::atomic::AtomicU32::new(2));
    let source = move |_| {
        let fail = failures
            .fetch_update(std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        async move { if fail { Err("no".into()) } else { Ok(token_for(&address("ada"), 1, 4_000_000_000)) } }
    };
    let (client, mut events) = Client::open(config, Arc::new(MemoryStore::new()), Arc::new(source)).await.unwrap();
    for _ in 0..2 {
        let event = events.next().await.unwrap();
        assert!(
            matches!(event.kind, EventKind::Disconnected(down) if down.reason == DisconnectReason::Token("no".to_owned()))
        );
    }
    client.enlist().await.unwrap();
}

#[tokio::test]
async fn a_newer_session_ends_the_older_for_good() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    server.end(ada.address(), Some(EndReason::Replaced));
    ada.next(|kind| matches!(kind, EventKind::Ended(Ended::Replaced)).then_some(())).await;
}

#[tokio::test]
async fn nobody_at_the_address_is_a_network_error_that_is_retried() {
    let server = Server::start().await;
    let mut config = config(&server, "ada");
    config.server = "127.0.0.1:1".parse().unwrap();
    config.timing.request_timeout = Duration::from_millis(100);
    let mut ada = Device::open(config, Arc::new(MemoryStore::new())).await;
    for _ in 0..3 {
        assert!(matches!(disconnected(&mut ada).await, DisconnectReason::Network(_)));
    }
    assert!(matches!(ada.client.enlist().await, Err(crate::ClientError::Timeout)));
}

#[tokio::test]
async fn the_last_handle_says_goodbye() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    let Device { client, .. } = &mut ada;
    client.clone().shutdown().await;
    ada.next(|kind| matches!(kind, EventKind::Ended(Ended::Shutdown)).then_some(())).await;
    assert!(ada.events.next().await.is_none());
}

#[tokio::test]
async fn a_token_of_another_user_stops_the_client_before_it_enlists() {
    let server = Server::start().await;
    let source = |_| async { Ok(token_for(&address("eve"), 1, 4_000_000_000)) };
    let opened = Client::open(config(&server, "ada"), Arc::new(MemoryStore::new()), Arc::new(source)).await;
    let (client, _events) = opened.unwrap();
    assert!(matches!(client.enlist().await, Err(crate::ClientError::Ended(Ended::OtherAddress))));
    assert!(server.state().accounts.is_empty(), "nobody was enlisted");
}
