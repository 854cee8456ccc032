//! The checker must be able to fail: histories in which everything is right are good, and each kind of wrong that is
//! planted in one is found.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::{Invariant, Rule, Verdict, check};
use crate::events::{Fault, FaultKind, Faults};
use crate::ledger::{Class, Consent, Fetched, Kind, MessageNumber, Outcome, Record};

/// Accounts of a made-up run; account `n` has devices `2n` and `2n + 1`.
const ACCOUNTS: u32 = 4;
/// Between two records, in microseconds.
const STEP: u64 = 1_000;

/// A made-up run.
struct Story {
    records: Vec<Record>,
    faults: Faults,
    t: u64,
}

impl Story {
    /// A run in which `messages` were sent, at random, and everything is right.
    fn good(seed: u64, messages: u32) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut story = Self::begun();
        let mut next = vec![0_u32; (ACCOUNTS * 2) as usize];
        let mut seqs = std::collections::HashMap::new();
        let mut tags = vec![0_u64; (ACCOUNTS * 2) as usize];
        for _ in 0..messages {
            let from = rng.random_range(0..ACCOUNTS * 2);
            let a = (from / 2 + rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
            let m = MessageNumber::new(from, next[from as usize]);
            next[from as usize] += 1;
            let q = seqs.entry((from, a)).or_insert(0);
            let to = vec![a * 2, a * 2 + 1];
            story.push(|t| Record::Submit { t, m, e: 1, a, q: *q, c: Class::Chat, to: to.clone() });
            *q += 1;
            if rng.random_bool(0.1) {
                story.push(|t| Record::Again { t, m, e: 1 });
            }
            let outcome = match rng.random_range(0..10) {
                0 => Outcome::Rejected,
                1..5 => Outcome::Stored,
                _ => Outcome::Delivered,
            };
            let ack = |t| Record::Ack { t, m, e: 1, o: outcome, r: String::new() };
            if outcome == Outcome::Stored {
                story.push(ack);
            }
            if outcome != Outcome::Rejected {
                for d in to {
                    tags[d as usize] += 1;
                    let g = tags[d as usize];
                    story.push(|t| Record::Wire { t, d, e: 1, g, m, bad: None });
                    story.push(|t| Record::App { t, d, m });
                    story.push(|t| Record::AckOut { t, d, e: 1, g });
                }
            }
            if outcome != Outcome::Stored {
                story.push(ack);
            }
        }
        story
    }

    /// Accounts and devices, all connected.
    fn begun() -> Self {
        let mut story = Self { records: Vec::new(), faults: Faults::default(), t: 1 };
        story.push(|_| Record::Run { seed: 7, variant: "story".to_owned(), planted: None });
        for a in 0..ACCOUNTS {
            story.push(|_| Record::Account { a, p: a % 2 });
            for d in [a * 2, a * 2 + 1] {
                story.push(|t| Record::Device { t, d, a, id: d % 2 + 1, kind: Kind::Light });
                story.push(|t| Record::Up { t, d, e: 1, w: 0 });
            }
        }
        story
    }

    fn push(&mut self, record: impl FnOnce(u64) -> Record) {
        self.t += STEP;
        let record = record(self.t);
        self.records.push(record);
    }

    /// A message from device 0 to account 1 (devices 2 and 3), with a sequence number of its own.
    fn message(&mut self, count: u32, outcome: Option<Outcome>, arrives: &[u32]) -> MessageNumber {
        let m = MessageNumber::new(0, 1_000 + count);
        self.push(|t| Record::Submit { t, m, e: 1, a: 1, q: 1_000 + count, c: Class::Chat, to: vec![2, 3] });
        for d in arrives {
            self.arrive(*d, m, 10_000 + u64::from(count));
        }
        if let Some(o) = outcome {
            self.push(|t| Record::Ack { t, m, e: 1, o, r: String::new() });
        }
        m
    }

    fn arrive(&mut self, d: u32, m: MessageNumber, g: u64) {
        self.push(|t| Record::Wire { t, d, e: 1, g, m, bad: None });
        self.push(|t| Record::App { t, d, m });
        self.push(|t| Record::AckOut { t, d, e: 1, g });
    }

    /// Everything drains, and the run ends.
    fn judged(mut self) -> Verdict {
        let mut live: Vec<u32> = Vec::new();
        for record in &self.records {
            match record {
                Record::Device { d, .. } => live.push(*d),
                Record::Removing { d, .. } => live.retain(|other| other != d),
                _ => {}
            }
        }
        for d in live {
            self.push(|t| Record::Drained { t, d, w: 0, open: 0 });
        }
        self.push(|t| Record::Stores { t, mailbox: Some(0), presence: Some(0), took_ms: None });
        self.push(|t| Record::End { t });
        check(self.records.into_iter().map(Ok), &self.faults).unwrap()
    }
}

fn violates(story: Story) -> Vec<Invariant> {
    story.judged().violated.into_keys().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_right_is_good(seed in any::<u64>(), messages in 20_u32..200) {
        let verdict = Story::good(seed, messages).judged();
        prop_assert!(verdict.is_good(), "{:?}", verdict.violations);
        prop_assert_eq!(verdict.totals.submitted, u64::from(messages));
    }

    #[test]
    fn any_one_record_of_arrival_that_is_missing_is_a_loss(seed in any::<u64>()) {
        let mut story = Story::good(seed, 100);
        let promised: std::collections::HashSet<_> = story.records.iter().filter_map(|record| match record {
            Record::Ack { m, o, .. } if o.is_ok() => Some(*m),
            _ => None,
        }).collect();
        let shown: Vec<usize> = (0..story.records.len())
            .filter(|index| matches!(&story.records[*index], Record::App { m, .. } if promised.contains(m)))
            .collect();
        let victim = *shown.choose(&mut StdRng::seed_from_u64(seed)).unwrap();
        story.records.remove(victim);
        prop_assert_eq!(violates(story), [Invariant::Loss]);
    }

    #[test]
    fn any_two_messages_of_a_pair_that_swap_are_an_inversion(seed in any::<u64>()) {
        let mut story = Story::good(seed, 150);
        let shown: std::collections::HashSet<_> = story.records.iter().filter_map(|record| match record {
            Record::App { m, .. } => Some(*m),
            _ => None,
        }).collect();
        let mut submits = std::collections::BTreeMap::<(u32, u32), Vec<usize>>::new();
        for (index, record) in story.records.iter().enumerate() {
            if let Record::Submit { m, a, .. } = record && shown.contains(m) {
                submits.entry((m.device(), *a)).or_default().push(index);
            }
        }
        let pairs: Vec<_> = submits.into_values().filter(|indices| indices.len() > 1).collect();
        let indices = pairs.choose(&mut StdRng::seed_from_u64(seed)).unwrap();
        let numbers = [indices[1], indices[0]].map(|index| match &story.records[index] {
            Record::Submit { q, .. } => *q,
            _ => unreachable!("a submission"),
        });
        for (index, number) in indices.iter().zip(numbers) {
            if let Record::Submit { q, .. } = &mut story.records[*index] {
                *q = number;
            }
        }
        prop_assert_eq!(violates(story), [Invariant::Order]);
    }

    #[test]
    fn any_message_that_is_shown_again_is_twice(seed in any::<u64>()) {
        let mut story = Story::good(seed, 60);
        let shown: Vec<Record> =
            story.records.iter().filter(|record| matches!(record, Record::App { .. })).cloned().collect();
        story.records.push(shown.choose(&mut StdRng::seed_from_u64(seed)).unwrap().clone());
        prop_assert_eq!(violates(story), [Invariant::Once]);
    }
}

#[test]
fn a_loss_says_where_it_is_and_a_removed_device_loses_nothing() {
    let mut story = Story::begun();
    story.message(0, Some(Outcome::Stored), &[2, 3]);
    let lost = story.message(1, Some(Outcome::Stored), &[3]);
    story.message(2, Some(Outcome::Delivered), &[2, 3]);
    let verdict = story.judged();
    assert_eq!(verdict.totals.lost, 1);
    let violation = &verdict.violations[0];
    assert_eq!((violation.invariant, violation.message, violation.device), (Invariant::Loss, Some(lost), Some(2)));
    assert!(violation.what.contains("in the middle"), "{}", violation.what);

    let mut story = Story::begun();
    story.message(0, Some(Outcome::Stored), &[3]);
    story.push(|t| Record::Removing { t, d: 2 });
    story.push(|t| Record::Removed { t, d: 2 });
    assert_eq!(violates(story), []);
}

#[test]
fn what_has_no_outcome_may_be_there_or_not_but_not_twice() {
    let mut story = Story::begun();
    story.message(0, None, &[]);
    let m = story.message(1, None, &[2]);
    assert_eq!(violates(story), []);

    let mut story = Story::begun();
    assert_eq!(story.message(1, None, &[2]), m);
    story.push(|t| Record::App { t, d: 2, m });
    assert_eq!(violates(story), [Invariant::Once]);
}

#[test]
fn a_retry_may_be_late_only_if_it_may_have_been_refused() {
    let late = |closed: bool, again: bool| {
        let mut story = Story::begun();
        let rule = Consent::Nobody;
        if closed {
            story.push(|t| Record::ConsentAsk { t, a: 1, c: rule });
            story.push(|t| Record::ConsentAnswer { t, a: 1, c: rule, ok: true });
        }
        let m = story.message(0, None, &[]);
        if closed {
            story.push(|t| Record::ConsentAsk { t, a: 1, c: Consent::All });
            story.push(|t| Record::ConsentAnswer { t, a: 1, c: Consent::All, ok: true });
        }
        story.message(1, Some(Outcome::Delivered), &[2, 3]);
        if again {
            story.push(|t| Record::Again { t, m, e: 1 });
        }
        story.arrive(2, m, 30_000);
        violates(story)
    };
    assert_eq!(late(true, true), []);
    assert_eq!(late(true, false), [Invariant::Order]);
    assert_eq!(late(false, true), [Invariant::Order]);
}

#[test]
fn what_may_have_been_dropped_may_be_late_if_it_is_repeated() {
    let late = |class: Class, disturbed: bool, again: bool| {
        let mut story = Story::begun();
        let m = MessageNumber::new(0, 0);
        story.push(|t| Record::Submit { t, m, e: 1, a: 1, q: 0, c: class, to: vec![2, 3] });
        story.message(1, Some(Outcome::Delivered), &[2, 3]);
        if again {
            story.push(|t| Record::Again { t, m, e: 1 });
        }
        story.arrive(2, m, 30_000);
        if disturbed {
            story.faults.faults.push(fault(0, 1));
        }
        violates(story)
    };
    assert_eq!(late(Class::Ephemeral, true, true), []);
    assert_eq!(late(Class::Ephemeral, true, false), [Invariant::Order]);
    assert_eq!(late(Class::Ephemeral, false, true), [Invariant::Order]);
    assert_eq!(late(Class::Chat, true, true), [Invariant::Order]);
}

#[test]
fn what_was_rejected_must_not_arrive_unless_it_was_repeated_or_disturbed() {
    let mut story = Story::begun();
    story.message(0, Some(Outcome::Rejected), &[2, 3]);
    assert_eq!(violates(story), [Invariant::Rejected]);

    let mut story = Story::begun();
    let m = story.message(0, Some(Outcome::Rejected), &[2, 3]);
    story.push(|t| Record::Again { t, m, e: 1 });
    assert_eq!(violates(story), []);

    let mut story = Story::begun();
    story.message(0, Some(Outcome::Rejected), &[2, 3]);
    story.faults.faults.push(fault(0, 1));
    assert_eq!(violates(story), []);
}

fn fault(begin: u64, end: u64) -> Fault {
    let (target, how, seen) = ("routing-1".to_owned(), String::new(), String::new());
    let (end, failed, idle, stayed) = (Some(end), None, false, String::new());
    Fault { number: 0, kind: FaultKind::Kill, target, how, begin, end, failed, seen, idle, stayed }
}

#[test]
fn a_repeat_on_the_wire_needs_a_reason() {
    let twice = |between: &dyn Fn(&mut Story)| {
        let mut story = Story::begun();
        let m = story.message(0, None, &[2]);
        between(&mut story);
        story.push(|t| Record::Wire { t, d: 2, e: 1, g: 20_000, m, bad: None });
        story
    };
    assert_eq!(violates(twice(&|_| {})), [Invariant::Once]);
    assert_eq!(violates(twice(&|story| story.push(|t| Record::Down { t, d: 0, e: 1, why: "lost".to_owned() }))), []);
    assert_eq!(violates(twice(&|story| story.push(|t| Record::Up { t, d: 2, e: 2, w: 0 }))), []);
    assert_eq!(violates(twice(&|story| story.faults.faults.push(fault(story.t, story.t + 1)))), []);
}

#[test]
fn a_delivery_that_nobody_sent_is_found() {
    let mut story = Story::begun();
    story.push(|t| Record::Wire { t, d: 2, e: 1, g: 1, m: MessageNumber::new(9, 9), bad: None });
    assert_eq!(violates(story), [Invariant::Origin]);

    let mut story = Story::begun();
    let m = story.message(0, None, &[]);
    story.push(|t| Record::Wire { t, d: 5, e: 1, g: 1, m, bad: None });
    assert_eq!(violates(story), [Invariant::Origin]);
}

#[test]
fn a_body_of_another_account_is_found() {
    let mut story = Story::begun();
    let m = story.message(0, None, &[]);
    story.push(|t| Record::Wire { t, d: 2, e: 1, g: 1, m, bad: Some("made for account 3 device 7".to_owned()) });
    assert_eq!(violates(story), [Invariant::Account]);
}

#[test]
fn delivered_needs_an_acknowledgement_of_each_device_before() {
    let mut story = Story::begun();
    let m = story.message(0, None, &[2]);
    story.push(|t| Record::Wire { t, d: 3, e: 1, g: 5, m, bad: None });
    story.push(|t| Record::App { t, d: 3, m });
    story.push(|t| Record::Ack { t, m, e: 1, o: Outcome::Delivered, r: String::new() });
    story.push(|t| Record::AckOut { t, d: 3, e: 1, g: 5 });
    assert_eq!(violates(story), [Invariant::Acks]);
}

#[test]
fn stray_and_wrong_acknowledgements_are_found() {
    let mut story = Story::begun();
    story.push(|t| Record::StrayAck { t, d: 0, e: 1, what: "x".to_owned() });
    assert_eq!(violates(story), [Invariant::Acks]);

    let mut story = Story::begun();
    story.push(|t| Record::WrongAck { t, d: 0, e: 1, g: 99 });
    assert_eq!(violates(story), []);

    let mut story = Story::begun();
    story.push(|t| Record::WrongAck { t, d: 0, e: 1, g: 99 });
    story.push(|t| Record::WrongAckTaken { t, d: 0, e: 1 });
    assert_eq!(violates(story), [Invariant::Acks]);
}

#[test]
fn a_closed_account_is_reached_by_nobody_it_closed_to() {
    let closed = |rule: Consent, ok: bool, opens_before_the_answer: bool| {
        let mut story = Story::begun();
        story.push(|t| Record::ConsentAsk { t, a: 1, c: rule });
        story.push(|t| Record::ConsentAnswer { t, a: 1, c: rule, ok });
        let m = MessageNumber::new(0, 0);
        story.push(|t| Record::Submit { t, m, e: 1, a: 1, q: 0, c: Class::Chat, to: vec![2, 3] });
        if opens_before_the_answer {
            story.push(|t| Record::ConsentAsk { t, a: 1, c: Consent::All });
        }
        story.arrive(2, m, 1);
        story.arrive(3, m, 1);
        story.push(|t| Record::Ack { t, m, e: 1, o: Outcome::Delivered, r: String::new() });
        violates(story)
    };
    // Device 0 is of account 0, at provider 0.
    assert_eq!(closed(Consent::NotProvider(0), true, false), [Invariant::Consent]);
    assert_eq!(closed(Consent::Nobody, true, false), [Invariant::Consent]);
    assert_eq!(closed(Consent::Off, true, false), [Invariant::Consent]);
    assert_eq!(closed(Consent::NotProvider(1), true, false), []);
    assert_eq!(closed(Consent::Nobody, false, false), []);
    assert_eq!(closed(Consent::Nobody, true, true), []);
}

#[test]
fn who_has_left_reaches_nobody() {
    let mut story = Story::begun();
    story.push(|t| Record::ConsentAsk { t, a: 0, c: Consent::Off });
    story.push(|t| Record::ConsentAnswer { t, a: 0, c: Consent::Off, ok: true });
    story.message(0, Some(Outcome::Delivered), &[2, 3]);
    assert_eq!(violates(story), [Invariant::Consent]);
}

#[test]
fn a_removed_device_gets_nothing_new() {
    let mut story = Story::begun();
    story.push(|t| Record::Removing { t, d: 2 });
    story.push(|t| Record::Removed { t, d: 2 });
    story.message(0, Some(Outcome::Delivered), &[2, 3]);
    assert_eq!(violates(story), [Invariant::Consent]);
}

#[test]
fn a_removed_device_does_not_log_in() {
    let removed = |answer: &dyn Fn(u64) -> Record, before: bool| {
        let mut story = Story::begun();
        if before {
            story.push(|t| Record::Login { t, d: 2 });
        }
        story.push(|t| Record::Removing { t, d: 2 });
        story.push(|t| Record::Removed { t, d: 2 });
        if !before {
            story.push(|t| Record::Login { t, d: 2 });
        }
        story.push(answer);
        story.message(0, Some(Outcome::Rejected), &[]);
        let verdict = story.judged();
        let violated: Vec<_> = verdict.violated.into_keys().collect();
        (violated, verdict.judged[&Rule::Removed], verdict.totals.logins_of_removed)
    };
    let up = |t| Record::Up { t, d: 2, e: 2, w: 0 };
    let refused = |t| Record::Unknown { t, d: 2 };
    assert_eq!(removed(&refused, false), (vec![], 2, 1));
    assert_eq!(removed(&up, false), (vec![Invariant::Consent], 2, 0));
    // A login that was under way is ended later.
    assert_eq!(removed(&up, true), (vec![], 1, 0));
    assert_eq!(removed(&refused, true), (vec![], 1, 0));
}

#[test]
fn an_older_session_gets_nothing_new() {
    let ends = |message: bool, e: u32| {
        let mut story = Story::begun();
        story.push(|t| Record::Up { t, d: 2, e: 2, w: 0 });
        if message {
            story.message(0, Some(Outcome::Delivered), &[2, 3]);
        }
        story.push(|t| Record::Down { t, d: 2, e, why: "lingered".to_owned() });
        let verdict = story.judged();
        (verdict.violated.into_keys().collect(), verdict.judged.get(&Rule::OlderSession).copied())
    };
    assert_eq!(ends(true, 1), (vec![Invariant::Session], Some(1)));
    assert_eq!(ends(false, 1), (vec![], Some(1)));
    assert_eq!(ends(false, 2), (vec![], None));
}

#[test]
fn tags_rise_by_one() {
    let mut story = Story::begun();
    let m = story.message(0, None, &[]);
    story.push(|t| Record::Wire { t, d: 2, e: 1, g: 3, m, bad: Some("tag 3 after 1".to_owned()) });
    let verdict = story.judged();
    assert_eq!(verdict.judged[&Rule::Tags], 1);
    assert_eq!(verdict.violated.into_keys().collect::<Vec<_>>(), [Invariant::Origin]);
}

#[test]
fn who_is_told_to_leave_leaves() {
    let leave = |stayed: &str, other: bool| {
        let mut story = Story::good(7, 50);
        let (kind, stayed) = (FaultKind::Drain, stayed.to_owned());
        story.faults.faults.push(Fault { kind, stayed, ..fault(100, 200) });
        if other {
            story.faults.faults.push(Fault { number: 1, ..fault(150, 300) });
        }
        let verdict = story.judged();
        let text = crate::report::markdown(&verdict, &Faults::default(), &[]).unwrap();
        assert_eq!(text.contains("Told to leave"), verdict.stayed.len() == 1);
        let judged = verdict.judged.get(&Rule::Leaves).copied();
        (verdict.violated.into_keys().collect(), verdict.stayed.len(), judged)
    };
    assert_eq!(leave("", false), (vec![], 0, Some(1)));
    assert_eq!(leave("it took 30 s", false), (vec![Invariant::Progress], 1, Some(1)));
    assert_eq!(leave("it took 30 s", true), (vec![], 1, None));
}

#[test]
fn only_what_the_sdk_shows_is_judged_to_be_shown_once() {
    let shown = |kind: Kind| {
        let mut story = Story::begun();
        story.push(|t| Record::Device { t, d: 2, a: 1, id: 1, kind });
        story.message(0, None, &[2]);
        let verdict = story.judged();
        (verdict.judged.get(&Rule::ShownOnce).copied(), verdict.totals.shown_sdk)
    };
    assert_eq!((shown(Kind::Light), shown(Kind::Sdk)), ((None, 0), (Some(1), 1)));
}

#[test]
fn what_processes_use_and_how_long_nothing_was_disturbed_is_reported() {
    let mut story = Story::good(7, 50);
    for (last, mib) in [(false, 10), (true, 25)] {
        story.push(|t| Record::Usage { t, name: "edge-1".to_owned(), bytes: mib << 20, files: mib, last });
    }
    story.push(|t| Record::Usage { t, name: "edge-2".to_owned(), bytes: 1, files: 1, last: false });
    story.push(|t| Record::Stores { t, mailbox: None, presence: Some(0), took_ms: Some(2_500) });
    story.t += 60_000_000;
    story.faults.faults.push(fault(0, 15_000_000));
    let verdict = story.judged();
    assert_eq!(verdict.quiet, verdict.lasted - 30_000_000);
    assert_eq!((verdict.usage.len(), verdict.usage["edge-1"].files), (1, (10, 25)));
    let text = crate::report::markdown(&verdict, &Faults::default(), &[]).unwrap();
    assert!(text.contains("| edge-1 | 10 to 25 | 250% | 10 to 25 | 250% |"), "{text}");
    assert!(text.contains("empty 2.5 s after"), "{text}");
}

#[test]
fn a_goal_that_nothing_was_judged_by_is_missed() {
    let strict = |variant: &str| {
        let mut story = Story::good(7, 50);
        story.records[0] = Record::Run { seed: 7, variant: variant.to_owned(), planted: None };
        story.faults.faults.push(Fault { kind: FaultKind::Reset, ..fault(1, 2) });
        let mut verdict = story.judged();
        assert!(verdict.is_good());
        verdict.be_strict();
        verdict.violated.get(&Invariant::Progress).copied()
    };
    // With one process, none of several can be away.
    assert_eq!((strict("one"), strict("scaled")), (Some(1), Some(2)));
}

#[test]
fn a_cluster_that_nobody_disturbed_proves_nothing() {
    let undisturbed = |variant: &str| {
        let mut story = Story::good(7, 50);
        story.records[0] = Record::Run { seed: 7, variant: variant.to_owned(), planted: None };
        story.judged().proves_nothing()
    };
    assert_eq!(undisturbed("plain"), None);
    assert_eq!(undisturbed("scaled"), Some("no fault did what it should"));
}

#[test]
fn only_a_login_that_began_later_replaces_a_session() {
    let login = |story: &mut Story| story.push(|t| Record::Login { t, d: 2 });
    let up = |story: &mut Story, e: u32| story.push(|t| Record::Up { t, d: 2, e, w: 0 });
    let told =
        |story: &mut Story, e: u32| story.push(|t| Record::Down { t, d: 2, e, why: "ended: Replaced".to_owned() });
    let both = |told_last: bool| {
        let mut story = Story::begun();
        login(&mut story);
        up(&mut story, 2);
        login(&mut story);
        up(&mut story, 3);
        told(&mut story, if told_last { 3 } else { 2 });
        story
    };
    assert_eq!(violates(both(false)), []);
    assert_eq!(both(false).judged().judged[&Rule::Replaced], 1);
    assert_eq!(violates(both(true)), [Invariant::Session]);
    // A login may have come as far as the server although its client knows nothing of it.
    let mut story = both(false);
    login(&mut story);
    told(&mut story, 3);
    assert_eq!(violates(story), []);

    let stopped = |replaced| {
        let mut story = Story::begun();
        story.push(|t| Record::Stopped { t, d: 2, why: "it stopped".to_owned(), replaced });
        violates(story)
    };
    assert_eq!((stopped(false), stopped(true)), (vec![], vec![Invariant::Session]));
}

#[test]
fn a_prekey_goes_out_once() {
    let claim = |id, reg| move |t| Record::Claim { t, by: 0, a: 1, id, reg, ec: Some(5), kyber: None };
    let mut story = Story::begun();
    story.push(claim(1, 100));
    story.push(claim(2, 100));
    story.push(claim(1, 200));
    assert_eq!(violates(story), []);
    let mut story = Story::begun();
    story.push(claim(1, 100));
    story.push(claim(1, 100));
    assert_eq!(violates(story), [Invariant::Keys]);
}

#[test]
fn what_is_left_over_is_found() {
    let mut story = Story::begun();
    story.push(|t| Record::Stores { t, mailbox: Some(1), presence: None, took_ms: None });
    assert_eq!(violates(story), [Invariant::Progress]);
    let mut story = Story::begun();
    story.push(|t| Record::Stores { t, mailbox: None, presence: Some(2), took_ms: None });
    assert_eq!(violates(story), [Invariant::Progress]);

    let story = Story::begun();
    let verdict = check(story.records.into_iter().map(Ok), &Faults::default()).unwrap();
    // The run did not end, and none of eight devices has finished.
    assert_eq!(verdict.violated[&Invariant::Progress], 9);
}

#[test]
fn a_fault_that_is_never_recovered_from_is_found() {
    let mut story = Story::begun();
    let m = story.message(0, None, &[2, 3]);
    story.faults.faults.push(fault(story.t + 1, story.t + 5_000_000));
    story.t += 70_000_000;
    story.push(|t| Record::Ack { t, m, e: 1, o: Outcome::Stored, r: String::new() });
    let verdict = story.judged();
    assert_eq!(verdict.violated.keys().collect::<Vec<_>>(), [&Invariant::Progress]);
    let kill = &verdict.faults["kill"];
    assert_eq!((kill.count, kill.felt), (1, 1));
    assert!((kill.first_from_heal.worst - 65_000.0).abs() < 10.0, "{kill:?}");
}

#[test]
fn while_the_only_store_is_disturbed_nobody_recovers_from_anything_else() {
    let judged = |target: &str, seconds: u64| {
        let mut story = Story::begun();
        let m = story.message(0, None, &[2, 3]);
        let heal = story.t + 5_000_000;
        story.faults.faults.push(fault(story.t + 1, heal));
        // Felt itself, and healed so shortly before the end that it is recovered from.
        let store = fault(heal, heal + seconds * 1_000_000);
        story.faults.faults.push(Fault { target: target.to_owned(), ..store });
        story.t += 70_000_000;
        story.push(|t| Record::Ack { t, m, e: 1, o: Outcome::Stored, r: String::new() });
        story.judged().violated.is_empty()
    };
    assert!(judged("postgres", 20) && judged("routing-1>postgres-a", 20));
    assert!(!judged("routing-2", 20) && !judged("postgres", 0));
}

#[test]
fn a_fault_that_met_nothing_is_counted_apart() {
    let mut story = Story::good(7, 50);
    story.faults.faults.push(fault(1, 2));
    story.faults.faults.push(Fault { idle: true, ..fault(3, 4) });
    story.faults.faults.push(Fault { failed: Some("it does not start".to_owned()), ..fault(5, 6) });
    let verdict = story.judged();
    let kill = &verdict.faults["kill"];
    assert_eq!((kill.count, kill.idle, kill.failed), (1, 1, 1));
    assert_eq!((verdict.fault_count(), verdict.idle_count(), verdict.is_good()), (1, 1, true));

    let mut story = Story::good(7, 50);
    story.faults.faults.push(Fault { idle: true, ..fault(3, 4) });
    assert_eq!(story.judged().proves_nothing(), Some("no fault did what it should"));
}

#[test]
fn a_rule_that_had_nothing_to_judge_says_so() {
    let verdict = Story::good(7, 50).judged();
    for rule in [Rule::Kept, Rule::InOrder, Rule::Delivered, Rule::Finished, Rule::Mailboxes] {
        assert!(verdict.judged[&rule] > 0, "{rule:?}");
    }
    for rule in [Rule::Closed, Rule::WrongTag, Rule::MediaBytes, Rule::OlderSession, Rule::Replaced] {
        assert!(!verdict.judged.contains_key(&rule), "{rule:?}");
    }
    let text = crate::report::markdown(&verdict, &Faults::default(), &[]).unwrap();
    assert!(text.contains(&format!("| {} | not judged |", Rule::WrongTag.what())), "{text}");
}

/// A file that is stored, and what comes of fetching it.
fn file(fetched: &[(Fetched, bool)], refused: bool, fault_near: bool) -> Story {
    let mut story = Story::good(7, 20);
    let from = story.t;
    story.push(|t| Record::Upload { t, x: 3, a: 1, size: 1_000 });
    story.push(|t| Record::Uploaded { t, x: 3, ok: !refused, refused, why: String::new() });
    for (r, last) in fetched.iter().copied() {
        story.push(|t| Record::Download { began: t - 1, t, x: 3, a: 2, r, last, why: String::new() });
    }
    if fault_near {
        story.faults.faults.push(fault(from, story.t));
    }
    story
}

#[test]
fn a_file_that_is_stored_comes_whole_and_unchanged() {
    use Fetched::{Failed, Refused, Right, Wrong};
    let broken = [Invariant::Media];
    assert_eq!(violates(file(&[(Failed, false), (Failed, true), (Right, true)], false, false)), []);
    assert_eq!(violates(file(&[(Right, false), (Failed, true)], false, false)), broken);
    assert_eq!(violates(file(&[(Right, false)], false, false)), broken);
    assert_eq!(violates(file(&[(Wrong, false), (Right, true)], false, true)), broken);
    assert_eq!(violates(file(&[(Refused, false), (Right, true)], false, false)), broken);
    assert_eq!(violates(file(&[(Refused, false), (Right, true)], false, true)), []);
    // An upload may be refused in a fault, and what is not stored need not be there.
    assert_eq!(violates(file(&[], true, false)), broken);
    assert_eq!(violates(file(&[], true, true)), []);
}

#[test]
fn figures_are_asserted_if_that_is_asked_for() {
    let mut story = Story::good(7, 50);
    let late = story.message(0, None, &[2, 3]);
    // One whose sender is removed never has an outcome, and nobody waits for it.
    let m = MessageNumber::new(5, 1);
    story.push(|t| Record::Submit { t, m, e: 1, a: 1, q: 1_000, c: Class::Chat, to: vec![2, 3] });
    story.push(|t| Record::Removing { t, d: 5 });
    let heal = story.t + 10;
    story.faults.faults.push(fault(heal - 5, heal));
    story.t += 11_000_000;
    story.push(|t| Record::Ack { t, m: late, e: 1, o: Outcome::Stored, r: String::new() });
    // One that was sent while a process was away, and one before that came late.
    let slow = story.message(1, None, &[2, 3]);
    story.faults.faults.push(Fault { number: 1, ..fault(story.t - 100_000, story.t + 1) });
    story.t += 6_000_000;
    story.push(|t| Record::Ack { t, m: slow, e: 1, o: Outcome::Stored, r: String::new() });
    story.push(|t| Record::Wire { t, d: 2, e: 1, g: 40_000, m: slow, bad: None });
    let mut verdict = story.judged();
    let figures = verdict.figures;
    assert!(verdict.is_good(), "{:?}", verdict.violations);
    assert_eq!((figures.repeats.part, figures.repeats_obedient.part), (1, 1));
    assert_eq!((figures.after_clear_heal.part, figures.after_clear_heal.of), (1, 2));
    assert!((10_900.0..12_000.0).contains(&figures.after_clear_heal_worst), "{figures:?}");
    assert_eq!((figures.one_away.part, figures.one_away.of), (0, 1));
    verdict.be_strict();
    assert_eq!(verdict.violated[&Invariant::Progress], 2);
}

#[test]
fn why_a_client_stopped_is_in_the_report() {
    let mut story = Story::good(7, 20);
    story.push(|t| Record::Stopped { t, d: 3, why: "send a message: no route".to_owned(), replaced: false });
    let verdict = story.judged();
    let text = crate::report::markdown(&verdict, &Faults::default(), &[]).unwrap();
    assert!(text.contains("1 times: send a message: no route"), "{text}");
}

#[test]
fn panics_and_names_in_logs_are_found() {
    let mut story = Story::begun();
    story.push(|t| Record::Log { t, file: "edge-1.log".to_owned(), line: "panicked at".to_owned() });
    assert_eq!(violates(story), [Invariant::Silence]);
    let mut story = Story::begun();
    story.faults.bad.push((5, "routing-2 ended by itself".to_owned()));
    assert_eq!(violates(story), [Invariant::Silence]);
}

#[tokio::test]
async fn a_violation_is_shown_with_what_led_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = crate::ledger::Ledger::create(folder.path(), tokio::time::Instant::now()).unwrap();
    let mut story = Story::good(3, 20);
    let lost = story.message(1, Some(Outcome::Stored), &[3]);
    story.faults.faults.push(fault(story.t - 1, story.t + 1));
    for record in &story.records {
        ledger.write(|_| record.clone());
    }
    ledger.flush().unwrap();
    let faults = story.faults.clone();
    let verdict = story.judged();
    let text = {
        let timelines = super::timeline::timelines(folder.path(), &faults, &verdict.violations).unwrap();
        crate::report::markdown(&verdict, &faults, &timelines).unwrap()
    };
    assert!(text.contains("seed 7") && text.contains("BEGIN fault 0 kill routing-1"), "{text}");
    assert!(text.contains(&format!("{lost} is Stored and device 2 never shows it")), "{text}");
}

#[test]
fn a_run_in_which_nothing_happened_is_not_good() {
    let empty = Story::begun().judged();
    assert!(empty.violated.is_empty() && !empty.is_good(), "{:?}", empty.proves_nothing());
    let mut vain = Story::good(7, 50);
    for number in 0..2 {
        vain.faults.faults.push(Fault {
            number,
            kind: FaultKind::Kill,
            target: "edge-1".to_owned(),
            how: String::new(),
            begin: 1,
            end: Some(2),
            failed: Some("it does not start".to_owned()),
            seen: String::new(),
            idle: false,
            stayed: String::new(),
        });
    }
    assert_eq!(vain.judged().proves_nothing(), Some("no fault did what it should"));
}

#[test]
fn the_simulation_knows_the_promises() {
    let sources = [include_str!("../../../simulation/src/ledger.rs"), include_str!("../../../simulation/src/world.rs")];
    for promise in Invariant::ALL.into_iter().flat_map(Invariant::promises) {
        let quoted = format!("\"{promise}\"");
        assert!(sources.iter().any(|source| source.contains(&quoted)), "{promise}");
    }
}
