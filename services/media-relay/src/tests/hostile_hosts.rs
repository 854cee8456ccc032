use std::time::Duration;

use reqwest::Response;

use super::*;

async fn close(stream: TcpStream) {
    drop(stream);
}

async fn stay_silent(stream: TcpStream) {
    std::future::pending::<()>().await;
    drop(stream);
}

async fn trickle(mut stream: TcpStream) {
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if stream.write_all(b"x").await.is_err() {
            return;
        }
    }
}

async fn flood(mut stream: TcpStream) {
    while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
}

/// True if the client cannot take what it got for the whole blob.
async fn broken(answer: Response) -> bool {
    matches!(answer.status().as_u16(), 502 | 504) || answer.bytes().await.is_err()
}

async fn status_of(relay: &Running, answer: &[u8]) -> u16 {
    let host = raw_host(answer.to_vec(), close).await;
    let ticket = relay.download_ticket(&format!("http://{host}/v1/blobs/x"), b"0123456789");
    let answer = relay.get(&ticket).send().await.unwrap();
    assert!(answer.headers().get("set-cookie").is_none() && answer.headers().get("x-evil").is_none());
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    answer.status().as_u16()
}

#[tokio::test]
async fn answers_that_are_no_ciphertext_are_one_error() {
    let relay = Running::start().await;
    let good = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nset-cookie: a=b\r\nx-evil: 1\r\ncontent-type: text/html\r\n\r\n0123456789";
    assert_eq!(status_of(&relay, good).await, 200);
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}content-length: 10\r\n\r\n0123456789", "a: b\r\n".repeat(10_000));
    let huge_header =
        format!("HTTP/1.1 200 OK\r\na: {}\r\ncontent-length: 10\r\n\r\n0123456789", "b".repeat(1_000_000));
    let bad: [&[u8]; 16] = [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 None\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\n0123456789",
        b"HTTP/1.1 500 Oh\r\ncontent-length: 10\r\n\r\n0123456789",
        b"HTTP/1.1 206 Part\r\ncontent-range: bytes 0-9/10\r\ncontent-length: 10\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n012345678",
        b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n0123456789a",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\ncontent-length: 11\r\n\r\n0123456789a",
        b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\ncontent-length: -10\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\n folded: x\r\ncontent-length: 10\r\n\r\n0123456789",
        many_headers.as_bytes(),
        huge_header.as_bytes(),
    ];
    for answer in bad {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        assert_eq!(status_of(&relay, answer).await, 502, "{shown}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let ticket = relay.download_ticket(&format!("http://{nobody}/"), b"x");
    assert_eq!(relay.get(&ticket).send().await.unwrap().status(), 502);
}

#[tokio::test]
async fn a_body_that_is_not_what_was_promised_never_looks_whole() {
    let relay = Running::start().await;
    let head = "HTTP/1.1 200 OK\r\n";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for answer in [
        format!("{head}content-length: 10\r\n\r\n01234"),
        format!("{head}\r\n01234"),
        format!("{head}\r\n0123456789abcdef"),
        format!("{chunked}5\r\n01234\r\n0\r\n\r\n"),
        format!("{chunked}b\r\n0123456789a\r\n0\r\n\r\n"),
        format!("{chunked}zz\r\n0123456789\r\n0\r\n\r\n"),
        format!("{chunked}a\r\n0123456789\r\n"),
        format!("{chunked}ffffffffffffffff\r\n0123456789"),
        format!("{head}content-length: 10\r\n\r\n9876543210"),
    ] {
        let host = raw_host(answer.clone().into_bytes(), close).await;
        let ticket = relay.download_ticket(&format!("http://{host}/"), b"0123456789");
        let got = relay.get(&ticket).send().await.unwrap();
        assert!(broken(got).await, "{answer}");
    }
    // Chunks with trailers that say nothing wrong are fine.
    let trailers = format!("{chunked}a\r\n0123456789\r\n0\r\nset-cookie: x\r\n\r\n");
    let host = raw_host(trailers.into_bytes(), close).await;
    let ticket = relay.download_ticket(&format!("http://{host}/"), b"0123456789");
    let got = relay.get(&ticket).send().await.unwrap();
    assert!(got.headers().get("set-cookie").is_none());
    assert_eq!(got.bytes().await.unwrap(), &b"0123456789"[..]);
}

#[tokio::test]
async fn wrong_parts_are_refused() {
    let relay = Running::start().await;
    for (answer, status) in [
        ("HTTP/1.1 206 P\r\ncontent-range: bytes 2-4/10\r\ncontent-length: 3\r\n\r\n234", 206),
        ("HTTP/1.1 206 P\r\ncontent-range: bytes 2-4/*\r\ncontent-length: 3\r\n\r\n234", 206),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789", 502),
        ("HTTP/1.1 206 P\r\ncontent-length: 3\r\n\r\n234", 502),
        ("HTTP/1.1 206 P\r\ncontent-range: bytes 3-5/10\r\ncontent-length: 3\r\n\r\n345", 502),
        ("HTTP/1.1 206 P\r\ncontent-range: bytes 2-4/11\r\ncontent-length: 3\r\n\r\n234", 502),
        ("HTTP/1.1 206 P\r\ncontent-range: bytes 2-4/10\r\ncontent-length: 4\r\n\r\n2345", 502),
        ("HTTP/1.1 206 P\r\ncontent-range: bytes 2-9/10\r\ncontent-length: 8\r\n\r\n23456789", 502),
        ("HTTP/1.1 206 P\r\ncontent-type: multipart/byteranges; boundary=x\r\ncontent-length: 3\r\n\r\n234", 502),
    ] {
        let host = raw_host(answer.as_bytes().to_vec(), close).await;
        let ticket = relay.download_ticket(&format!("http://{host}/"), b"0123456789");
        let got = relay.get(&ticket).header("range", "bytes=2-4").send().await.unwrap();
        assert_eq!(got.status().as_u16(), status, "{answer}");
        if status == 206 {
            assert_eq!(got.headers()["content-range"], "bytes 2-4/10");
            assert_eq!(got.bytes().await.unwrap(), &b"234"[..]);
        }
    }
}

#[tokio::test]
async fn slow_and_endless_hosts_are_cut_off() {
    let relay = Running::start_with(|config| {
        config.idle_timeout_ms = 300;
        config.transfer_timeout_ms = 1_500;
    })
    .await;
    let body = |total: u64, head: &'static str| {
        let relay = &relay;
        async move {
            let host = raw_host(head.as_bytes().to_vec(), stay_silent).await;
            let url = format!("http://{host}/");
            let ticket = relay.relay.download_ticket(ADA, &url, total, [0; 32]).unwrap().ticket;
            relay.get(&ticket).send().await.unwrap()
        }
    };
    assert_eq!(body(10, "").await.status(), 504);
    assert_eq!(body(10, "HTTP/1.1 200 OK\r\ncontent-le").await.status(), 504);
    assert!(broken(body(10, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n012").await).await);
    // All bytes, but no end: whether more would come is unknown, so nothing whole is passed on.
    assert!(broken(body(3, "HTTP/1.1 200 OK\r\n\r\n012").await).await);

    let host = raw_host(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec(), trickle).await;
    let ticket = relay.relay.download_ticket(ADA, &format!("http://{host}/"), 1_000_000, [0; 32]).unwrap().ticket;
    assert!(broken(relay.get(&ticket).send().await.unwrap()).await);

    let host = raw_host(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), flood).await;
    let ticket = relay.relay.download_ticket(ADA, &format!("http://{host}/"), 1_000_000, [0; 32]).unwrap().ticket;
    assert!(broken(relay.get(&ticket).send().await.unwrap()).await);
    // Interim answers without end are no answer either.
    let host = raw_host("HTTP/1.1 103 Early\r\n\r\n".repeat(50_000).into_bytes(), stay_silent).await;
    let ticket = relay.download_ticket(&format!("http://{host}/"), b"x");
    assert!(matches!(relay.get(&ticket).send().await.unwrap().status().as_u16(), 502 | 504));
}
