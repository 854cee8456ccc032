//! A stop waits for what can still finish, and for nobody who does not answer: the process leaves before
//! `server.shutdown_grace_ms` is over, with status 0.

use causeway_tests::{Deployment, Process, Shape, World};

/// Its readiness never comes, and is no work to be finished.
#[tokio::test]
async fn an_edge_that_has_found_nobody_yet_stops() -> anyhow::Result<()> {
    let mut net = Deployment::start(Shape::Many, &[]).await?;
    net.kill().await?;
    net.start_one(Process::Edge).await?;
    let status = net.terminate_one(Process::Edge).await?;
    assert!(status.success(), "{status}");
    Ok(())
}

/// A message is on its way, so the edge has something to wait for.
#[tokio::test]
async fn an_edge_stops_while_routing_stands_still() -> anyhow::Result<()> {
    let mut world = World::start_as(Shape::Many, &[]).await?;
    let (ada, bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    assert!(ada.send(bo.address(), "hello").await?.is_accepted());
    world.net.pause(Process::Routing).await?;
    ada.queue(bo.address(), "into the void").await?;
    let status = world.net.terminate_one(Process::Edge).await?;
    assert!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn an_edge_stops_while_the_directory_stands_still() -> anyhow::Result<()> {
    stops_while_still(Process::Edge, Process::KeyDirectory).await
}

#[tokio::test]
async fn a_routing_stops_while_the_edge_stands_still() -> anyhow::Result<()> {
    stops_while_still(Process::Routing, Process::Edge).await
}

#[tokio::test]
async fn a_routing_stops_while_the_directory_stands_still() -> anyhow::Result<()> {
    stops_while_still(Process::Routing, Process::KeyDirectory).await
}

#[tokio::test]
async fn a_directory_stops_while_routing_stands_still() -> anyhow::Result<()> {
    stops_while_still(Process::KeyDirectory, Process::Routing).await
}

#[tokio::test]
async fn a_media_relay_stops_while_the_edge_stands_still() -> anyhow::Result<()> {
    stops_while_still(Process::MediaRelay, Process::Edge).await
}

/// With clients logged in and messages under way between them.
async fn stops_while_still(stopping: Process, still: Process) -> anyhow::Result<()> {
    let mut world = World::start_as(Shape::Many, &[]).await?;
    let (ada, bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    assert!(ada.send(bo.address(), "hello").await?.is_accepted());
    world.net.pause(still).await?;
    for n in 0..10 {
        ada.queue(bo.address(), &format!("{n}")).await?;
    }
    let status = world.net.terminate_one(stopping).await?;
    assert!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn all_stop_while_postgresql_stands_still() -> anyhow::Result<()> {
    all_stop_while_still(async |net| net.postgres()?.run(|postgres| postgres.pause()).await).await
}

#[tokio::test]
async fn all_stop_while_redis_stands_still() -> anyhow::Result<()> {
    all_stop_while_still(async |net| net.redis()?.run(|redis| redis.pause()).await).await
}

/// With messages under way, for somebody who is there and for somebody who is not.
async fn all_stop_while_still(pause: impl AsyncFnOnce(&Deployment) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut world = World::start_as(Shape::Replicas, &[]).await?;
    let (ada, bo, mut away) = (world.at_birdy("ada").await?, world.at_home("bo").await?, world.at_home("dee").await?);
    assert!(ada.send(bo.address(), "hello").await?.is_accepted());
    assert!(ada.send(away.address(), "hello").await?.is_accepted());
    away.stop().await?;
    pause(&world.net).await?;
    for n in 0..10 {
        ada.queue(bo.address(), &format!("{n}")).await?;
        ada.queue(away.address(), &format!("{n}")).await?;
    }
    let mut overdue = Vec::new();
    for replica in world.net.replicas().into_iter().rev() {
        let status = world.net.terminate_one(replica).await?;
        if !status.success() {
            overdue.push(format!("{replica}: {status}"));
        }
    }
    assert!(overdue.is_empty(), "{overdue:?}");
    Ok(())
}
