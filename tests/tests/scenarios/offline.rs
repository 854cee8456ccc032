//! Devices that are away, and clients that are killed.

use std::collections::BTreeSet;

use causeway_client::{EventKind, SendResult};
use causeway_tests::{Shape, World};

#[tokio::test]
async fn an_offline_device_gets_its_messages_in_order_and_once() -> anyhow::Result<()> {
    away(Shape::One).await
}

#[tokio::test]
async fn an_offline_device_gets_its_messages_in_order_and_once_with_many_replicas() -> anyhow::Result<()> {
    away(Shape::Replicas).await
}

async fn away(shape: Shape) -> anyhow::Result<()> {
    let world = World::start_as(shape, &[]).await?;
    let (ada, mut bo, mut bo_too) =
        (world.at_birdy("ada").await?, world.at_home("bo").await?, world.at_home("bo").await?);
    ada.send(bo.address(), "first").await?;
    assert_eq!(bo.next_text().await?, "first");
    bo.stop().await?;

    for n in 0..30 {
        assert_eq!(ada.send(bo.address(), &format!("while away {n}")).await?, SendResult::Stored);
    }
    bo.start().await?;
    for n in 0..30 {
        assert_eq!(bo.next_text().await?, format!("while away {n}"));
    }
    // And once: what comes next is the next message.
    assert!(ada.send(bo.address(), "last").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "last");

    assert_eq!(bo_too.next_text().await?, "first");
    for n in 0..30 {
        assert_eq!(bo_too.next_text().await?, format!("while away {n}"));
    }
    assert_eq!(bo_too.next_text().await?, "last");
    Ok(())
}

#[tokio::test]
async fn a_client_that_is_killed_midway_loses_nothing_and_repeats_nothing() -> anyhow::Result<()> {
    killed(Shape::One).await
}

#[tokio::test]
async fn a_client_that_is_killed_midway_loses_nothing_and_repeats_nothing_with_many_replicas() -> anyhow::Result<()> {
    killed(Shape::Replicas).await
}

async fn killed(shape: Shape) -> anyhow::Result<()> {
    const MESSAGES: usize = 60;
    let world = World::start_as(shape, &[]).await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let mut ids = Vec::new();
    for n in 0..MESSAGES {
        ids.push(ada.queue(bo.address(), &format!("{n}")).await?);
    }
    let mut done = Vec::new();
    let mut kill_at = BTreeSet::from([6, 20, 41]);
    while done.len() < MESSAGES {
        let event = bo.next_event().await?;
        let EventKind::Message(message) = &event.kind else {
            event.done().await?;
            continue;
        };
        let n: usize = message.content.as_text().unwrap_or_default().parse()?;
        if kill_at.remove(&n) {
            // Shown, but not done: it comes again, and what was done does not.
            drop(event);
            bo.kill()?;
            bo.start().await?;
            continue;
        }
        event.done().await?;
        done.push(n);
    }
    assert_eq!(done, (0..MESSAGES).collect::<Vec<_>>());
    for id in ids {
        assert!(ada.outcome(id).await?.is_accepted());
    }
    assert!(ada.send(bo.address(), "end").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "end", "nothing is repeated");
    Ok(())
}

#[tokio::test]
async fn a_sender_that_is_killed_midway_sends_the_rest_and_nothing_twice() -> anyhow::Result<()> {
    sender_killed(Shape::One).await
}

#[tokio::test]
async fn a_sender_that_is_killed_midway_sends_the_rest_and_nothing_twice_with_many_replicas() -> anyhow::Result<()> {
    sender_killed(Shape::Replicas).await
}

async fn sender_killed(shape: Shape) -> anyhow::Result<()> {
    const MESSAGES: usize = 60;
    let world = World::start_as(shape, &[]).await?;
    let (mut ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    for n in 0..MESSAGES {
        ada.queue(bo.address(), &format!("{n}")).await?;
        if n % 20 == 19 {
            ada.kill()?;
            ada.start().await?;
        }
    }
    let mut got = BTreeSet::new();
    for n in 0..MESSAGES {
        assert_eq!(bo.next_text().await?, n.to_string(), "in order");
        assert!(got.insert(n), "once");
    }
    assert!(ada.send(bo.address(), "end").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "end");
    Ok(())
}

#[tokio::test]
async fn a_device_with_a_push_token_is_woken_by_its_own_provider() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (mut ada, bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    ada.client().push(Some(b"token-of-ada".to_vec())).await?;
    ada.stop().await?;
    assert_eq!(bo.send(ada.address(), "wake up").await?, SendResult::Stored);
    let pushes = causeway_tests::within("a push", async { Ok(world.birdy.sandbox().wait_for_pushes(1).await) }).await?;
    let text = &pushes[0].body;
    assert!(!text.contains("bo") || !text.contains("home.example"), "a push does not name the sender: {text}");
    assert!(!text.contains("wake up"));
    assert!(world.home.sandbox().received().is_empty(), "only the device's own provider hears of it");
    ada.start().await?;
    assert_eq!(ada.next_text().await?, "wake up");
    Ok(())
}
