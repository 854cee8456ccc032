//! Directories, followers and a store in a small world of their own, with messages that are late, processes that stand
//! still or die, a store that does not answer or forgets the older part of its log. Whatever happens:
//!
//! - no follower acts on a record from before a change that has been confirmed to somebody;
//! - when all is well again, changes are confirmed.
//!
//! The directories are the real ones, but for their store; followers keep the rules that routing keeps.

mod follower;
mod store;
mod world;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use world::World;

/// A bug, in `peers` or around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A change is confirmed without waiting for the other directories.
    WaitsForNobody,
    /// Followers' leases outlast the directory's own.
    GrantsBeyondItsLease,
    /// An entry of the log is passed over.
    SkipsANumber,
    /// Followers of a registration that has ended stay for the next one.
    KeepsItsFollowers,
    /// A registration is ended though it was renewed meanwhile.
    EndsWithoutLooking,
    /// A gap in the log is taken for its end.
    PassesOverAGap,
}

impl Planted {
    const ALL: [Self; 6] = [
        Self::WaitsForNobody,
        Self::GrantsBeyondItsLease,
        Self::SkipsANumber,
        Self::KeepsItsFollowers,
        Self::EndsWithoutLooking,
        Self::PassesOverAGap,
    ];
}

/// What a run has seen.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// Changes that were confirmed.
    confirmed: u64,
    /// Decisions on cached records.
    decisions: u64,
    /// Decisions on a record from before a confirmed change.
    violations: Vec<String>,
    /// What was not confirmed at the end.
    stuck: Vec<String>,
}

const MOST_OF_A_RUN: Duration = Duration::from_secs(40);

fn run(seed: u64, planted: Option<Planted>) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut random = StdRng::seed_from_u64(seed);
        let world = World::start(&mut random, planted);
        let end = tokio::time::Instant::now() + MOST_OF_A_RUN;
        while tokio::time::Instant::now() < end && world.seen().violations.is_empty() {
            let pause = random.random_range(0..1_500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            world.trouble(&mut random);
        }
        if planted.is_none() {
            world.heal();
            world.finish().await;
        }
        world.seen()
    })
}

fn runs() -> u64 {
    std::env::var("DIRECTORY_SIMULATIONS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(120)
}

#[test]
fn nobody_acts_on_what_was_before_a_confirmed_change() {
    let mut all = Seen::default();
    for seed in 0..runs() {
        let seen = run(seed, None);
        assert!(seen.violations.is_empty() && seen.stuck.is_empty(), "seed {seed}: {seen:#?}");
        all.confirmed += seen.confirmed;
        all.decisions += seen.decisions;
    }
    println!("{} runs: {} changes confirmed, {} decisions", runs(), all.confirmed, all.decisions);
    assert!(all.confirmed > 20 * runs() && all.decisions > 500 * runs(), "too little happened: {all:?}");
}

/// A check that cannot fail proves nothing.
#[test]
fn planted_bugs_are_found() {
    for bug in Planted::ALL {
        let found = (0..3_000).find(|seed| !run(*seed, Some(bug)).violations.is_empty());
        println!("{bug:?}: {found:?}");
        assert!(found.is_some(), "{bug:?} was not found");
    }
}
