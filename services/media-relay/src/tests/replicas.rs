//! Two replicas on one folder, one ticket key and one Redis.

use causeway_redis::RedisConfig;
use causeway_test_servers::Redis as Server;
use tokio::sync::watch;

use super::*;

/// Nobody connects to it: requests go to one replica or the other, as a balancer decides.
const PUBLIC: &str = "http://media.home.example";

async fn pair(server: Option<&Server>, change: impl Fn(&mut MediaConfig)) -> [Running; 2] {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let start = async || {
        let replica = Running::start_in(Arc::clone(&folder), |config| {
            config.public_base = Some(PUBLIC.to_owned());
            config.redis = server.map(|server| RedisConfig {
                addresses: vec![format!("127.0.0.1:{}", server.port())],
                ..RedisConfig::default()
            });
            change(config);
        });
        replica.await
    };
    let (one, other) = tokio::join!(start(), start());
    [one, other]
}

impl Running {
    /// The ticket as a balancer leads it to this replica.
    fn here(&self, ticket: &UploadTicket) -> UploadTicket {
        let here = |url: &str| url.replacen(PUBLIC, &format!("http://{}", self.address), 1);
        UploadTicket { url: here(&ticket.url), public_url: here(&ticket.public_url), ..ticket.clone() }
    }

    async fn status(&self, ticket: &UploadTicket, bytes: &[u8]) -> u16 {
        self.put(&self.here(ticket)).body(bytes.to_vec()).send().await.unwrap().status().as_u16()
    }

    async fn redis_is(&self, up: bool) {
        let mut health: watch::Receiver<_> = self.redis_health.clone().expect("there is a redis");
        let seen = health.wait_for(|health| health.is_up() == up);
        tokio::time::timeout(Duration::from_secs(60), seen).await.expect("it is seen").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_stored_the_other_serves_and_a_blob_may_come_twice_at_once() {
    let [one, other] = pair(None, |_| {}).await;
    let bytes = ciphertext(300_000);
    let ticket = one.upload_ticket(&bytes);
    assert_eq!(other.status(&ticket, &bytes).await, 201, "the ticket key is one");
    for replica in [&one, &other] {
        let got = replica.http.get(replica.here(&ticket).public_url).send().await.unwrap();
        assert_eq!(got.bytes().await.unwrap(), bytes);
        let url = format!("http://{}/v1/relay", replica.address);
        let download = other.download_ticket(&ticket.public_url, &bytes);
        let relayed = replica.http.get(url).header(AUTHORIZATION, format!("Causeway {download}"));
        assert_eq!(relayed.send().await.unwrap().bytes().await.unwrap(), bytes, "an own blob, whoever stored it");
    }
    for _ in 0..10 {
        let ticket = other.upload_ticket(&bytes);
        let statuses = tokio::join!(one.status(&ticket, &bytes), other.status(&ticket, &bytes));
        assert_eq!(statuses, (201, 201));
        let got = one.http.get(one.here(&ticket).public_url).send().await.unwrap();
        assert_eq!(got.bytes().await.unwrap(), bytes);
    }
    assert_eq!(one.files().len(), 11, "and nothing unfinished is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sweep_at_once_and_neither_fails() {
    let [one, other] = pair(None, |config| (config.ticket_burst, config.retention_days) = (10_000, 1)).await;
    let bytes = ciphertext(10);
    for _ in 0..300 {
        let ticket = one.upload_ticket(&bytes);
        assert_eq!(one.status(&ticket, &bytes).await, 201);
    }
    for n in 0..300 {
        let file = one.folder.path().join(format!("media/blobs/00/{n:032x}#1"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, b"unfinished").unwrap();
    }
    assert_eq!(one.host.sweep().await.unwrap(), crate::blobs::Swept::default(), "none is old enough");
    for replica in [&one, &other] {
        replica.clock.advance(Duration::from_secs(2 * 86_400));
    }
    let sweep = |host: Host| tokio::spawn(async move { host.sweep().await });
    let (first, second) = (sweep(one.host.clone()), sweep(other.host.clone()));
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert_eq!(first.orphans + second.orphans, 300);
    assert!(first.expired + second.expired >= 300, "{first:?} {second:?}");
    assert_eq!(one.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_uses_of_an_upload_ticket_are_counted_together() {
    let server = Server::start().unwrap();
    let [one, other] = pair(Some(&server), |config| config.max_ticket_uses = 3).await;
    one.redis_is(true).await;
    other.redis_is(true).await;
    let bytes = ciphertext(10);
    let ticket = one.upload_ticket(&bytes);
    assert_eq!(one.status(&ticket, &bytes).await, 201);
    assert_eq!(other.status(&ticket, &bytes).await, 201);
    assert_eq!(other.status(&ticket, &bytes).await, 201);
    assert_eq!(one.status(&ticket, &bytes).await, 403);
    assert_eq!(other.status(&ticket, &bytes).await, 403);
    let key = server.call(&["KEYS", "causeway:ticket:*"]).unwrap();
    let causeway_test_servers::Reply::List(keys) = key else { panic!("{key:?}") };
    let left = server.call(&["PTTL", keys[0].text()]).unwrap();
    let causeway_test_servers::Reply::Integer(left_ms) = left else { panic!("{left:?}") };
    assert!(keys.len() == 1 && (600_000..=660_000).contains(&left_ms), "{left_ms}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_there_are_no_uploads_and_downloads_go_on() {
    let mut server = Server::start().unwrap();
    let [one, other] = pair(Some(&server), |_| {}).await;
    one.redis_is(true).await;
    let bytes = ciphertext(1_000);
    let stored = one.upload_ticket(&bytes);
    assert_eq!(one.status(&stored, &bytes).await, 201);
    for stop in [Server::pause, Server::kill] {
        stop(&mut server).unwrap();
        let ticket = other.upload_ticket(&bytes);
        for ticket in [&ticket, &stored] {
            let answer = one.put(&one.here(ticket)).body(bytes.clone()).send().await.unwrap();
            let retry_after = answer.headers()["retry-after"].to_str().unwrap();
            assert_eq!((answer.status().as_u16(), retry_after), (503, "5"));
        }
        let download = one.download_ticket(&stored.public_url, &bytes);
        let relayed = one.http.get(format!("http://{}/v1/relay", one.address));
        let relayed = relayed.header(AUTHORIZATION, format!("Causeway {download}")).send().await.unwrap();
        assert_eq!(relayed.bytes().await.unwrap(), bytes);
        one.redis_is(false).await;
        server.resume().unwrap();
        server.start_again().unwrap();
        one.redis_is(true).await;
        assert_eq!(one.status(&ticket, &bytes).await, 201, "the same ticket, later");
    }
}
