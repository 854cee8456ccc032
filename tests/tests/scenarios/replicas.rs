//! Several replicas of each service: what is promised of one holds for all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use causeway_client::{Address, Ended, EventKind, MessageId};
use causeway_proto::wire::v1 as pb;
use causeway_tests::raw::{Session, new_key};
use causeway_tests::{Device, Process, Shape, World};

/// Two sessions of one device end with one, the newer, whichever edges they are at.
#[tokio::test]
async fn of_two_sessions_of_a_device_at_two_edges_the_newer_stays() -> anyhow::Result<()> {
    let world = World::start_as(Shape::Replicas, &[]).await?;
    let edges = world.net.edges()?;
    let (bo, mut ada) = (world.at_home("bo").await?, world.at_birdy("ada").await?);
    bo.send(ada.address(), "to the one").await?;
    assert_eq!(ada.next_text().await?, "to the one");
    ada.stop().await?;
    let mut twin = ada.twin()?;
    ada.connect_through(edges[0])?;
    twin.connect_through(edges[1])?;
    ada.start().await?;
    ada.connected().await?;
    let (mut older, mut newer) = (ada, twin);
    for _ in 0..4 {
        newer.start().await?;
        newer.connected().await?;
        let ended = older.wait_for("the end of the older session", |kind| match kind {
            EventKind::Ended(ended) => Some(*ended),
            _ => None,
        });
        assert_eq!(ended.await?, Ended::Replaced);
        older.kill()?;
        std::mem::swap(&mut older, &mut newer);
    }
    // The first one again, and its store has seen everything.
    assert!(bo.send(older.address(), "to the newest").await?.is_accepted());
    assert_eq!(older.next_text().await?, "to the newest");
    Ok(())
}

/// An edge that drains gives each client a time of its own to come back, within the window.
#[tokio::test]
async fn clients_of_an_edge_that_drains_are_spread_over_the_window() -> anyhow::Result<()> {
    const WINDOW_MS: u64 = 60_000;
    const CLIENTS: usize = 24;
    let window = WINDOW_MS.to_string();
    let mut world = World::start_as(Shape::Replicas, &[("edge.drain_window_ms", &window)]).await?;
    let edge = world.net.edges()?[0];
    let mut sessions = Vec::new();
    for user in 0..CLIENTS {
        let key = new_key();
        let user = format!("u{user}");
        let issued = world.birdy.sandbox().issue_token(&user, key.public(), Duration::from_secs(600));
        let hello = pb::ClientHello {
            token: issued.await?,
            device_id: 0,
            encoding: pb::Encoding::Binary.into(),
            agent: "scenarios".to_owned(),
            forwarded: None,
        };
        let mut session = Session::open_at(&world.net, edge, &key, &hello).await?;
        assert!(matches!(session.next_stanza().await?, Some(pb::server_stanza::Kind::Success(_))));
        sessions.push(session);
    }
    let told = async {
        let mut pauses = Vec::new();
        for session in &mut sessions {
            match session.next_stanza().await? {
                Some(pb::server_stanza::Kind::End(end)) => {
                    assert_eq!(end.reason(), pb::EndReason::Draining);
                    pauses.push(end.retry_after_ms);
                }
                other => anyhow::bail!("expected an end, got {other:?}"),
            }
            assert_eq!(session.next().await?, None, "and nothing after it");
        }
        Ok(pauses)
    };
    let (status, pauses) = tokio::join!(world.net.terminate_one(Process::Edge), told);
    assert!(status?.success());
    let mut pauses = pauses?;
    pauses.sort_unstable();
    assert!(pauses.iter().all(|pause| *pause < WINDOW_MS), "{pauses:?}");
    // All of 24 in one half of the window: once in eight million runs.
    let half = WINDOW_MS / 2;
    assert!(pauses[0] < half && pauses[CLIENTS - 1] >= half, "{pauses:?}");
    pauses.dedup();
    assert!(pauses.len() > CLIENTS / 2, "{pauses:?}");
    // Who comes now is taken by the other one.
    world.at_birdy("late").await?;
    Ok(())
}

/// Routings are killed in turn while messages are under way: edges submit them again, and no client notices.
#[tokio::test]
async fn routings_that_are_killed_in_turn_lose_nothing_and_no_client_notices() -> anyhow::Result<()> {
    const MESSAGES: usize = 25;
    let mut world = World::start_as(Shape::Replicas, &[]).await?;
    let mut senders = [world.at_birdy("ada").await?, world.at_birdy("cy").await?];
    let mut receivers = Vec::new();
    for user in ["bo", "dee", "eve", "finn"] {
        receivers.push(world.at_home(user).await?);
    }
    // Sessions are made, so that what follows is one message a message.
    for sender in &senders {
        for receiver in &receivers {
            assert!(sender.send(receiver.address(), "hello").await?.is_accepted());
        }
    }
    let mut asleep = receivers.remove(3);
    asleep.stop().await?;
    let addresses: Vec<Address> =
        receivers.iter().chain([&asleep]).map(|receiver| receiver.address().clone()).collect();

    let mut sent: Vec<Vec<MessageId>> = vec![Vec::new(); senders.len()];
    for victim in 1..=3 {
        for n in 0..MESSAGES {
            for to in &addresses {
                for (sender, ids) in senders.iter().zip(&mut sent) {
                    let text = format!("{} {:03}", sender.address(), usize::from(victim - 1) * MESSAGES + n);
                    ids.push(sender.queue(to, &text).await?);
                }
            }
        }
        // Some of this round have an outcome, some are under way, some wait for their turn.
        let halfway = sent[0].len() - MESSAGES * addresses.len() / 2;
        assert!(senders[0].outcome(sent[0][halfway]).await?.is_accepted());
        let victim = Process::Routing.replica(victim);
        world.net.kill_one(victim).await?;
        world.net.restart().await?;
    }
    for (sender, ids) in senders.iter().zip(&sent) {
        for id in ids {
            assert!(sender.outcome(*id).await?.is_accepted());
        }
    }
    asleep.start().await?;
    receivers.push(asleep);
    for receiver in &mut receivers {
        let (mut losses, mut next) = (Vec::new(), BTreeMap::<String, usize>::new());
        for _ in 0..senders.len() {
            assert_eq!(receiver.next_text_and_losses(&mut losses).await?, "hello");
        }
        for _ in 0..senders.len() * MESSAGES * 3 {
            let text = receiver.next_text_and_losses(&mut losses).await?;
            let next = next.entry(text.rsplit_once(' ').unwrap_or_default().0.to_owned()).or_default();
            assert!(text.ends_with(&format!(" {next:03}")), "{text:?} instead of {next}");
            *next += 1;
        }
        assert_eq!(losses, [], "{} noticed", receiver.address());
    }
    // Nothing came twice, and the senders' sessions went on too.
    for receiver in &mut receivers {
        assert!(senders[0].send(receiver.address(), "end").await?.is_accepted());
        assert_eq!(receiver.next_text().await?, "end");
    }
    for sender in &mut senders {
        assert!(receivers[0].send(sender.address(), "end").await?.is_accepted());
        let mut losses = Vec::new();
        assert_eq!(sender.next_text_and_losses(&mut losses).await?, "end");
        assert_eq!(losses, [], "{} noticed", sender.address());
    }
    world.net.assert_alive()
}

/// A mailbox takes as many messages as it may, whoever owns it; further ones wait at their senders until there is room.
#[tokio::test]
async fn a_full_mailbox_takes_nothing_more_until_it_is_emptied() -> anyhow::Result<()> {
    const BOUND: usize = 10;
    let bound = BOUND.to_string();
    let settings = [("routing.mailbox_messages", bound.as_str()), ("routing.mailbox_full_retry_ms", "2000")];
    let world = World::start_as(Shape::Replicas, &settings).await?;
    let (ada, cy, mut bo) = (world.at_birdy("ada").await?, world.at_birdy("cy").await?, world.at_home("bo").await?);
    let mut dee = world.at_home("dee").await?;
    assert!(cy.send(bo.address(), "hello").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "hello");
    bo.stop().await?;
    for n in 0..BOUND {
        assert_eq!(ada.send(bo.address(), &n.to_string()).await?, causeway_client::SendResult::Stored);
    }
    let waiting = ada.queue(bo.address(), "waits").await?;
    let late = cy.queue(bo.address(), "late").await?;
    for n in 0..BOUND {
        // Others are not held up by it.
        for sender in [&ada, &cy] {
            assert!(sender.send(dee.address(), &n.to_string()).await?.is_accepted());
            assert_eq!(dee.next_text().await?, n.to_string());
        }
        let count = |postgres: &mut causeway_test_servers::Postgres| {
            postgres.execute("test_1", "SELECT count(*) FROM mailbox_entries")
        };
        let rows = world.net.postgres()?.run(count).await?;
        assert_eq!(rows[0][0].as_deref(), Some(bound.as_str()));
    }
    bo.start().await?;
    let mut got = Vec::new();
    for _ in 0..BOUND + 2 {
        got.push(bo.next_text().await?);
    }
    assert!(ada.outcome(waiting).await?.is_accepted());
    assert!(cy.outcome(late).await?.is_accepted());
    assert_eq!(got[..BOUND], (0..BOUND).map(|n| n.to_string()).collect::<Vec<_>>());
    got[BOUND..].sort();
    assert_eq!(got[BOUND..], ["late", "waits"]);
    Ok(())
}

/// A device whose session comes back at another edge goes on where it was.
#[tokio::test]
async fn a_device_goes_on_at_another_edge() -> anyhow::Result<()> {
    let world = World::start_as(Shape::Replicas, &[]).await?;
    let edges = world.net.edges()?;
    let (ada, mut bo): (Device, Device) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    for round in 0..6 {
        bo.stop().await?;
        bo.connect_through(edges[round % 2])?;
        let away = format!("away {round}");
        assert!(ada.send(bo.address(), &away).await?.is_accepted());
        bo.start().await?;
        bo.connected().await?;
        let here = format!("here {round}");
        assert!(ada.send(bo.address(), &here).await?.is_accepted());
        assert_eq!((bo.next_text().await?, bo.next_text().await?), (away, here));
    }
    Ok(())
}
