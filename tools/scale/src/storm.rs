//! All sessions break off at once and come back: the edges' own brakes (`causeway_edge::Arrivals`) and the SDK's own pauses
//! (`causeway_client::reconnect_pause`), in simulated time.
//!
//! What is assumed of everything else: a balancer that picks an edge at random for each attempt; an edge that accepts so
//! many connections a second, behind which the kernel drops what comes, and clients' kernels try again after 1, 2 and 4
//! seconds; refusals that take a tenth of a second each, of which an edge has 192 under way and closes the others at once.

use std::collections::VecDeque;
use std::time::Duration;

use causeway_client::{Timing, reconnect_pause};
use causeway_edge::{Arrivals, EdgeConfig};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngCore, SeedableRng as _};
use tokio::time::Instant;

const TICKS_PER_S: u64 = 100;
/// As `REFUSALS_AT_ONCE` of the edge's listener.
const REFUSALS_AT_ONCE: usize = 192;
const REFUSAL_TICKS: u64 = TICKS_PER_S / 10;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: f64 = 1_024.0;
/// The longest that is simulated.
const END_S: u64 = 3_600;
/// Homes and sites that clients are spread over.
const NETWORKS: u32 = 1_000_000;

/// What clients and edges do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// As it is built.
    Built,
    /// Clients wait for the whole of what they may, instead of a part that they draw.
    NoJitter,
    /// Edges tell everybody to come back after the same second, instead of each after its own time.
    SameTime,
    /// Edges tell everybody a time, not only as many as they have under way.
    TellsAll,
    /// Clients draw their first pause from ten seconds.
    Calm,
    /// Clients come back after a second, always.
    Eager,
}

/// How much is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) sessions: u32,
    pub(crate) edges: u32,
    /// Connections a second that an edge accepts.
    pub(crate) accepts_per_s: u32,
    pub(crate) policy: Policy,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Storm {
    /// Seconds until half, 99 of 100 and all were back; `None`: not all within an hour.
    pub(crate) half_s: Option<u64>,
    pub(crate) most_s: Option<u64>,
    pub(crate) all_s: Option<u64>,
    pub(crate) back: u32,
    /// Connections that were begun, for a session.
    pub(crate) attempts: f64,
    /// Of an edge in the worst second, in the mean over edges.
    pub(crate) worst_attempts_s: f64,
    /// Logins of an edge in the worst second: what directory, routing, Redis and stores get from each.
    pub(crate) worst_logins_s: f64,
    /// Of an edge in the mean from the second until 99 of 100 were back, of what it lets in.
    pub(crate) used: f64,
}

struct Edge {
    arrivals: Arrivals<u32>,
    /// When the refusals that are under way are over.
    refusals: VecDeque<u64>,
    /// What may yet be accepted, as of a tick.
    room: f64,
    at: u64,
}

impl Edge {
    fn accepts(&mut self, tick: u64, per_tick: f64) -> bool {
        self.room = (self.room + (tick - self.at) as f64 * per_tick).min(BACKLOG.max(per_tick));
        self.at = tick;
        let accepts = self.room >= 1.0;
        if accepts {
            self.room -= 1.0;
        }
        accepts
    }

    /// True if it has time to say so.
    fn refuses(&mut self, tick: u64, at_once: usize) -> bool {
        while self.refusals.front().is_some_and(|until| *until <= tick) {
            self.refusals.pop_front();
        }
        let told = self.refusals.len() < at_once;
        if told {
            self.refusals.push_back(tick + REFUSAL_TICKS);
        }
        told
    }
}

/// What is known of a client.
#[derive(Debug, Clone, Copy, Default)]
struct Client {
    failures: u8,
    /// Of this attempt, that the kernel has made.
    dropped: u8,
}

/// Runs it.
pub(crate) fn simulate(size: Size, seed: u64) -> Storm {
    let mut random = SmallRng::seed_from_u64(seed);
    let (config, mut timing, start) = (EdgeConfig::default(), Timing::default(), Instant::now());
    if size.policy == Policy::Calm {
        timing.backoff_first = Duration::from_secs(10);
    }
    let per_tick = f64::from(size.accepts_per_s) / TICKS_PER_S as f64;
    let at_once = if size.policy == Policy::TellsAll { usize::MAX } else { REFUSALS_AT_ONCE };
    let edge = || Edge { arrivals: Arrivals::new(&config, start), refusals: VecDeque::new(), room: BACKLOG, at: 0 };
    let mut edges: Vec<Edge> = std::iter::repeat_with(edge).take(size.edges as usize).collect();
    let mut clients = vec![Client::default(); size.sessions as usize];
    let mut due: Vec<Vec<u32>> = Vec::new();
    for client in 0..size.sessions {
        let pause = pause(size.policy, &timing, 0, None, &mut random);
        put(&mut due, 0, pause, client);
    }

    let (mut attempts, mut logins) = (Vec::<u64>::new(), Vec::<u64>::new());
    let mut tick = 0_u64;
    while tick < END_S * TICKS_PER_S && (tick as usize) < due.len() {
        let now = start + Duration::from_millis(tick * 1_000 / TICKS_PER_S);
        let second = (tick / TICKS_PER_S) as usize;
        attempts.resize(second + 1, 0);
        logins.resize(second + 1, 0);
        for client in std::mem::take(&mut due[tick as usize]) {
            attempts[second] += 1;
            let edge = &mut edges[random.random_range(0..size.edges) as usize];
            let state = &mut clients[client as usize];
            if !edge.accepts(tick, per_tick) {
                state.dropped += 1;
                let wait = if state.dropped <= 3 {
                    Duration::from_secs(1 << (state.dropped - 1))
                } else {
                    // What is left of the time to connect.
                    let left = timing.connect_timeout.saturating_sub(Duration::from_secs(7));
                    *state = Client { failures: state.failures.saturating_add(1), dropped: 0 };
                    left + pause(size.policy, &timing, state.failures, None, &mut random)
                };
                put(&mut due, tick, wait, client);
                continue;
            }
            state.dropped = 0;
            if edge.arrivals.enter(client % NETWORKS, now) {
                logins[second] += 1;
                continue;
            }
            let told = edge.refuses(tick, at_once).then(|| match size.policy {
                Policy::SameTime => Duration::from_millis(config.overload_retry_ms),
                // Alerts have seconds.
                _ => Duration::from_secs(edge.arrivals.book(now).as_secs_f64().ceil() as u64),
            });
            let wait = pause(size.policy, &timing, state.failures, told, &mut random);
            state.failures = state.failures.saturating_add(1);
            put(&mut due, tick, wait, client);
        }
        tick += 1;
    }
    outcome(size, &config, &attempts, &logins)
}

fn put(due: &mut Vec<Vec<u32>>, tick: u64, wait: Duration, client: u32) {
    let at = tick + (wait.as_millis() as u64 * TICKS_PER_S / 1_000).max(1);
    if due.len() <= at as usize {
        due.resize_with(at as usize + 1, Vec::new);
    }
    due[at as usize].push(client);
}

fn pause(policy: Policy, timing: &Timing, failures: u8, told: Option<Duration>, random: &mut SmallRng) -> Duration {
    match policy {
        Policy::Built | Policy::SameTime | Policy::TellsAll | Policy::Calm => {
            reconnect_pause(timing, u32::from(failures), told, random)
        }
        Policy::NoJitter => reconnect_pause(timing, u32::from(failures), told, &mut Greatest),
        Policy::Eager => Duration::from_secs(1),
    }
}

/// Draws the greatest there is.
struct Greatest;

impl RngCore for Greatest {
    fn next_u32(&mut self) -> u32 {
        u32::MAX
    }

    fn next_u64(&mut self) -> u64 {
        u64::MAX
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill(u8::MAX);
    }
}

fn outcome(size: Size, config: &EdgeConfig, attempts: &[u64], logins: &[u64]) -> Storm {
    let until = |share: f64| {
        let wanted = (f64::from(size.sessions) * share).ceil() as u64;
        let mut back = 0;
        logins.iter().position(|in_second| {
            back += in_second;
            back >= wanted
        })
    };
    let (half, most, all) = (until(0.5), until(0.99), until(1.0));
    let edges = f64::from(size.edges);
    let steady = logins.get(1..most.unwrap_or(logins.len())).unwrap_or_default();
    let used =
        steady.iter().sum::<u64>() as f64 / (steady.len().max(1) as f64 * f64::from(config.handshakes_per_s) * edges);
    let second = |at: Option<usize>| at.map(|at| at as u64 + 1);
    Storm {
        half_s: second(half),
        most_s: second(most),
        all_s: second(all),
        back: logins.iter().sum::<u64>() as u32,
        attempts: attempts.iter().sum::<u64>() as f64 / f64::from(size.sessions),
        worst_attempts_s: attempts.iter().max().map_or(0.0, |most| *most as f64 / edges),
        worst_logins_s: logins.iter().max().map_or(0.0, |most| *most as f64 / edges),
        used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storm(sessions: u32, edges: u32, policy: Policy) -> Storm {
        simulate(Size { sessions, edges, accepts_per_s: 20_000, policy }, 1)
    }

    #[test]
    fn all_come_back_soon_and_edges_let_in_what_they_may() {
        let found = storm(100_000, 2, Policy::Built);
        assert_eq!(found.back, 100_000);
        let least = 100_000 / (2 * 2_000) - 1;
        let all = found.all_s.unwrap();
        assert!((least..least * 8).contains(&all), "{found:?}");
        // The burst comes on top, once, and may come in one second with the rate.
        assert!(found.worst_logins_s <= 2_000.0 + 1_000.0 + 20.0, "{found:?}");
    }

    #[test]
    fn few_need_no_second_attempt() {
        let found = storm(1_000, 2, Policy::Built);
        assert!(found.attempts < 1.01 && found.all_s == Some(1), "{found:?}");
    }

    #[test]
    fn without_pauses_there_are_many_more_attempts() {
        let (built, eager) = (storm(100_000, 2, Policy::Built), storm(100_000, 2, Policy::Eager));
        assert!(eager.attempts > 2.0 * built.attempts, "{built:?} {eager:?}");
    }

    #[test]
    fn if_all_are_told_a_time_they_try_less_often() {
        let (built, all) = (storm(100_000, 2, Policy::Built), storm(100_000, 2, Policy::TellsAll));
        assert!(all.back == 100_000 && all.attempts < built.attempts, "{built:?} {all:?}");
    }

    #[test]
    fn a_seed_says_all() {
        assert_eq!(storm(20_000, 2, Policy::Built), storm(20_000, 2, Policy::Built));
    }
}
