//! Several routings on one Redis, and what goes on without it.

use causeway_proto::wire::v1::{Rejection, Status};
use causeway_redis::{Health, RedisConfig};
use causeway_test_servers::{Redis as Server, Reply};

use super::edge::{assert_status, chat};
use super::replicas::rig::Replicas;
use super::*;

const ADA: &str = "ada@birdy.example";
const BO: &str = "bo@home.example";

async fn two(server: &Server, adjust: impl FnOnce(&mut RoutingConfig)) -> Replicas {
    Replicas::with(2, |config| {
        let addresses = vec![format!("127.0.0.1:{}", server.port())];
        config.redis = Some(RedisConfig { addresses, ..RedisConfig::default() });
        adjust(config);
    })
    .await
}

async fn soon(what: impl AsyncFn() -> bool) {
    let so = async {
        while !what().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, so).await.expect("it comes to be");
}

fn keys(server: &Server, kind: &str) -> usize {
    match server.call(&["KEYS", &format!("causeway:{kind}:*")]) {
        Ok(Reply::List(keys)) => keys.len(),
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sender_has_used_up_at_one_replica_it_has_not_at_another() {
    let server = Server::start().unwrap();
    let mut net = two(&server, |config| (config.account_per_s, config.account_burst) = (1, 60)).await;
    let mut ada = net.edge(0).await.introduce(ADA, 1).await;
    for id in 0..55 {
        assert_status(&ada.tell(chat(1_000 + id, BO, &[1])).await, Status::Stored);
    }
    soon(async || keys(&server, "sent-account") == 1 && keys(&server, "sent-provider") == 1).await;
    let mut ada = net.edge(1).await.introduce(ADA, 1).await;
    let mut passed = 0_u64;
    let refused = async {
        loop {
            let outcome = ada.tell(chat(2_000 + passed, BO, &[1])).await;
            if outcome.status() == Status::Rejected {
                assert_eq!(outcome.reason(), Rejection::RateLimited);
                return;
            }
            passed += 1;
            // What it takes here tells this replica what it took there.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("it is refused");
    assert!(passed < 40, "{passed} more, of 60 in all");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_session_is_newer_than_one_of_an_owner_whose_clock_is_ahead() {
    let server = Server::start().unwrap();
    let mut net = two(&server, |_| {}).await;
    let edges = [net.edge(0).await, net.edge(1).await];
    let mut ahead = START_MS * 1_000;
    let newer = async {
        for turn in 0.. {
            let (here, there) = (&edges[turn % 2], &edges[(turn + 1) % 2]);
            ahead += 600_000_000;
            let mut old = here.phone();
            old.attach_again(BO, 2, 1, ahead).await;
            assert_eq!(old.attached_as().await.number, ahead);
            let name = format!("causeway:presence:{}", "02".repeat(16));
            let known = async || server.call(&["HGET", &name, "1"]).unwrap().text().starts_with(&ahead.to_string());
            soon(known).await;
            let mut new = there.start(BO, 2, 1, 101).await;
            let number = new.attached_as().await.number;
            // The hint is not waited for for long, and a machine may be busy.
            if number > ahead {
                assert_eq!(number, ahead + 1);
                return;
            }
            net.clock.advance(Duration::from_secs(600));
        }
    };
    tokio::time::timeout(PATIENCE, newer).await.expect("the hint comes in time once");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_messages_and_sessions_go_on() {
    let mut server = Server::start().unwrap();
    let mut net = two(&server, |_| {}).await;
    let edges = [net.edge(0).await, net.edge(1).await];
    let mut id = 0;
    for stop in [|_: &mut Server| Ok(()), Server::pause, Server::kill] {
        stop(&mut server).unwrap();
        let start = tokio::time::Instant::now();
        for edge in &edges {
            id += 1;
            let mut ada = edge.introduce(ADA, 1).await;
            assert_status(&ada.tell(chat(id, BO, &[1])).await, Status::Stored);
            let mut bo = edge.start(BO, 2, 1, 101).await;
            assert_eq!(bo.attached().await, id);
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        server.resume().unwrap();
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_whether_redis_answers() {
    let mut server = Server::start().unwrap();
    let addresses = vec![format!("127.0.0.1:{}", server.port())];
    let dir = tempfile::tempdir().unwrap();
    let config = RoutingConfig {
        data_dir: dir.path().join("0"),
        redis: Some(RedisConfig { addresses, ..RedisConfig::default() }),
        ..RoutingConfig::default()
    };
    let (life, directory) = (Lifecycle::new(), FakeDirectory::new());
    let clock = ManualClock::at_ms(START_MS);
    let routing = Routing::build(config, directory.channel(&life), clock).await.unwrap();
    let mut health = routing.redis_health().unwrap();
    tokio::time::timeout(PATIENCE, health.wait_for(Health::is_up)).await.unwrap().unwrap();
    server.kill().unwrap();
    tokio::time::timeout(PATIENCE, health.wait_for(|health| !health.is_up())).await.unwrap().unwrap();
    server.start_again().unwrap();
    tokio::time::timeout(PATIENCE, health.wait_for(Health::is_up)).await.unwrap().unwrap();
}
