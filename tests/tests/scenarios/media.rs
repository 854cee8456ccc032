//! Files, byte for byte, through host and relay.

use causeway_client::media::{MediaDetails, MediaError};
use causeway_client::{ClientError, Content, ErrorCode, Media, MediaKind};
use causeway_tests::{Device, Shape, World, within};

/// A PNG file: its signature, then bytes that differ from place to place.
fn picture(size: usize) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.extend((bytes.len()..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8));
    bytes
}

async fn send_picture(from: &Device, to: &mut Device, bytes: &[u8]) -> anyhow::Result<Media> {
    let details = MediaDetails {
        kind: MediaKind::Image,
        mime_type: "image/png".to_owned(),
        name: "bird.png".to_owned(),
        width: 640,
        height: 480,
        caption: "look".to_owned(),
        ..MediaDetails::default()
    };
    let host = from.media_host()?;
    let media = from.transfers()?.upload(host.as_ref(), bytes, details).await?;
    let sent = from.client().send_and_wait(to.address(), Content::media(media.clone())).await?;
    assert!(sent.result.is_accepted());
    let message = to.next_message().await?;
    let received = message.content.as_media().cloned();
    received.ok_or_else(|| anyhow::anyhow!("expected media, got {:?}", message.content))
}

#[tokio::test]
async fn a_picture_goes_both_ways_byte_for_byte() -> anyhow::Result<()> {
    both_ways(Shape::One).await
}

#[tokio::test]
async fn a_picture_goes_both_ways_through_many_processes() -> anyhow::Result<()> {
    both_ways(Shape::Many).await
}

#[tokio::test]
async fn a_picture_goes_both_ways_through_many_replicas() -> anyhow::Result<()> {
    both_ways(Shape::Replicas).await
}

async fn both_ways(shape: Shape) -> anyhow::Result<()> {
    let world = World::start_as(shape, &[]).await?;
    let (mut ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    for size in [9, 65_536, 1_000_003] {
        let bytes = picture(size);

        // From Birdy's media host through the operator's relay.
        let media = send_picture(&ada, &mut bo, &bytes).await?;
        assert!(media.url.starts_with(world.birdy.sandbox().media_prefix()));
        assert_eq!((media.name.as_str(), media.width, media.caption.as_str()), ("bird.png", 640, "look"));
        let mut copy = Vec::new();
        bo.transfers()?.download(bo.client(), &media, &mut copy).await?;
        assert!(copy == bytes);

        // From the operator's host.
        let media = send_picture(&bo, &mut ada, &bytes).await?;
        assert!(media.url.starts_with(&world.net.ready().media));
        let mut copy = Vec::new();
        ada.transfers()?.download(ada.client(), &media, &mut copy).await?;
        assert!(copy == bytes);
    }
    Ok(())
}

#[tokio::test]
async fn the_host_keeps_ciphertext_only() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (mut ada, bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let bytes = picture(100_000);
    let media = send_picture(&bo, &mut ada, &bytes).await?;
    let stored = reqwest::get(&media.url).await?.bytes().await?;
    assert_eq!(stored.len() as u64, media.ciphertext_size);
    for part in bytes.chunks(64) {
        assert!(!stored.windows(part.len()).any(|window| window == part), "plaintext on the host");
    }
    Ok(())
}

#[tokio::test]
async fn urls_that_no_provider_registered_get_no_ticket() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (mut ada, bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let media = send_picture(&bo, &mut ada, &picture(1_000)).await?;
    let prefix = world.birdy.sandbox().media_prefix();
    let base = prefix.trim_end_matches("/v1/blobs/");
    for url in [
        "http://127.0.0.1:1/v1/blobs/x".to_owned(),
        "https://media.example/x".to_owned(),
        format!("{base}/jwks.json"),
        format!("{prefix}../../jwks.json"),
        format!("{prefix}%2e%2e/%2e%2e/jwks.json"),
        format!("{prefix}..%2f..%2fjwks.json"),
        "file:///etc/passwd".to_owned(),
    ] {
        let elsewhere = Media { url: url.clone(), ..media.clone() };
        let refused = ada.transfers()?.download(ada.client(), &elsewhere, &mut Vec::new()).await;
        let no_ticket = matches!(
            refused,
            Err(MediaError::Ticket(ClientError::Refused { code: ErrorCode::BadRequest | ErrorCode::NotAvailable, .. }))
        );
        // A path that stays under the prefix may get a ticket, and then finds nothing.
        let nothing = url.contains("%2f") && matches!(refused, Err(MediaError::Refused(_) | MediaError::GivenUp(_)));
        assert!(no_ticket || nothing, "{url}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_download_survives_a_restart_of_the_server() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let bytes = picture(3_000_000);
    let media = send_picture(&ada, &mut bo, &bytes).await?;
    // The recipient takes the first bytes and no more until the server has been killed and is back.
    let (mut slow, mut copy) = tokio::io::duplex(64 * 1024);
    let (transfers, client, wanted) = (bo.transfers()?, bo.client().clone(), media.clone());
    let download = tokio::spawn(async move { transfers.download(&client, &wanted, &mut slow).await });
    let mut first = vec![0; 100_000];
    within("the first bytes", async { Ok(tokio::io::AsyncReadExt::read_exact(&mut copy, &mut first).await?) }).await?;
    world.net.kill().await?;
    world.net.restart().await?;
    let mut rest = Vec::new();
    within("the rest", async { Ok(tokio::io::AsyncReadExt::read_to_end(&mut copy, &mut rest).await?) }).await?;
    assert_eq!(download.await??, bytes.len() as u64);
    assert!([first, rest].concat() == bytes);
    Ok(())
}
