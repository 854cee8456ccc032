//! Whatever a caller sends, the answer is a refusal or a status that blames the caller, and the directory lives on.

use bytes::Bytes;
use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tonic::{Code, Status};

use crate::testing::Deployment;

#[derive(Debug, Clone)]
struct Rubbish {
    bytes: Bytes,
    more: Bytes,
    text: String,
    number: u32,
    list: Vec<u32>,
}

fn rubbish() -> impl Strategy<Value = Rubbish> {
    let bytes = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            prop::collection::vec(any::<u8>(), 16..17),
            prop::collection::vec(any::<u8>(), 32..34),
            prop::collection::vec(any::<u8>(), 1_569..1_570),
        ]
    };
    let text = prop_oneof![any::<String>(), Just("ada@birdy.example".to_owned()), "\\PC{0,200}@[a-z.]{0,20}"];
    (bytes(), bytes(), text, any::<u32>(), prop::collection::vec(any::<u32>(), 0..20)).prop_map(
        |(bytes, more, text, number, list)| Rubbish { bytes: bytes.into(), more: more.into(), text, number, list },
    )
}

fn blames_the_caller<T>(outcome: Result<T, Status>, call: &str, rubbish: &Rubbish) {
    if let Err(status) = outcome {
        let fine = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition].contains(&status.code());
        assert!(fine, "{call}: {status:?} for {rubbish:?}");
    }
}

#[tokio::test]
async fn no_call_fails_over_what_it_is_sent() {
    let net = Deployment::start().await;
    let (_, birdy) = net.two_providers().await;
    let mut runner = TestRunner::deterministic();
    for _ in 0..60 {
        let r = rubbish().new_tree(&mut runner).unwrap().current();
        let signed = wire::SignedPrekey { id: r.number, public_key: r.bytes.clone(), signature: r.more.clone() };
        let ec = wire::EcPrekey { id: r.number, public_key: r.more.clone() };
        let enlist = wire::Enlist {
            registration_id: r.number,
            identity_key: r.bytes.clone(),
            signed_prekey: Some(signed.clone()),
            last_resort_kyber: Some(signed.clone()),
            ec_prekeys: vec![ec.clone(); r.list.len()],
            kyber_prekeys: vec![signed.clone(); r.list.len()],
        };
        let keys = wire::KeysPublish {
            identity_key: r.more.clone(),
            signed_prekey: Some(signed),
            last_resort_kyber: None,
            ec_prekeys: vec![ec],
            kyber_prekeys: Vec::new(),
        };
        let settings = wire::ConsentSettings {
            interop: true,
            providers: vec![wire::ProviderRule { provider: r.text.clone(), allow: true }],
            inbox: r.number as i32,
            reach: r.number as i32,
        };
        let provider = pb::ProviderSettings {
            domain: r.text.clone(),
            display_name: r.text.clone(),
            kind: r.number as i32,
            issuer: r.text.clone(),
            hosts: vec![r.text.clone(); r.list.len()],
            media_prefixes: vec![r.text.clone()],
            webhook_url: r.text.clone(),
            webhook_secret: r.text.clone(),
        };
        let (account_id, address, device_id) = (r.bytes.clone(), r.text.clone(), r.number);

        let login = pb::LoginRequest { address: address.clone(), device_id, noise_key: r.more.clone() };
        blames_the_caller(net.accounts().login(login).await, "Login", &r);
        let enlist = pb::EnlistRequest {
            address: address.clone(),
            provider_id: r.bytes.clone(),
            noise_key: r.more.clone(),
            enlist: Some(enlist),
        };
        blames_the_caller(net.accounts().enlist(enlist).await, "Enlist", &r);
        let of = pb::AccountRef { account_id: account_id.clone(), device_id };
        blames_the_caller(net.accounts().devices(of.clone()).await, "Devices", &r);
        let remove =
            pb::RemoveDeviceRequest { account_id: account_id.clone(), device_id, from_device_id: r.list.len() as u32 };
        blames_the_caller(net.accounts().remove_device(remove).await, "RemoveDevice", &r);
        blames_the_caller(net.accounts().withdraw(of.clone()).await, "Withdraw", &r);
        let discover = pb::DiscoverRequest {
            from_account_id: account_id.clone(),
            address: address.clone(),
            from_device_id: device_id,
        };
        blames_the_caller(net.accounts().discover(discover).await, "Discover", &r);
        let push = pb::SetPushRequest { account_id: account_id.clone(), device_id, token: r.more.clone() };
        blames_the_caller(net.accounts().set_push(push).await, "SetPush", &r);
        let publish = pb::PublishRequest { account_id: account_id.clone(), device_id, keys: Some(keys) };
        blames_the_caller(net.prekeys().publish(publish).await, "Publish", &r);
        let device = pb::DeviceRef { account_id: account_id.clone(), device_id };
        blames_the_caller(net.prekeys().count(device).await, "Count", &r);
        let claim = pb::ClaimRequest {
            from_account_id: account_id.clone(),
            from_device_id: device_id,
            address: address.clone(),
            devices: r.list.clone(),
        };
        blames_the_caller(net.prekeys().claim(claim).await, "Claim", &r);
        blames_the_caller(net.consent().get(of).await, "Get", &r);
        let set = pb::SetConsentRequest { account_id, settings: Some(settings), from_device_id: device_id };
        blames_the_caller(net.consent().set(set).await, "Set", &r);
        blames_the_caller(net.records().get(pb::GetRecord { address: address.clone() }).await, "Record", &r);
        let webhook = pb::GetWebhook { provider_domain: address.clone() };
        blames_the_caller(net.records().webhook(webhook).await, "Webhook", &r);
        let refetch = pb::RefetchTokenKeys { issuer: address.clone(), kid: address.clone() };
        blames_the_caller(net.token_keys().refetch(refetch).await, "Refetch", &r);
        let register = net.as_operator(pb::RegisterProvider { settings: Some(provider.clone()) });
        blames_the_caller(net.providers().register(register).await, "Register", &r);
        let update = net.as_operator(pb::UpdateProvider { settings: Some(provider) });
        blames_the_caller(net.providers().update(update).await, "Update", &r);
        let status = net.as_operator(pb::SetProviderStatus { domain: address.clone(), status: r.number as i32 });
        blames_the_caller(net.providers().set_status(status).await, "SetStatus", &r);
        let list = net.as_operator(pb::ListProviders { after: address, limit: r.number });
        blames_the_caller(net.providers().list(list).await, "List", &r);
    }
    // What is missing altogether.
    assert_eq!(net.accounts().enlist(pb::EnlistRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(net.prekeys().publish(pb::PublishRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
    let register = net.as_operator(pb::RegisterProvider { settings: None });
    assert_eq!(net.providers().register(register).await.unwrap_err().code(), Code::InvalidArgument);
    net.join(&birdy, "ada", 1, 1).await;
}
