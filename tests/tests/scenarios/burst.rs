//! The server is killed in the middle of a burst.

use std::collections::BTreeMap;

use causeway_client::{DeviceAddress, MessageId};
use causeway_tests::{Device, Process, Shape, World};

#[tokio::test]
async fn every_acknowledged_message_of_a_burst_arrives_once_although_the_server_is_killed() -> anyhow::Result<()> {
    killed(&[Process::All]).await
}

#[tokio::test]
async fn every_acknowledged_message_arrives_once_although_routing_and_edge_are_killed_in_turn() -> anyhow::Result<()> {
    killed(&[Process::Routing, Process::Edge]).await
}

#[tokio::test]
async fn every_acknowledged_message_arrives_once_although_the_directory_is_killed() -> anyhow::Result<()> {
    killed(&[Process::KeyDirectory]).await
}

/// Two devices send in three bursts, and in the middle of each the next of `victims` gets SIGKILL.
async fn killed(victims: &[Process]) -> anyhow::Result<()> {
    const MESSAGES: usize = 150;
    let shape = if victims.contains(&Process::All) { Shape::One } else { Shape::Many };
    let mut world = World::start_as(shape, &[]).await?;
    let (ada, ada_too) = (world.at_birdy("ada").await?, world.at_birdy("ada").await?);
    let mut receivers = [world.at_home("bo").await?, world.at_home("bo").await?];
    let bo = receivers[0].address().clone();
    // One of the recipient's devices is away for all of it: its part of each message lies in the mailbox.
    receivers[1].stop().await?;

    let mut sent: BTreeMap<&str, Vec<(MessageId, String)>> = BTreeMap::new();
    for (round, victim) in victims.iter().cycle().take(3).enumerate() {
        for n in 0..MESSAGES / 3 {
            for (name, sender) in [("ada/1", &ada), ("ada/2", &ada_too)] {
                let text = format!("{name} {:03}", round * MESSAGES / 3 + n);
                sent.entry(name).or_default().push((sender.queue(&bo, &text).await?, text));
            }
        }
        // Some of this round are answered, some are under way, some wait for their turn.
        let halfway = &sent["ada/1"][round * MESSAGES / 3 + MESSAGES / 6];
        assert!(ada.outcome(halfway.0).await?.is_accepted());
        world.net.kill_one(*victim).await?;
        world.net.restart().await?;
    }
    for (sender, messages) in [(&ada, &sent["ada/1"]), (&ada_too, &sent["ada/2"])] {
        for (id, text) in messages {
            assert!(sender.outcome(*id).await?.is_accepted(), "{text}");
        }
    }
    receivers[1].start().await?;
    for receiver in &mut receivers {
        expect_all(receiver, &sent).await?;
    }
    assert!(ada.send(&bo, "end").await?.is_accepted());
    for receiver in &mut receivers {
        assert_eq!(receiver.next_text().await?, "end", "nothing came twice");
    }
    world.net.assert_alive()
}

/// Everything that each device sent, once, and in the order of sending.
async fn expect_all(receiver: &mut Device, sent: &BTreeMap<&str, Vec<(MessageId, String)>>) -> anyhow::Result<()> {
    let total: usize = sent.values().map(Vec::len).sum();
    let mut got: BTreeMap<DeviceAddress, Vec<(MessageId, String)>> = BTreeMap::new();
    for _ in 0..total {
        let message = receiver.next_message().await?;
        let text = message.content.as_text().unwrap_or_default().to_owned();
        got.entry(message.from).or_default().push((message.id, text));
    }
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.into_values().zip(sent.values()) {
        assert_eq!(&got, sent);
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_leaves_cleanly_and_loses_nothing() -> anyhow::Result<()> {
    stopped(Shape::One).await
}

#[tokio::test]
async fn many_processes_that_are_asked_to_stop_leave_cleanly_and_lose_nothing() -> anyhow::Result<()> {
    stopped(Shape::Many).await
}

async fn stopped(shape: Shape) -> anyhow::Result<()> {
    const MESSAGES: usize = 60;
    let mut world = World::start_as(shape, &[]).await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let mut ids = Vec::new();
    for n in 0..MESSAGES {
        ids.push(ada.queue(bo.address(), &format!("{n}")).await?);
    }
    ada.outcome(ids[MESSAGES / 4]).await?;
    let status = world.net.terminate().await?;
    assert!(status.success(), "{status}\n{}", world.net.log());
    world.net.restart().await?;
    for id in ids {
        assert!(ada.outcome(id).await?.is_accepted());
    }
    for n in 0..MESSAGES {
        assert_eq!(bo.next_text().await?, n.to_string());
    }
    assert!(ada.send(bo.address(), "end").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "end");
    Ok(())
}
