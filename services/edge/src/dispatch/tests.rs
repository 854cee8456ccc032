//! The rules one by one, and against replicas that come, go, forget and answer late.

use std::collections::BTreeMap;

use bytes::Bytes;
use causeway_proto::routing::v1::Attached;
use proptest::prelude::*;

use super::*;

mod refused;

const ADA: &str = "ada@birdy.example";
const BO: &str = "bo@home.example";

fn bounds() -> Bounds {
    let total = Budget::new(16 * 1024 * 1024);
    Bounds { grace: Duration::from_secs(10), messages: 8, bytes: 64 * 1024, total, metrics: Arc::new(Metrics::new()) }
}

fn view(links: &[(u64, &str, bool)]) -> Arc<View> {
    let seen =
        |(id, name, draining): &(u64, &str, bool)| (LinkId(*id), Seen { name: (*name).into(), draining: *draining });
    Arc::new(View(links.iter().map(seen).collect()))
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
    if rendezvous::choose([(one, 1), (two, 2)], BO) == Some(1) { (one, two) } else { (two, one) }
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
    assert_eq!((rig.dispatch.own.held(), rig.dispatch.bounds.total.held()), (0, 0));
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

/// What happens to the replicas and to the session.
#[derive(Debug, Clone)]
enum Chance {
    Submit(u8),
    /// The oldest thing said to one of the links is heard.
    Hear(u8),
    /// The oldest thing that one of the links says is heard.
    Say(u8),
    Deliver(u8),
    Move,
    Refuse(u8),
    Break(u8),
    Drain(u8),
    Up(u8),
    Pass(u16),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        6 => (0..3_u8).prop_map(Chance::Submit),
        12 => any::<u8>().prop_map(Chance::Hear),
        12 => any::<u8>().prop_map(Chance::Say),
        3 => any::<u8>().prop_map(Chance::Deliver),
        1 => Just(Chance::Move),
        1 => any::<u8>().prop_map(Chance::Refuse),
        1 => any::<u8>().prop_map(Chance::Break),
        1 => any::<u8>().prop_map(Chance::Drain),
        2 => (0..3_u8).prop_map(Chance::Up),
        2 => (0..3_000_u16).prop_map(Chance::Pass),
    ]
}

/// A link with a replica behind it, which accepts what it is sent, in order.
#[derive(Default)]
struct Wire {
    name: String,
    draining: bool,
    to_replica: VecDeque<(Place, ToRouting)>,
    to_session: VecDeque<(Place, FromRouting)>,
    /// Attached places, and the last tag given to each.
    tags: BTreeMap<Place, u64>,
    known: Vec<Place>,
}

/// All replicas together, and what they have accepted by recipient: first and again.
#[derive(Default)]
struct World {
    wires: BTreeMap<LinkId, Wire>,
    accepted: BTreeMap<String, Vec<u8>>,
    names: u64,
}

impl World {
    fn view(&self) -> Arc<View> {
        let seen = |wire: &Wire| Seen { name: wire.name.as_str().into(), draining: wire.draining };
        Arc::new(View(self.wires.iter().map(|(id, wire)| (*id, seen(wire))).collect()))
    }

    fn pick(&mut self, index: u8) -> Option<(LinkId, &mut Wire)> {
        let count = self.wires.len().max(1);
        self.wires.iter_mut().nth(usize::from(index) % count).map(|(id, wire)| (*id, wire))
    }

    fn hear(&mut self, index: u8) -> Result<(), TestCaseError> {
        let Some((_, wire)) = self.pick(index) else { return Ok(()) };
        let Some((place, event)) = wire.to_replica.pop_front() else { return Ok(()) };
        match event {
            ToRouting::Attach(attach) => {
                prop_assert!(!wire.known.contains(&place), "a name is used once");
                wire.known.push(place);
                if !attach.submits_only {
                    wire.tags.insert(place, 0);
                    wire.to_session.push_back((place, attached(9)));
                }
            }
            ToRouting::Submit(submitted) => {
                prop_assert!(wire.known.contains(&place), "introduced before");
                let message = submitted.message.unwrap();
                // What comes while it drains is dropped.
                if !wire.draining {
                    wire.to_session.push_back((place, outcome(message.id[0], &message.to, pb::Status::Stored)));
                    self.accepted.entry(message.to).or_default().push(message.id[0]);
                }
            }
            ToRouting::Processed(tag) => {
                let given = wire.tags.get(&place);
                prop_assert!(given.is_none_or(|given| tag <= *given), "a tag that was given");
            }
            ToRouting::Detach(_) => {
                wire.tags.remove(&place);
            }
        }
        Ok(())
    }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens to replicas: tags rise by one, each message is answered once, and what replicas accept of a pair
    /// is in the order of submission but for repeats. In the end, when one replica is there and stays, everything is
    /// accepted.
    #[test]
    fn nothing_is_lost_reordered_or_told_twice(chances in prop::collection::vec(chance(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { play(chances) })?;
    }
}

struct Player {
    dispatch: Dispatch,
    world: World,
    now: Instant,
    last_tag: u64,
    answered: Vec<u8>,
    over: bool,
}

impl Player {
    /// Does what is to be done.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        while let Some(act) = self.dispatch.next_act() {
            match act {
                Act::Send(place, event) => {
                    let wire = self.world.wires.get_mut(&place.link);
                    wire.expect("only to links that are up").to_replica.push_back((place, event));
                }
                Act::Tell(Told::Deliver(delivery)) => {
                    prop_assert_eq!(delivery.tag, self.last_tag + 1);
                    self.last_tag += 1;
                    // Sometimes late, sometimes at once.
                    if delivery.tag % 3 != 0 {
                        self.dispatch.processed(delivery.tag);
                    }
                }
                Act::Tell(Told::Outcome(outcome)) => {
                    prop_assert!(!self.answered.contains(&outcome.id[0]), "told twice");
                    self.answered.push(outcome.id[0]);
                }
                Act::Tell(Told::Lost) => self.over = true,
                Act::Tell(Told::End(end)) => prop_assert!(false, "{end:?}"),
                Act::Tell(Told::Attached(_) | Told::Notify(_)) => {}
            }
        }
        Ok(())
    }

    fn say(&mut self, index: u8) {
        let now = self.now;
        let Some((_, wire)) = self.world.pick(index) else { return };
        if let Some((place, event)) = wire.to_session.pop_front() {
            self.dispatch.event(place, event, now);
        }
    }
}

fn play(chances: Vec<Chance>) -> Result<(), TestCaseError> {
    let bounds = Bounds { messages: usize::MAX, bytes: usize::MAX, ..bounds() };
    let mut player = Player {
        dispatch: Dispatch::new(bounds, Arc::default()),
        world: World::default(),
        now: Instant::now(),
        last_tag: 0,
        answered: Vec::new(),
        over: false,
    };
    player.dispatch.attach(who(), player.now);
    let mut sent: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut next = 0;
    for chance in chances {
        let now = player.now;
        match chance {
            Chance::Submit(recipient) => {
                let to = format!("user{recipient}@home.example");
                sent.entry(to.clone()).or_default().push(next);
                player.dispatch.submit(submit(next, &to), now);
                next += 1;
            }
            Chance::Hear(link) => player.world.hear(link)?,
            Chance::Say(link) => player.say(link),
            Chance::Deliver(index) => {
                if let Some((_, wire)) = player.world.pick(index)
                    && let Some((place, tag)) = wire.tags.iter_mut().next_back()
                {
                    *tag += 1;
                    wire.to_session.push_back((*place, deliver(*tag)));
                }
            }
            Chance::Move => {
                if let Some(place) = player.dispatch.attached_at()
                    && let Some(wire) = player.world.wires.get_mut(&place.link)
                    && wire.tags.remove(&place).is_some()
                {
                    wire.to_session.push_back((place, FromRouting::Moved(Moved {})));
                }
            }
            Chance::Refuse(index) => {
                // It knows the session no more under a name that it is not attached under.
                if let Some((_, wire)) = player.world.pick(index)
                    && let Some(at) = wire.known.iter().position(|place| !wire.tags.contains_key(place))
                    && wire.to_replica.is_empty()
                {
                    let place = wire.known[at];
                    wire.to_session.push_back((place, end(pb::EndReason::Overloaded)));
                }
            }
            Chance::Break(index) => {
                if let Some((link, _)) = player.world.pick(index) {
                    player.world.wires.remove(&link);
                    player.dispatch.see(player.world.view(), now);
                }
            }
            Chance::Drain(index) => {
                if let Some((_, wire)) = player.world.pick(index) {
                    wire.draining = true;
                    player.dispatch.see(player.world.view(), now);
                }
            }
            Chance::Up(name) => {
                player.world.names += 1;
                let wire = Wire { name: format!("replica-{name}"), ..Wire::default() };
                player.world.wires.insert(LinkId(player.world.names), wire);
                player.dispatch.see(player.world.view(), now);
            }
            Chance::Pass(ms) => {
                player.now += Duration::from_millis(ms.into());
                player.dispatch.tick(player.now);
            }
        }
        player.settle()?;
    }
    if player.over {
        return Ok(());
    }

    // Everything that was there ends, and one replica stays.
    player.world.wires.clear();
    player.world.wires.insert(LinkId(u64::MAX), Wire { name: "last".to_owned(), ..Wire::default() });
    player.dispatch.see(player.world.view(), player.now);
    player.settle()?;
    for _ in 0..2_000 {
        player.world.hear(0)?;
        player.say(0);
        player.settle()?;
        if let Some(due) = player.dispatch.next_tick() {
            player.now = player.now.max(due.min(player.now + Duration::from_millis(1)));
            player.dispatch.tick(player.now);
        }
        player.settle()?;
    }
    prop_assert!(player.dispatch.is_idle());
    prop_assert_eq!(player.answered.len(), usize::from(next));
    prop_assert!(player.dispatch.lanes.is_empty());
    prop_assert_eq!(player.dispatch.own.held(), 0);
    for (to, sent) in sent {
        // What a recipient sees: the first copy of each.
        let mut seen = Vec::new();
        for id in &player.world.accepted[&to] {
            if !seen.contains(id) {
                seen.push(*id);
            }
        }
        prop_assert_eq!(seen, sent);
    }
    Ok(())
}
