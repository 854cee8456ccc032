//! Two edges on one Redis, and what goes on without it.

use causeway_redis::RedisConfig;
use causeway_stanza::{FailureReason, FromClient, FromServer};
use causeway_test_servers::Redis as Server;
use serde_json::json;

use super::client::{Client, First, Opening, key};
use super::rig::{Rig, token_with};

async fn edge(server: &Server) -> Rig {
    let rig = Rig::with(|config| {
        let addresses = vec![format!("127.0.0.1:{}", server.port())];
        config.redis = Some(RedisConfig { addresses, ..RedisConfig::default() });
    })
    .await;
    rig.directory.script().devices.extend([1, 2].map(|device| (device, *key(5).public())));
    rig
}

fn opening(jti: &str, device: u32) -> Opening {
    Opening::new(token_with(&key(5), |claims| claims["jti"] = json!(jti)), device)
}

async fn fails(rig: &Rig, opening: &Opening, reason: FailureReason) {
    let mut client = Client::shake(rig, &key(5), opening).await;
    assert_eq!(client.first().await, First::Failure(reason));
}

/// Redis answers the edge when it lets somebody in.
async fn lets_in(rig: &Rig, jti: &str) -> Client {
    let logs_in = async {
        loop {
            let mut client = Client::shake(rig, &key(5), &opening(jti, 1)).await;
            match client.first().await {
                First::Failure(reason) => assert_eq!(reason, FailureReason::Overloaded),
                First::Success(_) => return client,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), logs_in).await.expect("it is let in")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_one_edge_has_seen_is_spent_at_the_other() {
    let server = Server::start().unwrap();
    let (one, other) = (edge(&server).await, edge(&server).await);
    drop(lets_in(&one, "a").await);
    drop(lets_in(&other, "b").await);
    drop(lets_in(&other, "a").await);
    fails(&other, &opening("a", 2), FailureReason::TokenReplayed).await;
    fails(&other, &opening("a", 0), FailureReason::TokenReplayed).await;
    fails(&one, &opening("b", 2), FailureReason::TokenReplayed).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_new_logins_are_told_to_come_back_and_sessions_go_on() {
    let mut server = Server::start().unwrap();
    let rig = edge(&server).await;
    let mut open = lets_in(&rig, "a").await;
    for stop in [Server::pause, Server::kill] {
        stop(&mut server).unwrap();
        fails(&rig, &opening("b", 1), FailureReason::Overloaded).await;
        fails(&rig, &opening("a", 2), FailureReason::TokenReplayed).await;
        open.send(FromClient::Ping(1)).await;
        assert_eq!(open.next().await, Some(FromServer::Pong(1)));
        // The same device with the same token, at this edge.
        open = Client::logged_in(&rig, &key(5), &opening("a", 1)).await;
        server.resume().unwrap();
    }
    server.start_again().unwrap();
    drop(lets_in(&rig, "b").await);
    rig.stop().await;
}
