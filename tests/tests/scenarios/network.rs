//! Networks that break connections at any byte, and networks that remember.

use anyhow::Context as _;
use causeway_client::{EventKind, MessageId};
use causeway_tests::{CuttingNetwork, Device, RecordingNetwork, World, raw};

#[tokio::test]
async fn connections_that_break_at_any_byte_lose_nothing_and_repeat_nothing() -> anyhow::Result<()> {
    const MESSAGES: usize = 200;
    let world = World::start().await?;
    let (mut ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    // Sessions first: their messages are some hundreds of bytes each, those before them some thousands.
    assert!(ada.send(bo.address(), "hello").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "hello");
    assert!(bo.send(ada.address(), "hello").await?.is_accepted());
    assert_eq!(ada.next_text().await?, "hello");
    // Noise messages are up to 64 KiB, so a connection that lives for less may bring nothing.
    let network = CuttingNetwork::start(world.net.ready().edge, 150_000, 400_000, 7).await?;
    for device in [&mut ada, &mut bo] {
        device.stop().await?;
        device.connect_through(network.address())?;
        device.start().await?;
    }
    let (there, back) = (queue(&ada, &bo, MESSAGES).await?, queue(&bo, &ada, MESSAGES).await?);
    for n in 0..MESSAGES {
        assert!(bo.next_text().await? == text(n), "{n}: in order, once");
        assert!(ada.next_text().await? == text(n), "{n}: in order, once");
    }
    for (device, ids) in [(&ada, there), (&bo, back)] {
        for id in ids {
            assert!(device.outcome(id).await?.is_accepted());
        }
    }
    assert!(ada.send(bo.address(), "end").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "end");
    assert!(network.cuts() >= 3, "{} cuts", network.cuts());
    Ok(())
}

/// Two KiB, so that messages and cuts meet at many different bytes.
fn text(n: usize) -> String {
    format!("{n:04}").repeat(512)
}

async fn queue(from: &Device, to: &Device, count: usize) -> anyhow::Result<Vec<MessageId>> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(from.queue(to.address(), &text(n)).await?);
    }
    Ok(ids)
}

/// Everything that a device sent in a session, sent again by somebody who recorded it: the first message of IK is good
/// again, but nothing after it is, so nothing happens to the device (docs/protocol.md, section 3).
#[tokio::test]
async fn a_recorded_session_that_is_played_again_displaces_nobody_and_sends_nothing() -> anyhow::Result<()> {
    let mut world = World::start_with(&[("edge.proof_timeout_ms", "1000")]).await?;
    let (mut ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let network = RecordingNetwork::start(world.net.ready().edge).await?;
    ada.stop().await?;
    ada.connect_through(network.address())?;
    ada.start().await?;
    let resumed = ada.wait_for("a session", |kind| match kind {
        EventKind::Connected(connected) => Some(connected.resumed),
        _ => None,
    });
    assert!(resumed.await?, "a replay of XX would not even begin");
    assert!(ada.send(bo.address(), "once").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "once");

    let recorded = network.recorded();
    let opening = recorded.first().context("the device's session was recorded")?;
    // The preamble and the first message alone, up to its last byte, with a part of the next, and everything.
    let first = 8 + 2 + usize::from(u16::from_be_bytes([opening[8], opening[9]]));
    let mut replays = Vec::new();
    for end in [first - 1, first, first + 1, opening.len()] {
        for _ in 0..10 {
            replays.push(raw::say(world.net.ready().edge, &opening[..end], usize::MAX));
        }
    }
    for replay in replays {
        replay.await?;
    }
    assert!(bo.send(ada.address(), "still there?").await?.is_accepted());
    let next = ada.wait_for("a message, and before it no end of the session", |kind| match kind {
        EventKind::Message(message) => Some(Ok(message.content.as_text().map(str::to_owned))),
        EventKind::Disconnected(gone) => Some(Err(gone.reason.clone())),
        _ => None,
    });
    assert_eq!(next.await?, Ok(Some("still there?".to_owned())));
    assert!(ada.send(bo.address(), "end").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "end", "and nothing was sent again");
    world.net.assert_alive()
}
