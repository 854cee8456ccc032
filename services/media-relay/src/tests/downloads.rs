use reqwest::Method;

use super::*;

#[tokio::test]
async fn a_download_goes_from_the_providers_host_through_the_relay() {
    let (relay, birdy, bytes) = (Running::start().await, Running::start().await, ciphertext(1_000_000));
    let at_birdy = birdy.upload(bytes.clone()).await;
    let ticket = relay.download_ticket(&at_birdy.public_url, &bytes);

    let answer = relay.get(&ticket).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(answer.bytes().await.unwrap(), bytes);

    for (range, part) in
        [("bytes=0-65535", 0..65_536), ("bytes=500000-", 500_000..1_000_000), ("bytes=-1", 999_999..1_000_000)]
    {
        let answer = relay.get(&ticket).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), 206);
        assert_eq!(answer.bytes().await.unwrap(), bytes[part]);
    }
    let many = format!("bytes={}1-1", "0-0,".repeat(1_000));
    for range in ["bytes=1000000-", "bytes=0-1,2-3", &many] {
        assert_eq!(relay.get(&ticket).header("range", range).send().await.unwrap().status(), 416);
    }
    for method in [Method::HEAD, Method::PUT, Method::POST, Method::DELETE, Method::OPTIONS] {
        let answer = relay.relay_request(method, &ticket).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()), (405, "GET"));
    }
}

#[tokio::test]
async fn the_operators_own_blobs_come_from_its_own_store() {
    let (media, bytes) =
        (Running::start_with(|config| config.fetch.allow_loopback_http = false).await, ciphertext(100_000));
    let own = media.upload(bytes.clone()).await;
    let ticket = media.download_ticket(&own.public_url, &bytes);
    assert_eq!(media.get(&ticket).send().await.unwrap().bytes().await.unwrap(), bytes);
    let part = media.get(&ticket).header("range", "bytes=70000-70009").send().await.unwrap();
    assert_eq!(part.bytes().await.unwrap(), bytes[70_000..70_010]);
    let absent = format!("{}{}", media.host.media_prefix(), "0".repeat(32));
    let absent = media.download_ticket(&absent, &bytes);
    assert_eq!(media.get(&absent).send().await.unwrap().status(), 502);
    let other_size = media.download_ticket(&own.public_url, &bytes[1..]);
    assert_eq!(media.get(&other_size).send().await.unwrap().status(), 502);
}

#[tokio::test]
async fn a_wrong_digest_breaks_the_transfer_off() {
    let (relay, birdy, bytes) = (Running::start().await, Running::start().await, ciphertext(300_000));
    let at_birdy = birdy.upload(bytes.clone()).await;
    let mut promised = bytes.clone();
    promised[0] ^= 1;
    let ticket = relay.download_ticket(&at_birdy.public_url, &promised);
    let answer = relay.get(&ticket).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err(), "the body must not look whole");
    // A part cannot be checked by the relay: the client finds the wrong segment.
    let part = relay.get(&ticket).header("range", "bytes=0-9").send().await.unwrap();
    assert_eq!(part.bytes().await.unwrap(), bytes[..10]);
    // The whole, asked for as a part, can.
    let whole = relay.get(&ticket).header("range", "bytes=0-").send().await.unwrap();
    assert!(whole.bytes().await.is_err());
}

#[tokio::test]
async fn a_size_that_differs_is_noticed_before_the_first_byte() {
    let (relay, birdy, bytes) = (Running::start().await, Running::start().await, ciphertext(1_000));
    let url = birdy.upload(bytes.clone()).await.public_url;
    for promised in [&bytes[1..], &[&bytes[..], b"x"].concat()] {
        let ticket = relay.download_ticket(&url, promised);
        assert_eq!(relay.get(&ticket).send().await.unwrap().status(), 502);
        assert_eq!(relay.get(&ticket).header("range", "bytes=0-9").send().await.unwrap().status(), 502);
    }
}

#[tokio::test]
async fn every_ticket_that_is_not_good_gets_the_same_answer() {
    let (relay, bytes) = (Running::start().await, ciphertext(10));
    let own = relay.upload(bytes.clone()).await;
    let good = relay.download_ticket(&own.public_url, &bytes);
    let stranger = Running::start().await.download_ticket(&own.public_url, &bytes);
    let mut forged = good.clone().into_bytes();
    forged[30] ^= 1;
    let mut answers = Vec::new();
    for ticket in [&String::from_utf8(forged).unwrap(), &stranger, &own.ticket, "", "%%%", &"A".repeat(3_000)] {
        answers.push(relay.get(ticket).send().await.unwrap());
    }
    answers.push(relay.http.get(relay.relay.url()).send().await.unwrap());
    for _ in 0..64 {
        assert_eq!(relay.get(&good).send().await.unwrap().status(), 200);
    }
    answers.push(relay.get(&good).send().await.unwrap());
    let late = relay.download_ticket(&own.public_url, &bytes);
    relay.clock.advance(Duration::from_secs(600));
    answers.push(relay.get(&late).send().await.unwrap());
    for answer in answers {
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (403, "ticket\n"));
    }
}

#[tokio::test]
async fn the_providers_host_learns_nothing_of_the_client() {
    let (relay, bytes) = (Running::start().await, ciphertext(100));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let ticket = relay.download_ticket(&format!("http://{host}/v1/blobs/x?a=b"), &bytes);
    let request = tokio::spawn(
        relay
            .get(&ticket)
            .header("range", "bytes=10-19")
            .header("user-agent", "birdy/7 (phone)")
            .header("cookie", "a=b")
            .header("referer", "https://birdy.example/")
            .header("x-forwarded-for", "203.0.113.9")
            .header("via", "1.1 x")
            .header("accept-language", "is")
            .header("if-none-match", "\"x\"")
            .send(),
    );
    let (mut stream, _) = listener.accept().await.unwrap();
    let head = read_head(&mut stream).await;
    let mut lines: Vec<_> = head.trim_end().split("\r\n").map(str::to_ascii_lowercase).collect();
    lines.sort();
    let host_line = format!("host: {host}");
    let mut expected = vec![
        "accept-encoding: identity",
        "accept: */*",
        "get /v1/blobs/x?a=b http/1.1",
        &host_line,
        "range: bytes=10-19",
        "user-agent: causeway/1",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
    drop(stream);
    assert_eq!(request.await.unwrap().unwrap().status(), 502);
}

#[tokio::test]
async fn the_relay_reads_no_faster_than_its_client() {
    const SIZE: u64 = 100 * 1024 * 1024;
    let relay = Running::start_with(|config| config.idle_timeout_ms = 1_500).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let sent = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").as_bytes()).await.unwrap();
        let piece = vec![7; 16 * 1024];
        while stream.write_all(&piece).await.is_ok() {
            counted.fetch_add(piece.len() as u64, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let ticket = relay.relay.download_ticket(ADA, &format!("http://{host}/x"), SIZE, [0; 32]).unwrap().ticket;
    let mut client = TcpStream::connect(relay.address).await.unwrap();
    let request = format!("GET /v1/relay HTTP/1.1\r\nhost: x\r\nauthorization: Causeway {ticket}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    client.read_exact(&mut [0; 64 * 1024]).await.unwrap();
    // From here on the client takes nothing. The relay gives up after its idle time and lets go of the host.
    tokio::time::timeout(Duration::from_secs(20), upstream).await.unwrap().unwrap();
    let fetched = sent.load(std::sync::atomic::Ordering::SeqCst);
    // Most of it lies in the two sockets' kernel buffers, some MiB on loopback; the relay itself holds 256 KiB at most.
    assert!(fetched < SIZE / 4, "the relay took {fetched} bytes for a client that took 64 KiB");
    let mut rest = Vec::new();
    let _reset = client.read_to_end(&mut rest).await;
    assert!((rest.len() as u64) < SIZE);
}
