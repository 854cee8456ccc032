use causeway_test_servers::Sentinel;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_follows_the_primary_when_that_is_moved_or_killed() {
    let mut servers = Sentinel::start().unwrap();
    // One address leads nowhere: the other is asked.
    let urls = [vec!["redis://127.0.0.1:1".to_owned()], servers.urls()].concat();
    let redis = open(RedisMode::Sentinel, &urls);
    up(&redis).await;
    set(&redis, "a", 1).await.unwrap();
    let mut wake_ups = redis.wake_ups("log");
    timeout(PATIENCE, wake_ups.next()).await.expect("it listens");

    let hammer = Hammer::start(&redis);
    servers.failover().unwrap();
    writes_land_on_the_primary(&redis, &mut servers, 2).await;
    let _told = hammer.stop().await;

    let hammer = Hammer::start(&redis);
    servers.primary().unwrap().kill().unwrap();
    degraded(&redis).await;
    writes_land_on_the_primary(&redis, &mut servers, 3).await;
    let woken = async {
        loop {
            let _away = redis.wake("log").await;
            if timeout(Duration::from_millis(100), wake_ups.next()).await.is_ok() {
                break;
            }
        }
    };
    timeout(PATIENCE, woken).await.expect("it listens to the new one");
    let seen = hammer.stop().await;
    assert!(seen.answered > 0 && seen.away > 0, "{seen:?}");
}

async fn writes_land_on_the_primary(redis: &Redis, servers: &mut Sentinel, value: u64) {
    let landed = async {
        loop {
            let written = set(redis, "a", value).await;
            let read = servers.primary().and_then(|primary| primary.call(&["GET", "causeway:test:a"]));
            if written.is_ok() && read.is_ok_and(|read| read.text() == value.to_string()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, landed).await.expect("it finds the new primary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_stands_still_holds_nobody_up() {
    let mut servers = Sentinel::start_with(3).unwrap();
    // The last one is asked first.
    let urls: Vec<String> = servers.urls().into_iter().rev().collect();
    servers.sentinels()[2].pause().unwrap();
    let redis = open(RedisMode::Sentinel, &urls);
    up(&redis).await;
    servers.primary().unwrap().kill().unwrap();
    degraded(&redis).await;
    writes_land_on_the_primary(&redis, &mut servers, 2).await;
    servers.sentinels()[2].resume().unwrap();
}
