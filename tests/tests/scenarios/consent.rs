//! Who may reach whom.

use std::time::Duration;

use causeway_client::{
    ClientError, ConsentSettings, ErrorCode, ProviderRule, Reach, RejectReason, Rejection, RequestBody, SendResult,
};
use causeway_tests::{Device, Shape, World, within};
use tokio::time::Instant;

/// The one answer for everybody who cannot be reached, whatever the reason.
pub(super) fn not_available() -> RejectReason {
    RejectReason::Server(Rejection::NotAvailable)
}

#[tokio::test]
async fn whoever_did_not_opt_in_looks_like_nobody() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ada = world.at_birdy("ada").await?;
    // Enlisted, but interop is off until the user says otherwise.
    let shy = Device::fresh(&world.net, &world.home, "shy").await?;
    within("shy enlists", async { Ok(shy.client().enlist().await?) }).await?;
    let closed = world.at_home("closed").await?;
    let settings = closed.client().consent().await?;
    closed.client().set_consent(ConsentSettings { reach: Reach::Nobody, ..settings }).await?;
    let picky = world.at_home("picky").await?;
    deny(&picky, "birdy.example", true).await?;

    let mut waits = Vec::new();
    for user in ["shy", "closed", "picky", "nobody"] {
        let address = world.home.address(user)?;
        let started = Instant::now();
        assert_eq!(ada.send(&address, "hello?").await?, SendResult::Rejected(not_available()), "{user}");
        waits.push(started.elapsed());
        assert!(!ada.client().discover(&address).await?, "{user}");
        let keys = ada.client().request(RequestBody::KeysClaim(claim_of(&address))).await;
        let Err(ClientError::Refused { code, retry_after, detail }) = keys else { anyhow::bail!("{user}: {keys:?}") };
        assert_eq!((code, retry_after, detail), (ErrorCode::NotAvailable, None, None), "{user}");
    }
    let nowhere = "ada@unknown.example".parse()?;
    assert_eq!(ada.send(&nowhere, "hello?").await?, SendResult::Rejected(not_available()));
    // Nor does the pace tell them apart.
    let slowest = waits.iter().max().copied().unwrap_or_default();
    assert!(slowest < Duration::from_secs(10), "{waits:?}");

    // Who has not opted in cannot reach others either.
    let bo = world.at_home("bo").await?;
    let quiet = Device::fresh(&world.net, &world.birdy, "quiet").await?;
    within("quiet enlists", async { Ok(quiet.client().enlist().await?) }).await?;
    assert_eq!(quiet.send(bo.address(), "hello?").await?, SendResult::Rejected(not_available()));
    Ok(())
}

#[tokio::test]
async fn a_narrower_setting_is_in_force_when_it_is_confirmed() -> anyhow::Result<()> {
    narrow(Shape::One).await
}

#[tokio::test]
async fn a_narrower_setting_is_in_force_in_all_processes_when_it_is_confirmed() -> anyhow::Result<()> {
    narrow(Shape::Many).await
}

#[tokio::test]
async fn a_narrower_setting_at_one_key_directory_is_in_force_for_routings_of_another() -> anyhow::Result<()> {
    narrow(Shape::ReplicasApart).await
}

async fn narrow(shape: Shape) -> anyhow::Result<()> {
    let world = World::start_as(shape, &[]).await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    for round in 0..5 {
        let text = format!("open {round}");
        assert!(ada.send(bo.address(), &text).await?.is_accepted());
        assert_eq!(bo.next_text().await?, text);

        let open = bo.client().consent().await?;
        bo.client().set_consent(ConsentSettings { interop: false, ..open.clone() }).await?;
        assert_eq!(ada.send(bo.address(), "closed").await?, SendResult::Rejected(not_available()));
        bo.client().set_consent(open).await?;

        deny(&bo, "birdy.example", true).await?;
        assert_eq!(ada.send(bo.address(), "denied").await?, SendResult::Rejected(not_available()));
        deny(&bo, "birdy.example", false).await?;
    }
    assert!(ada.send(bo.address(), "open again").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "open again", "nothing of what was refused arrives");
    Ok(())
}

#[tokio::test]
async fn requests_that_this_version_does_not_serve_say_so() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ada = world.at_birdy("ada").await?;
    let settings = ada.client().consent().await?;
    let contacts = ada.client().set_consent(ConsentSettings { reach: Reach::Contacts, ..settings }).await;
    assert!(matches!(contacts, Err(ClientError::Refused { code: ErrorCode::BadRequest, .. })), "{contacts:?}");
    Ok(())
}

async fn deny(device: &Device, provider: &str, deny: bool) -> anyhow::Result<()> {
    let settings = device.client().consent().await?;
    let rules = if deny { vec![ProviderRule { provider: provider.parse()?, allow: false }] } else { Vec::new() };
    let providers = rules.try_into().map_err(|_| anyhow::anyhow!("one rule fits"))?;
    device.client().set_consent(ConsentSettings { providers, ..settings }).await?;
    Ok(())
}

fn claim_of(address: &causeway_client::Address) -> causeway_stanza::KeysClaim {
    causeway_stanza::KeysClaim { address: address.clone(), devices: Default::default() }
}
