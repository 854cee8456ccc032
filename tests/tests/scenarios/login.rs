//! Who gets in, beside what the edge's own tests say: real tokens, a real directory, hostile clients.

use std::time::Duration;

use causeway_client::{Ended, EventKind};
use causeway_proto::wire::v1 as pb;
use causeway_tests::raw::{Session, new_key};
use causeway_tests::{Device, Kind, Provider, World};

fn hello(token: &str, device_id: u32) -> pb::ClientHello {
    pb::ClientHello {
        token: token.to_owned(),
        device_id,
        encoding: pb::Encoding::Binary.into(),
        agent: "scenarios".to_owned(),
        forwarded: None,
    }
}

#[tokio::test]
async fn another_noise_key_does_not_get_a_devices_session_whatever_its_token_says() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (mut ada, bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let thief = new_key();
    // The provider itself is the thief: it can mint any token for its user, bound to any key.
    let token = world.birdy.sandbox().issue_token("ada", thief.public(), Duration::from_secs(600)).await?;
    let mut session = Session::open(&world.net, &thief, &hello(&token, 1)).await?;
    assert_eq!(session.failure().await?, pb::FailureReason::DeviceKey);
    // A device that is not there is not there.
    let mut session = Session::open(&world.net, &thief, &hello(&token, 99)).await?;
    assert_eq!(session.failure().await?, pb::FailureReason::DeviceUnknown);
    // And the device itself noticed nothing.
    assert!(bo.send(ada.address(), "still you?").await?.is_accepted());
    assert_eq!(ada.next_text().await?, "still you?");
    Ok(())
}

#[tokio::test]
async fn tokens_that_are_not_good_get_the_reason_and_no_session() -> anyhow::Result<()> {
    let world = World::start().await?;
    let key = new_key();
    let hour = Duration::from_secs(3_600);
    let good = world.birdy.sandbox().issue_token("ada", key.public(), hour).await?;
    let stolen = world.birdy.sandbox().issue_token("ada", new_key().public(), hour).await?;
    let (unsigned, _) = good.rsplit_once('.').unwrap_or_default();
    let stranger = Provider::unregistered(&world.net, "crow.example", Kind::ThirdParty).await?;
    let unknown = stranger.sandbox().issue_token("ada", key.public(), hour).await?;
    for (token, reason) in [
        ("", pb::FailureReason::TokenMalformed),
        ("x.y.z", pb::FailureReason::TokenMalformed),
        (&format!("{unsigned}."), pb::FailureReason::TokenMalformed),
        (&format!("{unsigned}.{}", "A".repeat(86)), pb::FailureReason::TokenSignature),
        (&stolen, pb::FailureReason::TokenBinding),
        (&unknown, pb::FailureReason::ProviderUnknown),
    ] {
        let mut session = Session::open(&world.net, &key, &hello(token, 0)).await?;
        let got = session.failure().await?;
        let malformed_or_signature = [pb::FailureReason::TokenMalformed, pb::FailureReason::TokenSignature];
        let either = token.ends_with('.') && malformed_or_signature.contains(&got);
        assert!(got == reason || either, "{got:?} instead of {reason:?}");
        assert_eq!(session.next().await?, None, "and nothing after it");
    }
    let proxied = pb::ClientHello { forwarded: Some(pb::Forwarded::default()), ..hello(&good, 0) };
    let mut session = Session::open(&world.net, &key, &proxied).await?;
    assert_eq!(session.failure().await?, pb::FailureReason::ProxyRefused);
    // The token was not spent by any of this.
    let mut session = Session::open(&world.net, &key, &hello(&good, 0)).await?;
    assert!(matches!(session.next_stanza().await?, Some(pb::server_stanza::Kind::Success(_))));
    Ok(())
}

#[tokio::test]
async fn a_client_of_an_unregistered_provider_is_told_so_and_stops() -> anyhow::Result<()> {
    let world = World::start().await?;
    let crow = Provider::unregistered(&world.net, "crow.example", Kind::ThirdParty).await?;
    let mut carl = Device::fresh(&world.net, &crow, "carl").await?;
    let refused = carl.wait_for("the refusal", |kind| match kind {
        EventKind::Ended(Ended::Login(reason)) => Some(*reason),
        EventKind::Disconnected(gone) => match gone.reason {
            causeway_client::DisconnectReason::Login(reason) => Some(reason),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(refused.await?, causeway_client::FailureReason::ProviderUnknown);
    Ok(())
}

#[tokio::test]
async fn a_client_that_pins_another_root_never_shows_its_token() -> anyhow::Result<()> {
    let world = World::start().await?;
    let other = causeway_identity::RootKey::from_seed([7; 32]).public();
    let mut ada = Device::fresh_pinning(&world.net, &world.birdy, "ada", other).await?;
    let reason = ada.wait_for("the refusal", |kind| match kind {
        EventKind::Disconnected(gone) => Some(gone.reason.clone()),
        _ => None,
    });
    let reason = reason.await?;
    let expected = causeway_client::DisconnectReason::Certificate(causeway_client::CertificateError::UnknownRoot);
    assert_eq!(reason, expected);
    Ok(())
}
