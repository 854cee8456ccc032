//! Whatever happens to replicas and links: a session between replicas that do as they should, in any order of events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use causeway_proto::routing::v1::Moved;
use proptest::prelude::*;
use tokio::time::Instant;

use super::super::{Act, Bounds, Dispatch, FromRouting, LinkId, Place, Seen, ToRouting, Told, View};
use super::{attached, bounds, deliver, end, outcome, pb, submit, who};

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
        Arc::new(View { links: self.wires.iter().map(|(id, wire)| (*id, seen(wire))).collect(), ..View::default() })
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
                Act::Tell(Told::Attached(_) | Told::Notify(_) | Told::Ping(_)) => {}
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
    prop_assert_eq!(player.dispatch.held.amount(), 0);
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
