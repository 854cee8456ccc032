//! Publish, Count, Claim (KEYS-01, 03, 05, 06, 08, 09).

use std::collections::HashSet;
use std::time::Duration;

use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1::{Enlisted, ErrorCode, Reach};

use crate::testing::{Deployment, Phone, error_of};

const BO: &str = "bo@home.example";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_claims_get_each_one_time_key_once() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let (bo, phone) = net.join(&home, "bo", 100, 60).await;
    let claims = futures::future::join_all((0..200).map(|_| net.claim(&ada, BO))).await;

    let (mut ec, mut kyber) = (HashSet::new(), HashSet::new());
    let (mut without_ec, mut last_resort) = (0, 0);
    for claim in claims {
        let bundles = claim.unwrap();
        assert_eq!(bundles.account_id, bo.account_id);
        let [bundle] = <[_; 1]>::try_from(bundles.bundles).unwrap();
        assert_eq!((bundle.device, bundle.identity_key), (bo.device_id, phone.identity_key()));
        match bundle.ec_prekey {
            Some(key) => assert!(ec.insert(key.public_key), "handed out twice"),
            None => without_ec += 1,
        }
        let key = bundle.kyber_prekey.unwrap();
        if key.id == 1 {
            last_resort += 1;
        } else {
            assert!(kyber.insert(key.public_key), "handed out twice");
        }
        assert!(bundle.signed_prekey.is_some());
    }
    assert_eq!((ec.len(), without_ec, kyber.len(), last_resort), (100, 100, 60, 140));
    assert_eq!(net.count(&bo).await.unwrap(), (0, 0));
}

#[tokio::test]
async fn one_claimant_cannot_drain_a_victim() {
    let net = Deployment::start_with(|config| config.claim_burst = 16).await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let (too, _) = net.join(&birdy, "ada", 0, 0).await;
    let (bo, _) = net.join(&home, "bo", 22, 30).await;
    let mut follower = net.follow().await;
    let told = async {
        loop {
            let (number, change) = follower.next_record().await;
            follower.say(number, 0).await;
            if change.what() == pb::RecordChange::PrekeysLow {
                return change;
            }
        }
    };
    for n in 0..16 {
        net.claim(if n % 2 == 0 { &ada } else { &too }, BO).await.unwrap();
    }
    let refused = net.claim(&ada, BO).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::RateLimited);
    assert_eq!(
        error_of(net.claim(&too, BO).await),
        ErrorCode::RateLimited,
        "another device of it is the same claimant"
    );
    assert!((290_000..=300_000).contains(&refused.retry_after_ms), "{}", refused.retry_after_ms);
    assert_eq!(net.count(&bo).await.unwrap(), (6, 14), "a refused claim takes nothing");
    let low = told.await;
    assert_eq!((low.device_id, low.ec, low.address.as_str()), (bo.device_id, 9, BO));
    follower.keep_up();
    net.join(&home, "cy", 1, 1).await;
    net.claim(&ada, "cy@home.example").await.expect("each target counts by itself");

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(300)).await;
    tokio::time::resume();
    net.claim(&ada, BO).await.unwrap();
    assert_eq!(error_of(net.claim(&ada, BO).await), ErrorCode::RateLimited);
}

#[tokio::test]
async fn beyond_the_budget_of_a_provider_conversations_start_without_one_time_keys() {
    let net = Deployment::start_with(|config| config.claim_provider_burst = 2).await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let (cy, _) = net.join(&birdy, "cy", 0, 0).await;
    let (dee, _) = net.join(&home, "dee", 0, 0).await;
    let (bo, phone) = net.join(&home, "bo", 9, 9).await;
    let claim = async |from: &Enlisted| net.claim(from, BO).await.unwrap().bundles.remove(0);
    for from in [&ada, &cy] {
        let bundle = claim(from).await;
        assert!(bundle.ec_prekey.is_some() && bundle.kyber_prekey.is_some_and(|key| key.id != 1));
    }
    for from in [&ada, &cy] {
        let bundle = claim(from).await;
        assert_eq!((bundle.ec_prekey, bundle.kyber_prekey.map(|key| key.id)), (None, Some(1)));
        assert_eq!((bundle.identity_key, bundle.signed_prekey.is_some()), (phone.identity_key(), true));
    }
    assert_eq!(net.count(&bo).await.unwrap(), (7, 7));
    assert!(claim(&dee).await.ec_prekey.is_some(), "users of another provider have a budget of their own");
}

#[tokio::test]
async fn low_and_empty_are_told_once_each() {
    let net = Deployment::start_with(|config| config.prekeys_low = 3).await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    net.join(&home, "bo", 4, 100).await;
    let mut follower = net.follow().await;
    for _ in 0..8 {
        net.claim(&ada, BO).await.unwrap();
    }
    let told = [follower.next_record().await.1, follower.next_record().await.1];
    assert_eq!(told.map(|low| low.ec), [2, 0]);
    // What comes next is the marker, not a third telling.
    let marker = tokio::join!(net.set_consent(&ada, |_| {}), async {
        let (number, change) = follower.next_record().await;
        follower.say(number, 0).await;
        change.what()
    });
    assert_eq!(marker.1, pb::RecordChange::Consent);
}

#[tokio::test]
async fn keys_come_in_the_order_of_upload() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let (bo, phone) = net.join(&home, "bo", 0, 0).await;
    assert_eq!(net.publish(&bo, phone.publish(&[9, 4], &[8, 3])).await.unwrap(), (2, 2));
    for expected in [(9, 8), (4, 3)] {
        let bundle = net.claim(&ada, BO).await.unwrap().bundles.remove(0);
        assert_eq!((bundle.ec_prekey.unwrap().id, bundle.kyber_prekey.unwrap().id), expected);
    }
}

#[tokio::test]
async fn a_batch_with_one_bad_key_stores_nothing() {
    let net = Deployment::start().await;
    let (home, _) = net.two_providers().await;
    let (bo, phone) = net.join(&home, "bo", 0, 0).await;
    let other = Phone::new();

    let mut foreign_signature = phone.publish(&[1, 2], &[2, 3]);
    foreign_signature.kyber_prekeys[1] = other.kyber_prekey(3);
    let mut wrong_signed = phone.publish(&[1], &[2]);
    wrong_signed.signed_prekey = Some(phone.signed_without_type_byte(2));
    let mut wrong_last = phone.publish(&[1], &[2]);
    wrong_last.last_resort_kyber = Some(other.kyber_prekey(1));
    let mut other_identity = other.publish(&[1], &[2]);
    other_identity.signed_prekey = Some(other.signed_prekey(2));
    let cases = [
        (foreign_signature, "kyber_prekeys[1].signature"),
        (wrong_signed, "signed_prekey.signature"),
        (wrong_last, "last_resort_kyber.signature"),
        (other_identity, "identity_key"),
        (phone.publish(&(1..=101).collect::<Vec<_>>(), &[]), "ec_prekeys"),
        (phone.publish(&[1, 1 << 24], &[]), "ec_prekeys[1].id"),
        (phone.publish(&[5, 5], &[]), "ec_prekeys[1].id"),
    ];
    for (keys, field) in cases {
        let refused = net.publish(&bo, keys).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::BadKeys);
        assert!(refused.detail.starts_with(&format!("{field}:")) && refused.detail.len() <= 200, "{}", refused.detail);
        assert_eq!(net.count(&bo).await.unwrap(), (0, 0));
    }
    let hundred: Vec<u32> = (2..=101).collect();
    assert_eq!(net.publish(&bo, phone.publish(&hundred, &hundred)).await.unwrap(), (100, 100));
}

#[tokio::test]
async fn a_published_batch_that_is_sent_again_changes_nothing() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let (bo, phone) = net.join(&home, "bo", 0, 0).await;
    let batch = phone.publish(&[1, 2], &[2, 3]);
    assert_eq!(net.publish(&bo, batch.clone()).await.unwrap(), (2, 2));
    net.claim(&ada, BO).await.unwrap();
    assert_eq!(net.publish(&bo, batch).await.unwrap(), (1, 1), "the claimed keys do not come back");
}

#[tokio::test]
async fn publications_are_limited_per_device() {
    let net = Deployment::start_with(|config| config.publish_burst = 2).await;
    let (home, _) = net.two_providers().await;
    let (bo, phone) = net.join(&home, "bo", 0, 0).await;
    for _ in 0..2 {
        net.publish(&bo, phone.publish(&[], &[])).await.unwrap();
    }
    let refused = net.publish(&bo, phone.publish(&[], &[])).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::RateLimited);
    assert!((1..=10_000).contains(&refused.retry_after_ms));
}

#[tokio::test]
async fn whatever_is_in_the_way_the_answer_is_one() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 1, 1).await;
    net.join(&birdy, "cy", 1, 1).await;
    let (off, _) = net.join(&home, "off", 1, 1).await;
    net.set_consent(&off, |settings| settings.interop = false).await.unwrap();
    let (nobody, _) = net.join(&home, "nobody", 1, 1).await;
    net.set_consent(&nobody, |settings| settings.reach = Reach::Nobody.into()).await.unwrap();
    let (denies, _) = net.join(&home, "denies", 1, 1).await;
    let rule = causeway_proto::wire::v1::ProviderRule { provider: "birdy.example".to_owned(), allow: false };
    net.set_consent(&denies, |settings| settings.providers.push(rule)).await.unwrap();
    let (empty, _) = net.join(&home, "empty", 1, 1).await;
    let request = pb::RemoveDeviceRequest {
        account_id: empty.account_id.clone(),
        device_id: empty.device_id,
        from_device_id: empty.device_id,
    };
    net.accounts().remove_device(request).await.unwrap();

    let mut answers = Vec::new();
    for address in [
        "off@home.example",
        "nobody@home.example",
        "denies@home.example",
        "empty@home.example",
        "cy@birdy.example",
        "unknown@home.example",
        "unknown@nowhere.example",
        "no address",
    ] {
        answers.push(net.claim(&ada, address).await.unwrap_err());
        answers.push(net.discover(&ada, address).await.unwrap());
    }
    let expected = pb::Refusal { code: ErrorCode::NotAvailable.into(), retry_after_ms: 0, detail: String::new() };
    assert!(answers.iter().all(|answer| *answer == expected), "{answers:?}");

    net.set_consent(&ada, |settings| settings.interop = false).await.unwrap();
    net.join(&home, "bo", 1, 1).await;
    assert_eq!(net.claim(&ada, BO).await.unwrap_err(), expected, "who is not in the network reaches nobody");
}

#[tokio::test]
async fn who_misses_too_often_learns_nothing_of_those_who_are_there() {
    let net = Deployment::start_with(|config| config.miss_burst = 3).await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let (cy, _) = net.join(&birdy, "cy", 0, 0).await;
    net.join(&home, "bo", 20, 20).await;
    for _ in 0..10 {
        assert_eq!(net.discover(&ada, BO).await, None, "hits cost nothing");
        net.claim(&ada, BO).await.unwrap();
    }
    for address in ["one@home.example", "two@home.example"] {
        assert_eq!(net.discover(&ada, address).await.unwrap().code(), ErrorCode::NotAvailable);
    }
    assert_eq!(error_of(net.claim(&ada, "three@home.example").await), ErrorCode::NotAvailable);
    for address in ["four@home.example", BO] {
        for refused in [net.discover(&ada, address).await.unwrap(), net.claim(&ada, address).await.unwrap_err()] {
            assert_eq!(refused.code(), ErrorCode::RateLimited);
            assert!((1..=18_000).contains(&refused.retry_after_ms), "{}", refused.retry_after_ms);
        }
    }
    assert_eq!(net.discover(&cy, BO).await, None, "each account counts by itself");
}

#[tokio::test]
async fn own_devices_are_claimed_but_for_the_claiming_one() {
    let net = Deployment::start().await;
    let (home, _) = net.two_providers().await;
    let (first, _) = net.join(&home, "bo", 2, 2).await;
    let (second, _) = net.join(&home, "bo", 2, 2).await;
    assert_eq!((&first.account_id, first.device_id, second.device_id), (&second.account_id, 1, 2));
    net.set_consent(&first, |settings| settings.interop = false).await.unwrap();
    let bundles = net.claim(&first, BO).await.unwrap();
    assert_eq!(bundles.bundles.iter().map(|bundle| bundle.device).collect::<Vec<_>>(), [2]);
    assert_eq!(net.count(&first).await.unwrap(), (2, 2));
    assert!(net.claim_devices(&first, BO, &[1]).await.unwrap().bundles.is_empty());
}

#[tokio::test]
async fn named_devices_are_claimed_alone() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let (first, _) = net.join(&home, "bo", 2, 2).await;
    let (second, _) = net.join(&home, "bo", 2, 2).await;
    let bundles = net.claim_devices(&ada, BO, &[2, 9]).await.unwrap();
    assert_eq!(bundles.bundles.iter().map(|bundle| bundle.device).collect::<Vec<_>>(), [2]);
    assert_eq!((net.count(&first).await.unwrap(), net.count(&second).await.unwrap()), ((2, 2), (1, 1)));
    assert_eq!(error_of(net.claim_devices(&ada, BO, &[0]).await), ErrorCode::BadRequest);
    assert_eq!(error_of(net.claim_devices(&ada, BO, &[1; 17]).await), ErrorCode::BadRequest);
}
