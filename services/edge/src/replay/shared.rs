//! The tokens that all edges have accepted, in Redis. Closed without it, but for what this edge knows by itself.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use causeway_identity::ProviderId;
use causeway_redis::{Health, Redis, RedisError, Script};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::memory::{Known, MemoryTokens};
use super::{KEEP_AFTER_EXPIRY_S, SpendError, Spending, SpentTokens};

/// What is spent is in both: so no edge has more in Redis than it may have in memory.
pub(super) struct SharedTokens {
    redis: Redis,
    own: MemoryTokens,
    burnt: mpsc::Sender<Burnt>,
    burner: AbortHandle,
}

/// A token that Redis has to be told of.
struct Burnt {
    key: String,
    /// When it needs to be known no longer.
    until: Instant,
}

impl SharedTokens {
    pub(super) fn new(redis: Redis, own: MemoryTokens) -> Self {
        let (burnt, queue) = mpsc::channel(MAX_BURNT);
        let burner = tokio::spawn(burn(redis.clone(), queue)).abort_handle();
        Self { redis, own, burnt, burner }
    }

    fn key(&self, provider: ProviderId, jti: &str) -> String {
        // The name is the provider's choice, up to 256 bytes of any text: a digest of it is as good, and takes as little room
        // for every provider. 16 bytes, since whoever finds two names of one digest only spends a token of their own.
        let mut named = Context::new(&SHA256);
        named.update(provider.as_bytes());
        named.update(jti.as_bytes());
        self.redis.key("spent", &hex::encode(&named.finish().as_ref()[..16]))
    }

    /// The verdict of Redis; what this edge knows by itself counts when there is none.
    async fn ask(&self, script: &Script, what: &Spending<'_>, known: Known, now_s: u64) -> Result<(), SpendError> {
        let device = what.device.map_or(0, |device| device.get());
        let args = [
            hex::encode(what.key.as_bytes()).into_bytes(),
            device.to_string().into_bytes(),
            lasts(what.expires_s, now_s).as_millis().to_string().into_bytes(),
        ];
        match self.redis.script::<u8>(script, &self.key(what.provider, what.jti), &args).await {
            Ok(1) => Ok(()),
            Ok(_) => Err(SpendError::Replayed),
            Err(RedisError::Away | RedisError::Unknown | RedisError::Refused(_) | RedisError::Shape) => match known {
                Known::Spent => Ok(()),
                Known::Refused | Known::Fits | Known::Nothing | Known::Full => Err(SpendError::Away),
            },
        }
    }
}

#[async_trait]
impl SpentTokens for SharedTokens {
    async fn check(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError> {
        match self.own.known(what, now_s) {
            Known::Refused => Err(SpendError::Replayed),
            known => self.ask(&CHECK, what, known, now_s).await,
        }
    }

    async fn spend(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError> {
        match self.own.known(what, now_s) {
            Known::Refused => return Err(SpendError::Replayed),
            Known::Full => return Err(SpendError::Full),
            known => self.ask(&SPEND, what, known, now_s).await?,
        }
        // Burnt, or spent otherwise, while the answer was under way: this edge knows better.
        self.own.remember(what, now_s)
    }

    fn burn(&self, provider: ProviderId, jti: &str, expires_s: u64, now_s: u64) {
        self.own.forbid(provider, jti);
        let burnt = Burnt { key: self.key(provider, jti), until: Instant::now() + lasts(expires_s, now_s) };
        if self.burnt.try_send(burnt).is_err() {
            tracing::warn!("too many tokens of removed devices wait for redis: one is refused by this edge only");
        }
    }

    fn health(&self) -> Option<watch::Receiver<Health>> {
        Some(self.redis.health())
    }
}

impl Drop for SharedTokens {
    fn drop(&mut self) {
        self.burner.abort();
    }
}

/// Tells Redis of each until it has heard, or the token has expired.
async fn burn(redis: Redis, mut queue: mpsc::Receiver<Burnt>) {
    while let Some(burnt) = queue.recv().await {
        let told = async {
            loop {
                redis.wait_until_up().await;
                let left = burnt.until.saturating_duration_since(Instant::now());
                let args = [left.as_millis().max(1).to_string().into_bytes()];
                if redis.script::<u8>(&BURN, &burnt.key, &args).await.is_ok() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let _expired = tokio::time::timeout_at(burnt.until, told).await;
    }
}

/// How long the token must be remembered from now on.
fn lasts(expires_s: u64, now_s: u64) -> Duration {
    Duration::from_secs(expires_s.saturating_add(KEEP_AFTER_EXPIRY_S).saturating_sub(now_s).clamp(1, MAX_LASTS_S))
}

const MAX_BURNT: usize = 16_384;
const PAUSE: Duration = Duration::from_millis(100);
/// A year; no token lasts so long.
const MAX_LASTS_S: u64 = 365 * 24 * 60 * 60;

// A key holds `NOISE-KEY:DEVICE`, with device 0 for none, or `burnt`.

static CHECK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local spent = redis.call('GET', KEYS[1])
if not spent then return 1 end
local key, device = string.match(spent, '^(%x+):(%d+)$')
if key ~= ARGV[1] or (device ~= '0' and device ~= ARGV[2]) then return 0 end
return 1",
    )
});

static SPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local spent = redis.call('GET', KEYS[1])
if spent then
  local key, device = string.match(spent, '^(%x+):(%d+)$')
  if key ~= ARGV[1] or (device ~= '0' and device ~= ARGV[2]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
return 1",
    )
});

static BURN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"redis.call('SET', KEYS[1], 'burnt', 'PX', ARGV[1])
return 1",
    )
});

#[cfg(test)]
mod tests {
    use causeway_redis::{Holds, RedisConfig};
    use causeway_test_servers::Redis as Server;

    use super::super::suite::{self, NOW_S, key, spending};
    use super::*;

    fn edge(server: &Server, room: usize) -> SharedTokens {
        let addresses = vec![format!("127.0.0.1:{}", server.port())];
        let redis = Redis::open(&RedisConfig { addresses, ..RedisConfig::default() }, "test", Holds::Spendings);
        SharedTokens::new(redis.unwrap(), MemoryTokens::new(room, room))
    }

    async fn up(edge: &SharedTokens) {
        tokio::time::timeout(Duration::from_secs(60), edge.redis.wait_until_up()).await.expect("redis answers");
    }

    async fn degraded(edge: &SharedTokens) {
        let mut health = edge.redis.health();
        let away = health.wait_for(|health| !health.is_up());
        tokio::time::timeout(Duration::from_secs(60), away).await.expect("it is noticed").unwrap();
    }

    /// Two edges in turn: what one does binds the other.
    struct Pair([SharedTokens; 2], std::sync::atomic::AtomicUsize);

    impl Pair {
        fn next(&self) -> &SharedTokens {
            &self.0[self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2]
        }
    }

    #[async_trait]
    impl SpentTokens for Pair {
        async fn check(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError> {
            self.next().check(what, now_s).await
        }

        async fn spend(&self, what: &Spending<'_>, now_s: u64) -> Result<(), SpendError> {
            self.next().spend(what, now_s).await
        }

        fn burn(&self, provider: ProviderId, jti: &str, expires_s: u64, now_s: u64) {
            // At both, since the suite does not wait until Redis has heard.
            for edge in &self.0 {
                let _known_otherwise = edge.own.remember(&spending(jti), now_s);
                edge.burn(provider, jti, expires_s, now_s);
            }
        }

        fn health(&self) -> Option<watch::Receiver<Health>> {
            None
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_to_the_suite_alone_and_over_two_edges() {
        let server = Server::start().unwrap();
        let edges = [edge(&server, 10), edge(&server, 10)];
        up(&edges[0]).await;
        up(&edges[1]).await;
        suite::run(|| {
            server.flush().unwrap();
            SharedTokens::new(edges[0].redis.clone(), MemoryTokens::new(10, 10))
        })
        .await;
        suite::run(|| {
            server.flush().unwrap();
            let fresh = |n: usize| SharedTokens::new(edges[n].redis.clone(), MemoryTokens::new(10, 10));
            Pair([fresh(0), fresh(1)], std::sync::atomic::AtomicUsize::new(0))
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_redis_only_the_same_device_comes_again_where_it_was() {
        let mut server = Server::start().unwrap();
        let (one, other) = (edge(&server, 10), edge(&server, 10));
        up(&one).await;
        up(&other).await;
        let newcomer = Spending { device: None, ..spending("new") };
        one.spend(&spending("a"), NOW_S).await.unwrap();
        one.spend(&newcomer, NOW_S).await.unwrap();
        for (stop, unseen) in [(Server::pause as fn(&mut Server) -> Result<(), _>, "b"), (Server::kill, "c")] {
            stop(&mut server).unwrap();
            for _ in 0..3 {
                assert_eq!(one.check(&spending("a"), NOW_S).await, Ok(()));
                assert_eq!(one.spend(&spending("a"), NOW_S).await, Ok(()));
                assert_eq!(one.spend(&newcomer, NOW_S).await, Ok(()));
                let other_key = Spending { key: key(2), ..spending("a") };
                assert_eq!(one.spend(&other_key, NOW_S).await, Err(SpendError::Replayed), "that is known");
                assert_eq!(one.spend(&spending("new"), NOW_S).await, Err(SpendError::Away), "now as a device");
                assert_eq!(one.check(&spending(unseen), NOW_S).await, Err(SpendError::Away));
                assert_eq!(one.spend(&spending(unseen), NOW_S).await, Err(SpendError::Away));
                assert_eq!(other.check(&spending("a"), NOW_S).await, Err(SpendError::Away));
                assert_eq!(other.spend(&spending("a"), NOW_S).await, Err(SpendError::Away));
            }
            degraded(&one).await;
            server.resume().unwrap();
            server.start_again().unwrap();
            up(&one).await;
            up(&other).await;
            assert_eq!(one.spend(&spending(unseen), NOW_S).await, Ok(()));
            server.flush().unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_burnt_while_redis_is_away_is_burnt_everywhere_once_it_is_back() {
        let mut server = Server::start().unwrap();
        let (one, other) = (edge(&server, 10), edge(&server, 10));
        up(&one).await;
        up(&other).await;
        one.spend(&spending("a"), NOW_S).await.unwrap();
        server.kill().unwrap();
        degraded(&one).await;
        one.burn(spending("a").provider, "a", spending("a").expires_s, NOW_S);
        assert_eq!(one.spend(&spending("a"), NOW_S).await, Err(SpendError::Replayed));
        server.start_again().unwrap();
        up(&other).await;
        let burnt = async {
            while other.check(&spending("a"), NOW_S).await != Err(SpendError::Replayed) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), burnt).await.expect("it is told");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn entries_expire_in_redis_and_an_edge_fills_no_more_than_its_share() {
        let server = Server::start().unwrap();
        let edge = edge(&server, 2);
        up(&edge).await;
        edge.spend(&spending("a"), NOW_S).await.unwrap();
        edge.spend(&spending("b"), NOW_S).await.unwrap();
        assert_eq!(edge.spend(&spending("c"), NOW_S).await, Err(SpendError::Full));
        assert_eq!(edge.spend(&spending("a"), NOW_S).await, Ok(()), "what is known goes on");
        let key = edge.key(spending("a").provider, "a");
        let causeway_test_servers::Reply::Integer(left_ms) = server.call(&["PTTL", &key]).unwrap() else {
            panic!("no lifetime");
        };
        let kept_ms = i64::try_from(60 + KEEP_AFTER_EXPIRY_S).unwrap() * 1_000;
        assert!((kept_ms - 60_000..=kept_ms).contains(&left_ms), "{left_ms}");
        server.call(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
        let later = NOW_S + 60 + KEEP_AFTER_EXPIRY_S + 1;
        assert_eq!(edge.spend(&spending("d"), later).await, Err(SpendError::Away), "a full store is closed");
    }
}
