//! Presence in Redis: for each account a hash of its devices.

use std::sync::LazyLock;

use async_trait::async_trait;
use causeway_identity::{AccountId, DeviceId};
use causeway_redis::{Redis, Script};

use super::{Away, LEASE, NUMBERS_KEPT, Seen, Store, Told};

/// Over a Redis that all replicas share.
pub(super) struct RedisStore(Redis);

impl RedisStore {
    pub(super) fn new(redis: Redis) -> Self {
        Self(redis)
    }

    fn key(&self, account: AccountId) -> String {
        self.0.key("presence", &hex::encode(account.as_bytes()))
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn tell(&self, told: &[Told]) -> Result<(), Away> {
        let text = |text: &dyn std::fmt::Display| text.to_string().into_bytes();
        let told = told.iter().filter(|told| told.number <= MAX_NUMBER);
        let calls = told.map(|Told { who: (account, device), number, at, here }| {
            let lease_ms = if *here { LEASE.as_millis() } else { 0 };
            let place = at.as_bytes().to_vec();
            let args = vec![text(&device.get()), text(number), text(&lease_ms), place, text(&NUMBERS_KEPT.as_millis())];
            (self.key(*account), args)
        });
        let calls: Vec<_> = calls.collect();
        let answers = self.0.script_all(&TELL, &calls).await.map_err(|_| Away)?;
        answers.into_iter().try_for_each(|answer| answer.map(drop)).map_err(|_| Away)
    }

    async fn look(&self, account: AccountId) -> Result<Vec<Seen>, Away> {
        let fields: Vec<String> = self.0.script(&LOOK, &self.key(account), &[]).await.map_err(|_| Away)?;
        Ok(fields.chunks_exact(3).filter_map(seen).collect())
    }
}

/// From device, number and place; the place is empty when it is none.
fn seen(fields: &[String]) -> Option<Seen> {
    let [device, number, place] = fields else { return None };
    let device = DeviceId::new(device.parse().ok()?).ok()?;
    Some(Seen { device, number: number.parse().ok()?, at: Some(place.clone()).filter(|place| !place.is_empty()) })
}

/// Lua's numbers are exact up to here. Numbers of sessions are microseconds since 1970 and much less.
const MAX_NUMBER: u64 = 1 << 53;

// A field holds `NUMBER UNTIL PLACE`, with the end of the lease in milliseconds of Redis's clock.

static TELL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local before = redis.call('HGET', KEYS[1], ARGV[1])
if before then
  local number, place = string.match(before, '^(%d+) %d+ (.*)$')
  if number and tonumber(number) > tonumber(ARGV[2]) then return 0 end
  if number == ARGV[2] and ARGV[3] == '0' and place ~= ARGV[4] then return 0 end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local till = string.format('%.0f', now + tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. till .. ' ' .. ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1",
    )
});

static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local number, till, place = string.match(fields[i + 1], '^(%d+) (%d+) (.*)$')
  if number then
    if tonumber(till) <= now then place = '' end
    answer[#answer + 1] = fields[i]
    answer[#answer + 1] = number
    answer[#answer + 1] = place
  end
end
return answer",
    )
});

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use causeway_redis::{Holds, RedisConfig};
    use causeway_test_servers::{Redis as Server, Reply};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::presence::{Presence, suite};
    use crate::session::SessionKey;

    fn open(server: &Server) -> Redis {
        let addresses = vec![format!("127.0.0.1:{}", server.port())];
        Redis::open(&RedisConfig { addresses, ..RedisConfig::default() }, "test", Holds::Hints).unwrap()
    }

    async fn soon(what: impl AsyncFn() -> bool) {
        let so = async {
            while !what().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), so).await.expect("it comes to be");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_to_the_suite() {
        let server = Server::start().unwrap();
        let redis = open(&server);
        redis.wait_until_up().await;
        suite::run(&RedisStore::new(redis)).await;
        let Reply::Integer(left_ms) = server.call(&["PTTL", &format!("causeway:presence:{:032x}", 1)]).unwrap() else {
            panic!("no lifetime");
        };
        assert!((1..=3_600_000).contains(&left_ms), "{left_ms}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_one_replica_tells_another_sees() {
        let mut server = Server::start().unwrap();
        let stop = CancellationToken::new();
        let replicas: Vec<_> = ["one", "other"]
            .iter()
            .map(|name| {
                let redis = open(&server);
                let presence = std::sync::Arc::new(Presence::new(Some(redis.clone()), name));
                let (running, stopped) = (std::sync::Arc::clone(&presence), stop.clone());
                (presence, redis, tokio::spawn(async move { running.run(stopped).await }))
            })
            .collect();
        for (_, redis, _) in &replicas {
            redis.wait_until_up().await;
        }
        let [(one, ..), (other, redis, _)] = &replicas[..] else { unreachable!() };
        let (account, device) = (suite::account(1), suite::device(1));
        one.attach(SessionKey(1), account, device, 1_000);
        soon(async || other.newest(account, 0).await.get(&device) == Some(&1_000)).await;
        let look = async || RedisStore::new(redis.clone()).look(account).await.unwrap();
        assert_eq!(look().await[0].at.as_deref(), Some("one"));
        other.attach(SessionKey(1), account, device, 2_000);
        soon(async || look().await[0].at.as_deref() == Some("other")).await;
        one.detach(SessionKey(1));
        one.attach(SessionKey(2), account, suite::device(2), 3_000);
        soon(async || look().await.len() == 2).await;
        assert_eq!(other.newest(account, 0).await[&device], 2_000, "only the same session takes itself away");
        assert!(look().await.iter().any(|seen| seen.device == device && seen.at.as_deref() == Some("other")));
        other.detach(SessionKey(1));
        soon(async || look().await.iter().any(|seen| seen.device == device && seen.at.is_none())).await;
        assert_eq!(one.newest(account, 0).await[&device], 2_000, "and its number is remembered");

        server.pause().unwrap();
        let start = tokio::time::Instant::now();
        assert!(one.newest(account, 0).await.is_empty());
        assert!(
            start.elapsed() < Duration::from_millis(450),
            "no time-out of Redis is waited for: {:?}",
            start.elapsed()
        );
        server.resume().unwrap();

        // What is told while it stops still arrives.
        soon(async || redis.is_up()).await;
        one.detach(SessionKey(2));
        stop.cancel();
        for (_, _, task) in replicas {
            task.await.unwrap();
        }
        let redis = open(&server);
        redis.wait_until_up().await;
        let left = RedisStore::new(redis).look(account).await.unwrap();
        assert!(left.iter().all(|seen| seen.at.is_none()), "{left:?}");
    }
}
