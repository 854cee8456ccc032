//! Both encodings, both suites, TCP and WebSocket: everybody understands everybody.

use causeway_client::{Encoding, Suite};
use causeway_tests::{Device, DeviceOptions, World};

#[tokio::test]
async fn every_way_of_speaking_reaches_every_other() -> anyhow::Result<()> {
    let world = World::start().await?;
    let mut devices = Vec::new();
    for encoding in [Encoding::Binary, Encoding::Xml] {
        for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
            for websocket in [false, true] {
                let options = DeviceOptions { encoding, suite, websocket };
                let (provider, user) = match devices.len() % 2 {
                    0 => (&world.home, format!("home{}", devices.len())),
                    _ => (&world.birdy, format!("bird{}", devices.len())),
                };
                devices.push(Device::opted_in_with(&world.net, provider, &user, options).await?);
            }
        }
    }
    // Text that must survive XML, in both directions between each home user and each of Birdy's.
    let text = "<&>\"' ]]> \u{e9}\u{1f426}\r\n\ttab";
    for from in 0..devices.len() {
        for to in (0..devices.len()).filter(|to| to % 2 != from % 2) {
            let address = devices[to].address().clone();
            assert!(devices[from].send(&address, text).await?.is_accepted(), "{from} to {to}");
            assert_eq!(devices[to].next_text().await?, text, "{from} to {to}");
        }
    }
    // The second connection of each uses the server key that it knows (IK).
    for device in &mut devices {
        device.stop().await?;
        device.start().await?;
        let resumed = device.wait_for("a session", |kind| match kind {
            causeway_client::EventKind::Connected(connected) => Some(connected.resumed),
            _ => None,
        });
        assert!(resumed.await?);
    }
    Ok(())
}
