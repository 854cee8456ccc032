use causeway_test_servers::RedisCluster;

use super::*;
use crate::Script;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_all_slots_are_served_through_a_failover_and_a_kill() {
    let mut servers = RedisCluster::start_with(true).unwrap();
    // It learns of the others from one; and one leads nowhere.
    let urls = ["redis://127.0.0.1:1".to_owned(), servers.urls()[1].clone(), servers.urls()[3].clone()];
    let redis = open(RedisMode::Cluster, &urls);
    up(&redis).await;
    all_slots(&redis, 1).await.unwrap();
    let mut wake_ups = redis.wake_ups("log");
    timeout(PATIENCE, wake_ups.next()).await.expect("it listens");
    redis.wake("log").await.unwrap();
    timeout(PATIENCE, wake_ups.next()).await.expect("it came over another node");

    let hammer = Hammer::start(&redis);
    servers.failover(0).unwrap();
    all_slots_again(&redis, 2).await;
    assert!(hammer.stop().await.answered > 0);

    let hammer = Hammer::start(&redis);
    servers.nodes()[2].kill().unwrap();
    degraded(&redis).await;
    all_slots_again(&redis, 3).await;
    let seen = hammer.stop().await;
    assert!(seen.answered > 0 && seen.away > 0, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_is_waited_for_no_longer_than_the_time_out() {
    let mut servers = RedisCluster::start().unwrap();
    for node in servers.nodes() {
        node.call(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "volatile-ttl"]).unwrap();
    }
    tells_its_policy(RedisMode::Cluster, &servers.urls()).await;
    let redis = open(RedisMode::Cluster, &servers.urls());
    up(&redis).await;
    all_slots(&redis, 1).await.unwrap();
    let hammer = Hammer::start(&redis);
    servers.nodes()[1].pause().unwrap();
    degraded(&redis).await;
    servers.nodes()[1].resume().unwrap();
    all_slots_again(&redis, 2).await;
    hammer.stop().await;
}

async fn all_slots_again(redis: &Redis, value: u64) {
    let again = async {
        while all_slots(redis, value).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("all slots are served again");
}

async fn all_slots(redis: &Redis, value: u64) -> Result<(), RedisError> {
    let names: Vec<String> = (0..100).map(|n| format!("key{n}")).collect();
    for name in &names {
        set(redis, name, value).await?;
        assert_eq!(get(redis, name).await?, Some(value));
    }
    let add = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let calls: Vec<_> = names.iter().map(|name| (redis.key("test", name), vec![b"1".to_vec()])).collect();
    for answer in redis.script_all(&add, &calls).await? {
        answer?;
    }
    let gets: Vec<_> = names.iter().map(|name| cmd("GET").arg(redis.key("test", name)).clone()).collect();
    for answer in redis.run_all(gets).await? {
        assert_eq!(answer?, Value::BulkString((value + 1).to_string().into_bytes()));
    }
    Ok(())
}
