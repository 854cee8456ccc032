//! Against real servers.

mod cluster;
mod sentinel;
mod single;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::connect::Connector;
use crate::policy;
use crate::{Health, Holds, Redis, RedisConfig, RedisError, RedisMode, cmd};

/// Nothing here takes so long, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(mode: RedisMode, urls: &[String]) -> Redis {
    open_with(mode, urls, |_| {})
}

fn open_with(mode: RedisMode, urls: &[String], change: impl FnOnce(&mut RedisConfig)) -> Redis {
    let address = |url: &String| url.trim_start_matches("redis://").to_owned();
    let addresses = urls.iter().map(address).collect();
    let mut config = RedisConfig { mode, addresses, command_timeout_ms: 500, ..RedisConfig::default() };
    change(&mut config);
    Redis::open(&config, "test", Holds::Spendings).unwrap()
}

async fn up(redis: &Redis) {
    timeout(PATIENCE, redis.wait_until_up()).await.expect("it comes up");
}

async fn degraded(redis: &Redis) -> String {
    let mut health = redis.health();
    let seen = timeout(PATIENCE, health.wait_for(|health| !health.is_up())).await.expect("it is noticed").unwrap();
    match &*seen {
        Health::Degraded { why, .. } => why.clone(),
        Health::Up { .. } => unreachable!(),
    }
}

/// What a server of the deployment says about eviction is understood.
async fn tells_its_policy(mode: RedisMode, urls: &[String]) {
    let addresses = urls.iter().map(|url| url.trim_start_matches("redis://").to_owned()).collect();
    let config = RedisConfig { mode, addresses, ..RedisConfig::default() };
    let connection = Connector::new(&config).unwrap().connect(0).await.unwrap();
    let mut seen = policy::Seen::default();
    for section in ["memory", "persistence"] {
        seen = policy::Seen::of(&policy::plain(connection.info(section).await.unwrap())).or(&seen);
    }
    assert!(seen.evicts && seen.forgets, "{seen:?}");
}

async fn set(redis: &Redis, key: &str, value: u64) -> Result<(), RedisError> {
    let mut set = cmd("SET");
    set.arg(redis.key("test", key)).arg(value);
    redis.run::<Value>(&set).await.map(drop)
}

async fn get(redis: &Redis, key: &str) -> Result<Option<u64>, RedisError> {
    let mut get = cmd("GET");
    get.arg(redis.key("test", key));
    redis.run(&get).await
}

/// Writes to many keys all the time, and watches how long that takes.
struct Hammer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Hammered>,
}

#[derive(Debug, Default)]
struct Hammered {
    answered: u64,
    away: u64,
    unknown: u64,
    longest: Duration,
}

impl Hammer {
    fn start(redis: &Redis) -> Self {
        let (redis, stop) = (redis.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut seen = Hammered::default();
            for turn in 0_u64.. {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let start = Instant::now();
                let answer = set(&redis, &format!("hammer{}", turn % 100), turn).await;
                seen.longest = seen.longest.max(start.elapsed());
                match answer {
                    Ok(()) => seen.answered += 1,
                    Err(RedisError::Away) => seen.away += 1,
                    Err(RedisError::Unknown) => seen.unknown += 1,
                    Err(RedisError::Refused(_) | RedisError::Shape) => {}
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            seen
        });
        Self { stop, task }
    }

    /// No command took longer than its time-out, give or take what a busy machine adds.
    async fn stop(self) -> Hammered {
        self.stop.store(true, Ordering::Release);
        let seen = self.task.await.unwrap();
        assert!(seen.longest < Duration::from_millis(500 + 1_000), "{seen:?}");
        seen
    }
}
