//! Redis or PostgreSQL goes away and comes back.

use causeway_client::{DisconnectReason, EventKind, SendResult};
use causeway_tests::{Device, Process, Shape, World, within};

#[tokio::test]
async fn without_redis_sessions_go_on_and_new_logins_wait() -> anyhow::Result<()> {
    let world = World::start_as(Shape::Replicas, &[]).await?;
    let (mut ada, mut bo, mut away) =
        (world.at_birdy("ada").await?, world.at_home("bo").await?, world.at_home("dee").await?);
    assert!(ada.send(bo.address(), "before").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "before");
    away.stop().await?;

    world.net.redis()?.run(|redis| redis.kill()).await?;
    // Messages are delivered and stored as before.
    for n in 0..20 {
        assert!(ada.send(bo.address(), &n.to_string()).await?.is_accepted());
        assert!(bo.send(ada.address(), &n.to_string()).await?.is_accepted());
        assert_eq!((bo.next_text().await?, ada.next_text().await?), (n.to_string(), n.to_string()));
        assert_eq!(ada.send(away.address(), &n.to_string()).await?, SendResult::Stored);
    }
    // Whether a token was spent at another edge cannot be known: nobody new gets in.
    let mut new = Device::fresh(&world.net, &world.birdy, "new").await?;
    for _ in 0..3 {
        let refused = new.wait_for("the refusal", |kind| match kind {
            EventKind::Disconnected(gone) => Some(gone.reason.clone()),
            EventKind::Connected(_) => Some(DisconnectReason::Protocol("it is in".to_owned())),
            _ => None,
        });
        assert_eq!(refused.await?, DisconnectReason::Overloaded);
    }
    for replica in world.net.replicas() {
        world.net.health_is(replica, |health| health["status"] == "degraded").await?;
    }

    world.net.redis()?.run(|redis| redis.start_again()).await?;
    for replica in world.net.replicas() {
        world.net.health_is(replica, |health| health["status"] == "ready").await?;
    }
    new.connected().await?;
    within("a device enlists", async { Ok(new.client().enlist().await?) }).await?;
    within("a user opts in", async { Ok(new.client().opt_in().await?) }).await?;
    assert!(bo.send(new.address(), "welcome").await?.is_accepted());
    assert_eq!(new.next_text().await?, "welcome");
    away.start().await?;
    for n in 0..20 {
        assert_eq!(away.next_text().await?, n.to_string());
    }
    Ok(())
}

#[tokio::test]
async fn without_postgresql_messages_wait_and_go_on() -> anyhow::Result<()> {
    let mut world = World::start_as(Shape::Replicas, &[]).await?;
    let (ada, mut bo, mut away) =
        (world.at_birdy("ada").await?, world.at_home("bo").await?, world.at_home("dee").await?);
    for receiver in [&mut bo, &mut away] {
        assert!(ada.send(receiver.address(), "before").await?.is_accepted());
        assert_eq!(receiver.next_text().await?, "before");
    }
    away.stop().await?;
    let mut expected = 0;
    for round in 0..2 {
        world
            .net
            .postgres()?
            .run(move |postgres| if round == 0 { postgres.stop_immediate() } else { postgres.kill() })
            .await?;
        let mut ids = Vec::new();
        for _ in 0..20 {
            for receiver in [&bo, &away] {
                ids.push(ada.queue(receiver.address(), &expected.to_string()).await?);
            }
            expected += 1;
        }
        // By now leases have run out, and everybody who needs the database has noticed.
        for number in [1, 2] {
            let directory = Process::KeyDirectory.replica(number);
            world.net.health_is(directory, |health| health["status"] == "degraded").await?;
        }
        for number in [1, 2, 3] {
            let routing = Process::Routing.replica(number);
            let part = |health: &serde_json::Value| health["parts"]["routing.mailbox"]["state"] == "degraded";
            world.net.health_is(routing, part).await?;
        }
        world.net.postgres()?.run(|postgres| postgres.start_again()).await?;
        for id in ids {
            assert!(ada.outcome(id).await?.is_accepted());
        }
        for replica in world.net.replicas() {
            world.net.health_is(replica, |health| health["status"] == "ready").await?;
        }
    }
    away.start().await?;
    for receiver in [&mut bo, &mut away] {
        assert!(ada.send(receiver.address(), "end").await?.is_accepted());
        let mut got = Vec::new();
        while got.last().is_none_or(|text| text != "end") {
            got.push(receiver.next_text().await?);
        }
        let all: Vec<_> = (0..expected).map(|n| n.to_string()).chain(["end".to_owned()]).collect();
        assert_eq!(got, all, "{}", receiver.address());
    }
    world.net.assert_alive()
}
