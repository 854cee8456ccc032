//! What happens to a provider happens to its users.

use causeway_client::{DisconnectReason, EndReason, Ended, EventKind, FailureReason, SendResult};
use causeway_proto::directory::v1::ProviderStatus;
use causeway_tests::{Device, World};

use crate::consent::not_available;

#[tokio::test]
async fn a_suspended_providers_sessions_end_and_its_users_cannot_be_reached() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (mut ada, bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    assert!(ada.send(bo.address(), "hello").await?.is_accepted());
    world.net.set_status("birdy.example", ProviderStatus::Suspended).await?;
    let ended = ada.wait_for("the end of the session", |kind| match kind {
        EventKind::Disconnected(gone) => match gone.reason {
            DisconnectReason::Server(EndReason::ProviderSuspended)
            | DisconnectReason::Login(FailureReason::ProviderSuspended) => Some(()),
            _ => None,
        },
        EventKind::Ended(Ended::Login(FailureReason::ProviderSuspended)) => Some(()),
        _ => None,
    });
    ended.await?;
    assert_eq!(bo.send(ada.address(), "hello?").await?, SendResult::Rejected(not_available()));
    // Nor does a new device of it get in.
    let mut late = Device::fresh(&world.net, &world.birdy, "late").await?;
    let refused = late.wait_for("the refusal", |kind| match kind {
        EventKind::Ended(Ended::Login(reason)) => Some(*reason),
        EventKind::Disconnected(gone) => match gone.reason {
            DisconnectReason::Login(reason) => Some(reason),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(refused.await?, FailureReason::ProviderSuspended);

    world.net.set_status("birdy.example", ProviderStatus::Live).await?;
    ada.kill()?;
    ada.start().await?;
    ada.connected().await?;
    assert!(bo.send(ada.address(), "back?").await?.is_accepted());
    assert_eq!(ada.next_text().await?, "back?");
    Ok(())
}

#[tokio::test]
async fn a_new_token_key_is_found_when_it_is_first_used_and_an_old_one_ends() -> anyhow::Result<()> {
    let world = World::start_with(&[("directory.keys_refresh_ms", "500")]).await?;
    let mut ada = world.at_birdy("ada").await?;
    let bo = world.at_home("bo").await?;
    for keep_old in [true, false] {
        let fetches = world.birdy.sandbox().jwks_fetches();
        world.birdy.sandbox().rotate_keys(keep_old).await?;
        // A device that was not there before has a token of the new key at once.
        let mut new = world.at_birdy(&format!("new{keep_old}")).await?;
        assert!(world.birdy.sandbox().jwks_fetches() > fetches, "the key was fetched");
        assert!(bo.send(new.address(), "hello").await?.is_accepted());
        assert_eq!(new.next_text().await?, "hello");
        // And one that was there comes back, with whatever token it has or gets.
        ada.stop().await?;
        ada.start().await?;
        ada.connected().await?;
        assert!(bo.send(ada.address(), "still there?").await?.is_accepted());
        assert_eq!(ada.next_text().await?, "still there?");
    }
    Ok(())
}

#[tokio::test]
async fn only_operators_may_register() -> anyhow::Result<()> {
    let world = World::start().await?;
    for token in ["", "x", &"A".repeat(43)] {
        let mut api = world.net.operator_api(token)?;
        let listed = api.list(causeway_runtime::grpc::call(Default::default())).await;
        assert_eq!(listed.map(|_| ()).map_err(|status| status.code()), Err(tonic::Code::Unauthenticated));
    }
    let providers = world.net.providers().await?;
    let mut domains: Vec<_> = providers.into_iter().filter_map(|p| p.settings).map(|s| s.domain).collect();
    domains.sort();
    assert_eq!(domains, ["birdy.example", "home.example"]);
    // No logs name an address, whatever the level.
    assert!(!world.net.log().contains('@'), "{}", world.net.log());
    Ok(())
}
