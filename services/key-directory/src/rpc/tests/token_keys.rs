//! Token keys (AUTH-16, 31, 33; KEYS-18), against a provider on real HTTP.

use std::time::Duration;

use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::token_keys_update::Update;
use causeway_proto::wire::v1::ProviderKind;
use causeway_runtime::clock::Clock as _;
use causeway_runtime::grpc;
use tonic::{Code, Streaming};

use crate::testing::{Deployment, Mood, TestProvider};

/// Long enough that only what a test asks for is fetched.
const NEVER_MS: u64 = 3_600_000;

async fn watch(net: &Deployment) -> (Vec<pb::ProviderKeys>, Streaming<pb::TokenKeysUpdate>) {
    let mut stream = net.token_keys().watch(pb::WatchTokenKeys {}).await.unwrap().into_inner();
    match stream.message().await.unwrap().unwrap().update.unwrap() {
        Update::Full(full) => (full.providers, stream),
        other => panic!("expected the full set, got {other:?}"),
    }
}

async fn next_keys(stream: &mut Streaming<pb::TokenKeysUpdate>) -> pb::ProviderKeys {
    loop {
        match stream.message().await.unwrap().unwrap().update.unwrap() {
            Update::Provider(keys) => return keys,
            Update::Heartbeat(_) => {}
            Update::Full(_) => panic!("a full set comes first only"),
        }
    }
}

async fn keys_like(
    stream: &mut Streaming<pb::TokenKeysUpdate>,
    expected: impl Fn(&pb::ProviderKeys) -> bool,
) -> pb::ProviderKeys {
    loop {
        let keys = next_keys(stream).await;
        if expected(&keys) {
            return keys;
        }
    }
}

async fn refetch(net: &Deployment, issuer: &str, kid: &str) -> Result<pb::ProviderKeys, tonic::Status> {
    let message = pb::RefetchTokenKeys { issuer: issuer.to_owned(), kid: kid.to_owned() };
    net.token_keys().refetch(grpc::call(message)).await.map(tonic::Response::into_inner)
}

fn has(keys: &pb::ProviderKeys, kid: &str) -> bool {
    causeway_identity::token::KeySet::from_jwks(&keys.jwks).unwrap().contains(kid)
}

async fn listed_error(net: &Deployment) -> String {
    let list = net.providers().list(net.as_operator(pb::ListProviders::default())).await.unwrap().into_inner();
    list.providers[0].keys_error.clone()
}

#[tokio::test]
async fn a_watcher_gets_everything_then_changes_then_heartbeats() {
    let net = Deployment::start_with(|config| config.keys_refresh_ms = NEVER_MS).await;
    let (full, mut stream) = watch(&net).await;
    assert!(full.is_empty());
    let birdy = TestProvider::start("birdy.example").await;
    let provider = net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    let keys = next_keys(&mut stream).await;
    assert_eq!(
        (&keys.provider_id, keys.domain.as_str(), &keys.issuer),
        (&provider.id, "birdy.example", &birdy.issuer())
    );
    assert_eq!((keys.kind(), keys.status()), (ProviderKind::ThirdParty, pb::ProviderStatus::Live));
    assert_eq!(keys.media_prefixes, [format!("http://{}/v1/blobs/", birdy.host)]);
    assert_eq!(keys.stale_at_ms, net.clock.now_ms() + 24 * 60 * 60 * 1_000);
    assert!(has(&keys, "k1"));
    assert_eq!(watch(&net).await.0, [keys]);
    assert!(matches!(stream.message().await.unwrap().unwrap().update.unwrap(), Update::Heartbeat(_)));
    net.set_status("birdy.example", pb::ProviderStatus::Suspended).await.unwrap();
    assert_eq!(next_keys(&mut stream).await.status(), pb::ProviderStatus::Suspended);
}

#[tokio::test]
async fn an_unknown_key_is_fetched_once_in_a_cool_down() {
    let net = Deployment::start_with(|config| config.keys_refresh_ms = NEVER_MS).await;
    let birdy = TestProvider::start("birdy.example").await;
    net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    let (_, mut stream) = watch(&net).await;
    assert_eq!(birdy.fetches(), 1);

    birdy.publish_keys(&["k1", "k2"]);
    assert!(has(&refetch(&net, &birdy.issuer(), "k1").await.unwrap(), "k1"));
    assert_eq!(birdy.fetches(), 1, "a known key needs no fetch");
    assert!(has(&refetch(&net, &birdy.issuer(), "k2").await.unwrap(), "k2"));
    assert_eq!(birdy.fetches(), 2);
    assert!(has(&next_keys(&mut stream).await, "k2"), "watchers learn of it too");

    let storm = futures::future::join_all((0..200).map(|n| {
        let (net, birdy) = (&net, &birdy);
        async move { refetch(net, &birdy.issuer(), &format!("random-{n}")).await.unwrap() }
    }));
    assert!(storm.await.iter().all(|keys| has(keys, "k1") && has(keys, "k2")));
    assert_eq!(birdy.fetches(), 2, "within the cool-down nothing is fetched");

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    refetch(&net, &birdy.issuer(), "random").await.unwrap();
    assert_eq!(birdy.fetches(), 3);
    assert_eq!(refetch(&net, "http://unknown.example", "k1").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn calls_for_unknown_keys_wait_for_the_same_fetch() {
    let net = Deployment::start_with(|config| config.keys_refresh_ms = NEVER_MS).await;
    let birdy = TestProvider::start("birdy.example").await;
    net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    birdy.publish_keys(&["k2"]);
    birdy.hold(true);
    let issuer = birdy.issuer();
    let asking = futures::future::join_all((0..50).map(|_| refetch(&net, &issuer, "k2")));
    let (answers, ()) = tokio::join!(asking, async {
        birdy.fetched(2).await;
        birdy.hold(false);
    });
    assert!(answers.into_iter().all(|keys| has(&keys.unwrap(), "k2")));
    assert_eq!(birdy.fetches(), 2);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_does_not_wait_for_a_slow_provider() {
    let net = Deployment::start_with(|config| config.keys_refresh_ms = NEVER_MS).await;
    let birdy = TestProvider::start("birdy.example").await;
    net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    birdy.hold(true);
    let issuer = birdy.issuer();
    let mut flood: futures::stream::FuturesUnordered<_> = (0..100)
        .map(|n| {
            let (net, issuer) = (&net, &issuer);
            async move { refetch(net, issuer, &format!("random-{n}")).await }
        })
        .collect();
    for _ in 0..36 {
        let answered = futures::StreamExt::next(&mut flood).await.unwrap().unwrap();
        assert!(has(&answered, "k1"), "told what is known");
    }
    birdy.fetched(2).await;
    birdy.hold(false);
    while let Some(answered) = futures::StreamExt::next(&mut flood).await {
        answered.unwrap();
    }
    assert_eq!(birdy.fetches(), 2);
}

#[tokio::test]
async fn rotation_is_seen_within_a_refresh() {
    let net = Deployment::start_with(|config| config.keys_refresh_ms = 200).await;
    let birdy = TestProvider::start("birdy.example").await;
    net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    let (_, mut stream) = watch(&net).await;
    birdy.publish_keys(&["k1", "k2"]);
    keys_like(&mut stream, |keys| has(keys, "k1") && has(keys, "k2")).await;
    birdy.publish_keys(&["k2"]);
    keys_like(&mut stream, |keys| !has(keys, "k1") && has(keys, "k2")).await;
    birdy.be(Mood::NoKeys);
    keys_like(&mut stream, |keys| !has(keys, "k2")).await;
}

#[tokio::test]
async fn an_outage_leaves_the_last_good_keys_until_they_are_stale() {
    let net = Deployment::start_with(|config| {
        config.keys_refresh_ms = 100;
        config.keys_cooldown_ms = 100;
        config.keys_stale_ms = NEVER_MS;
    })
    .await;
    let birdy = TestProvider::start("birdy.example").await;
    net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    // Whichever refresh runs now ends before the outage begins.
    let (_, mut stream) = watch(&net).await;
    next_keys(&mut stream).await;
    birdy.be(Mood::Down);
    while listed_error(&net).await.is_empty() {
        tokio::task::yield_now().await;
    }
    let before = watch(&net).await.0.remove(0);
    assert!(has(&before, "k1"));
    assert!(listed_error(&net).await.starts_with("issuer: its discovery document"));

    net.clock.advance(Duration::from_millis(NEVER_MS - 1));
    assert_eq!(watch(&net).await.0, std::slice::from_ref(&before), "not stale yet, and no younger for having failed");
    net.clock.advance(Duration::from_millis(1));
    let stale = watch(&net).await.0.remove(0);
    assert!(!has(&stale, "k1"));
    assert_eq!(stale.stale_at_ms, before.stale_at_ms);
    assert!(!has(&refetch(&net, &birdy.issuer(), "k1").await.unwrap(), "k1"), "never open");

    birdy.be(Mood::Well);
    let (_, mut stream) = watch(&net).await;
    keys_like(&mut stream, |keys| has(keys, "k1")).await;
    assert_eq!(listed_error(&net).await, "");
}

#[tokio::test]
async fn a_key_set_that_moves_off_the_registered_hosts_is_not_followed() {
    let net = Deployment::start_with(|config| config.keys_refresh_ms = 100).await;
    let birdy = TestProvider::start("birdy.example").await;
    let evil = TestProvider::start("evil.example").await;
    net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    for mood in [
        Mood::ForeignKeysUri(format!("http://{}/keys", evil.host)),
        Mood::OtherIssuer,
        Mood::Redirects,
        Mood::HugeKeySet,
    ] {
        birdy.be(mood.clone());
        while listed_error(&net).await.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(has(&watch(&net).await.0[0], "k1"), "{mood:?}: the last good keys stay");
        birdy.be(Mood::Well);
        refetch_until_well(&net, &birdy).await;
    }
    assert_eq!(evil.fetches(), 0);
}

/// After a failure the next round comes within the cool-down; an unknown key asks at once.
async fn refetch_until_well(net: &Deployment, birdy: &TestProvider) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    refetch(net, &birdy.issuer(), "unknown").await.unwrap();
    while !listed_error(net).await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn keys_outlive_a_restart_during_an_outage() {
    let net = Deployment::start_with(|config| config.keys_refresh_ms = NEVER_MS).await;
    let birdy = TestProvider::start("birdy.example").await;
    net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    let before = watch(&net).await.0;
    birdy.be(Mood::Down);
    let net = net.restart().await;
    assert_eq!(watch(&net).await.0, before);
}

#[tokio::test]
async fn new_settings_bring_their_own_keys() {
    let net = Deployment::start_with(|config| config.keys_refresh_ms = NEVER_MS).await;
    let (old, new) = (TestProvider::start("birdy.example").await, TestProvider::start("birdy.example").await);
    net.register(&old, ProviderKind::ThirdParty).await.unwrap();
    new.publish_keys(&["k9"]);
    let message = pb::UpdateProvider { settings: Some(new.settings(ProviderKind::ThirdParty)) };
    net.providers().update(net.as_operator(message)).await.unwrap();
    let keys = watch(&net).await.0.remove(0);
    assert!(has(&keys, "k9") && !has(&keys, "k1"));
    assert_eq!(keys.issuer, new.issuer());
    assert_eq!(refetch(&net, &old.issuer(), "k1").await.unwrap_err().code(), Code::NotFound);
}
