//! The machine in a small world: senders, devices, two replicas on one store, which commits when it likes, fails, or does
//! not say what it did; leases that end, processes that die, edges that disagree about where an account is.
//! Any history must keep what delivery promises (docs/architecture.md, "Delivery"):
//!
//! - no message that was told `delivered` or `stored` is lost;
//! - `delivered` only when every device has acknowledged, `stored` only when what they have not acknowledged is in the
//!   mailbox;
//! - what was rejected reaches nobody;
//! - each device sees each message once, in the order of its sender, whatever happens, but for what was refused or dropped
//!   and came again;
//! - in the end nobody waits, and nothing is left in the mailbox.

mod planted;
mod promises;
mod replica;
mod store;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use planted::Planted;
use replica::Goes;
use world::{Simulated, Step};

fn histories() -> impl Strategy<Value = Vec<Step>> {
    // Mostly at the first replica, so that it gets on with something.
    let at = || prop_oneof![3 => Just(0_usize), 1 => Just(1_usize)];
    let step = prop_oneof![
        16 => (0..2_usize, 0..10_u8, 0..600_usize)
            .prop_map(|(sender, kind, bytes)| Step::Send { sender, kind, bytes }),
        14 => (at(), 1..6_usize).prop_map(|(at, count)| Step::Commit { at, count, goes: Goes::Well }),
        1 => (at(), 1..6_usize).prop_map(|(at, count)| Step::Commit { at, count, goes: Goes::Wrong }),
        1 => (at(), 1..3_usize, any::<bool>())
            .prop_map(|(at, count, done)| Step::Commit { at, count, goes: Goes::Unknown(done) }),
        6 => (at(), 0..3_usize).prop_map(|(at, nth)| Step::ReadPage { at, nth }),
        6 => (at(), 0..3_usize, 0..8_u8)
            .prop_map(|(at, nth, failure)| Step::DeliverPage { at, nth, fails: failure == 0 }),
        5 => (1..4_u32, at(), any::<bool>())
            .prop_map(|(device, at, silently)| Step::Attach { device, at, silently }),
        2 => (1..4_u32).prop_map(|device| Step::Detach { device }),
        12 => (1..4_u32, 0..=100_u8).prop_map(|(device, share)| Step::Acknowledge { device, share }),
        8 => (0..40_u64).prop_map(|ms| Step::Wait { ms }),
        1 => any::<bool>().prop_map(|full| Step::LinkFull { full }),
        1 => (0..2_usize, 0..8_usize).prop_map(|(at, committed)| Step::Crash { at, committed }),
        2 => (0..2_usize, any::<bool>()).prop_map(|(at, cut)| Step::Cut { at, cut }),
        1 => (1..4_u32).prop_map(|device| Step::RemoveDevice { device }),
        1 => (1..4_u32).prop_map(|device| Step::EnlistDevice { device }),
        2 => (0..2_usize, at()).prop_map(|(sender, to)| Step::BreakSender { sender, to }),
        2 => (0..2_usize, at()).prop_map(|(sender, to)| Step::Choose { sender, to }),
        1 => (0..2_usize, 0..30_usize).prop_map(|(sender, nth)| Step::RepeatOld { sender, nth }),
    ];
    proptest::collection::vec(step, 1..200)
}

/// So many histories, or as many as `PROPTEST_CASES` asks for.
fn at_least(cases: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(cases), max_shrink_iters: 4_000, ..asked }
}

proptest! {
    #![proptest_config(at_least(1_500))]
    #[test]
    fn what_delivery_promises_holds_in_any_history(history in histories()) {
        live(history, None);
    }
}

fn live(history: Vec<Step>, planted: Option<Planted>) {
    let mut world = Simulated::new(planted);
    for step in history {
        world.step(&step);
    }
    world.finish();
}

/// A message is written at once that waits for nothing any more, while an earlier one of its sender waits for
/// acknowledgements; then the process dies when it has written one message. That must not have been the later one.
#[test]
fn what_is_written_at_once_does_not_overtake_what_waits_for_acknowledgements() {
    let send = || Step::Send { sender: 0, kind: 2, bytes: 100 };
    let acknowledge = |device| Step::Acknowledge { device, share: 100 };
    let a_session_ends = vec![send(), acknowledge(1), send(), Step::Detach { device: 1 }];
    let its_newer_one_comes = vec![send(), acknowledge(1), send(), Step::Attach { device: 1, at: 0, silently: false }];
    let all_windows_are_full = (0..5).map(|_| send()).collect();
    let one_is_full = || (0..4).map(|_| send()).chain([acknowledge(2), send()]);
    let one_is_full_and_the_other_acknowledges = one_is_full().chain([acknowledge(2)]).collect();
    let another_comes = [Step::EnlistDevice { device: 3 }, Step::Attach { device: 3, at: 0, silently: false }];
    let one_is_full_and_another_comes = one_is_full().chain(another_comes).collect();
    let histories = [
        a_session_ends,
        its_newer_one_comes,
        all_windows_are_full,
        one_is_full_and_the_other_acknowledges,
        one_is_full_and_another_comes,
    ];
    for mut history in histories {
        history.push(Step::Crash { at: 0, committed: 1 });
        live(history, None);
    }
}

/// A check that cannot fail proves nothing: each of these faults around the machine must be found.
#[test]
fn planted_bugs_are_found() {
    for bug in Planted::ALL {
        let config = ProptestConfig { cases: 30_000, max_shrink_iters: 0, failure_persistence: None, ..at_least(1) };
        // The same histories in every run: how soon a bug is found must not depend on luck.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let tried = std::cell::Cell::new(0_u32);
        let found = runner.run(&histories(), |history| {
            tried.set(tried.get() + 1);
            live(history, Some(bug));
            Ok(())
        });
        assert!(found.is_err(), "{bug:?} was not found");
        println!("{bug:?}: found by history {}", tried.get());
    }
}
