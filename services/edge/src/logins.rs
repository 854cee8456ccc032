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
use causeway_redis::{Redis, RedisError, Script};
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
    /// The greatest that this edge has given, unless Redis has begun anew since.
    given: u64,
    /// What Redis has said last, and when it was asked.
    known: Option<(u64, Instant)>,
    /// Redis has answered something else than a number since.
    refused: bool,
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
            return drawn.number.map(|number| number.saturating_sub(drawn.last - me));
        }
        if drawn.known.is_none() {
            // An edge that has just started.
            let _not_yet = timeout(ANSWER, self.redis.wait_until_up()).await;
        }
        // For all who wait by now, which is before the command leaves; one that was passed over draws for itself.
        let (first, last) =
            if me > drawn.last { (drawn.last + 1, self.asked.load(Ordering::Relaxed)) } else { (me, me) };
        let count = last - first + 1;
        let sent = Instant::now();
        let answer = self.ask(count, drawn.given).await;
        let number = drawn.heard(answer, sent).or_else(|| drawn.without_redis(count, Instant::now()));
        drawn.given = number.unwrap_or(drawn.given);
        (drawn.first, drawn.last, drawn.number) = (first, last, number);
        number.map(|number| number.saturating_sub(last - me))
    }

    /// The last of `count` numbers.
    async fn ask(&self, count: u64, given: u64) -> Result<String, RedisError> {
        let (redis, key) = (self.redis.clone(), self.redis.key("logins", "all"));
        let args = [u128::from(count), KEPT.as_millis(), u128::from(given)].map(|arg| arg.to_string().into_bytes());
        // By itself, so that a command for which nobody waits any more ends all the same, and has the connection looked at.
        let asking = tokio::spawn(async move { redis.script(&DRAW, &key, &args).await });
        timeout(ANSWER, asking)
            .await
            .map_or(Err(RedisError::Unknown), |ended| ended.unwrap_or(Err(RedisError::Unknown)))
    }
}

impl Drawn {
    /// What Redis has answered, if that is a number; what else it is, is told once.
    fn heard(&mut self, answer: Result<String, RedisError>, sent: Instant) -> Option<u64> {
        let why = match answer.map(|text| text.parse()) {
            Ok(Ok(number)) => {
                self.known = Some((number, sent));
                if std::mem::take(&mut self.refused) {
                    tracing::info!("redis tells the order of logins again");
                }
                return Some(number);
            }
            Ok(Err(_)) => RedisError::Shape,
            Err(RedisError::Away | RedisError::Unknown) => return None,
            Err(why) => why,
        };
        if !std::mem::replace(&mut self.refused, true) {
            tracing::warn!(%why, "redis does not tell the order of logins; it is guessed for ten minutes");
        }
        None
    }

    /// Numbers are microseconds, so what Redis would say now is known well enough for a while.
    fn without_redis(&self, count: u64, now: Instant) -> Option<u64> {
        let (number, since) = self.known?;
        let passed = now.duration_since(since);
        let guess = number.saturating_add(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX));
        (passed < GUESS).then(|| guess.max(self.given.saturating_add(count)))
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
/// A command is waited for so long, whatever the time-out of commands; two of them take less than [`PATIENCE`].
const ANSWER: Duration = Duration::from_millis(450);
/// Without an answer from Redis, numbers are guessed for so long. Clocks go apart by less than a login takes.
const GUESS: Duration = Duration::from_secs(10 * 60);
/// Then it is the clock's time that numbers go on from, which by then is greater than any: longer than they may be ahead of it.
const KEPT: Duration = Duration::from_secs(25 * 60 * 60);

/// Numbers rise by one for each login, and by the microseconds of Redis's clock, so that they rise also when Redis comes back
/// empty, or another takes its place that has not heard of the last ones. Where its clock is behind what an edge has given,
/// they go on from that. What is more than a day ahead of the clock is no number of a login: somebody else has written it, or
/// the clock was wrong.
static DRAW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = 0
for _, told in ipairs({redis.pcall('GET', KEYS[1]), ARGV[3]}) do
  local number = tonumber(told)
  if number and number > last and number <= now + 86400000000 then last = number end
end
local number = string.format('%.0f', math.max(last + tonumber(ARGV[1]), now))
redis.call('SET', KEYS[1], number, 'PX', ARGV[2])
return number",
    )
});

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use causeway_redis::{Holds, RedisConfig};
    use causeway_test_servers::{Redis as Server, Reply};

    use super::*;

    const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;

    const KEY: &str = "causeway:logins:all";

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

    /// Microseconds since the Unix epoch, by the server's clock.
    fn time(server: &Server) -> u64 {
        let code = "local time = redis.call('TIME') return string.format('%.0f', time[1] * 1000000 + time[2])";
        match server.call(&["EVAL", code, "0"]).unwrap() {
            Reply::Text(text) => text.parse().unwrap(),
            other => panic!("no time: {other:?}"),
        }
    }

    #[tokio::test]
    async fn what_others_write_there_leads_nobody_astray() {
        let server = Server::start().unwrap();
        let edge = open(&server);
        let mut last = number(&edge).await;
        let (year, beyond) = (time(&server) + 365 * DAY_US, 1_u64 << 53);
        for wrong in [&*year.to_string(), &*beyond.to_string(), "-1", "1e300", "inf", "nan", "", "nonsense"] {
            server.call(&["SET", KEY, wrong]).unwrap();
            let drawn = number(&edge).await;
            assert!(drawn > last && drawn < time(&server) + DAY_US, "{drawn} after {last} with {wrong}");
            last = drawn;
            assert_eq!(server.call(&["GET", KEY]).unwrap(), Reply::Text(drawn.to_string()));
        }
        // Not even another kind of value.
        server.call(&["DEL", KEY]).unwrap();
        server.call(&["LPUSH", KEY, "1"]).unwrap();
        let drawn = number(&edge).await;
        assert!(drawn > last);
        assert_eq!(server.call(&["GET", KEY]).unwrap(), Reply::Text(drawn.to_string()));
    }

    #[tokio::test]
    async fn the_counter_never_falls_behind_what_an_edge_has_given() {
        let server = Server::start().unwrap();
        let edges = [open(&server), open(&server)];
        number(&edges[1]).await;
        // As it is when Redis's clock is stepped back, or one takes over whose clock is behind.
        let ahead = time(&server) + DAY_US / 2;
        server.call(&["SET", KEY, &ahead.to_string()]).unwrap();
        let first = number(&edges[0]).await;
        assert!(first > ahead);
        server.call(&["FLUSHALL"]).unwrap();
        let second = number(&edges[0]).await;
        assert!(second > first, "{second} after {first}");
        assert!(number(&edges[1]).await > second);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_redis_that_stands_still_or_refuses_is_not_waited_for() {
        let mut server = Server::start().unwrap();
        let addresses = vec![format!("127.0.0.1:{}", server.port())];
        let slow = RedisConfig { addresses, command_timeout_ms: 10_000, ..RedisConfig::default() };
        let edge = Logins::shared(Redis::open(&slow, "test", Holds::Hints).unwrap());
        let mut last = number(&edge).await;
        server.pause().unwrap();
        for _ in 0..2 {
            let drawn = edge.draw().await.expect("it is guessed").number;
            assert!(drawn > last);
            last = drawn;
        }
        server.resume().unwrap();
        server.call(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
        let drawn = edge.draw().await.expect("it is guessed").number;
        assert!(drawn > last);
        server.call(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
        assert!(number(&edge).await > drawn);
    }

    #[tokio::test]
    async fn a_redis_that_never_answered_gives_no_number() {
        let addresses = vec!["127.0.0.1:1".to_owned()];
        let redis = Redis::open(&RedisConfig { addresses, ..RedisConfig::default() }, "test", Holds::Hints).unwrap();
        assert_eq!(Logins::shared(redis).draw().await, None);
    }
}
