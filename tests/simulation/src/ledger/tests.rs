//! Each promise is seen to be broken, and what the protocol allows is seen to be allowed.

use super::*;

const SENDER: Person = Person { account: 0, device: 1 };
const ONE: Person = Person { account: 1, device: 1 };
const OTHER: Person = Person { account: 1, device: 2 };

fn message(number: u32) -> Message {
    Message { from: SENDER, to: 1, number }
}

fn part(tag: u64, number: u32, body_for: Person) -> Arrival {
    Arrival { tag, message: message(number), body_for }
}

fn begun() -> Ledger {
    let ledger = Ledger::default();
    ledger.join(&[SENDER, ONE, OTHER]);
    for device in [SENDER, ONE, OTHER] {
        ledger.connected(device, 1);
    }
    for number in 1..=2 {
        ledger.submitted(message(number), 1);
    }
    ledger
}

/// The promises that are broken at once, in simulated time.
fn broken<F>(what: impl FnOnce(Ledger) -> F) -> Vec<&'static str>
where
    F: Future<Output = ()> + 'static,
{
    let (ledger, mut sim) = (begun(), turmoil::Builder::new().build());
    let done = what(ledger.clone());
    sim.client("it", async move {
        done.await;
        Ok(())
    });
    sim.run().unwrap();
    let state = ledger.state();
    state.violations.iter().map(|violation| violation.promise).collect()
}

async fn after(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[test]
fn what_goes_well_breaks_nothing() {
    let found = broken(async |ledger| {
        for device in [ONE, OTHER] {
            ledger.arrived(device, 1, part(1, 1, device));
            ledger.arrived(device, 1, part(2, 2, device));
            ledger.acknowledges(device, 1, 2);
        }
        for number in 1..=2 {
            assert!(ledger.named(SENDER, 1, message(number), "u1@birdy.example"));
            ledger.told(message(number), Told::Delivered);
        }
        assert!(ledger.is_settled() && ledger.check().is_empty());
    });
    assert_eq!(found, Vec::<&str>::new());
}

#[test]
fn delivered_before_all_have_acknowledged() {
    let found = broken(async |ledger| {
        for device in [ONE, OTHER] {
            ledger.arrived(device, 1, part(1, 1, device));
        }
        ledger.acknowledges(ONE, 1, 1);
        ledger.told(message(1), Told::Delivered);
    });
    assert_eq!(found, ["delivered means that every device has acknowledged"]);
}

#[test]
fn an_acknowledgement_of_what_was_never_submitted_or_elsewhere() {
    let found = broken(async |ledger| {
        assert!(!ledger.named(SENDER, 1, message(7), "u1@birdy.example"));
        assert!(!ledger.named(SENDER, 1, message(1), "u2@home.example"));
        assert!(!ledger.named(SENDER, 2, message(1), "u1@birdy.example"));
        assert!(!ledger.named(ONE, 1, message(1), "u1@birdy.example"));
    });
    assert_eq!(found, ["an acknowledgement names a message that its session submitted"; 4]);
}

#[test]
fn what_is_for_another_device_of_the_account_or_for_another_account() {
    let found = broken(async |ledger| {
        ledger.arrived(ONE, 1, part(1, 1, OTHER));
        ledger.arrived(SENDER, 1, part(1, 1, SENDER));
    });
    assert_eq!(found, ["nobody gets what is for another"; 2]);
}

#[test]
fn what_nobody_sent_and_what_contradicts_itself() {
    let found = broken(async |ledger| {
        ledger.arrived(ONE, 1, part(1, 7, ONE));
        ledger.garbled(ONE, 1, "the id is not that of its body");
    });
    assert_eq!(found, ["nothing comes from nowhere", "a delivery is what its sender sent"]);
}

#[test]
fn tags_that_come_twice_or_are_left_out() {
    let found = broken(async |ledger| {
        ledger.arrived(ONE, 1, part(1, 1, ONE));
        ledger.arrived(ONE, 1, part(1, 2, ONE));
        ledger.arrived(OTHER, 1, part(2, 1, OTHER));
    });
    assert_eq!(found, ["tags rise by one, from 1"; 2]);
}

#[test]
fn the_second_before_the_first() {
    let found = broken(async |ledger| {
        ledger.arrived(ONE, 1, part(1, 2, ONE));
        ledger.arrived(ONE, 1, part(2, 1, ONE));
    });
    assert_eq!(found, ["a pair's messages stay in order"]);
}

#[test]
fn twice_in_one_session() {
    let found = broken(async |ledger| {
        ledger.arrived(ONE, 1, part(1, 1, ONE));
        after(10).await;
        ledger.arrived(ONE, 1, part(2, 1, ONE));
    });
    assert_eq!(found, ["nothing comes twice without a reason"]);
}

#[test]
fn twice_although_it_was_acknowledged_long_before_the_session_ended() {
    let found = broken(async |ledger| {
        ledger.arrived(ONE, 1, part(1, 1, ONE));
        ledger.acknowledges(ONE, 1, 1);
        after(1_100).await;
        ledger.ended(ONE, 1);
        ledger.connected(ONE, 2);
        ledger.arrived(ONE, 2, part(1, 1, ONE));
    });
    assert_eq!(found, ["nothing comes twice without a reason"]);
}

#[test]
fn again_in_a_new_session_if_it_may_not_have_been_acknowledged_and_near_a_fault() {
    let found = broken(async |ledger| {
        ledger.arrived(ONE, 1, part(1, 1, ONE));
        ledger.arrived(ONE, 1, part(2, 2, ONE));
        after(2_000).await;
        ledger.acknowledges(ONE, 1, 1);
        after(100).await;
        ledger.ended(ONE, 1);
        ledger.connected(ONE, 2);
        ledger.arrived(ONE, 2, part(1, 1, ONE));
        ledger.arrived(ONE, 2, part(2, 2, ONE));
        ledger.breaks(now() + Duration::from_millis(10), now() + Duration::from_millis(20), None);
        after(3_000).await;
        ledger.arrived(ONE, 2, part(3, 2, ONE));
    });
    assert_eq!(found, Vec::<&str>::new());
}

#[test]
fn again_long_after_a_cut_of_that_device_and_of_another() {
    let found = broken(async |ledger| {
        ledger.breaks(now(), now() + Duration::from_millis(10), Some(ONE));
        after(5_500).await;
        for device in [ONE, OTHER] {
            ledger.arrived(device, 1, part(1, 1, device));
            after(1).await;
            ledger.arrived(device, 1, part(2, 1, device));
        }
        assert_eq!(ledger.state().violations.len(), 1, "of the other");
    });
    assert_eq!(found, ["nothing comes twice without a reason"]);
}

#[test]
fn a_lie_that_is_believed_and_the_truth_that_is_not() {
    let found = broken(async |ledger| {
        ledger.disbelieved(ONE, 1);
        ledger.lies(OTHER, 1);
        ledger.disbelieved(OTHER, 1);
        ledger.believed(OTHER, 1);
        ledger.replaced(OTHER, 1);
    });
    assert_eq!(
        found,
        [
            "a right acknowledgement does not end the session",
            "a wrong acknowledgement ends the session",
            "only a login that began later replaces a session"
        ]
    );
}

#[test]
fn what_is_missing_in_the_end() {
    broken(async |ledger| {
        ledger.told(message(1), Told::Stored);
        ledger.arrived(ONE, 1, part(1, 1, ONE));
        let found: Vec<&str> = ledger.check().iter().map(|violation| violation.promise).collect();
        assert_eq!(found, ["what is acknowledged arrives", "every message gets an outcome in the end"]);
        ledger.told(message(2), Told::Rejected);
        ledger.arrived(OTHER, 1, part(1, 1, OTHER));
        assert!(ledger.check().is_empty());
        ledger.arrived(OTHER, 1, part(2, 2, OTHER));
        let found: Vec<&str> = ledger.check().iter().map(|violation| violation.promise).collect();
        assert_eq!(found, ["what is rejected does not arrive"]);
    });
}

#[test]
fn what_comes_to_an_account_that_has_closed() {
    broken(async |ledger| {
        ledger.closes(1);
        ledger.closed(1);
        after(10).await;
        ledger.submitted(message(3), 1);
        after(10).await;
        ledger.arrived(ONE, 1, part(1, 3, ONE));
        let found = ledger.check();
        assert!(found.iter().any(|violation| violation.promise == "who has closed gets nothing"), "{found:?}");
    });
}
