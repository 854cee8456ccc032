use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use causeway_test_servers::Redis as Server;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::counters::{Rates, Shared, sync};
use crate::{OpenError, Script};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_scripts_and_batches_are_answered() {
    let server = Server::start().unwrap();
    let redis = open(RedisMode::Single, &[server.url()]);
    up(&redis).await;
    set(&redis, "a", 1).await.unwrap();
    assert_eq!(get(&redis, "a").await, Ok(Some(1)));
    assert_eq!(server.call(&["GET", "causeway:test:a"]).unwrap().text(), "1");
    let list: Result<Vec<u64>, _> = redis.run(cmd("GET").arg(redis.key("test", "a"))).await;
    assert_eq!(list.unwrap(), [1]);
    let shape: Result<(u64, u64), _> = redis.run(cmd("GET").arg(redis.key("test", "a"))).await;
    assert_eq!(shape, Err(RedisError::Shape));
    let refused = redis.run::<Value>(cmd("LPUSH").arg(redis.key("test", "a")).arg(1)).await;
    assert!(matches!(refused, Err(RedisError::Refused(text)) if text.starts_with("WRONGTYPE")));

    let add = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let key = redis.key("test", "sum");
    for sum in [2, 4] {
        assert_eq!(redis.script::<u64>(&add, &key, &[b"2".to_vec()]).await, Ok(sum));
    }
    server.call(&["SCRIPT", "FLUSH"]).unwrap();
    let calls: Vec<_> = ["sum", "a", "other"].map(|name| (redis.key("test", name), vec![b"3".to_vec()])).into();
    for sums in [[7, 4, 3], [10, 7, 6]] {
        let answers = redis.script_all(&add, &calls).await.unwrap();
        assert_eq!(answers, sums.map(|sum| Ok(Value::Int(sum))));
    }
    server.call(&["LPUSH", "causeway:test:list", "1"]).unwrap();
    let gets: Vec<_> = ["a", "list", "none"].map(|name| cmd("GET").arg(redis.key("test", name)).clone()).into();
    let answers = redis.run_all(gets).await.unwrap();
    assert_eq!(answers[0], Ok(Value::BulkString(b"7".to_vec())));
    assert!(matches!(&answers[1], Err(RedisError::Refused(text)) if text.starts_with("WRONGTYPE")), "{answers:?}");
    assert_eq!(answers[2], Ok(Value::Nil));
    assert_eq!(redis.run_all(Vec::new()).await, Ok(Vec::new()));
    assert!(redis.is_up(), "refusals are no outages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_is_away_at_once_and_found_again() {
    let mut server = Server::start().unwrap();
    let redis = open(RedisMode::Single, &[server.url()]);
    up(&redis).await;
    let hammer = Hammer::start(&redis);
    for _ in 0..3 {
        server.kill().unwrap();
        degraded(&redis).await;
        assert_eq!(get(&redis, "a").await, Err(RedisError::Away));
        server.start_again().unwrap();
        up(&redis).await;
        set(&redis, "a", 1).await.unwrap();
    }
    let seen = hammer.stop().await;
    assert!(seen.answered > 0 && seen.away > 0, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_costs_one_time_out_and_is_away_then() {
    let mut server = Server::start().unwrap();
    let redis = open(RedisMode::Single, &[server.url()]);
    up(&redis).await;
    let hammer = Hammer::start(&redis);
    for _ in 0..2 {
        server.pause().unwrap();
        degraded(&redis).await;
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(get(&redis, "a").await, Err(RedisError::Away));
        }
        assert!(start.elapsed() < Duration::from_secs(10), "fast: {:?}", start.elapsed());
        server.resume().unwrap();
        up(&redis).await;
        set(&redis, "a", 1).await.unwrap();
    }
    let seen = hammer.stop().await;
    assert!(seen.unknown > 0 && seen.unknown < 20, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_need_not_be_there_at_the_start_and_says_why() {
    let mut server = Server::start().unwrap();
    server.kill().unwrap();
    let redis = open(RedisMode::Single, &[server.url()]);
    assert!(!redis.is_up());
    assert_eq!(get(&redis, "a").await, Err(RedisError::Away));
    let mut health = redis.health();
    let refused = |health: &Health| matches!(health, Health::Degraded { why, .. } if why.contains("refused"));
    timeout(PATIENCE, health.wait_for(refused)).await.expect("it says why").unwrap();
    server.start_again().unwrap();
    up(&redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_is_degraded_until_it_does() {
    let server = Server::start().unwrap();
    let redis = open(RedisMode::Single, &[server.url()]);
    up(&redis).await;
    server.call(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let refused = set(&redis, "a", 1).await;
    assert!(matches!(&refused, Err(RedisError::Refused(text)) if text.starts_with("OOM")), "{refused:?}");
    let why = degraded(&redis).await;
    assert!(why.contains("OOM"), "{why}");
    server.call(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    up(&redis).await;
    server.call(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    let refused = set(&redis, "a", 1).await;
    assert!(matches!(&refused, Err(RedisError::Refused(text)) if text.starts_with("READONLY")), "{refused:?}");
    degraded(&redis).await;
    server.call(&["REPLICAOF", "NO", "ONE"]).unwrap();
    up(&redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_seen_what_a_server_may_forget() {
    let server = Server::start().unwrap();
    server.call(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]).unwrap();
    tells_its_policy(RedisMode::Single, &[server.url()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_comes_from_a_file() {
    let server = Server::start().unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"hunter2\n").unwrap();
    let owner_only = |mode| file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
    owner_only(0o600);
    server.call(&["CONFIG", "SET", "requirepass", "hunter2"]).unwrap();
    let with_password = open_with(RedisMode::Single, &[server.url()], |config| {
        config.password_file = file.path().to_owned();
    });
    up(&with_password).await;
    let without = open(RedisMode::Single, &[server.url()]);
    let mut health = without.health();
    let asked = |health: &Health| matches!(health, Health::Degraded { why, .. } if why.contains("uthentication"));
    timeout(PATIENCE, health.wait_for(asked)).await.expect("it says why").unwrap();
    owner_only(0o644);
    let config = RedisConfig { password_file: file.path().to_owned(), ..RedisConfig::default() };
    assert!(matches!(Redis::open(&config, "test", Holds::Hints), Err(OpenError::Password(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wake_ups_come_once_for_many_and_after_each_gap() {
    let mut server = Server::start().unwrap();
    let redis = open(RedisMode::Single, &[server.url()]);
    up(&redis).await;
    let mut wake_ups = redis.wake_ups("log");
    timeout(PATIENCE, wake_ups.next()).await.expect("it listens");
    for _ in 0..3 {
        for _ in 0..5 {
            redis.wake("log").await.unwrap();
            redis.wake("other").await.unwrap();
        }
        timeout(PATIENCE, wake_ups.next()).await.expect("there is something new");
    }
    server.kill().unwrap();
    server.start_again().unwrap();
    // One may have been left over from before.
    timeout(PATIENCE, wake_ups.next()).await.expect("something may have been missed");
    up(&redis).await;
    let woken = async {
        loop {
            let _away = redis.wake("log").await;
            if timeout(Duration::from_millis(100), wake_ups.next()).await.is_ok() {
                break;
            }
        }
    };
    timeout(PATIENCE, woken).await.expect("it listens again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_learn_what_the_others_took_and_count_alone_without_redis() {
    let mut server = Server::start().unwrap();
    let stop = CancellationToken::new();
    let replicas = [(); 2].map(|()| {
        let rates = Arc::new(Rates::per_second("rate", 1, 100, u32::to_string));
        let redis = open(RedisMode::Single, &[server.url()]);
        tokio::spawn(sync(redis.clone(), vec![Arc::clone(&rates) as Arc<dyn Shared>], stop.clone()));
        (rates, redis)
    });
    let [(one, redis), (other, other_redis)] = &replicas;
    up(redis).await;
    up(other_redis).await;
    // Once the two have begun to tell.
    let told = async {
        while server.call(&["EXISTS", "causeway:rate:0"]).unwrap() != causeway_test_servers::Reply::Integer(1) {
            let _enough = one.take(&0, 1);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("it is told");
    one.take(&7, 100).unwrap();
    let closed = async {
        // What it takes tells it what the other took.
        while other.take(&7, 1).is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, closed).await.expect("the allowance is one");
    let wait = other.closed(&7).unwrap();
    assert!(wait <= Duration::from_secs(100), "no more than what it took itself is owed beyond: {wait:?}");
    server.kill().unwrap();
    degraded(other_redis).await;
    other.take(&8, 100).unwrap();
    assert!(other.take(&8, 1).is_err());
    assert_eq!(one.take(&8, 100), Ok(()), "each counts alone");
    server.start_again().unwrap();
    up(other_redis).await;
    stop.cancel();
}

/// A certificate for 127.0.0.1 that signs itself, and its key.
fn certificate(folder: &std::path::Path) -> [String; 2] {
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.join(name).display().to_string());
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &certificate])
        .output()
        .expect("openssl runs: install the package openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    [certificate, key]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_whom_it_is_told_to_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = certificate(folder.path());
    let port = causeway_test_servers::Port::claim().unwrap();
    let settings = [
        ("tls-port", port.number().to_string()),
        ("tls-cert-file", certificate.clone()),
        ("tls-key-file", key),
        ("tls-ca-cert-file", certificate.clone()),
        ("tls-auth-clients", "no".to_owned()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
    let mut server = Server::start_with(causeway_test_servers::RedisOptions { settings }).unwrap();
    let urls = [format!("redis://127.0.0.1:{}", port.number())];
    let redis = open_with(RedisMode::Single, &urls, |config| {
        config.tls = true;
        config.ca_file = certificate.clone().into();
    });
    up(&redis).await;
    set(&redis, "a", 1).await.unwrap();
    let mut wake_ups = redis.wake_ups("log");
    timeout(PATIENCE, wake_ups.next()).await.expect("it listens");
    redis.wake("log").await.unwrap();
    timeout(PATIENCE, wake_ups.next()).await.expect("there is something new");
    server.kill().unwrap();
    degraded(&redis).await;
    server.start_again().unwrap();
    up(&redis).await;

    let stranger = open_with(RedisMode::Single, &urls, |config| config.tls = true);
    let mut health = stranger.health();
    let refused = |health: &Health| matches!(health, Health::Degraded { why, .. } if why.contains("certificate"));
    timeout(PATIENCE, health.wait_for(refused)).await.expect("the machine does not trust it").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_in_the_documentation_are_enough() {
    let page = include_str!("../../../../docs/redis.md");
    let rights = page.split_once("needs `").and_then(|(_, rest)| rest.split_once('`')).expect("the page has them").0;
    let server = Server::start().unwrap();
    let mut words = vec!["ACL", "SETUSER", "causeway", "on", ">hunter2", "resetkeys", "resetchannels"];
    words.extend(["~causeway:*", "&causeway:*"]);
    words.extend(rights.split(' '));
    server.call(&words).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"hunter2").unwrap();
    let redis = open_with(RedisMode::Single, &[server.url()], |config| {
        config.username = "causeway".to_owned();
        config.password_file = file.path().to_owned();
    });
    up(&redis).await;
    set(&redis, "a", 1).await.unwrap();
    let add = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    assert_eq!(redis.script::<u64>(&add, &redis.key("test", "a"), &[b"2".to_vec()]).await, Ok(3));
    let mut wake_ups = redis.wake_ups("log");
    timeout(PATIENCE, wake_ups.next()).await.expect("it listens");
    redis.wake("log").await.unwrap();
    timeout(PATIENCE, wake_ups.next()).await.expect("there is something new");
    let other = redis.run::<Value>(cmd("SET").arg("somebody:else").arg(1)).await;
    assert!(matches!(other, Err(RedisError::Refused(text)) if text.starts_with("NOPERM")));
    assert!(redis.is_up());
}

#[test]
fn the_sample_in_the_documentation_is_one_with_the_defaults() {
    let page = include_str!("../../../../docs/redis.md");
    let sample =
        page.split_once("```toml\n[edge.redis]\n").and_then(|(_, rest)| rest.split_once("```")).expect("a sample").0;
    let config: RedisConfig = toml::from_str(sample).unwrap();
    causeway_runtime::config::Check::check(&config).unwrap();
    let defaults = RedisConfig::default();
    let changed = RedisConfig {
        mode: defaults.mode,
        addresses: defaults.addresses.clone(),
        password_file: defaults.password_file.clone(),
        tls: defaults.tls,
        ca_file: defaults.ca_file.clone(),
        ..config
    };
    assert_eq!(changed, defaults);
}
