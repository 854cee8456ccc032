//! Networks that break connections at any byte.

use causeway_client::MessageId;
use causeway_tests::{CuttingNetwork, Device, World};

#[tokio::test]
async fn connections_that_break_at_any_byte_lose_nothing_and_repeat_nothing() -> anyhow::Result<()> {
    const MESSAGES: usize = 100;
    let world = World::start().await?;
    // A login takes some two KiB, a message to one device some hundreds of bytes.
    let network = CuttingNetwork::start(world.net.ready().edge, 2_500, 12_000, 7).await?;
    let (mut ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    for device in [&mut ada, &mut bo] {
        device.stop().await?;
        device.connect_through(network.address())?;
        device.start().await?;
    }
    let (there, back) = (queue(&ada, &bo, MESSAGES).await?, queue(&bo, &ada, MESSAGES).await?);
    for n in 0..MESSAGES {
        assert_eq!(bo.next_text().await?, n.to_string(), "in order, once");
        assert_eq!(ada.next_text().await?, n.to_string(), "in order, once");
    }
    for (device, ids) in [(&ada, there), (&bo, back)] {
        for id in ids {
            assert!(device.outcome(id).await?.is_accepted());
        }
    }
    assert!(ada.send(bo.address(), "end").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "end");
    assert!(network.cuts() > 5, "{} cuts", network.cuts());
    Ok(())
}

async fn queue(from: &Device, to: &Device, count: usize) -> anyhow::Result<Vec<MessageId>> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(from.queue(to.address(), &n.to_string()).await?);
    }
    Ok(ids)
}
