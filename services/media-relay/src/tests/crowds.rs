//! Those who take all they can get.

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::Body;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

#[tokio::test]
async fn silent_sockets_of_one_network_leave_room_for_the_others() {
    let media = Running::start_with(|config| {
        config.listen = "0.0.0.0:0".parse().unwrap();
        config.public_base = Some("http://127.0.0.1".to_owned());
        (config.max_connections, config.max_connections_per_network) = (5, 3);
    })
    .await;
    let address = SocketAddr::from(([127, 0, 0, 1], media.address.port()));
    let from = |network| async move {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, network, 1], 0))).unwrap();
        socket.connect(address).await.unwrap()
    };
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(from(7).await);
    }
    for _ in 0..20 {
        assert!(!is_answered(&mut from(7).await).await, "the network is full");
    }
    let (mut second, mut third) = (from(8).await, from(9).await);
    assert!(is_answered(&mut second).await && is_answered(&mut third).await);
    assert!(!is_answered(&mut from(10).await).await, "all is full");
    drop(second);
    let comes_back = async { while !is_answered(&mut from(10).await).await {} };
    tokio::time::timeout(Duration::from_secs(4), comes_back).await.expect("a place that is left is free again");
}

#[tokio::test]
async fn one_account_takes_its_share_of_the_transfers_and_no_more() {
    let media = Running::start_with(|config| config.max_transfers_per_account = 2).await;
    let (bytes, other) = (ciphertext(200_000), AccountId::from_bytes([0xb0; 16]));
    let mut open = Vec::new();
    for _ in 0..2 {
        let (sender, pieces) = mpsc::channel(1);
        let body = Body::wrap_stream(ReceiverStream::new(pieces).map(Ok::<Bytes, std::io::Error>));
        let request = tokio::spawn(media.put(&media.upload_ticket(&bytes)).body(body).send());
        sender.send(Bytes::copy_from_slice(&bytes[..100_000])).await.unwrap();
        open.push((sender, request));
    }
    while media.files().len() < 2 {
        tokio::task::yield_now().await;
    }
    let busy = media.put(&media.upload_ticket(&bytes)).body(bytes.clone()).send().await.unwrap();
    assert_eq!((busy.status().as_u16(), busy.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    // Others are not kept waiting, and the share is one for both directions.
    let theirs = media.host.upload_ticket(other, bytes.len() as u64, sha256(&bytes)).unwrap();
    assert_eq!(media.put(&theirs).body(bytes.clone()).send().await.unwrap().status(), 201);
    assert_eq!(media.http.get(&theirs.url).send().await.unwrap().bytes().await.unwrap(), bytes);
    let download = media.download_ticket(&theirs.url, &bytes);
    assert_eq!(media.get(&download).send().await.unwrap().status(), 503);
    for (sender, request) in open {
        sender.send(Bytes::copy_from_slice(&bytes[100_000..])).await.unwrap();
        drop(sender);
        assert_eq!(request.await.unwrap().unwrap().status(), 201);
    }
    assert_eq!(media.get(&download).send().await.unwrap().bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn whoever_asks_for_names_waits_for_a_place_like_whoever_reads() {
    let media = Running::start_with(|config| config.max_transfers = 2).await;
    // Larger than what a connection takes ahead of its reader.
    let bytes = ciphertext(16 * 1024 * 1024);
    let up = media.upload_ticket(&bytes);
    assert_eq!(media.put(&up).body(bytes.clone()).send().await.unwrap().status(), 201);
    let absent = format!("{}{}", media.host.media_prefix(), "0".repeat(32));
    assert_eq!(media.http.get(&absent).send().await.unwrap().status(), 404);
    let unread = media.http.get(&up.url).send().await.unwrap();
    for url in [&absent, &up.url] {
        assert_eq!(media.http.get(url).send().await.unwrap().status(), 503);
        assert_eq!(media.http.head(url).send().await.unwrap().status(), 503);
    }
    assert_eq!(unread.bytes().await.unwrap().len(), bytes.len());
    while media.http.head(&up.url).send().await.unwrap().status() != 200 {}
    assert_eq!(media.http.get(&absent).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn whoever_guesses_names_waits_for_the_next_second() {
    let media = Running::start_with(|config| config.max_connections_per_network = 3).await;
    let bytes = ciphertext(1_000);
    let up = media.upload(bytes.clone()).await;
    let absent = format!("{}{}", media.host.media_prefix(), "0".repeat(32));
    for _ in 0..3 {
        assert_eq!(media.http.head(&absent).send().await.unwrap().status(), 404);
    }
    assert_eq!(media.http.get(&absent).send().await.unwrap().status(), 503);
    let down = media.download_ticket(&up.public_url, &bytes);
    assert_eq!(media.get(&down).send().await.unwrap().status(), 200, "by ticket all goes on");
    media.clock.advance(Duration::from_secs(1));
    assert_eq!(media.http.get(&up.public_url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_is_refused_for_another_reason_uses_no_ticket_up() {
    let (media, bytes) = (Running::start_with(|config| config.max_ticket_uses = 1).await, ciphertext(1_000));
    let (up, other) = (media.upload_ticket(&bytes), media.upload_ticket(&bytes));
    let elsewhere = media.http.put(&other.url).header(AUTHORIZATION, format!("Causeway {}", up.ticket));
    assert_eq!(elsewhere.body(bytes.clone()).send().await.unwrap().status(), 403);
    assert_eq!(media.get(&up.ticket).send().await.unwrap().status(), 403);
    assert_eq!(media.put(&up).body(bytes[1..].to_vec()).send().await.unwrap().status(), 400);
    assert_eq!(media.put(&up).body(bytes.clone()).send().await.unwrap().status(), 201);
    assert_eq!(media.put(&up).body(bytes.clone()).send().await.unwrap().status(), 403);
    let down = media.download_ticket(&up.public_url, &bytes);
    assert_eq!(media.get(&down).header("range", "bytes=1000-").send().await.unwrap().status(), 416);
    assert_eq!(media.get(&down).send().await.unwrap().status(), 200);
    assert_eq!(media.get(&down).send().await.unwrap().status(), 403);
}

/// True if the server says anything to a request; false when it has closed, which it must do before it would give up
/// on a silent socket.
async fn is_answered(stream: &mut TcpStream) -> bool {
    let _refused = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let read = tokio::time::timeout(Duration::from_secs(4), async { stream.read(&mut [0; 9]).await });
    matches!(read.await.expect("answered or closed at once"), Ok(1..))
}
