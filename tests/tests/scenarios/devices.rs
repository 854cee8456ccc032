//! What becomes of devices: displaced, removed, withdrawn.

use causeway_client::{Ended, EventKind, SendResult};
use causeway_tests::{Shape, World};

use crate::consent::not_available;

#[tokio::test]
async fn a_newer_session_of_the_same_device_ends_the_older() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (bo, mut ada) = (world.at_home("bo").await?, world.at_birdy("ada").await?);
    bo.send(ada.address(), "to the one").await?;
    assert_eq!(ada.next_text().await?, "to the one");
    ada.stop().await?;
    let mut twin = ada.twin()?;
    ada.start().await?;
    ada.connected().await?;
    twin.start().await?;
    twin.connected().await?;
    let ended = ada.wait_for("the end of the older session", |kind| match kind {
        EventKind::Ended(ended) => Some(*ended),
        _ => None,
    });
    assert_eq!(ended.await?, Ended::Replaced);
    bo.send(twin.address(), "to the other").await?;
    assert_eq!(twin.next_text().await?, "to the other");
    Ok(())
}

#[tokio::test]
async fn a_removed_device_ends_and_the_others_go_on() -> anyhow::Result<()> {
    removed(Shape::One).await
}

#[tokio::test]
async fn a_removed_device_ends_and_the_others_go_on_with_many_replicas() -> anyhow::Result<()> {
    removed(Shape::Replicas).await
}

async fn removed(shape: Shape) -> anyhow::Result<()> {
    let world = World::start_as(shape, &[]).await?;
    let (mut bo, mut bo_too) = (world.at_home("bo").await?, world.at_home("bo").await?);
    let ada = world.at_birdy("ada").await?;
    ada.send(bo.address(), "both").await?;
    assert_eq!((bo.next_text().await?, bo_too.next_text().await?), ("both".to_owned(), "both".to_owned()));
    assert_eq!(bo.client().devices().await?.len(), 2);

    let lost = bo_too.client().device().map(|address| address.device);
    bo.client().remove_device(lost.ok_or_else(|| anyhow::anyhow!("enlisted"))?).await?;
    let ended = bo_too.wait_for("the end of the removed device", |kind| match kind {
        EventKind::Ended(ended) => Some(*ended),
        _ => None,
    });
    assert_eq!(ended.await?, Ended::DeviceRemoved);
    assert_eq!(bo.client().devices().await?.len(), 1);
    assert!(ada.send(bo.address(), "one").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "one");
    Ok(())
}

#[tokio::test]
async fn who_withdraws_is_gone_and_comes_back_as_somebody_new() -> anyhow::Result<()> {
    withdrawn(Shape::One).await
}

#[tokio::test]
async fn who_withdraws_is_gone_and_comes_back_as_somebody_new_with_many_replicas() -> anyhow::Result<()> {
    withdrawn(Shape::Replicas).await
}

async fn withdrawn(shape: Shape) -> anyhow::Result<()> {
    let world = World::start_as(shape, &[]).await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    assert!(ada.send(bo.address(), "before").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "before");
    let address = bo.address().clone();
    bo.client().withdraw().await?;
    let ended = bo.wait_for("the end of the account", |kind| match kind {
        EventKind::Ended(ended) => Some(*ended),
        _ => None,
    });
    assert_eq!(ended.await?, Ended::Withdrawn);
    assert_eq!(ada.send(&address, "anybody?").await?, SendResult::Rejected(not_available()));

    let mut again = world.at_home("bo").await?;
    assert_eq!(again.client().devices().await?.len(), 1);
    assert!(ada.send(&address, "welcome back").await?.is_accepted());
    assert_eq!(again.next_text().await?, "welcome back", "and nothing of before");
    Ok(())
}
