//! Consent and the followers of records.

use std::time::Duration;

use bytes::Bytes;
use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use causeway_proto::wire::v1::ErrorCode;
use causeway_runtime::grpc;
use causeway_runtime::lifecycle::Ended;
use tokio::time::Instant;

use crate::changes::TRANSIT;
use crate::testing::{Deployment, error_of};

const BO: &str = "bo@home.example";

#[tokio::test]
async fn enlistment_leaves_interop_off() {
    let net = Deployment::start().await;
    let (home, _) = net.two_providers().await;
    let phone = crate::testing::Phone::new();
    let bo = net.enlist(&home, "bo", &phone, phone.enlist(0, 0)).await.unwrap();
    let request = pb::AccountRef { account_id: bo.account_id.clone(), device_id: bo.device_id };
    let answer = net.consent().get(grpc::call(request)).await.unwrap().into_inner().outcome.unwrap();
    let expected = wire::ConsentSettings {
        interop: false,
        providers: Vec::new(),
        inbox: wire::InboxSetting::Separate.into(),
        reach: wire::Reach::Everyone.into(),
    };
    assert_eq!(answer, pb::consent_response::Outcome::Settings(expected));
}

#[tokio::test]
async fn settings_are_checked() {
    let net = Deployment::start().await;
    let (home, _) = net.two_providers().await;
    let (bo, _) = net.join(&home, "bo", 0, 0).await;
    let set = net.set_consent(&bo, |settings| settings.reach = wire::Reach::Contacts.into()).await;
    assert_eq!(error_of(set), ErrorCode::BadRequest);
    let stranger = wire::Enlisted { account_id: Bytes::from_static(&[7; 16]), ..bo };
    assert_eq!(error_of(net.set_consent(&stranger, |_| {}).await), ErrorCode::NotEnlisted);
    assert!(net.record(BO).await.unwrap().consent.unwrap().interop, "nothing changed");
}

#[tokio::test]
async fn a_change_returns_when_every_follower_has_acknowledged_it() {
    let net = Deployment::start().await;
    let (home, _) = net.two_providers().await;
    let (bo, _) = net.join(&home, "bo", 0, 0).await;
    let (mut one, mut other) = (net.follow().await, net.follow().await);

    let mut setting = std::pin::pin!(net.set_consent(&bo, |settings| settings.interop = false));
    let (number, change) = tokio::select! {
        _ = &mut setting => panic!("nobody has acknowledged"),
        change = one.next_record() => change,
    };
    assert_eq!((change.what(), change.address.as_str()), (pb::RecordChange::Consent, BO));
    assert!(!net.record(BO).await.unwrap().consent.unwrap().interop, "whoever asks now gets the new setting");
    one.say(number, 0).await;
    let (number, _) = tokio::select! {
        _ = &mut setting => panic!("one has not acknowledged"),
        change = other.next_record() => change,
    };
    other.say(number, 0).await;
    assert!(!setting.await.unwrap().interop);
}

#[tokio::test]
async fn a_follower_that_does_not_acknowledge_is_cut_off() {
    let net = Deployment::start_with(|config| config.lease_ms = 500).await;
    let (home, _) = net.two_providers().await;
    let (bo, _) = net.join(&home, "bo", 0, 0).await;
    let mut deaf = net.follow().await;
    let start = Instant::now();
    let (set, end) = tokio::join!(net.set_consent(&bo, |settings| settings.interop = false), async {
        loop {
            if let Err(status) = deaf.next().await {
                return status;
            }
        }
    });
    set.unwrap();
    assert_eq!(end.code(), tonic::Code::ResourceExhausted);
    let waited = start.elapsed();
    let lease = Duration::from_millis(500);
    assert!(waited >= lease + TRANSIT / 2 && waited < 2 * lease + TRANSIT + Duration::from_secs(30), "{waited:?}");
    // It counts no more.
    net.set_consent(&bo, |_| {}).await.unwrap();
}

#[tokio::test]
async fn pings_are_answered_with_leases_that_name_them() {
    let net = Deployment::start().await;
    let mut follower = net.follow().await;
    follower.say(0, 41).await;
    loop {
        let message = follower.next().await.unwrap();
        let Some(pb::followed_message::Change::Lease(lease)) = message.change else { panic!("only leases here") };
        assert_eq!((message.number, lease.lease_ms), (0, 3_000));
        if lease.pong == 41 {
            break;
        }
    }
}

#[tokio::test]
async fn an_acknowledgement_of_nothing_ends_the_stream() {
    let net = Deployment::start().await;
    let mut follower = net.follow().await;
    follower.say(1_000, 0).await;
    let status = loop {
        if let Err(status) = follower.next().await {
            break status;
        }
    };
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_change_goes_on_when_its_caller_gives_up() {
    let net = Deployment::start().await;
    let (home, _) = net.two_providers().await;
    let (bo, _) = net.join(&home, "bo", 0, 0).await;
    let mut follower = net.follow().await;
    {
        let mut setting = std::pin::pin!(net.set_consent(&bo, |settings| settings.interop = false));
        // Dropped as soon as the change is on its way: followers must hear of what was committed.
        assert!(futures::poll!(&mut setting).is_pending());
        while net.record(BO).await.unwrap().consent.unwrap().interop {
            assert!(futures::poll!(&mut setting).is_pending());
        }
    }
    assert_eq!(follower.next_record().await.1.what(), pb::RecordChange::Consent);
}

#[tokio::test]
async fn open_streams_do_not_hold_up_the_drain() {
    let net = Deployment::start().await;
    let mut follower = net.follow().await;
    let mut watch = net.token_keys().watch(pb::WatchTokenKeys {}).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    assert_eq!(net.stop().await, Ended::Clean);
    assert!(follower.next().await.is_err());
    assert!(watch.message().await.is_err());
}
