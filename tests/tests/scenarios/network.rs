//! Networks that break connections at any byte.

use causeway_client::MessageId;
use causeway_tests::{CuttingNetwork, Device, World};

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
