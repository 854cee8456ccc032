//! Login, Enlist, Devices, RemoveDevice, Withdraw, SetPush (KEYS-14, 15, 16; AUTH-29, 34).

use std::time::Duration;

use bytes::Bytes;
use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use causeway_proto::wire::v1::{ErrorCode, FailureReason};
use causeway_runtime::grpc;

use crate::store::RETIRED_MS;
use crate::testing::{Deployment, Phone, error_of, refusal};

const ADA: &str = "ada@birdy.example";

async fn login(net: &Deployment, address: &str, device_id: u32, phone: &Phone) -> Result<pb::LoggedIn, FailureReason> {
    let request = pb::LoginRequest { address: address.to_owned(), device_id, noise_key: phone.noise_key.clone() };
    match net.accounts().login(grpc::call(request)).await.unwrap().into_inner().outcome.unwrap() {
        pb::login_response::Outcome::LoggedIn(logged_in) => Ok(logged_in),
        pb::login_response::Outcome::Refused(reason) => Err(FailureReason::try_from(reason).unwrap()),
    }
}

async fn remove(net: &Deployment, by: &wire::Enlisted, device_id: u32) -> Option<pb::Refusal> {
    let request =
        pb::RemoveDeviceRequest { account_id: by.account_id.clone(), device_id, from_device_id: by.device_id };
    refusal(net.accounts().remove_device(grpc::call(request)).await.unwrap().into_inner())
}

/// The account as this device names it.
fn account_of(by: &wire::Enlisted) -> pb::AccountRef {
    pb::AccountRef { account_id: by.account_id.clone(), device_id: by.device_id }
}

async fn withdraw(net: &Deployment, by: &wire::Enlisted) -> Option<pb::Refusal> {
    refusal(net.accounts().withdraw(grpc::call(account_of(by))).await.unwrap().into_inner())
}

fn token_replayed() -> pb::Refusal {
    pb::Refusal { code: ErrorCode::TokenRefused.into(), retry_after_ms: 0, detail: "token-replayed".to_owned() }
}

#[tokio::test]
async fn a_device_logs_in_with_the_key_it_enlisted_with() {
    let net = Deployment::start().await;
    let (_, birdy) = net.two_providers().await;
    let (ada, phone) = net.join(&birdy, "ada", 20, 9).await;
    let logged_in = login(&net, ADA, ada.device_id, &phone).await.unwrap();
    assert_eq!((&logged_in.account_id, logged_in.device_count), (&ada.account_id, 1));
    assert!(logged_in.prekeys_low, "fewer than ten Kyber keys");
    net.publish(&ada, phone.publish(&[], &[50])).await.unwrap();
    assert!(!login(&net, ADA, ada.device_id, &phone).await.unwrap().prekeys_low);

    assert_eq!(login(&net, ADA, ada.device_id, &Phone::new()).await, Err(FailureReason::DeviceKey));
    for (address, device) in [(ADA, 0), (ADA, 2), (ADA, u32::MAX), ("eve@birdy.example", 1)] {
        assert_eq!(login(&net, address, device, &phone).await, Err(FailureReason::DeviceUnknown));
    }
}

#[tokio::test]
async fn enlisting_again_gives_the_same_ids() {
    let net = Deployment::start().await;
    let (_, birdy) = net.two_providers().await;
    let phone = Phone::new();
    let keys = phone.enlist(3, 3);
    let first = net.enlist(&birdy, "ada", &phone, keys.clone()).await.unwrap();
    assert_eq!(net.enlist(&birdy, "ada", &phone, keys.clone()).await.unwrap(), first);
    assert_eq!(net.count(&first).await.unwrap(), (3, 3));

    let mut other_identity = Phone::new().enlist(0, 0);
    other_identity.registration_id = keys.registration_id;
    assert_eq!(error_of(net.enlist(&birdy, "ada", &phone, other_identity).await), ErrorCode::AlreadyEnlisted);
    let mut other_registration = keys;
    other_registration.registration_id = other_registration.registration_id % 16_380 + 1;
    assert_eq!(error_of(net.enlist(&birdy, "ada", &phone, other_registration).await), ErrorCode::AlreadyEnlisted);

    // In Unicode's other spelling it is the same account.
    let composed = net.join(&birdy, "jos\u{e9}", 0, 0).await.0;
    let decomposed = net.join(&birdy, "jose\u{301}", 0, 0).await.0;
    assert_eq!(composed.account_id, decomposed.account_id);
}

#[tokio::test]
async fn an_extra_device_is_told_of_and_leaves_the_others_alone() {
    let net = Deployment::start().await;
    let (_, birdy) = net.two_providers().await;
    let (ada, phone) = net.join(&birdy, "ada", 5, 5).await;
    let mut follower = net.follow().await;
    let extra = Phone::new();
    let (enlisted, change) = tokio::join!(net.enlist(&birdy, "ada", &extra, extra.enlist(1, 1)), async {
        let (number, change) = follower.next_record().await;
        follower.say(number, 0).await;
        change
    });
    assert_eq!((enlisted.unwrap().device_id, change.what()), (2, pb::RecordChange::Devices));
    assert_eq!((change.address.as_str(), change.account_id), (ADA, ada.account_id.clone()));
    assert_eq!(net.count(&ada).await.unwrap(), (5, 5));
    assert!(login(&net, ADA, 1, &phone).await.is_ok());
    assert_eq!(net.record(ADA).await.unwrap().devices.len(), 2);
}

#[tokio::test]
async fn keys_that_cannot_name_anybody_are_refused() {
    let net = Deployment::start().await;
    let (_, birdy) = net.two_providers().await;
    let mut phone = Phone::new();
    for point in crate::testing::low_order_points() {
        phone.noise_key = Bytes::copy_from_slice(&point);
        assert_eq!(error_of(net.enlist(&birdy, "ada", &phone, phone.enlist(0, 0)).await), ErrorCode::BadKeys);
    }
    phone.noise_key = Bytes::from_static(&[9; 31]);
    assert_eq!(error_of(net.enlist(&birdy, "ada", &phone, phone.enlist(0, 0)).await), ErrorCode::BadKeys);
    let phone = Phone::new();
    let mut bad = phone.enlist(1, 1);
    bad.kyber_prekeys[0].signature = bad.signed_prekey.as_ref().unwrap().signature.clone();
    assert_eq!(error_of(net.enlist(&birdy, "ada", &phone, bad).await), ErrorCode::BadKeys);
    assert_eq!(net.record(ADA).await, None, "nothing of a refused enlistment stays");
}

#[tokio::test]
async fn the_address_must_be_the_providers_own() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let phone = Phone::new();
    let mut request = pb::EnlistRequest {
        address: ADA.to_owned(),
        provider_id: home.id.clone(),
        noise_key: phone.noise_key.clone(),
        enlist: Some(phone.enlist(0, 0)),
    };
    let status = net.accounts().enlist(grpc::call(request.clone())).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    request.provider_id = birdy.id.clone();
    assert!(net.accounts().enlist(grpc::call(request)).await.is_ok());

    net.set_status("birdy.example", pb::ProviderStatus::Suspended).await.unwrap();
    let late = Phone::new();
    assert_eq!(error_of(net.enlist(&birdy, "late", &late, late.enlist(0, 0)).await), ErrorCode::NotAvailable);
}

#[tokio::test]
async fn sixteen_devices_and_no_more() {
    let net = Deployment::start().await;
    let (_, birdy) = net.two_providers().await;
    for expected in 1..=16 {
        assert_eq!(net.join(&birdy, "ada", 0, 0).await.0.device_id, expected);
    }
    let phone = Phone::new();
    assert_eq!(error_of(net.enlist(&birdy, "ada", &phone, phone.enlist(0, 0)).await), ErrorCode::DeviceLimit);
}

#[tokio::test]
async fn enlistments_are_limited_per_address_and_provider() {
    let net = Deployment::start_with(|config| {
        config.enlist_burst = 6;
        config.enlist_provider_burst = 8;
        config.enlist_provider_interval_ms = 60_000;
    })
    .await;
    let (home, birdy) = net.two_providers().await;
    for _ in 0..6 {
        let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
        assert_eq!(withdraw(&net, &ada).await, None);
    }
    let phone = Phone::new();
    let refused = net.enlist(&birdy, "ada", &phone, phone.enlist(0, 0)).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::RateLimited);
    assert!((1..=20_000).contains(&refused.retry_after_ms));
    net.join(&birdy, "b", 0, 0).await;
    net.join(&birdy, "c", 0, 0).await;
    let refused = net.enlist(&birdy, "d", &phone, phone.enlist(0, 0)).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::RateLimited);
    assert!((20_001..=60_000).contains(&refused.retry_after_ms));
    net.join(&home, "bo", 0, 0).await;
}

#[tokio::test]
async fn a_removed_device_is_gone_with_its_keys() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let (bo, bo_phone) = net.join(&home, "bo", 2, 2).await;
    let (second, second_phone) = net.join(&home, "bo", 2, 2).await;
    let mut follower = net.follow().await;
    let (removed, what) = tokio::join!(remove(&net, &bo, second.device_id), async {
        let (number, change) = follower.next_record().await;
        follower.say(number, 0).await;
        change.what()
    });
    assert_eq!((removed, what), (None, pb::RecordChange::Devices));
    follower.keep_up();

    let bundles = net.claim(&ada, "bo@home.example").await.unwrap().bundles;
    assert_eq!(bundles.iter().map(|bundle| bundle.device).collect::<Vec<_>>(), [bo.device_id]);
    assert!(net.claim_devices(&ada, "bo@home.example", &[2]).await.unwrap().bundles.is_empty());
    assert_eq!(login(&net, "bo@home.example", 2, &second_phone).await, Err(FailureReason::DeviceUnknown));
    assert!(login(&net, "bo@home.example", 1, &bo_phone).await.is_ok());
    assert_eq!(error_of(net.count(&second).await), ErrorCode::NotEnlisted);
    assert_eq!(error_of(net.publish(&second, second_phone.publish(&[1], &[])).await), ErrorCode::NotEnlisted);
    assert_eq!(error_of(net.claim(&second, ADA).await), ErrorCode::NotEnlisted);

    for (by, device) in [(&bo, 2), (&bo, 0), (&ada, 2)] {
        let refused = remove(&net, by, device).await.unwrap();
        assert_eq!(refused.code(), ErrorCode::NotAvailable, "one that is not there, or another's");
    }
}

#[tokio::test]
async fn a_removed_device_whose_session_goes_on_does_nothing() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    net.join(&home, "bo", 1, 1).await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let (removed, _) = net.join(&birdy, "ada", 0, 0).await;
    assert_eq!(remove(&net, &ada, removed.device_id).await, None);
    let before = net.record(ADA).await;

    let refused = [
        remove(&net, &removed, ada.device_id).await,
        remove(&net, &removed, removed.device_id).await,
        withdraw(&net, &removed).await,
        net.discover(&removed, "bo@home.example").await,
        net.set_consent(&removed, |settings| settings.interop = false).await.err(),
    ];
    let expected = pb::Refusal { code: ErrorCode::NotEnlisted.into(), ..pb::Refusal::default() };
    assert!(refused.iter().all(|refusal| refusal.as_ref() == Some(&expected)), "{refused:?}");
    let devices = net.accounts().devices(grpc::call(account_of(&removed))).await.unwrap().into_inner().outcome;
    assert_eq!(devices, Some(pb::devices_response::Outcome::Refused(expected.clone())));
    let consent = net.consent().get(grpc::call(account_of(&removed))).await.unwrap().into_inner().outcome;
    assert_eq!(consent, Some(pb::consent_response::Outcome::Refused(expected)));
    assert_eq!(net.record(ADA).await, before);

    let nobody = wire::Enlisted { device_id: 0, ..ada };
    let status = net.accounts().withdraw(grpc::call(account_of(&nobody))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "every caller says which device acts");
}

#[tokio::test]
async fn a_withdrawn_account_leaves_nothing() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let (bo, _) = net.join(&home, "bo", 2, 2).await;
    let (ada, phone) = net.join(&birdy, "ada", 5, 5).await;
    let mut follower = net.follow().await;
    let (refused, what) = tokio::join!(withdraw(&net, &ada), async {
        let (number, change) = follower.next_record().await;
        follower.say(number, 0).await;
        change.what()
    });
    assert_eq!((refused, what), (None, pb::RecordChange::Withdrawn));
    follower.keep_up();
    assert_eq!(withdraw(&net, &ada).await.unwrap().code(), ErrorCode::NotEnlisted);
    assert_eq!(login(&net, ADA, 1, &phone).await, Err(FailureReason::DeviceUnknown));
    assert_eq!(error_of(net.claim(&bo, ADA).await), ErrorCode::NotAvailable);
    assert_eq!(net.record(ADA).await, None);

    assert_eq!(net.enlist(&birdy, "ada", &phone, phone.enlist(1, 1)).await.unwrap_err(), token_replayed());
    assert_eq!(net.record(ADA).await, None);
    let phone = Phone::new();
    let again = net.enlist(&birdy, "ada", &phone, phone.enlist(1, 1)).await.unwrap();
    assert_ne!(again.account_id, ada.account_id);
    let record = net.record(ADA).await.unwrap();
    assert!(!record.consent.unwrap().interop, "consents do not come back");
    assert_eq!(net.count(&again).await.unwrap(), (1, 1));
}

#[tokio::test]
async fn a_device_that_is_no_more_does_not_come_back_with_its_token() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let (ada, phone) = net.join(&birdy, "ada", 0, 0).await;
    let (_, second) = net.join(&birdy, "ada", 0, 0).await;
    let keys = second.enlist(1, 1);
    assert_eq!(remove(&net, &ada, 2).await, None);
    assert_eq!(net.enlist(&birdy, "ada", &second, keys.clone()).await.unwrap_err(), token_replayed());

    // Not after a restart either; others go on as before.
    let net = net.restart().await;
    assert_eq!(net.enlist(&birdy, "ada", &second, keys.clone()).await.unwrap_err(), token_replayed());
    assert_eq!(net.record(ADA).await.unwrap().devices.len(), 1);
    let again = net.enlist(&birdy, "ada", &phone, phone.enlist(0, 0)).await.unwrap();
    assert_eq!(again, ada, "the retry of a live device");
    assert_eq!(net.join(&birdy, "ada", 0, 0).await.0.device_id, 3, "a new key works at once");
    net.enlist(&home, "ada", &second, keys.clone()).await.expect("a token of another address is another token");

    net.clock.advance(Duration::from_millis(RETIRED_MS));
    assert_eq!(net.enlist(&birdy, "ada", &second, keys).await.unwrap().device_id, 4);
}

#[tokio::test]
async fn devices_are_listed_and_push_tokens_kept() {
    let net = Deployment::start().await;
    let (_, birdy) = net.two_providers().await;
    let (ada, phone) = net.join(&birdy, "ada", 0, 0).await;
    let response = net.accounts().devices(grpc::call(account_of(&ada))).await.unwrap().into_inner();
    let Some(pb::devices_response::Outcome::Devices(list)) = response.outcome else { panic!("must be a list") };
    let expected = wire::Device {
        id: 1,
        registration_id: phone.enlist(0, 0).registration_id,
        enlisted_ms: causeway_runtime::clock::Clock::now_ms(&*net.clock),
    };
    assert_eq!(list.devices, [expected]);

    let set = async |token: &[u8]| {
        let request = pb::SetPushRequest {
            account_id: ada.account_id.clone(),
            device_id: 1,
            token: Bytes::copy_from_slice(token),
        };
        refusal(net.accounts().set_push(grpc::call(request)).await.unwrap().into_inner())
    };
    assert_eq!(set(&[7; 512]).await, None);
    assert_eq!(net.record(ADA).await.unwrap().devices[0].push_token, vec![7; 512]);
    assert_eq!(set(&[7; 513]).await.unwrap().code(), ErrorCode::BadRequest);
    assert_eq!(set(&[]).await, None);
    assert!(net.record(ADA).await.unwrap().devices[0].push_token.is_empty());
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let net = Deployment::start().await;
    let (_, birdy) = net.two_providers().await;
    let (ada, phone) = net.join(&birdy, "ada", 5, 5).await;
    let before = net.record(ADA).await;
    let net = net.restart().await;
    assert_eq!(net.record(ADA).await, before);
    assert_eq!(net.count(&ada).await.unwrap(), (5, 5));
    assert!(login(&net, ADA, 1, &phone).await.is_ok());
}

#[tokio::test]
async fn changes_of_what_is_kept_are_limited_per_account_and_provider() {
    let net = Deployment::start_with(|config| {
        // Joining sets consent once.
        (config.settings_burst, config.settings_interval_ms) = (5, 60_000);
        (config.settings_provider_burst, config.settings_provider_interval_ms) = (7, 30_000);
    })
    .await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 0, 0).await;
    let push = async || {
        let request = pb::SetPushRequest {
            account_id: ada.account_id.clone(),
            device_id: ada.device_id,
            token: Bytes::from_static(b"wake me"),
        };
        refusal(net.accounts().set_push(grpc::call(request)).await.unwrap().into_inner())
    };
    for _ in 0..2 {
        net.set_consent(&ada, |_| {}).await.expect("what changes nothing counts, too");
    }
    assert_eq!(push().await, None);
    assert_eq!(remove(&net, &ada, 9).await.unwrap().code(), ErrorCode::NotAvailable);
    let refusals = [
        net.set_consent(&ada, |settings| settings.interop = false).await.unwrap_err(),
        push().await.unwrap(),
        remove(&net, &ada, ada.device_id).await.unwrap(),
        withdraw(&net, &ada).await.unwrap(),
    ];
    for refused in refusals {
        assert_eq!(refused.code(), ErrorCode::RateLimited);
        assert!((30_001..=60_000).contains(&refused.retry_after_ms), "{}", refused.retry_after_ms);
    }
    assert!(net.record(ADA).await.unwrap().consent.unwrap().interop, "nothing changed");
    let (bea, _) = net.join(&birdy, "bea", 0, 0).await;
    net.set_consent(&bea, |_| {}).await.unwrap();
    let refused = net.set_consent(&bea, |_| {}).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::RateLimited);
    assert!((1..=30_000).contains(&refused.retry_after_ms), "{}", refused.retry_after_ms);
    net.join(&home, "bo", 0, 0).await;
}
