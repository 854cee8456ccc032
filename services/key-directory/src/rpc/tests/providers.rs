//! The registry of providers (KEYS-18; INT-06 in its first form).

use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::accounts_client::AccountsClient;
use causeway_proto::wire::v1::ProviderKind;
use causeway_runtime::grpc;
use tonic::{Code, Status};

use crate::testing::{Deployment, Mood, TestProvider};

async fn update(net: &Deployment, settings: pb::ProviderSettings) -> Result<pb::Provider, Status> {
    let message = pb::UpdateProvider { settings: Some(settings) };
    net.providers().update(net.as_operator(message)).await.map(tonic::Response::into_inner)
}

async fn list(net: &Deployment, after: &str, limit: u32) -> Vec<pb::Provider> {
    let message = pb::ListProviders { after: after.to_owned(), limit };
    net.providers().list(net.as_operator(message)).await.unwrap().into_inner().providers
}

#[tokio::test]
async fn only_the_operator_token_opens_the_registry() {
    let net = Deployment::start().await;
    let status = net.providers().list(grpc::call(pb::ListProviders::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut request = net.as_operator(pb::ListProviders::default());
    let header = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
    let wrong = format!("{header}x");
    request.metadata_mut().insert("authorization", wrong.parse().unwrap());
    assert_eq!(net.providers().list(request).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(list(&net, "", 0).await.is_empty());
    // The internal calls are not to be had there.
    let mut internal = AccountsClient::new(net.operator_channel());
    let status = internal.devices(net.as_operator(pb::AccountRef::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_provider_is_registered_with_its_keys() {
    let net = Deployment::start().await;
    let birdy = TestProvider::start("birdy.example").await;
    let provider = net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    assert_eq!((provider.id.len(), provider.key_count, provider.status()), (16, 1, pb::ProviderStatus::Live));
    assert!(provider.keys_fetched_ms > 0 && provider.keys_error.is_empty());
    let settings = provider.settings.clone().unwrap();
    assert_eq!(settings.webhook_secret, "", "write-only");
    assert_eq!(settings.webhook_url, format!("http://{}/push", birdy.host));
    assert_eq!(list(&net, "", 0).await, [provider]);

    let again = net.register(&birdy, ProviderKind::ThirdParty).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    assert!(again.message().contains("domain") && again.message().contains("update"), "{}", again.message());
    let mut same_issuer = birdy.settings(ProviderKind::ThirdParty);
    same_issuer.domain = "other.example".to_owned();
    let request = net.as_operator(pb::RegisterProvider { settings: Some(same_issuer) });
    let taken = net.providers().register(request).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert!(taken.message().starts_with("issuer"), "{}", taken.message());
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let net = Deployment::start().await;
    let birdy = TestProvider::start("birdy.example").await;
    let other = TestProvider::start("other.example").await;
    let moods = [
        (Mood::Down, "issuer: its discovery document"),
        (Mood::NotJson, "issuer: its discovery document is not JSON"),
        (Mood::OtherIssuer, "issuer: its discovery document names another issuer"),
        (Mood::ForeignKeysUri(format!("http://{}/keys", other.host)), "jwks_uri of the discovery document"),
        (Mood::ForeignKeysUri("https://keys.example/".to_owned()), "jwks_uri of the discovery document"),
        (Mood::Redirects, "jwks_uri: the key set cannot be fetched"),
        (Mood::HugeKeySet, "jwks_uri: the key set cannot be fetched"),
        (Mood::NoKeys, "jwks_uri: the key set has no usable key"),
    ];
    for (mood, expected) in moods {
        birdy.be(mood.clone());
        let status = net.register(&birdy, ProviderKind::ThirdParty).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{mood:?}");
        assert!(status.message().starts_with(expected), "{mood:?}: {}", status.message());
    }
    assert_eq!(other.fetches(), 0, "nobody else was asked");
    let status = net.register(&birdy, ProviderKind::Unspecified).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "kind must be home or third-party"));
    assert!(list(&net, "", 0).await.is_empty());
}

#[tokio::test]
async fn providers_come_in_pages() {
    let net = Deployment::start().await;
    for domain in ["c.example", "a.example", "b.example"] {
        let provider = TestProvider::start(domain).await;
        net.register(&provider, ProviderKind::ThirdParty).await.unwrap();
    }
    let domains = |page: Vec<pb::Provider>| -> Vec<String> {
        page.into_iter().map(|provider| provider.settings.unwrap().domain).collect()
    };
    assert_eq!(domains(list(&net, "", 2).await), ["a.example", "b.example"]);
    assert_eq!(domains(list(&net, "b.example", 2).await), ["c.example"]);
    let message = pb::ListProviders { after: String::new(), limit: 1_001 };
    assert_eq!(net.providers().list(net.as_operator(message)).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn no_more_providers_than_configured() {
    let net = Deployment::start_with(|config| config.max_providers = 1).await;
    let (one, two) = (TestProvider::start("a.example").await, TestProvider::start("b.example").await);
    net.register(&one, ProviderKind::Home).await.unwrap();
    let status = net.register(&two, ProviderKind::ThirdParty).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("max_providers"), "{}", status.message());
}

#[tokio::test]
async fn settings_are_replaced_but_for_the_secret() {
    let net = Deployment::start().await;
    let birdy = TestProvider::start("birdy.example").await;
    net.register(&birdy, ProviderKind::ThirdParty).await.unwrap();
    let webhook = async || {
        let message = pb::GetWebhook { provider_domain: "birdy.example".to_owned() };
        net.records().webhook(grpc::call(message)).await.unwrap().into_inner().webhook
    };
    let first = webhook().await.unwrap();
    assert_eq!((first.hosts, first.secret.starts_with("whsec_")), (vec![birdy.host.clone()], true));

    let mut settings = birdy.settings(ProviderKind::ThirdParty);
    settings.display_name = "New name".to_owned();
    settings.webhook_url.push_str("/v2");
    settings.webhook_secret.clear();
    let updated = update(&net, settings.clone()).await.unwrap();
    assert_eq!(updated.settings.unwrap().display_name, "New name");
    let second = webhook().await.unwrap();
    assert_eq!((second.secret, second.url), (first.secret, settings.webhook_url.clone()));

    let mut other_kind = settings.clone();
    other_kind.kind = ProviderKind::Home.into();
    assert_eq!(update(&net, other_kind).await.unwrap_err().code(), Code::InvalidArgument);
    let mut unknown = settings.clone();
    unknown.domain = "unknown.example".to_owned();
    assert_eq!(update(&net, unknown).await.unwrap_err().code(), Code::NotFound);
    birdy.be(Mood::OtherIssuer);
    assert_eq!(update(&net, settings.clone()).await.unwrap_err().code(), Code::FailedPrecondition);
    birdy.be(Mood::Well);
    settings.webhook_url.clear();
    update(&net, settings).await.unwrap();
    assert_eq!(webhook().await, None);
}

#[tokio::test]
async fn a_suspended_provider_is_closed_until_it_is_live_again() {
    let net = Deployment::start().await;
    let (home, birdy) = net.two_providers().await;
    let (ada, _) = net.join(&birdy, "ada", 1, 1).await;
    let (bo, _) = net.join(&home, "bo", 1, 1).await;
    let mut follower = net.follow().await;
    let (suspended, change) = tokio::join!(net.set_status("birdy.example", pb::ProviderStatus::Suspended), async {
        let (number, change) = follower.next_change().await;
        follower.say(number, 0).await;
        change
    });
    assert_eq!(suspended.unwrap().status(), pb::ProviderStatus::Suspended);
    let pb::followed_message::Change::Provider(change) = change else { panic!("must be the provider's") };
    assert_eq!(change.domain, "birdy.example");
    follower.keep_up();
    assert_eq!(net.record("ada@birdy.example").await.unwrap().provider_status(), pb::ProviderStatus::Suspended);
    assert!(net.claim(&ada, "bo@home.example").await.is_err());
    assert!(net.claim(&bo, "ada@birdy.example").await.is_err());
    let message = pb::GetWebhook { provider_domain: "birdy.example".to_owned() };
    assert_eq!(net.records().webhook(grpc::call(message)).await.unwrap().into_inner().webhook, None);

    net.set_status("birdy.example", pb::ProviderStatus::Live).await.unwrap();
    assert!(net.claim(&bo, "ada@birdy.example").await.is_ok());

    let unknown = net.set_status("unknown.example", pb::ProviderStatus::Live).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let unset = net.set_status("birdy.example", pb::ProviderStatus::Unspecified).await.unwrap_err();
    assert_eq!((unset.code(), unset.message()), (Code::InvalidArgument, "status must be live or suspended"));
}
