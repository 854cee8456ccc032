//! The same sessions over WebSockets.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::transport::{serve, xx};
use crate::Received;
use crate::websocket::{self, UpgradeError};

#[tokio::test]
async fn a_session_over_a_websocket() {
    let (near, far) = duplex(500);
    let client = async { xx(websocket::connect(near, "edge.example:80").await.unwrap()).await.unwrap() };
    let server = async { serve(websocket::accept(far).await.unwrap()).await.unwrap().connection };
    let (mut client, mut server) = tokio::join!(client, server);

    let large = vec![3; 250_000];
    let (sent, received) = tokio::join!(client.writer.send(&large), server.reader.read());
    sent.unwrap();
    assert_eq!(received.unwrap(), Some(Received::Record(large.clone().into())));
    let (sent, received) = tokio::join!(server.writer.send(&large), client.reader.read());
    sent.unwrap();
    assert_eq!(received.unwrap(), Some(Received::Record(large.into())));

    let (closed, end) = tokio::join!(client.writer.close(), server.reader.read());
    closed.unwrap();
    assert_eq!(end.unwrap(), None);
}

#[tokio::test]
async fn another_path_is_not_found() {
    let (near, far) = duplex(4096);
    let client = tokio_tungstenite::client_async("ws://edge.example/v2/noise", near);
    let (client, server) = tokio::join!(client, websocket::accept(far));
    let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = client else { panic!("refused, but not so") };
    assert_eq!(response.status(), 404);
    assert!(matches!(server, Err(UpgradeError::Refused)));
}

#[tokio::test]
async fn what_is_no_upgrade_is_refused() {
    for garbage in [&b"CWAY\x01\x00\x00\x00\r\n\r\n"[..], b"GET /v1/noise HTTP/1.1\r\nHost: x\r\n\r\n", b"\0\0\r\n\r\n"]
    {
        let (mut near, far) = duplex(4096);
        near.write_all(garbage).await.unwrap();
        near.shutdown().await.unwrap();
        assert!(websocket::accept(far).await.is_err());
    }
    let (mut near, far) = duplex(4096);
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    assert!(matches!(websocket::connect(far, "edge.example").await, Err(UpgradeError::Refused)));
    let (_near, far) = duplex(4096);
    assert!(matches!(websocket::connect(far, "not a host").await, Err(UpgradeError::Malformed)));
}

#[tokio::test]
async fn text_ends_the_stream_and_pings_do_not() {
    let (near, far) = duplex(4096);
    let client = tokio_tungstenite::client_async("ws://edge.example/v1/noise", near);
    let (client, server) = tokio::join!(client, websocket::accept(far));
    let (mut client, mut server) = (client.unwrap().0, server.unwrap());
    client.send(Message::Ping("are you there".into())).await.unwrap();
    client.send(Message::Binary("ab".into())).await.unwrap();
    client.send(Message::Binary("".into())).await.unwrap();
    client.send(Message::Binary("c".into())).await.unwrap();
    let mut read = [0; 3];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"abc");
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
    client.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(server.read(&mut read).await.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test(start_paused = true)]
async fn pings_without_end_end_the_stream_and_a_few_now_and_then_do_not() {
    let ping = || Message::Ping("are you there".into());
    for idle in [ping(), Message::Pong("I am".into()), Message::Binary("".into())] {
        let (near, far) = duplex(4096);
        let client = tokio_tungstenite::client_async("ws://edge.example/v1/noise", near);
        let (client, server) = tokio::join!(client, websocket::accept(far));
        let (mut client, mut server) = (client.unwrap().0, server.unwrap());
        for _ in 0..3 {
            for _ in 0..16 {
                client.send(idle.clone()).await.unwrap();
            }
            client.send(Message::Binary("a".into())).await.unwrap();
            assert_eq!(server.read(&mut [0; 16]).await.unwrap(), 1);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        for _ in 0..17 {
            client.send(idle.clone()).await.unwrap();
        }
        assert_eq!(server.read(&mut [0; 16]).await.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn a_huge_message_is_refused_before_it_is_received() {
    let upgrade = "GET /v1/noise HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // Masked binary frames that announce a gigabyte, and two frames of ours.
    for len in [0x4000_0000_u64, 2 * 65_537] {
        let (mut near, far) = duplex(4096);
        near.write_all(upgrade.as_bytes()).await.unwrap();
        let mut server = websocket::accept(far).await.unwrap();
        let head = [&[0x82, 0xff][..], &len.to_be_bytes(), &[1, 2, 3, 4]].concat();
        near.write_all(&head).await.unwrap();
        assert_eq!(server.read(&mut [0; 16]).await.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn a_message_of_fragments_is_bounded_in_sum_and_one_whole_frame_of_ours_fits() {
    let (near, far) = duplex(4096);
    let client = tokio_tungstenite::client_async("ws://edge.example/v1/noise", near);
    let (client, server) = tokio::join!(client, websocket::accept(far));
    let (mut client, mut server) = (client.unwrap().0, server.unwrap());
    let mut frame = vec![0; 65_537];
    let (sent, read) =
        tokio::join!(client.send(Message::Binary(vec![7; 65_537].into())), server.read_exact(&mut frame));
    sent.unwrap();
    assert_eq!((read.unwrap(), frame[65_536]), (65_537, 7));
    let fragments = async {
        let part = |code| Frame::message(vec![7; 40_000], code, false);
        client.send(Message::Frame(part(OpCode::Data(Data::Binary)))).await?;
        client.send(Message::Frame(part(OpCode::Data(Data::Continue)))).await
    };
    let mut end = [0; 16];
    let (_gone, read) = tokio::join!(fragments, server.read(&mut end));
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_peer_that_just_goes_away_has_closed() {
    let (near, far) = duplex(4096);
    let client = tokio_tungstenite::client_async("ws://edge.example/v1/noise", near);
    let (client, server) = tokio::join!(client, websocket::accept(far));
    drop(client);
    assert_eq!(server.unwrap().read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn all_four_halves_at_once_over_tcp() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(websocket::accept(stream).await.unwrap()).await.unwrap().connection
    };
    let client = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        xx(websocket::connect(stream, &address.to_string()).await.unwrap()).await.unwrap()
    };
    let (client, server) = tokio::join!(client, server);
    let mut tasks = tokio::task::JoinSet::new();
    for connection in [client, server] {
        let (mut reader, mut writer) = (connection.reader, connection.writer);
        tasks.spawn(async move {
            for n in 0..RECORDS {
                writer.send(&vec![n; 40_000]).await.unwrap();
            }
            writer.queued()
        });
        tasks.spawn(async move {
            for n in 0..RECORDS {
                assert_eq!(reader.read().await.unwrap(), Some(Received::Record(vec![n; 40_000].into())));
            }
            0
        });
    }
    while let Some(left) = tasks.join_next().await {
        assert_eq!(left.unwrap(), 0);
    }
}

const RECORDS: u8 = 100;
