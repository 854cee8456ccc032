//! The order of logins. Each connection draws a number before its client is answered, and no login succeeds without the
//! client's answer to that. So of two logins of a device the one that its client began later, having done with the other,
//! has the greater number, however long anything of either is under way: no clock tells it. Routing goes by it
//! (docs/replicas.md, "Edges").
//!
//! Edges that share a Redis draw there. Connections that come while a number is under way draw together, so each edge has
//! one command there at a time, however many connect.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use causeway_proto::routing::v1::LoginOrder;
use causeway_redis::{Redis, Script};
use rand::RngCore as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::random::Random;

/// Where logins get their numbers; cheap to clone, clones share it.
#[derive(Clone)]
pub struct Logins(Arc<Source>);

enum Source {
    /// Numbers of this process, which tell nothing of others'.
    Own {
        source: u64,
        last: AtomicU64,
    },
    Shared(Shared),
}

struct Shared {
    redis: Redis,
    /// Connections that have asked for a number, ever.
    asked: AtomicU64,
    drawn: Mutex<Drawn>,
}

/// The numbers that were drawn last.
#[derive(Debug, Default)]
struct Drawn {
    /// For which of those who asked, the first and the last.
    first: u64,
    last: u64,
    /// The last one's; those before have the numbers before it.
    number: Option<u64>,
    /// What Redis has said last, and when that came.
    known: Option<(u64, Instant)>,
}

impl Logins {
    /// Of one process: all edges that share it know the order of their logins among each other.
    pub fn own(random: &Random) -> Self {
        // Never the source of those that are drawn in Redis.
        let source = random.clone().next_u64() | (1 << 63);
        Self(Arc::new(Source::Own { source, last: AtomicU64::new(0) }))
    }

    /// Of all edges on this Redis.
    pub(crate) fn shared(redis: Redis) -> Self {
        Self(Arc::new(Source::Shared(Shared { redis, asked: AtomicU64::new(0), drawn: Mutex::default() })))
    }

    /// The number of a login; to be asked for once the client has connected, and before it is answered. `None`: nobody
    /// knows. Takes a second at most.
    pub(crate) async fn draw(&self) -> Option<LoginOrder> {
        let (source, number) = match &*self.0 {
            Source::Own { source, last } => (*source, last.fetch_add(1, Ordering::Relaxed) + 1),
            Source::Shared(shared) => (SHARED, timeout(PATIENCE, shared.draw()).await.ok().flatten()?),
        };
        Some(LoginOrder { source, number, attachment: 0 })
    }
}

impl Shared {
    async fn draw(&self) -> Option<u64> {
        let me = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut drawn = self.drawn.lock().await;
        if (drawn.first..=drawn.last).contains(&me) {
            return drawn.number.map(|number| number - (drawn.last - me));
        }
        if drawn.known.is_none() {
            // An edge that has just started.
            let _not_yet = timeout(PATIENCE / 2, self.redis.wait_until_up()).await;
        }
        // For all who wait by now, which is before the command leaves; one that was passed over draws for itself.
        let (first, last) =
            if me > drawn.last { (drawn.last + 1, self.asked.load(Ordering::Relaxed)) } else { (me, me) };
        let count = last - first + 1;
        let args = [count.to_string().into_bytes(), KEPT.as_millis().to_string().into_bytes()];
        let answer = self.redis.script::<String>(&DRAW, &self.redis.key("logins", "all"), &args).await;
        let now = Instant::now();
        let number = match answer.ok().and_then(|text| text.parse().ok()) {
            Some(number) => {
                drawn.known = Some((number, now));
                Some(number)
            }
            None => drawn.without_redis(count, now),
        };
        *drawn = Drawn { first, last, number, known: drawn.known };
        number.map(|number| number - (last - me))
    }
}

impl Drawn {
    /// Numbers are microseconds, so what Redis would say now is known well enough for a while.
    fn without_redis(&self, count: u64, now: Instant) -> Option<u64> {
        let (number, since) = self.known?;
        let passed = now.duration_since(since);
        let guess = number.saturating_add(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX));
        (passed < GUESS).then(|| guess.max(self.number.map_or(0, |last| last.saturating_add(count))))
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logins")
    }
}

/// The source of the numbers that are drawn in Redis.
const SHARED: u64 = 1;
/// A connection waits no longer for its number: for the command that is under way, and the next one.
const PATIENCE: Duration = Duration::from_secs(1);
/// Without an answer from Redis, numbers are guessed for so long. Clocks go apart by less than a login takes.
const GUESS: Duration = Duration::from_secs(10 * 60);
/// Then it is the clock's time that numbers go on from, which by then is greater than any.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// Numbers rise by one for each login, and by the microseconds of Redis's clock, so that they rise also when Redis comes back
/// empty, or another takes its place that has not heard of the last ones.
static DRAW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
local number = string.format('%.0f', math.max(last + tonumber(ARGV[1]), now))
redis.call('SET', KEYS[1], number, 'PX', ARGV[2])
return number",
    )
});

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use causeway_redis::{Holds, RedisConfig};
    use causeway_test_servers::Redis as Server;

    use super::*;

    fn open(server: &Server) -> Logins {
        let addresses = vec![format!("127.0.0.1:{}", server.port())];
        Logins::shared(Redis::open(&RedisConfig { addresses, ..RedisConfig::default() }, "test", Holds::Hints).unwrap())
    }

    async fn number(logins: &Logins) -> u64 {
        let drawn = async {
            loop {
                if let Some(login) = logins.draw().await {
                    assert_eq!(login.source, SHARED);
                    return login.number;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), drawn).await.expect("redis comes up")
    }

    #[tokio::test]
    async fn numbers_of_one_process_rise_and_tell_nothing_of_another() {
        let (one, other) = (Logins::own(&Random::seeded(1)), Logins::own(&Random::seeded(2)));
        let (first, second) = (one.draw().await.unwrap(), one.clone().draw().await.unwrap());
        assert!(first.source == second.source && first.number < second.number);
        let elsewhere = other.draw().await.unwrap().source;
        assert!(elsewhere != first.source && elsewhere != SHARED);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_asks_later_at_any_edge_has_a_greater_number() {
        let mut server = Server::start().unwrap();
        let edges = [open(&server), open(&server)];
        let mut last = 0;
        for turn in 0..40 {
            if turn % 10 == 9 {
                // What was remembered is lost.
                server.call(&["FLUSHALL"]).unwrap();
            }
            // Those who come together share a command, and each gets a number of its own.
            let edge = &edges[turn % 2];
            let mut crowd = tokio::task::JoinSet::new();
            for _ in 0..5 {
                let edge = edge.clone();
                crowd.spawn(async move { number(&edge).await });
            }
            let numbers: BTreeSet<u64> = crowd.join_all().await.into_iter().collect();
            assert_eq!(numbers.len(), 5);
            assert!(numbers.first().is_some_and(|first| *first > last), "{numbers:?} after {last}");
            last = numbers.last().copied().unwrap();
        }

        // Without Redis they rise at each edge, and among them as well as their distances to Redis differ.
        server.pause().unwrap();
        let before = (number(&edges[0]).await, number(&edges[1]).await);
        assert!(before.0 > last && before.1 > last);
        assert!(number(&edges[0]).await > before.0 && number(&edges[1]).await > before.1);
        server.resume().unwrap();
    }

    #[tokio::test]
    async fn a_redis_that_never_answered_gives_no_number() {
        let addresses = vec!["127.0.0.1:1".to_owned()];
        let redis = Redis::open(&RedisConfig { addresses, ..RedisConfig::default() }, "test", Holds::Hints).unwrap();
        assert_eq!(Logins::shared(redis).draw().await, None);
    }
}
