use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use reqwest::{Body, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

#[tokio::test]
async fn what_was_uploaded_is_served_whole_and_in_ranges() {
    let (host, bytes) = (Running::start().await, ciphertext(300_000));
    let ticket = host.upload(bytes.clone()).await;

    let answer = host.http.get(&ticket.public_url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/octet-stream");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("content-length"), "300000");
    assert_eq!(header("accept-ranges"), "bytes");
    assert_eq!(answer.bytes().await.unwrap(), bytes);

    for (range, part, content_range) in [
        ("bytes=0-0", 0..1, "bytes 0-0/300000"),
        ("bytes=65536-131071", 65_536..131_072, "bytes 65536-131071/300000"),
        ("bytes=299999-", 299_999..300_000, "bytes 299999-299999/300000"),
        ("bytes=-10", 299_990..300_000, "bytes 299990-299999/300000"),
    ] {
        let answer = host.http.get(&ticket.public_url).header("range", range).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["content-range"].to_str().unwrap()),
            (206, content_range)
        );
        assert_eq!(answer.bytes().await.unwrap(), bytes[part]);
    }
    for range in ["bytes=300000-", "bytes=0-1,3-4", "lines=0-1"] {
        let answer = host.http.get(&ticket.public_url).header("range", range).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-range"]),
            (416, &"bytes */300000".parse().unwrap())
        );
    }
    let head = host.http.head(&ticket.public_url).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "300000"));
    assert!(head.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn bodies_that_are_not_what_the_ticket_says_leave_nothing() {
    let (host, bytes) = (Running::start().await, ciphertext(200_000));
    let mut other = bytes.clone();
    other[100_000] ^= 1;
    for (body, status, word) in [
        (other, 422, "digest\n"),
        (bytes[1..].to_vec(), 400, "too-short\n"),
        ([&bytes[..], b"x"].concat(), 413, "too-long\n"),
        (Vec::new(), 400, "too-short\n"),
    ] {
        let pieces = stream::iter(body.chunks(50_000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>());
        // Once with a Content-Length and once in chunks.
        for body in [Body::from(body.clone()), Body::wrap_stream(pieces)] {
            let ticket = host.upload_ticket(&bytes);
            let answer = host.put(&ticket).body(body).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (status, word));
            assert_eq!(host.http.get(&ticket.public_url).send().await.unwrap().status(), 404);
        }
    }
    settled(&host, 0).await;
    // A repeated upload is none of these: it ends as it did before.
    let ticket = host.upload(bytes.clone()).await;
    assert_eq!(host.put(&ticket).body(bytes.clone()).send().await.unwrap().status(), 201);
    assert_eq!(host.http.get(&ticket.public_url).send().await.unwrap().bytes().await.unwrap(), bytes);
    settled(&host, 1).await;
}

#[tokio::test]
async fn an_upload_is_invisible_until_it_is_whole_and_gone_when_it_breaks_off() {
    let (host, bytes) = (Running::start().await, ciphertext(200_000));
    let ticket = host.upload_ticket(&bytes);
    let (sender, pieces) = mpsc::channel(1);
    let body = Body::wrap_stream(ReceiverStream::new(pieces).map(Ok::<Bytes, std::io::Error>));
    let request = tokio::spawn(host.put(&ticket).body(body).send());
    sender.send(Bytes::copy_from_slice(&bytes[..100_000])).await.unwrap();
    while host.files().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.http.get(&ticket.public_url).send().await.unwrap().status(), 404);
    request.abort();
    drop(sender);
    settled(&host, 0).await;
}

#[tokio::test]
async fn a_client_that_stops_sending_is_cut_off() {
    let host = Running::start_with(|config| config.idle_timeout_ms = 200).await;
    let ticket = host.upload_ticket(&ciphertext(10));
    let path = ticket.url.split_once("/v1/").unwrap().1;
    let head = format!("PUT /v1/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Causeway {}\r\n", ticket.ticket);
    let answer = raw_request(host.address, format!("{head}content-length: 10\r\n\r\n12345").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    settled(&host, 0).await;
}

#[tokio::test]
async fn every_ticket_that_is_not_good_gets_the_same_answer() {
    let (host, bytes) = (Running::start().await, ciphertext(10));
    let good = host.upload_ticket(&bytes);
    let other = host.upload_ticket(&bytes);
    let stranger = Running::start().await.upload_ticket(&bytes);
    let download = host.download_ticket(&good.public_url, &bytes);
    let mut forged = good.ticket.clone().into_bytes();
    forged[20] ^= 1;
    let forged = String::from_utf8(forged).unwrap();
    let mut answers = Vec::new();
    let wrong = [&forged, &other.ticket, &stranger.ticket, &download, "", "x"];
    for ticket in wrong.map(|ticket| UploadTicket { ticket: ticket.to_owned(), ..good.clone() }) {
        answers.push(host.put(&ticket).body(bytes.clone()).send().await.unwrap());
    }
    answers.push(host.http.put(&good.url).body(bytes.clone()).send().await.unwrap());
    host.clock.advance(Duration::from_secs(600));
    answers.push(host.put(&good).body(bytes.clone()).send().await.unwrap());
    for answer in answers {
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (403, "ticket\n"));
    }
    assert_eq!(host.files(), Vec::<String>::new());
}

#[tokio::test]
async fn names_that_are_no_ids_reach_no_file() {
    let host = Running::start().await;
    let key = std::fs::read(host.folder.path().join("media/ticket.key")).unwrap();
    let long = "a".repeat(4_096);
    let names = [
        "../ticket.key",
        "..%2fticket.key",
        "%2e%2e%2fticket.key",
        "%2e%2e/%2e%2e/media/ticket.key",
        "/etc/passwd",
        "%00",
        "%ff",
        "",
        ".",
        "..",
        &long,
        "00000000000000000000000000000000",
        "0000000000000000000000000000000G",
        "ticket.key",
        "00/00000000000000000000000000000000",
        "00000000000000000000000000000000%231",
    ];
    for method in ["GET", "PUT", "HEAD"] {
        for name in names {
            let request = format!(
                "{method} /v1/blobs/{name} HTTP/1.1\r\nhost: x\r\nauthorization: Causeway x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let answer = raw_request(host.address, request.as_bytes()).await;
            let canonical = method == "PUT" && name.len() == 32 && name.bytes().all(|b| b == b'0');
            let status = if canonical { "HTTP/1.1 403 " } else { "HTTP/1.1 404 " };
            assert!(answer.starts_with(status), "{method} {name}: {answer}");
        }
    }
    for path in ["/", "/v1", "/v1/relay/x", "/v2/relay", "/metrics", "*"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = raw_request(host.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
    }
    assert_eq!(std::fs::read(host.folder.path().join("media/ticket.key")).unwrap(), key);
    assert_eq!(host.files(), Vec::<String>::new());
}

#[tokio::test]
async fn other_methods_are_refused_by_name() {
    let (host, bytes) = (Running::start().await, ciphertext(10));
    let ticket = host.upload(bytes).await;
    for method in [Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let answer = host.http.request(method, &ticket.url).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD, PUT"));
    }
}

#[tokio::test]
async fn garbage_on_the_socket_stays_without_effect() {
    let (host, bytes) = (Running::start().await, ciphertext(10));
    for garbage in [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"CWAY\x01\x00\x00\x00", b"GET / HTTP/9.9\r\n\r\n"] {
        let answer = raw_request(host.address, garbage).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let _refused_midway = stream.write_all(large.as_bytes()).await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
    host.upload(bytes).await;
}

#[tokio::test]
async fn further_transfers_wait_outside_when_there_is_no_room() {
    let host = Running::start_with(|config| config.max_transfers = 1).await;
    let bytes = ciphertext(200_000);
    let (first, second) = (host.upload_ticket(&bytes), host.upload_ticket(&bytes));
    let (sender, pieces) = mpsc::channel(1);
    let body = Body::wrap_stream(ReceiverStream::new(pieces).map(Ok::<Bytes, std::io::Error>));
    let request = tokio::spawn(host.put(&first).body(body).send());
    sender.send(Bytes::copy_from_slice(&bytes[..100_000])).await.unwrap();
    while host.files().is_empty() {
        tokio::task::yield_now().await;
    }
    let answer = host.put(&second).body(bytes.clone()).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    sender.send(Bytes::copy_from_slice(&bytes[100_000..])).await.unwrap();
    drop(sender);
    assert_eq!(request.await.unwrap().unwrap().status(), 201);
    assert_eq!(host.put(&second).body(bytes).send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_drain_finishes_open_uploads_and_takes_no_new_connections() {
    let (host, bytes) = (Running::start().await, ciphertext(200_000));
    let ticket = host.upload_ticket(&bytes);
    let (sender, pieces) = mpsc::channel(1);
    let body = Body::wrap_stream(ReceiverStream::new(pieces).map(Ok::<Bytes, std::io::Error>));
    let request = tokio::spawn(host.put(&ticket).body(body).send());
    sender.send(Bytes::copy_from_slice(&bytes[..100_000])).await.unwrap();
    while host.files().is_empty() {
        tokio::task::yield_now().await;
    }
    let life = host.life.clone();
    let ended = tokio::spawn(async move { life.finish(Duration::from_secs(20)).await });
    while TcpStream::connect(host.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    sender.send(Bytes::copy_from_slice(&bytes[100_000..])).await.unwrap();
    drop(sender);
    assert_eq!(request.await.unwrap().unwrap().status(), 201);
    assert_eq!(ended.await.unwrap(), causeway_runtime::lifecycle::Ended::Clean);
    settled(&host, 1).await;
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_holds_no_drain_up() {
    let (host, bytes) = (Running::start().await, ciphertext(200_000));
    let ticket = host.upload_ticket(&bytes);
    let (sender, pieces) = mpsc::channel(1);
    let body = Body::wrap_stream(ReceiverStream::new(pieces).map(Ok::<Bytes, std::io::Error>));
    let request = tokio::spawn(host.put(&ticket).body(body).send());
    sender.send(Bytes::copy_from_slice(&bytes[..100_000])).await.unwrap();
    while host.files().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.life.finish(Duration::from_secs(5)).await, causeway_runtime::lifecycle::Ended::Clean);
    assert!(request.await.unwrap().is_err());
    settled(&host, 0).await;
}

/// Waits until exactly `count` files are there.
async fn settled(host: &Running, count: usize) {
    let settles = async {
        while host.files().len() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settles).await.unwrap_or_else(|_| panic!("left: {:?}", host.files()));
}
