//! Webhooks that wake devices.

use std::sync::Mutex;

use causeway_fetch::FetchConfig;
use causeway_proto::wire::v1::{MessageClass, Status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::edge::{assert_status, chat, of_class};
use super::*;

const ADA: &str = "ada@birdy.example";
const BO: &str = "bo@home.example";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a provider's receiver got: headers and body of each request.
type Requests = Arc<Mutex<Vec<(http::HeaderMap, String)>>>;

/// Answers each request with the next status, then with 204.
async fn receiver(statuses: Vec<u16>) -> (String, Requests, tokio::sync::watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let requests = Requests::default();
    let (count, counted) = tokio::sync::watch::channel(0);
    let got = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut statuses = statuses.into_iter();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = Vec::new();
            // One request a connection, read to the end of its body.
            let request = loop {
                let mut piece = [0; 4_096];
                let read = stream.read(&mut piece).await.unwrap();
                text.extend_from_slice(&piece[..read]);
                if let Some(request) = parse(&text) {
                    break request;
                }
                assert!(read > 0, "cut off");
            };
            got.lock().unwrap().push(request);
            let status = statuses.next().unwrap_or(204);
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            count.send_modify(|count| *count += 1);
        }
    });
    (host, requests, counted)
}

fn parse(text: &[u8]) -> Option<(http::HeaderMap, String)> {
    let text = std::str::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut headers = http::HeaderMap::new();
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    (body.len() == length).then(|| (headers, body.to_owned()))
}

async fn net(host: &str) -> Deployment {
    let net = Deployment::with(&[1], &[1], |config| {
        config.fetch = FetchConfig { allow_loopback_http: true, ..FetchConfig::default() };
    })
    .await;
    net.directory.set_webhook(&format!("http://{host}/push"), SECRET, &[host]);
    let mut bo = record(BO, 2, &[1]);
    bo.devices[0].push_token = bytes::Bytes::from_static(b"token of bo");
    net.directory.enter(bo);
    net
}

#[tokio::test]
async fn a_device_that_is_away_is_woken_once_without_a_word_about_what_waits() {
    let (host, requests, mut count) = receiver(vec![]).await;
    let net = net(&host).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    for id in 1..=3 {
        assert_status(&ada.tell(chat(id, BO, &[1])).await, Status::Stored);
    }
    count.wait_for(|count| *count == 1).await.unwrap();
    assert_status(&ada.tell(of_class(MessageClass::Call, chat(4, BO, &[1]))).await, Status::Stored);
    count.wait_for(|count| *count == 2).await.unwrap();
    let requests = requests.lock().unwrap();
    let key = standardwebhooks::Webhook::new(SECRET).unwrap();
    for ((headers, body), urgent) in requests.iter().zip([false, true]) {
        let want = format!(r#"{{"type":"device.wake","data":{{"token":"dG9rZW4gb2YgYm8=","urgent":{urgent}}}}}"#);
        assert_eq!(*body, want);
        let text = |name: &str| headers[name].to_str().unwrap();
        let seconds: i64 = text("webhook-timestamp").parse().unwrap();
        assert_eq!(seconds, i64::try_from(START_MS / 1_000).unwrap());
        let signature = key.sign(text("webhook-id"), seconds, body.as_bytes()).unwrap();
        assert_eq!(text("webhook-signature"), signature);
        let all = format!("{headers:?}{body}");
        for secret in ["ada@", "birdy", "bo@", "home.example", &"01".repeat(16), &"02".repeat(16)] {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
    }
}

#[tokio::test]
async fn a_receiver_in_trouble_is_tried_again_under_the_same_id() {
    let (host, requests, mut count) = receiver(vec![503]).await;
    let net = net(&host).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    tokio::time::timeout(PATIENCE, count.wait_for(|count| *count == 2)).await.unwrap().unwrap();
    let requests = requests.lock().unwrap();
    assert_eq!(requests[0].0["webhook-id"], requests[1].0["webhook-id"]);
}
