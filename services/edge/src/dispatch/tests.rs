//! The rules one by one, and against replicas that come, go, forget and answer late.

use bytes::Bytes;
use causeway_proto::routing::v1::Attached;

use super::attachment::{LONGEST_WAIT, SETTLED};
use super::*;

mod refused;
mod replicas;

const ADA: &str = "ada@birdy.example";
const BO: &str = "bo@home.example";

fn bounds() -> Bounds {
    let total = Budget::new(16 * 1024 * 1024);
    Bounds { grace: Duration::from_secs(10), messages: 8, bytes: 64 * 1024, total, metrics: Arc::new(Metrics::new()) }
}

fn view(links: &[(u64, &str, bool)]) -> Arc<View> {
    let seen =
        |(id, name, draining): &(u64, &str, bool)| (LinkId(*id), Seen { name: (*name).into(), draining: *draining });
    Arc::new(View { links: links.iter().map(seen).collect(), ..View::default() })
}

fn who() -> Attach {
    Attach { address: ADA.to_owned(), device_id: 1, ..Attach::default() }
}

fn submit(id: u8, to: &str) -> pb::Submit {
    pb::Submit { id: Bytes::copy_from_slice(&[id; 16]), to: to.to_owned(), ..pb::Submit::default() }
}

fn outcome(id: u8, to: &str, status: pb::Status) -> FromRouting {
    let id = Bytes::copy_from_slice(&[id; 16]);
    FromRouting::Outcome(pb::Outcome { id, to: to.to_owned(), status: status.into(), ..pb::Outcome::default() })
}

fn attached(number: u64) -> FromRouting {
    FromRouting::Attached(Attached { waiting: 3, number })
}

fn deliver(tag: u64) -> FromRouting {
    FromRouting::Deliver(pb::Delivery { tag, ..pb::Delivery::default() })
}

fn end(reason: pb::EndReason) -> FromRouting {
    FromRouting::End(pb::End { reason: reason.into(), retry_after_ms: 200 })
}

/// One act in short.
fn short(act: Act) -> String {
    let at = |place: Place| format!("{}.{}", place.link.0, place.number);
    match act {
        Act::Send(place, ToRouting::Attach(attach)) => {
            let what = if attach.submits_only { "introduce" } else { "attach" };
            format!("{what} {} {}", at(place), attach.number)
        }
        Act::Send(place, ToRouting::Submit(submitted)) => {
            format!("submit {} {}", at(place), submitted.message.unwrap().id[0])
        }
        Act::Send(place, ToRouting::Processed(tag)) => format!("processed {} {tag}", at(place)),
        Act::Send(place, ToRouting::Detach(_)) => format!("detach {}", at(place)),
        Act::Tell(Told::Attached(waiting)) => format!("attached {waiting}"),
        Act::Tell(Told::Deliver(delivery)) => format!("deliver {}", delivery.tag),
        Act::Tell(Told::Outcome(outcome)) => format!("outcome {} {:?}", outcome.id[0], outcome.status()),
        Act::Tell(Told::Notify(_)) => "notify".to_owned(),
        Act::Tell(Told::Ping(number)) => format!("ping {number}"),
        Act::Tell(Told::End(end)) => format!("end {:?}", end.reason()),
        Act::Tell(Told::Lost) => "lost".to_owned(),
    }
}

/// A session, its time, and what it did since it was last looked at.
struct Rig {
    dispatch: Dispatch,
    now: Instant,
}

impl Rig {
    fn new(links: &[(u64, &str, bool)]) -> Self {
        Self { dispatch: Dispatch::new(bounds(), view(links)), now: Instant::now() }
    }

    /// Attached over link 1 to a replica that is responsible for everybody.
    fn attached() -> Self {
        let mut rig = Self::new(&[(1, "one", false)]);
        rig.dispatch.attach(who(), rig.now);
        rig.event((1, 0), attached(7));
        assert_eq!(rig.did(), ["attach 1.0 0", "attached 3"]);
        rig
    }

    fn did(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.dispatch.next_act()).map(short).collect()
    }

    fn event(&mut self, (link, number): (u64, u32), event: FromRouting) {
        self.dispatch.event(Place { link: LinkId(link), number }, event, self.now);
    }

    fn submit(&mut self, id: u8, to: &str) {
        self.dispatch.submit(submit(id, to), self.now);
    }

    fn see(&mut self, links: &[(u64, &str, bool)]) -> usize {
        self.dispatch.see(view(links), self.now)
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.dispatch.tick(self.now);
    }
}

/// Two names of which the first is responsible for `BO` and the second is not, if both are there.
fn first_for_bo() -> (&'static str, &'static str) {
    let (one, two) = ("one", "two");
    if crate::rendezvous::choose([(one, 1), (two, 2)], BO) == Some(1) { (one, two) } else { (two, one) }
}

#[tokio::test(start_paused = true)]
async fn with_one_replica_it_is_one_place_for_everything() {
    let mut rig = Rig::attached();
    rig.submit(1, BO);
    rig.submit(2, ADA);
    rig.event((1, 0), outcome(1, BO, pb::Status::Stored));
    rig.event((1, 0), deliver(1));
    rig.dispatch.processed(1);
    assert_eq!(rig.did(), ["submit 1.0 1", "submit 1.0 2", "outcome 1 Stored", "deliver 1", "processed 1.0 1"]);
    assert_eq!(rig.dispatch.places(), [Place { link: LinkId(1), number: 0 }]);
    assert!(!rig.dispatch.is_idle());
    rig.event((1, 0), outcome(2, ADA, pb::Status::Rejected));
    assert_eq!(rig.did(), ["outcome 2 Rejected"]);
    assert!(rig.dispatch.is_idle() && rig.dispatch.lanes.is_empty());
    assert_eq!((rig.dispatch.held.amount(), rig.dispatch.bounds.total.held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_replica_has_not_answered_is_submitted_again_in_order_and_before_the_rest() {
    let mut rig = Rig::attached();
    for id in 1..=3 {
        rig.submit(id, BO);
    }
    rig.event((1, 0), deliver(1));
    rig.event((1, 0), deliver(2));
    rig.did();
    assert_eq!(rig.see(&[]), 3);
    rig.submit(4, BO);
    rig.dispatch.processed(2);
    assert_eq!(rig.did(), [""; 0], "nobody is there");
    rig.pass(5_000);
    assert_eq!(rig.see(&[(2, "other", false)]), 0);
    let again = ["attach 2.1 7", "submit 2.1 1", "submit 2.1 2", "submit 2.1 3", "submit 2.1 4"];
    assert_eq!(rig.did(), again);
    // Late words of the lost one.
    rig.event((1, 0), outcome(1, BO, pb::Status::Delivered));
    rig.event((1, 0), outcome(2, BO, pb::Status::Rejected));
    rig.event((1, 0), deliver(3));
    rig.event((1, 0), end(pb::EndReason::Replaced));
    assert_eq!(rig.did(), ["outcome 1 Delivered"]);
    rig.event((2, 1), attached(7));
    rig.event((2, 1), deliver(1));
    rig.event((2, 1), outcome(1, BO, pb::Status::Delivered));
    rig.event((2, 1), outcome(2, BO, pb::Status::Stored));
    rig.dispatch.processed(2);
    rig.dispatch.processed(3);
    assert_eq!(rig.did(), ["deliver 3", "outcome 2 Stored", "processed 2.1 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_loss_is_not_told_as_one() {
    let mut rig = Rig::attached();
    rig.submit(1, BO);
    rig.see(&[(2, "other", false)]);
    rig.submit(2, BO);
    rig.did();
    rig.event((2, 1), outcome(2, BO, pb::Status::Rejected));
    assert_eq!(rig.did(), ["outcome 2 Rejected"], "this one has only been there");
    rig.event((2, 1), outcome(1, BO, pb::Status::Rejected));
    assert_eq!(rig.did(), ["lost"], "the first may have accepted it");
}

#[tokio::test(start_paused = true)]
async fn a_lane_stays_where_it_is_until_it_is_answered() {
    let (near, far) = first_for_bo();
    let mut rig = Rig::new(&[(1, far, false)]);
    rig.dispatch.attach(who(), rig.now);
    rig.submit(1, BO);
    rig.did();
    rig.see(&[(1, far, false), (2, near, false)]);
    rig.submit(2, BO);
    assert_eq!(rig.did(), [""; 0], "the second does not overtake the first");
    rig.event((1, 0), outcome(1, BO, pb::Status::Stored));
    assert_eq!(rig.did(), ["outcome 1 Stored", "introduce 2.1 0", "submit 2.1 2"]);
    rig.submit(3, BO);
    assert_eq!(rig.did(), ["submit 2.1 3"], "introduced once");
    let places = [(1, 0), (2, 1)].map(|(link, number)| Place { link: LinkId(link), number });
    assert_eq!(rig.dispatch.places(), places);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_drains_gets_nothing_new_and_answers_what_it_has() {
    let mut rig = Rig::attached();
    rig.submit(1, BO);
    rig.submit(2, BO);
    rig.see(&[(1, "one", true), (2, "two", false)]);
    rig.submit(3, BO);
    rig.submit(4, "eve@birdy.example");
    assert_eq!(rig.did(), ["submit 1.0 1", "submit 1.0 2", "introduce 2.1 7", "submit 2.1 4"]);
    rig.event((1, 0), outcome(1, BO, pb::Status::Stored));
    rig.event((1, 0), deliver(1));
    assert_eq!(rig.did(), ["outcome 1 Stored", "deliver 1"]);
    rig.see(&[(2, "two", false)]);
    assert_eq!(rig.did(), ["attach 2.2 7", "submit 2.1 2", "submit 2.1 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_moved_attaches_again_and_not_too_often() {
    let mut rig = Rig::attached();
    rig.submit(1, BO);
    rig.event((1, 0), deliver(1));
    rig.event((1, 0), FromRouting::Moved(Moved {}));
    rig.event((1, 0), deliver(2));
    rig.event((1, 0), FromRouting::Notify(pb::Notification::default()));
    assert_eq!(rig.did(), ["submit 1.0 1", "deliver 1", "attach 1.1 7"]);
    // It still submits where it was known.
    rig.submit(2, BO);
    rig.event((1, 0), outcome(1, BO, pb::Status::Stored));
    rig.event((1, 1), attached(7));
    rig.event((1, 1), deliver(1));
    assert_eq!(rig.did(), ["submit 1.0 2", "outcome 1 Stored", "deliver 2"]);
    let mut waits = Vec::new();
    for number in 1..10 {
        rig.event((1, number), FromRouting::Moved(Moved {}));
        assert_eq!(rig.did()[0], format!("detach 1.{number}"), "it is not known there by that name any more");
        let due = rig.dispatch.next_tick().unwrap();
        waits.push(due - rig.now);
        rig.now = due;
        rig.dispatch.tick(due);
        assert_eq!(rig.did(), [format!("attach 1.{} 7", number + 1)]);
        rig.event((1, number + 1), attached(7));
    }
    assert!(waits.is_sorted() && waits[8] == LONGEST_WAIT, "{waits:?}");
    rig.now += SETTLED;
    rig.event((1, 10), FromRouting::Moved(Moved {}));
    assert_eq!(rig.did(), ["detach 1.10", "attach 1.11 7"], "all is forgiven");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_only_says_not_now_is_not_the_sessions_end() {
    let mut rig = Rig::attached();
    rig.submit(1, BO);
    rig.did();
    rig.event((1, 0), end(pb::EndReason::Overloaded));
    assert_eq!(rig.did(), [""; 0]);
    assert_eq!(rig.dispatch.next_tick(), Some(rig.now + Duration::from_millis(200)));
    rig.pass(200);
    assert_eq!(rig.did(), ["attach 1.1 7", "submit 1.1 1"]);
    rig.event((1, 1), attached(7));
    rig.event((1, 1), end(pb::EndReason::Draining));
    rig.see(&[(1, "one", false), (2, "two", false)]);
    rig.pass(200);
    rig.did();
    for reason in [pb::EndReason::Replaced, pb::EndReason::DeviceRemoved, pb::EndReason::Withdrawn] {
        let mut rig = Rig::attached();
        rig.event((1, 0), end(reason));
        assert_eq!(rig.did(), [format!("end {reason:?}")]);
    }
    let mut login = Rig::new(&[(1, "one", false)]);
    login.dispatch.attach(who(), login.now);
    login.event((1, 0), end(pb::EndReason::Overloaded));
    assert_eq!(login.did(), ["attach 1.0 0", "end Overloaded"]);
}

#[tokio::test(start_paused = true)]
async fn without_any_replica_the_session_ends_after_the_grace() {
    let mut rig = Rig::attached();
    rig.see(&[]);
    assert_eq!(rig.dispatch.next_tick(), Some(rig.now + Duration::from_secs(10)));
    rig.pass(9_999);
    assert_eq!(rig.did(), [""; 0]);
    rig.pass(1);
    assert_eq!(rig.did(), ["lost"]);

    // A replica that does not answer is none.
    let mut rig = Rig::attached();
    rig.see(&[(2, "two", false)]);
    rig.pass(6_000);
    rig.see(&[(3, "three", false)]);
    rig.pass(4_000);
    assert_eq!(rig.did(), ["attach 2.1 7", "attach 3.2 7", "lost"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_in_number_and_bytes_for_one_and_for_all() {
    let mut rig = Rig::attached();
    for id in 0..7 {
        rig.submit(id, BO);
        assert!(!rig.dispatch.is_full());
    }
    rig.submit(7, BO);
    assert!(rig.dispatch.is_full());
    rig.event((1, 0), outcome(0, BO, pb::Status::Stored));
    assert!(!rig.dispatch.is_full());

    let large = |id| pb::Submit {
        enc: vec![pb::Enc { ciphertext: Bytes::from(vec![0; 64 * 1024]), ..pb::Enc::default() }],
        ..submit(id, BO)
    };
    let mut rig = Rig::attached();
    rig.dispatch.submit(large(1), rig.now);
    assert!(rig.dispatch.is_full());
    rig.event((1, 0), outcome(1, BO, pb::Status::Stored));
    assert!(!rig.dispatch.is_full());

    let mut rig = Rig::attached();
    let others = rig.dispatch.bounds.total.charge(16 * 1024 * 1024 - 8 * 1024).unwrap();
    rig.submit(1, BO);
    assert!(rig.dispatch.is_full(), "its share of what is left is small");
    drop(others);
    assert!(!rig.dispatch.is_full());
}

#[test]
fn all_repeats_of_a_message_have_its_outcome() {
    let mut rig = Rig::attached();
    for _ in 0..3 {
        rig.submit(1, BO);
    }
    rig.submit(2, BO);
    rig.did();
    rig.event((1, 0), outcome(1, BO, pb::Status::Stored));
    assert_eq!(rig.did(), ["outcome 1 Stored"; 3]);
    // Routing has answered more of them; nothing is left that it could be about.
    rig.event((1, 0), outcome(1, BO, pb::Status::Stored));
    assert!(rig.did().is_empty());
    rig.event((1, 0), outcome(2, BO, pb::Status::Stored));
    assert_eq!(rig.did(), ["outcome 2 Stored"]);
    assert!(rig.dispatch.is_idle());
}

#[test]
fn each_repeat_has_a_refusal_of_its_own() {
    let mut rig = Rig::attached();
    rig.submit(1, BO);
    rig.submit(1, BO);
    rig.did();
    rig.event((1, 0), outcome(1, BO, pb::Status::Rejected));
    assert_eq!(rig.did(), ["outcome 1 Rejected"]);
    rig.event((1, 0), outcome(1, BO, pb::Status::Stored));
    assert_eq!(rig.did(), ["outcome 1 Stored"]);
}

#[test]
fn a_link_that_comes_up_after_one_that_began_later_is_chosen_too() {
    let seen = |name: &str| Seen { name: name.into(), draining: false };
    let mut view = View::default();
    let mut links = Vec::new();
    // In the order in which they come up.
    for (id, name) in [(2, "b"), (3, "c"), (1, "a"), (5, "e"), (4, "d")] {
        view.comes(LinkId(id), seen(name));
        links.push((name, LinkId(id)));
        for n in 0..50 {
            let address = format!("user{n}@birdy.example");
            assert_eq!(view.choose(&address), crate::rendezvous::choose(links.iter().copied(), &address));
        }
    }
}
