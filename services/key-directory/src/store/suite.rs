//! The contract of [`Store`] as tests: one function a sentence, and `model`, which runs random changes against a simple
//! model. A backend calls [`run`] with a way to make empty stores, and [`shared::run`] if several processes share it.

mod model;
pub(crate) mod restored;
pub(crate) mod shared;

use bytes::Bytes;

use super::*;
use crate::consent::{InboxSetting, Reach};
use crate::keys::{PrekeyId, Signature};
use crate::providers::{ProviderKind, WebhookTarget};

/// An empty store that lives as long as this value.
pub(crate) trait Fresh {
    fn store(&self) -> &dyn Store;
}

pub(crate) fn run<F: Fresh>(fresh: impl AsyncFn() -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        a_provider_is_registered_once(fresh().await.store()).await;
        providers_come_in_pages_by_domain(fresh().await.store()).await;
        settings_change_but_for_domain_and_kind(fresh().await.store()).await;
        token_keys_are_kept_for_the_settings_they_were_fetched_under(fresh().await.store()).await;
        a_record_shows_its_provider_as_it_is_now(fresh().await.store()).await;
        enlisting_again_changes_nothing(fresh().await.store()).await;
        an_account_has_at_most_sixteen_devices(fresh().await.store()).await;
        device_ids_return_last_and_longest_removed_first(fresh().await.store()).await;
        a_key_of_a_device_that_is_no_more_waits(fresh().await.store()).await;
        a_withdrawn_account_is_gone_and_its_id_stays_used(fresh().await.store()).await;
        a_removed_device_changes_nothing(fresh().await.store()).await;
        consent_and_push_are_replaced(fresh().await.store()).await;
        what_is_stored_already_is_not_logged_again(fresh().await.store()).await;
        keys_leave_in_the_order_of_upload(fresh().await.store()).await;
        a_claim_without_one_time_keys_takes_none(fresh().await.store()).await;
        a_login_is_told_what_the_records_tell(fresh().await.store()).await;
        a_key_published_again_is_not_handed_out_again(fresh().await.store()).await;
        a_newer_key_replaces_one_with_its_id(fresh().await.store()).await;
        the_oldest_keys_beyond_the_bound_are_dropped(fresh().await.store()).await;
        another_identity_changes_nothing(fresh().await.store()).await;
        concurrent_claims_get_each_key_once(fresh().await.store()).await;
        concurrent_enlistments_make_one_account(fresh().await.store()).await;
        nothing_is_found_where_nothing_is(fresh().await.store()).await;
        followers_are_told_of_what_changed(fresh().await.store()).await;
        a_device_named_twice_gives_one_key(fresh().await.store()).await;
    });
    model::any_changes_agree_with_the_model(&runtime, &fresh);
}

/// For tests of a backend that need something to be there.
pub(crate) async fn an_account(store: &dyn Store) -> (AccountId, DeviceId) {
    store.register_provider(&provider(1), &token_keys(1), 10).await.unwrap();
    added(store.enlist(&enlistment(1, 1)).await.unwrap().outcome)
}

pub(crate) fn provider(n: u8) -> Provider {
    Provider {
        id: ProviderId::from_bytes([n; 16]),
        settings: ProviderSettings {
            domain: format!("p{n}.example").parse().unwrap(),
            display_name: format!("Provider {n}"),
            kind: if n == 0 { ProviderKind::Home } else { ProviderKind::ThirdParty },
            issuer: format!("https://id.p{n}.example"),
            hosts: vec![format!("id.p{n}.example"), format!("media.p{n}.example:8443")],
            media_prefixes: vec![format!("https://media.p{n}.example:8443/v1/blobs/")],
            webhook: (n % 2 == 1).then(|| WebhookTarget {
                url: format!("https://id.p{n}.example/push"),
                secret: "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz".to_owned(),
            }),
        },
        status: ProviderStatus::Live,
        registered_ms: 1_000 + u64::from(n),
        revision: 0,
    }
}

pub(crate) fn token_keys(n: u64) -> TokenKeySet {
    TokenKeySet { jwks: format!("{{\"keys\":[{n}]}}"), count: 1, fetched_ms: n }
}

/// A well-shaped key that says who made it; no backend looks inside.
fn ec(n: u32) -> EcPublicKey {
    let mut bytes = [0; EcPublicKey::LENGTH];
    bytes[1..5].copy_from_slice(&n.to_be_bytes());
    EcPublicKey::from_stored(&bytes).unwrap()
}

fn kyber(n: u32) -> KyberPublicKey {
    let mut bytes = vec![0; KyberPublicKey::LENGTH];
    bytes[1..5].copy_from_slice(&n.to_be_bytes());
    KyberPublicKey::from_stored(bytes).unwrap()
}

fn id(n: u32) -> PrekeyId {
    PrekeyId::try_from(n).unwrap()
}

fn one_time(n: u32) -> EcPrekey {
    EcPrekey { id: id(n), key: ec(n) }
}

fn signed<K>(n: u32, key: K) -> SignedPrekey<K> {
    SignedPrekey { id: id(n), key, signature: Signature::from_bytes([n as u8; 64]) }
}

fn noise(n: u8) -> NoiseKey {
    NoiseKey::new([n.max(9); 32].map(|byte| byte & 0x7f)).unwrap()
}

pub(crate) fn address(user: u8) -> Address {
    format!("user{user}@p1.example").parse().unwrap()
}

/// Device `phone` of `user`, without one-time keys.
pub(crate) fn enlistment(user: u8, phone: u8) -> Enlistment {
    Enlistment {
        address: address(user),
        provider: ProviderId::from_bytes([1; 16]),
        new_account: AccountId::from_bytes([user; 16]),
        noise_key: noise(phone + 10),
        registration_id: RegistrationId::try_from(u32::from(phone) + 1).unwrap(),
        keys: one_time_keys(phone, Vec::new(), Vec::new()),
        now_ms: 5_000 + u64::from(phone),
    }
}

/// Keys of `phone`: with new signed ones and these one-time ones.
pub(crate) fn one_time_keys(phone: u8, ec_ids: Vec<u32>, kyber_ids: Vec<u32>) -> VerifiedPrekeys {
    VerifiedPrekeys {
        identity_key: ec(1_000_000 + u32::from(phone)),
        signed: Some(signed(1, ec(2_000_000))),
        last_resort: Some(signed(9_999, kyber(3_000_000))),
        ec: ec_ids.into_iter().map(one_time).collect(),
        kyber: kyber_ids.into_iter().map(|n| signed(n, kyber(n))).collect(),
    }
}

pub(crate) fn added(outcome: Enlisted) -> (AccountId, DeviceId) {
    match outcome {
        Enlisted::Added { account, device } => (account, device),
        other => panic!("expected a new device, got {other:?}"),
    }
}

async fn a_provider_is_registered_once(store: &dyn Store) {
    assert_eq!(store.register_provider(&provider(1), &token_keys(7), 2).await.unwrap().outcome, Registered::Done);
    assert_eq!(store.provider(&provider(1).settings.domain).await.unwrap(), Some(provider(1)));
    assert_eq!(store.token_keys(provider(1).id).await.unwrap(), Some(token_keys(7)));
    assert_eq!(
        store.register_provider(&provider(1), &token_keys(8), 2).await.unwrap().outcome,
        Registered::DomainTaken
    );
    let mut same_issuer = provider(2);
    same_issuer.settings.issuer = provider(1).settings.issuer;
    assert_eq!(
        store.register_provider(&same_issuer, &token_keys(8), 2).await.unwrap().outcome,
        Registered::IssuerTaken
    );
    assert_eq!(store.register_provider(&provider(2), &token_keys(8), 2).await.unwrap().outcome, Registered::Done);
    assert_eq!(store.register_provider(&provider(3), &token_keys(8), 2).await.unwrap().outcome, Registered::Full);
    assert_eq!(store.token_keys(provider(1).id).await.unwrap(), Some(token_keys(7)), "as the first call left them");
}

async fn providers_come_in_pages_by_domain(store: &dyn Store) {
    for n in [3, 1, 2] {
        store.register_provider(&provider(n), &token_keys(0), 10).await.unwrap();
    }
    let domains = |page: Vec<Provider>| -> Vec<String> {
        page.into_iter().map(|provider| provider.settings.domain.to_string()).collect()
    };
    assert_eq!(domains(store.providers(None, 2).await.unwrap()), ["p1.example", "p2.example"]);
    let after = "p2.example".parse().unwrap();
    assert_eq!(domains(store.providers(Some(&after), 2).await.unwrap()), ["p3.example"]);
}

async fn settings_change_but_for_domain_and_kind(store: &dyn Store) {
    for n in [1, 2] {
        store.register_provider(&provider(n), &token_keys(0), 10).await.unwrap();
    }
    let mut settings = provider(1).settings;
    settings.display_name = "Another name".to_owned();
    settings.issuer = "https://login.p1.example".to_owned();
    settings.webhook = None;
    let expected = Provider { settings: settings.clone(), revision: 1, ..provider(1) };
    assert_eq!(
        store.update_provider(&settings, &token_keys(5)).await.unwrap().outcome,
        Updated::Done(Box::new(expected.clone()))
    );
    assert_eq!(store.provider(&settings.domain).await.unwrap(), Some(expected.clone()));
    assert_eq!(store.token_keys(provider(1).id).await.unwrap(), Some(token_keys(5)));

    let mut other_kind = settings.clone();
    other_kind.kind = ProviderKind::Home;
    assert_eq!(store.update_provider(&other_kind, &token_keys(6)).await.unwrap().outcome, Updated::OtherKind);
    let mut taken = settings.clone();
    taken.issuer = provider(2).settings.issuer;
    assert_eq!(store.update_provider(&taken, &token_keys(6)).await.unwrap().outcome, Updated::IssuerTaken);
    assert_eq!(store.update_provider(&provider(3).settings, &token_keys(6)).await.unwrap().outcome, Updated::Unknown);
    assert_eq!(store.provider(&settings.domain).await.unwrap(), Some(expected));
}

async fn token_keys_are_kept_for_the_settings_they_were_fetched_under(store: &dyn Store) {
    let known = provider(1);
    store.register_provider(&known, &token_keys(1), 10).await.unwrap();
    assert!(store.keep_token_keys(known.id, 0, 1, &token_keys(2)).await.unwrap());
    assert_eq!(store.token_keys(known.id).await.unwrap(), Some(token_keys(2)));
    assert!(!store.keep_token_keys(known.id, 0, 1, &token_keys(4)).await.unwrap(), "others were kept meanwhile");
    assert_eq!(store.token_keys(known.id).await.unwrap(), Some(token_keys(2)));
    store.update_provider(&known.settings, &token_keys(3)).await.unwrap();
    assert!(!store.keep_token_keys(known.id, 0, 3, &token_keys(4)).await.unwrap(), "fetched under older settings");
    assert_eq!(store.token_keys(known.id).await.unwrap(), Some(token_keys(3)));
}

async fn a_record_shows_its_provider_as_it_is_now(store: &dyn Store) {
    let (account, _) = an_account(store).await;
    let by_address = store.record(&Who::Address(address(1))).await.unwrap().unwrap();
    assert_eq!(store.record(&Who::Account(account)).await.unwrap().unwrap(), by_address);
    assert_eq!((by_address.provider.clone(), by_address.consent), (provider(1).reference(), Consent::default()));
    let domain = provider(1).settings.domain;
    let suspended = store.set_provider_status(&domain, ProviderStatus::Suspended).await.unwrap().outcome.unwrap();
    assert_eq!(suspended, Provider { status: ProviderStatus::Suspended, ..provider(1) });
    let record = store.record(&Who::Account(account)).await.unwrap().unwrap();
    assert_eq!(record.provider.status, ProviderStatus::Suspended);
}

async fn enlisting_again_changes_nothing(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    let before = store.record(&Who::Account(account)).await.unwrap();
    let mut again = enlistment(1, 1);
    again.new_account = AccountId::from_bytes([99; 16]);
    again.now_ms += 1;
    again.keys.ec.push(one_time(1));
    assert_eq!(store.enlist(&again).await.unwrap().outcome, Enlisted::Before { account, device });
    assert_eq!(store.record(&Who::Account(account)).await.unwrap(), before);
    assert_eq!(store.key_counts(account, device).await.unwrap(), Some(KeyCounts::default()));

    let mut other_identity = enlistment(1, 1);
    other_identity.keys.identity_key = ec(77);
    assert_eq!(store.enlist(&other_identity).await.unwrap().outcome, Enlisted::OtherKeys);
    let mut other_registration = enlistment(1, 1);
    other_registration.registration_id = RegistrationId::try_from(77).unwrap();
    assert_eq!(store.enlist(&other_registration).await.unwrap().outcome, Enlisted::OtherKeys);
    assert_eq!(store.record(&Who::Account(account)).await.unwrap(), before);
}

async fn an_account_has_at_most_sixteen_devices(store: &dyn Store) {
    let (account, _) = an_account(store).await;
    for phone in 2..=16 {
        added(store.enlist(&enlistment(1, phone)).await.unwrap().outcome);
    }
    assert_eq!(store.enlist(&enlistment(1, 17)).await.unwrap().outcome, Enlisted::DeviceLimit);
    let ids: Vec<u32> = record(store, account).await.devices.iter().map(|device| device.id.get()).collect();
    assert_eq!(ids, (1..=16).collect::<Vec<_>>());
    assert!(
        matches!(store.enlist(&enlistment(1, 3)).await.unwrap().outcome, Enlisted::Before { .. }),
        "a repeat still works"
    );
}

async fn device_ids_return_last_and_longest_removed_first(store: &dyn Store) {
    let (account, first) = an_account(store).await;
    let mut now_ms = 0;
    let remove = async |device: DeviceId, now_ms: u64| {
        let removed = store.remove_device(account, device, device, now_ms).await.unwrap().outcome;
        assert_eq!(removed, Removed::Done, "a device may remove itself");
    };
    // One phone all the time, so each enlistment is late enough for its key.
    let mut enlist = async || {
        now_ms += RETIRED_MS;
        let (_, device) = added(store.enlist(&Enlistment { now_ms, ..enlistment(1, 50) }).await.unwrap().outcome);
        (device, now_ms)
    };
    remove(first, 0).await;
    for expected in 2..=MAX_DEVICE_ID {
        let (device, now_ms) = enlist().await;
        assert_eq!(device.get(), expected, "never used ids come first");
        // 3 goes last of all, so it must come back last.
        if expected != 3 {
            remove(device, now_ms).await;
        } else {
            let mut parked = enlistment(1, 50);
            parked.noise_key = noise(51);
            let (_, spare) = added(store.enlist(&parked).await.unwrap().outcome);
            assert_eq!(spare.get(), 4);
            remove(device, now_ms).await;
            remove(spare, now_ms).await;
            break;
        }
    }
    for expected in (5..=MAX_DEVICE_ID).chain([1, 2, 3, 4, 5]) {
        let (device, now_ms) = enlist().await;
        assert_eq!(device.get(), expected);
        remove(device, now_ms).await;
    }
}

async fn a_key_of_a_device_that_is_no_more_waits(store: &dyn Store) {
    let (account, first) = an_account(store).await;
    let (_, second) = added(store.enlist(&enlistment(1, 2)).await.unwrap().outcome);
    assert_eq!(store.remove_device(account, first, second, 10_000).await.unwrap().outcome, Removed::Done);
    let at = |user: u8, phone: u8, now_ms: u64| {
        let new_account = AccountId::from_bytes([100 + user; 16]);
        Enlistment { new_account, now_ms, ..enlistment(user, phone) }
    };
    let end = 10_000 + RETIRED_MS;
    assert_eq!(store.enlist(&at(1, 2, 10_000)).await.unwrap().outcome, Enlisted::Retired);
    assert_eq!(store.enlist(&at(1, 2, end - 1)).await.unwrap().outcome, Enlisted::Retired);
    let live = store.enlist(&at(1, 1, 10_000)).await.unwrap().outcome;
    assert_eq!(live, Enlisted::Before { account, device: first }, "a live device asks again");
    added(store.enlist(&at(2, 2, 10_000)).await.unwrap().outcome);
    let (_, back) = added(store.enlist(&at(1, 2, end)).await.unwrap().outcome);
    assert_eq!(back.get(), 3);

    assert!(store.withdraw(account, first, end).await.unwrap().outcome);
    for phone in [1, 2] {
        assert_eq!(store.enlist(&at(1, phone, end + RETIRED_MS - 1)).await.unwrap().outcome, Enlisted::Retired);
    }
    assert_eq!(store.record(&Who::Address(address(1))).await.unwrap(), None, "who is refused makes no account");
    added(store.enlist(&at(1, 3, end)).await.unwrap().outcome);
    added(store.enlist(&at(1, 1, end + RETIRED_MS)).await.unwrap().outcome);
}

async fn a_withdrawn_account_is_gone_and_its_id_stays_used(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    store.publish(account, device, &one_time_keys(1, vec![1], vec![1])).await.unwrap();
    assert!(store.withdraw(account, device, 9_000).await.unwrap().outcome);
    assert!(!store.withdraw(account, device, 9_001).await.unwrap().outcome);
    assert_eq!(store.record(&Who::Account(account)).await.unwrap(), None);
    assert_eq!(store.record(&Who::Address(address(1))).await.unwrap(), None);
    assert_eq!(store.key_counts(account, device).await.unwrap(), None);
    assert!(store.claim(account, &[device], true, 0).await.unwrap().outcome.is_empty());

    assert!(store.enlist(&enlistment(1, 2)).await.is_err(), "an id is never given twice");
    let mut anew = enlistment(1, 2);
    anew.new_account = AccountId::from_bytes([42; 16]);
    let (second, device) = added(store.enlist(&anew).await.unwrap().outcome);
    assert_eq!((second, device.get()), (anew.new_account, 1));
    assert_eq!(store.key_counts(second, device).await.unwrap(), Some(KeyCounts::default()), "nothing of before");
}

async fn a_removed_device_changes_nothing(store: &dyn Store) {
    let (account, first) = an_account(store).await;
    let (_, removed) = added(store.enlist(&enlistment(1, 2)).await.unwrap().outcome);
    assert_eq!(store.remove_device(account, first, removed, 1).await.unwrap().outcome, Removed::Done);
    let before = record(store, account).await;
    let consent = Consent { interop: true, ..Consent::default() };
    assert!(!store.set_consent(account, removed, &consent).await.unwrap().outcome);
    assert!(!store.withdraw(account, removed, 2).await.unwrap().outcome);
    assert_eq!(store.remove_device(account, removed, first, 2).await.unwrap().outcome, Removed::NotEnlisted);
    assert_eq!(record(store, account).await, before);
}

async fn consent_and_push_are_replaced(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    let mut consent =
        Consent { interop: true, inbox: InboxSetting::Combined, reach: Reach::Nobody, ..Consent::default() };
    consent.rules.insert("p2.example".parse().unwrap(), false);
    consent.rules.insert("p3.example".parse().unwrap(), true);
    assert!(store.set_consent(account, device, &consent).await.unwrap().outcome);
    assert_eq!(record(store, account).await.consent, consent);
    consent.rules.remove(&"p2.example".parse().unwrap());
    assert!(store.set_consent(account, device, &consent).await.unwrap().outcome);
    assert_eq!(record(store, account).await.consent, consent);

    let token = PushToken::new(Bytes::from_static(b"wake me")).unwrap();
    assert!(store.set_push(account, device, Some(&token)).await.unwrap().outcome);
    assert_eq!(record(store, account).await.devices[0].push_token, Some(token));
    assert!(store.set_push(account, device, None).await.unwrap().outcome);
    assert_eq!(record(store, account).await.devices[0].push_token, None);
}

async fn what_is_stored_already_is_not_logged_again(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    let rules = [("p2.example".parse().unwrap(), false), ("p3.example".parse().unwrap(), true)].into();
    let consent = Consent { interop: true, rules, ..Consent::default() };
    let mut other_rule = consent.clone();
    other_rule.rules.insert("p2.example".parse().unwrap(), true);
    let token = PushToken::new(Bytes::from_static(b"wake me")).unwrap();
    let of_consent = async |consent: &Consent| store.set_consent(account, device, consent).await.unwrap();
    let of_push = async |token: Option<&PushToken>| store.set_push(account, device, token).await.unwrap();
    for (first, again) in [
        (of_consent(&consent).await, of_consent(&consent).await),
        (of_consent(&other_rule).await, of_consent(&other_rule).await),
        (of_consent(&Consent::default()).await, of_consent(&Consent::default()).await),
        (of_push(Some(&token)).await, of_push(Some(&token)).await),
        (of_push(None).await, of_push(None).await),
    ] {
        assert!(first.outcome && again.outcome);
        assert_eq!(first.logged.changes.len(), 1);
        // A store without a log tells again.
        let expected = if first.logged.number.is_some() { Logged::default() } else { first.logged };
        assert_eq!(again.logged, expected);
    }
    let read = record(store, account).await;
    assert_eq!((read.consent, &read.devices[0].push_token), (Consent::default(), &None));
}

async fn keys_leave_in_the_order_of_upload(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    store.publish(account, device, &one_time_keys(1, vec![7, 3], vec![5, 2])).await.unwrap();
    let published = store.publish(account, device, &one_time_keys(1, vec![1], vec![1])).await.unwrap();
    assert_eq!(published, Published::Done(KeyCounts { ec: 3, kyber: 3 }));
    let mut order = Vec::new();
    for left in [2, 1, 0] {
        let bundle = claim(store, account, device).await;
        assert_eq!((bundle.left, bundle.taken), (KeyCounts { ec: left, kyber: left }, (true, true)));
        order.push((bundle.ec.unwrap(), bundle.kyber));
    }
    let expected = [(7, 5), (3, 2), (1, 1)].map(|(n, m)| (one_time(n), signed(m, kyber(m))));
    assert_eq!(order, expected);
    let fallback = claim(store, account, device).await;
    assert_eq!((fallback.ec, fallback.kyber), (None, signed(9_999, kyber(3_000_000))));
    assert_eq!((fallback.signed, fallback.taken), (signed(1, ec(2_000_000)), (false, false)));
}

async fn a_claim_without_one_time_keys_takes_none(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    store.publish(account, device, &one_time_keys(1, vec![1], vec![2])).await.unwrap();
    let spare = store.claim(account, &[device], false, 0).await.unwrap().outcome.pop().unwrap();
    assert_eq!((spare.ec, spare.kyber, spare.taken), (None, signed(9_999, kyber(3_000_000)), (false, false)));
    assert_eq!(spare.left, KeyCounts { ec: 1, kyber: 1 });
    let full = claim(store, account, device).await;
    assert_eq!((full.ec, full.kyber, full.signed), (Some(one_time(1)), signed(2, kyber(2)), spare.signed));
}

async fn a_login_is_told_what_the_records_tell(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    let no_device = DeviceId::new(9).unwrap();
    assert_eq!(store.known_device(&address(2), device, 3).await.unwrap(), None);
    assert_eq!(store.known_device(&address(1), no_device, 3).await.unwrap(), None);
    store.publish(account, device, &one_time_keys(1, vec![1, 2, 3], vec![1, 2, 3, 4])).await.unwrap();
    for is_low in [false, true, true, true, true] {
        let known = store.known_device(&address(1), device, 3).await.unwrap().unwrap();
        let record = record(store, account).await;
        let expected = record.device(device).unwrap();
        assert_eq!((known.account, known.devices, known.is_low), (account, 1, is_low));
        assert_eq!((known.noise_key, known.registration_id), (expected.noise_key, expected.registration_id));
        assert!(!store.known_device(&address(1), device, 0).await.unwrap().unwrap().is_low);
        claim(store, account, device).await;
    }
    let (_, second) = added(store.enlist(&enlistment(1, 2)).await.unwrap().outcome);
    let known = store.known_device(&address(1), second, 1).await.unwrap().unwrap();
    assert_eq!((known.devices, known.noise_key, known.is_low), (2, noise(12), true));

    let both = [Some(record(store, account).await), None];
    let nobody = Who::Address(address(2));
    assert_eq!(store.two_records(&Who::Account(account), &nobody).await.unwrap(), both);
    let [one, other] = store.two_records(&nobody, &Who::Address(address(1))).await.unwrap();
    assert_eq!([other, one], both);
}

async fn a_key_published_again_is_not_handed_out_again(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    let batch = one_time_keys(1, vec![1, 2, 3], vec![1, 2, 3]);
    store.publish(account, device, &batch).await.unwrap();
    claim(store, account, device).await;
    let again = store.publish(account, device, &batch).await.unwrap();
    assert_eq!(again, Published::Done(KeyCounts { ec: 2, kyber: 2 }));
    let next = claim(store, account, device).await;
    assert_eq!((next.ec, next.kyber.id), (Some(one_time(2)), id(2)));
    let again = store.publish(account, device, &batch).await.unwrap();
    assert_eq!(again, Published::Done(KeyCounts { ec: 1, kyber: 1 }));
}

async fn a_newer_key_replaces_one_with_its_id(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    store.publish(account, device, &one_time_keys(1, vec![1, 2], vec![])).await.unwrap();
    let mut newer = one_time_keys(1, vec![], vec![]);
    newer.ec.push(EcPrekey { id: id(1), key: ec(500) });
    newer.signed = Some(signed(2, ec(2_000_001)));
    newer.last_resort = None;
    assert_eq!(store.publish(account, device, &newer).await.unwrap(), Published::Done(KeyCounts { ec: 2, kyber: 0 }));
    let first = claim(store, account, device).await;
    assert_eq!((first.ec, first.signed), (Some(one_time(2)), signed(2, ec(2_000_001))));
    assert_eq!(first.kyber, signed(9_999, kyber(3_000_000)), "what is not given stays");
    assert_eq!(claim(store, account, device).await.ec, Some(EcPrekey { id: id(1), key: ec(500) }));
}

async fn the_oldest_keys_beyond_the_bound_are_dropped(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    for from in [1, 101, 201] {
        let batch = one_time_keys(1, (from..from + 100).collect(), vec![]);
        store.publish(account, device, &batch).await.unwrap();
    }
    let bound = u32::try_from(MAX_STORED_PREKEYS).unwrap();
    assert_eq!(store.key_counts(account, device).await.unwrap(), Some(KeyCounts { ec: bound, kyber: 0 }));
    assert_eq!(claim(store, account, device).await.ec, Some(one_time(101)));
}

async fn another_identity_changes_nothing(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    store.publish(account, device, &one_time_keys(1, vec![1], vec![])).await.unwrap();
    let mut other = one_time_keys(2, vec![2], vec![2]);
    other.signed = Some(signed(3, ec(600)));
    assert_eq!(store.publish(account, device, &other).await.unwrap(), Published::OtherIdentity);
    let bundle = claim(store, account, device).await;
    assert_eq!((bundle.ec, bundle.signed), (Some(one_time(1)), signed(1, ec(2_000_000))));
    assert_eq!(bundle.left, KeyCounts::default());
}

async fn concurrent_claims_get_each_key_once(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    store.publish(account, device, &one_time_keys(1, (1..=100).collect(), (1..=60).collect())).await.unwrap();
    let claims = futures::future::join_all((0..200).map(|_| claim(store, account, device))).await;
    let mut ec_ids: Vec<u32> = claims.iter().filter_map(|bundle| Some(bundle.ec.as_ref()?.id.get())).collect();
    ec_ids.sort_unstable();
    assert_eq!(ec_ids, (1..=100).collect::<Vec<_>>());
    let mut kyber_ids: Vec<u32> = claims.iter().map(|bundle| bundle.kyber.id.get()).filter(|id| *id != 9_999).collect();
    kyber_ids.sort_unstable();
    assert_eq!(kyber_ids, (1..=60).collect::<Vec<_>>());
    assert_eq!(store.key_counts(account, device).await.unwrap(), Some(KeyCounts::default()));
}

async fn concurrent_enlistments_make_one_account(store: &dyn Store) {
    store.register_provider(&provider(1), &token_keys(1), 10).await.unwrap();
    let enlistments: Vec<Enlistment> = (0..16)
        .map(|phone| Enlistment { new_account: AccountId::from_bytes([phone + 100; 16]), ..enlistment(1, phone) })
        .collect();
    let outcomes = futures::future::join_all(enlistments.iter().map(|enlistment| store.enlist(enlistment))).await;
    let (accounts, mut devices): (Vec<_>, Vec<_>) =
        outcomes.into_iter().map(|outcome| added(outcome.unwrap().outcome)).unzip();
    assert!(accounts.windows(2).all(|two| two[0] == two[1]));
    devices.sort_unstable();
    devices.dedup();
    assert_eq!(devices.len(), 16);
}

async fn nothing_is_found_where_nothing_is(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    let (nobody, no_device) = (AccountId::from_bytes([200; 16]), DeviceId::new(9).unwrap());
    let domain: Domain = "nobody.example".parse().unwrap();
    assert_eq!(store.provider(&domain).await.unwrap(), None);
    assert_eq!(store.set_provider_status(&domain, ProviderStatus::Live).await.unwrap().outcome, None);
    assert_eq!(store.token_keys(ProviderId::from_bytes([9; 16])).await.unwrap(), None);
    assert!(!store.keep_token_keys(ProviderId::from_bytes([9; 16]), 0, 0, &token_keys(1)).await.unwrap());
    assert_eq!(store.record(&Who::Address("x@p1.example".parse().unwrap())).await.unwrap(), None);
    for (account, device) in [(nobody, device), (account, no_device)] {
        assert_eq!(store.remove_device(account, device, device, 1).await.unwrap().outcome, Removed::NotEnlisted);
        assert!(!store.set_push(account, device, None).await.unwrap().outcome);
        assert_eq!(
            store.publish(account, device, &one_time_keys(1, vec![1], vec![])).await.unwrap(),
            Published::NoDevice
        );
        assert_eq!(store.key_counts(account, device).await.unwrap(), None);
        assert!(store.claim(account, &[device], true, 0).await.unwrap().outcome.is_empty());
    }
    assert_eq!(store.remove_device(account, device, no_device, 1).await.unwrap().outcome, Removed::NoDevice);
    assert!(!store.set_consent(nobody, device, &Consent::default()).await.unwrap().outcome);
    assert!(!store.withdraw(nobody, device, 1).await.unwrap().outcome);
}

async fn followers_are_told_of_what_changed(store: &dyn Store) {
    let domain = provider(1).settings.domain;
    let of_provider = vec![Change::Provider { domain: domain.clone() }];
    let changes = |logged: Logged| logged.changes;
    let registered = store.register_provider(&provider(1), &token_keys(1), 10).await.unwrap();
    assert_eq!(changes(registered.logged), of_provider);
    let again = store.register_provider(&provider(1), &token_keys(1), 10).await.unwrap();
    assert_eq!(changes(again.logged), []);
    let updated = store.update_provider(&provider(1).settings, &token_keys(2)).await.unwrap();
    assert_eq!(changes(updated.logged), of_provider);
    let suspended = store.set_provider_status(&domain, ProviderStatus::Suspended).await.unwrap();
    assert_eq!(changes(suspended.logged), of_provider);

    let enlisted = store.enlist(&enlistment(1, 1)).await.unwrap();
    let (account, device) = added(enlisted.outcome);
    let of_record = |what: What| vec![Change::Record { address: address(1), account, what }];
    assert_eq!(changes(enlisted.logged), of_record(What::Devices));
    let again = store.enlist(&enlistment(1, 1)).await.unwrap();
    assert_eq!(changes(again.logged), of_record(What::Devices), "whoever asks again has not been told");
    let (_, second) = added(store.enlist(&enlistment(1, 2)).await.unwrap().outcome);
    let removed = store.remove_device(account, device, second, 1).await.unwrap();
    assert_eq!(changes(removed.logged), of_record(What::Devices));
    let nothing = store.remove_device(account, device, second, 1).await.unwrap();
    assert_eq!(changes(nothing.logged), []);
    let consent = Consent { interop: true, ..Consent::default() };
    let consent = store.set_consent(account, device, &consent).await.unwrap();
    assert_eq!(changes(consent.logged), of_record(What::Consent));
    let token = PushToken::new(Bytes::from_static(b"wake me")).unwrap();
    let push = store.set_push(account, device, Some(&token)).await.unwrap();
    assert_eq!(changes(push.logged), of_record(What::Push));

    store.publish(account, device, &one_time_keys(1, (1..=4).collect(), (1..=3).collect())).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(changes(store.claim(account, &[device], true, 3).await.unwrap().logged));
    }
    let low = |ec, kyber| of_record(What::PrekeysLow { device, left: KeyCounts { ec, kyber } });
    // Below 3 of a kind, and when the last of a kind has gone.
    assert_eq!(told, [low(3, 2), low(2, 1), low(1, 0), low(0, 0), vec![]]);
    let withdrawn = store.withdraw(account, device, 2).await.unwrap();
    assert_eq!(changes(withdrawn.logged), of_record(What::Withdrawn));
}

async fn a_device_named_twice_gives_one_key(store: &dyn Store) {
    let (account, device) = an_account(store).await;
    store.publish(account, device, &one_time_keys(1, vec![1, 2], vec![1, 2])).await.unwrap();
    let bundles = store.claim(account, &[device, device], true, 0).await.unwrap().outcome;
    assert_eq!(bundles.len(), 1);
    assert_eq!(bundles[0].left, KeyCounts { ec: 1, kyber: 1 });
}

pub(crate) async fn record(store: &dyn Store, account: AccountId) -> Record {
    store.record(&Who::Account(account)).await.unwrap().expect("the account is there")
}

pub(crate) async fn claim(store: &dyn Store, account: AccountId, device: DeviceId) -> Bundle {
    store.claim(account, &[device], true, 0).await.unwrap().outcome.pop().expect("the device is there")
}
