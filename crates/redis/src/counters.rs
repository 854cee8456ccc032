//! Rates that replicas share: a brake, not a wall.
//!
//! Each replica decides by what it knows, at once and without asking anybody. In the background it tells Redis what
//! each key took since the last time, and learns what is left of the key's allowance after what all replicas took.
//!
//! So over a time `t`, with `n` replicas that sync each `d`, a key gets at most `rate * (t + n * d) + n * burst`: what
//! was taken beyond the one burst is owed, and nobody gets more before it is paid back. Without Redis each replica
//! counts alone.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{FromRedisValue as _, Value};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::handle::Redis;
use crate::script::Script;

/// Allowances of one kind: for each key so many at once, and one more in each interval.
pub struct Rates<K> {
    kind: &'static str,
    name: fn(&K) -> String,
    interval: Duration,
    burst: Duration,
    state: Mutex<State<K>>,
}

struct State<K> {
    /// When each key's allowance is full again. What is not here is full.
    full_at: HashMap<K, Instant>,
    /// What was taken and not told yet; `None` while nobody would be told.
    untold: Option<HashMap<K, i64>>,
}

/// What [`sync`] does with [`Rates`] of any key.
pub trait Shared: Send + Sync {
    #[doc(hidden)]
    fn begin(&self);
    #[doc(hidden)]
    fn take_untold(&self, most: usize) -> Vec<Untold>;
    #[doc(hidden)]
    fn learn(&self, untold: Untold, full_in: Duration);
}

/// What one key took since it was told last.
#[doc(hidden)]
pub struct Untold {
    kind: &'static str,
    name: String,
    /// Microseconds; below zero, something was given back.
    cost: i64,
    most: Duration,
    key: Box<dyn std::any::Any + Send>,
}

impl<K: Clone + Eq + Hash + Send + 'static> Rates<K> {
    /// `burst` at once, and one more each `interval`. `kind` and `name` make the key's name in Redis: `kind` is unique in
    /// the deployment, and `name` has a bounded length.
    pub fn new(kind: &'static str, interval: Duration, burst: u32, name: fn(&K) -> String) -> Self {
        let interval = interval.max(Duration::from_micros(1));
        let state = State { full_at: HashMap::new(), untold: None };
        Self { kind, name, interval, burst: interval.saturating_mul(burst.max(1)), state: Mutex::new(state) }
    }

    /// `burst` at once, and `per_s` more in each second.
    pub fn per_second(kind: &'static str, per_s: u32, burst: u32, name: fn(&K) -> String) -> Self {
        Self::new(kind, Duration::from_secs(1) / per_s.max(1), burst, name)
    }

    /// Takes `count` of what `key` has left.
    ///
    /// # Errors
    /// How long to wait until there is so much; nothing was taken.
    pub fn take(&self, key: &K, count: u32) -> Result<(), Duration> {
        let (now, mut state) = (Instant::now(), self.state());
        let cost = self.interval.saturating_mul(count);
        let known = state.full_at.get_mut(key);
        let full_at = known.as_ref().map_or(now, |full_at| (**full_at).max(now)) + cost;
        let latest = now + self.burst.max(cost);
        if full_at > latest {
            return Err(full_at.duration_since(latest));
        }
        match known {
            Some(known) => *known = full_at,
            None => {
                state.full_at.insert(key.clone(), full_at);
            }
        }
        state.note(key, i64::from(count));
        Ok(())
    }

    /// Takes so much back of what was taken, as if it had not been.
    pub fn give_back(&self, key: &K, count: u32) {
        let mut state = self.state();
        let Some(full_at) = state.full_at.get_mut(key) else { return };
        *full_at = full_at.checked_sub(self.interval.saturating_mul(count)).unwrap_or(*full_at);
        state.note(key, -i64::from(count));
    }

    /// How long until there is something left, if there is nothing. Takes nothing.
    pub fn closed(&self, key: &K) -> Option<Duration> {
        let full_at = {
            let state = self.state();
            // Mostly nobody has used up anything.
            if state.full_at.is_empty() {
                return None;
            }
            state.full_at.get(key).copied()?
        };
        let now = Instant::now();
        let missing = full_at.saturating_duration_since(now) + self.interval;
        missing.checked_sub(self.burst).filter(|wait| !wait.is_zero())
    }

    /// Forgets keys whose allowance is full again.
    pub fn tidy(&self) {
        let (now, mut state) = (Instant::now(), self.state());
        state.full_at.retain(|_, full_at| *full_at > now);
        state.full_at.shrink_to_fit();
    }

    /// Keys that are remembered.
    pub fn len(&self) -> usize {
        self.state().full_at.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn note(&mut self, key: &K, count: i64) {
        let Some(untold) = &mut self.untold else { return };
        if let Some(before) = untold.get_mut(key) {
            *before = before.saturating_add(count);
        } else if untold.len() < MAX_UNTOLD {
            untold.insert(key.clone(), count);
        }
        // Else the other replicas do not learn of it.
    }
}

impl<K: Clone + Eq + Hash + Send + 'static> Shared for Rates<K> {
    fn begin(&self) {
        self.state().untold.get_or_insert_default();
    }

    fn take_untold(&self, most: usize) -> Vec<Untold> {
        let mut state = self.state();
        let Some(untold) = &mut state.untold else { return Vec::new() };
        let keys: Vec<K> = untold.keys().take(most).cloned().collect();
        let taken = keys.into_iter().filter_map(|key| untold.remove_entry(&key));
        let told = taken.map(|(key, count)| Untold {
            kind: self.kind,
            name: (self.name)(&key),
            cost: count.saturating_mul(i64::try_from(self.interval.as_micros()).unwrap_or(MAX_MICROS)),
            most: self.burst.saturating_mul(MOST_OWED),
            key: Box::new(key),
        });
        told.collect()
    }

    fn learn(&self, untold: Untold, full_in: Duration) {
        let Ok(key) = untold.key.downcast::<K>() else { return };
        let mut state = self.state();
        // What was taken while the answer was under way is not in it.
        let since = state.untold.as_ref().and_then(|untold| untold.get(&key)).copied().unwrap_or(0);
        let since = self.interval.saturating_mul(u32::try_from(since).unwrap_or(0));
        let known = full_in.min(self.burst.saturating_mul(MOST_OWED)) + since;
        let full_at = Instant::now() + known;
        let entry = state.full_at.entry(*key).or_insert(full_at);
        *entry = (*entry).max(full_at);
    }
}

impl<K> fmt::Debug for Rates<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rates").field("kind", &self.kind).field("interval", &self.interval).finish_non_exhaustive()
    }
}

/// Shares the rates with the other replicas until `stop`: each 250 ms, and no more than 4 096 keys of each kind at a
/// time; those beyond come later. What cannot be told is forgotten.
pub async fn sync(redis: Redis, rates: Vec<Arc<dyn Shared>>, stop: CancellationToken) {
    for kind in &rates {
        kind.begin();
    }
    let mut ticks = interval(SYNC_EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sync_once(&redis, &rates) => {}
        }
    }
}

/// One exchange.
pub(crate) async fn sync_once(redis: &Redis, rates: &[Arc<dyn Shared>]) {
    for kind in rates {
        let mut untold = kind.take_untold(MAX_TOLD).into_iter().peekable();
        while untold.peek().is_some() {
            let batch: Vec<Untold> = untold.by_ref().take(BATCH).collect();
            let calls: Vec<_> = batch.iter().map(|untold| untold.call(redis)).collect();
            let Ok(answers) = redis.script_all(&TAKE, &calls).await else { break };
            for (untold, answer) in batch.into_iter().zip(answers) {
                if let Some(full_in) = answer.ok().and_then(micros) {
                    kind.learn(untold, full_in);
                }
            }
        }
    }
}

impl Untold {
    fn call(&self, redis: &Redis) -> (String, Vec<Vec<u8>>) {
        let micros = |micros: i64| micros.clamp(-MAX_MICROS, MAX_MICROS).to_string().into_bytes();
        let most = i64::try_from(self.most.as_micros()).unwrap_or(MAX_MICROS);
        (redis.key(self.kind, &self.name), vec![micros(self.cost), micros(most)])
    }
}

fn micros(answer: Value) -> Option<Duration> {
    u64::from_redis_value(answer).ok().map(Duration::from_micros)
}

/// How often the replicas tell each other.
pub const SYNC_EACH: Duration = Duration::from_millis(250);
/// A key owes at most so many bursts: what a broken replica tells cannot close it for ever.
const MOST_OWED: u32 = 16;
const MAX_UNTOLD: usize = 65_536;
const MAX_TOLD: usize = 4_096;
const BATCH: usize = 512;
/// A year: small enough for a Lua number together with the time of day.
const MAX_MICROS: i64 = 365 * 24 * 60 * 60 * 1_000_000;

/// The key holds when the allowance is full again, by Redis's clock, in microseconds. Answers how long until then.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = tonumber(redis.call('GET', KEYS[1]) or now)
if full < now then full = now end
full = math.max(math.min(full + tonumber(ARGV[1]), now + tonumber(ARGV[2])), now)
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
return full - now",
    )
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REPLICAS: usize = 3;

    fn rates(per_s: u32, burst: u32) -> Arc<Rates<u8>> {
        Arc::new(Rates::per_second("test", per_s, burst, u8::to_string))
    }

    /// What the script does, with this runtime's clock.
    #[derive(Default)]
    struct Model(Option<Instant>);

    impl Model {
        fn sync(&mut self, replica: &Rates<u8>) {
            let now = Instant::now();
            for untold in replica.take_untold(MAX_TOLD) {
                let full_at = self.0.map_or(now, |full_at| full_at.max(now));
                let cost = Duration::from_micros(untold.cost.unsigned_abs());
                let full_at = if untold.cost < 0 { full_at - cost } else { full_at + cost };
                let full_at = full_at.min(now + untold.most).max(now);
                self.0 = Some(full_at);
                replica.learn(untold, full_at - now);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_a_rate_and_a_look_takes_nothing() {
        let rates = rates(10, 3);
        assert_eq!(rates.closed(&1), None);
        assert!((0..3).all(|_| rates.take(&1, 1).is_ok()));
        assert_eq!(rates.take(&1, 1), Err(Duration::from_millis(100)));
        assert_eq!(rates.closed(&1), Some(Duration::from_millis(100)));
        assert_eq!(rates.take(&1, 2), Err(Duration::from_millis(200)));
        assert_eq!(rates.take(&2, 1), Ok(()), "another key");
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(rates.closed(&1), None);
        assert_eq!(rates.take(&1, 1), Ok(()));
        rates.tidy();
        assert_eq!(rates.len(), 1, "the other is full again");
        tokio::time::advance(Duration::from_millis(300)).await;
        rates.tidy();
        assert!(rates.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_replica_took_the_other_does_not_give_again() {
        let (one, other, mut redis) = (rates(1, 4), rates(1, 4), Model::default());
        one.begin();
        other.begin();
        assert_eq!(one.take(&1, 4), Ok(()));
        redis.sync(&one);
        assert_eq!(other.take(&1, 1), Ok(()), "it has not heard yet");
        redis.sync(&other);
        assert_eq!(other.take(&1, 1), Err(Duration::from_secs(2)), "four and one were taken");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(other.take(&1, 1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_was_not_taken_here_nor_elsewhere() {
        let (one, other, mut redis) = (rates(1, 4), rates(1, 4), Model::default());
        one.begin();
        other.begin();
        one.take(&1, 4).unwrap();
        redis.sync(&one);
        one.give_back(&1, 3);
        assert_eq!(one.take(&1, 1), Ok(()));
        redis.sync(&one);
        assert_eq!(other.take(&1, 1), Ok(()));
        redis.sync(&other);
        assert_eq!(other.take(&1, 1), Ok(()), "two of one and one of the other");
        assert_eq!(other.take(&1, 1), Err(Duration::from_secs(1)));
        one.give_back(&2, 3);
        assert!(one.take(&2, 4).is_ok() && one.take(&2, 1).is_err(), "never more than a burst");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_untold_is_bounded() {
        let rates = Rates::per_second("test", 1, 1, u32::to_string);
        assert_eq!(rates.take(&0, 1), Ok(()));
        assert!(rates.take_untold(10).is_empty(), "nothing is kept while nobody is told");
        rates.begin();
        for key in 1..=u32::try_from(MAX_UNTOLD).unwrap() + 10 {
            assert_eq!(rates.take(&key, 1), Ok(()));
        }
        assert_eq!(rates.take_untold(10).len(), 10);
        assert_eq!(rates.take_untold(usize::MAX).len(), MAX_UNTOLD - 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// However the load moves among three replicas, all together give no more than the module says.
        #[test]
        fn replicas_together_keep_to_the_rate(
            per_s in 1_u32..200,
            burst in 1_u32..50,
            steps in proptest::collection::vec((0_usize..REPLICAS, 1_u32..40, 0_u64..400), 1..400),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let (given, passed) = runtime.block_on(async {
                let (replicas, mut redis) = ([(); REPLICAS].map(|()| rates(per_s, burst)), Model::default());
                replicas.iter().for_each(|replica| replica.begin());
                let (start, mut given, mut synced) = (Instant::now(), 0_u64, Instant::now());
                for (replica, tries, pause_ms) in steps {
                    given += (0..tries).filter(|_| replicas[replica].take(&1, 1).is_ok()).count() as u64;
                    let until = Instant::now() + Duration::from_millis(pause_ms);
                    while synced + SYNC_EACH <= until {
                        synced += SYNC_EACH;
                        tokio::time::advance(synced - Instant::now()).await;
                        replicas.iter().for_each(|replica| redis.sync(replica));
                    }
                    tokio::time::advance(until - Instant::now()).await;
                }
                (given, start.elapsed())
            });
            let delays = SYNC_EACH * u32::try_from(REPLICAS).unwrap();
            let bound = f64::from(per_s) * (passed + delays).as_secs_f64() + f64::from(burst) * REPLICAS as f64;
            prop_assert!(given as f64 <= bound + 1e-6, "{given} in {passed:?}, but no more than {bound}");
        }
    }
}
