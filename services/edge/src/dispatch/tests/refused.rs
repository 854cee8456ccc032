//! Messages that are refused for a while: nothing overtakes them.

use std::collections::BTreeSet;

use causeway_proto::routing::v1::Submitted;
use proptest::prelude::*;

use super::*;

fn later(id: u8, to: &str) -> FromRouting {
    let id = Bytes::copy_from_slice(&[id; 16]);
    FromRouting::Outcome(pb::Outcome {
        id,
        to: to.to_owned(),
        status: pb::Status::Rejected.into(),
        reason: pb::Rejection::RateLimited.into(),
        retry_after_ms: 100,
        ..pb::Outcome::default()
    })
}

#[test]
fn a_loss_while_something_is_under_way_behind_a_refusal_ends_the_session() {
    let mut rig = Rig::attached();
    for id in 1..=3 {
        rig.submit(id, BO);
    }
    rig.did();
    rig.event((1, 0), later(1, BO));
    assert_eq!(rig.did(), ["outcome 1 Rejected", "ping 1"]);
    // Where they are, 2 and 3 would be refused too; another replica would take them before 1 comes again.
    rig.see(&[(2, "two", false)]);
    assert_eq!(rig.did(), ["lost"], "and nothing is submitted any more");
}

#[test]
fn what_is_not_submitted_yet_is_refused_with_what_it_is_behind() {
    let mut rig = Rig::attached();
    rig.submit(1, BO);
    rig.did();
    // The lane belongs elsewhere now: 2 waits for the answer to 1.
    rig.see(&[(1, "one", true), (2, "two", false)]);
    rig.submit(2, BO);
    assert!(!rig.did().iter().any(|act| act.starts_with("submit")));
    rig.event((1, 0), later(1, BO));
    assert_eq!(rig.did(), ["outcome 1 Rejected", "outcome 2 Rejected", "ping 1"]);
    assert!(rig.dispatch.is_idle());
}

#[test]
fn what_was_refused_comes_again_in_its_order_before_anything_else() {
    let mut rig = Rig::attached();
    for id in 1..=3 {
        rig.submit(id, BO);
    }
    rig.did();
    rig.event((1, 0), outcome(1, BO, pb::Status::Stored));
    rig.event((1, 0), later(2, BO));
    rig.submit(2, BO);
    assert_eq!(
        rig.did(),
        ["outcome 1 Stored", "outcome 2 Rejected", "ping 1", "outcome 2 Rejected"],
        "3 is still under way"
    );
    rig.event((1, 0), later(3, BO));
    rig.submit(3, BO);
    rig.submit(4, BO);
    assert_eq!(rig.did(), ["outcome 3 Rejected", "outcome 3 Rejected", "outcome 4 Rejected"], "2 comes first");
    rig.submit(5, ADA);
    assert_eq!(rig.did(), ["submit 1.0 5"], "others wait for nothing");
    rig.submit(2, BO);
    rig.submit(4, BO);
    rig.submit(3, BO);
    rig.submit(4, BO);
    rig.submit(6, BO);
    assert_eq!(rig.did(), ["submit 1.0 2", "outcome 4 Rejected", "submit 1.0 3", "submit 1.0 4", "submit 1.0 6"]);
    // A replica that is lost now has nothing of before.
    rig.see(&[(2, "two", false)]);
    assert!(!rig.did().contains(&"lost".to_owned()));
}

#[test]
fn a_refused_message_that_never_comes_again_is_not_waited_for_for_ever() {
    let mut rig = Rig::attached();
    rig.submit(1, BO);
    rig.event((1, 0), later(1, BO));
    assert!(rig.did().contains(&"ping 1".to_owned()));
    // As long as nothing shows that the client knows, what it sends was sent without knowing.
    rig.pass(60_000);
    rig.submit(2, BO);
    assert_eq!(rig.did(), ["outcome 2 Rejected"]);
    rig.dispatch.ponged(1, rig.now);
    assert_eq!(rig.did(), ["ping 2"], "for what was refused since");
    rig.dispatch.ponged(2, rig.now);
    rig.pass(4_900);
    rig.submit(2, BO);
    assert_eq!(rig.did(), ["outcome 2 Rejected"]);
    rig.pass(200);
    rig.submit(2, BO);
    assert_eq!(rig.did(), ["submit 1.0 2"]);
    rig.event((1, 0), outcome(2, BO, pb::Status::Stored));
    assert!(rig.dispatch.lanes.is_empty());
    assert_eq!(rig.dispatch.owing.len(), 0);
}

#[test]
fn what_is_owed_is_bounded() {
    let mut rig = Rig::attached();
    for number in 0..1_000 {
        let to = format!("user{number}@home.example");
        rig.submit(1, &to);
        rig.event((1, 0), later(1, &to));
    }
    assert_eq!(rig.dispatch.owing.len(), 512);
    assert!(rig.dispatch.lanes.is_empty());
    assert!(rig.dispatch.bounds.total.held() <= 512 * 104);
    rig.dispatch.ponged(1, rig.now);
    rig.dispatch.ponged(2, rig.now);
    rig.pass(6_000);
    rig.submit(1, BO);
    rig.event((1, 0), later(1, BO));
    assert_eq!(rig.dispatch.owing.len(), 1);
}

/// A client, a session and a routing, and everything that is on its way between them.
struct Line {
    dispatch: Dispatch,
    now: Instant,
    /// What the client means to send, in its order.
    unsent: BTreeSet<u8>,
    to_edge: VecDeque<u8>,
    to_client: VecDeque<pb::Outcome>,
    to_routing: VecDeque<(Place, Submitted)>,
    from_routing: VecDeque<(Place, FromRouting)>,
    /// Up to which generation routing refuses, and whether it refuses what comes next.
    closed: Option<u32>,
    limited: bool,
    accepted: Vec<u8>,
    written: u8,
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    Write,
    Send,
    Arrive,
    Decide,
    Answer,
    Hear,
    Limit(bool),
}

impl Line {
    fn happen(&mut self, happens: Happens) {
        match happens {
            Happens::Write => {
                if self.written < 100 {
                    self.unsent.insert(self.written);
                    self.written += 1;
                }
            }
            Happens::Send => self.to_edge.extend(self.unsent.pop_first()),
            Happens::Arrive => {
                if let Some(id) = self.to_edge.pop_front() {
                    self.dispatch.submit(submit(id, BO), self.now);
                }
            }
            Happens::Decide => {
                let Some((place, submitted)) = self.to_routing.pop_front() else { return };
                let id = submitted.message.unwrap().id[0];
                let refused = self.closed.is_some_and(|closed| submitted.generation <= closed) || self.limited;
                let answer = if refused {
                    self.closed = self.closed.max(Some(submitted.generation));
                    later(id, BO)
                } else {
                    self.accepted.push(id);
                    outcome(id, BO, pb::Status::Stored)
                };
                self.from_routing.push_back((place, answer));
            }
            Happens::Answer => {
                if let Some((place, answer)) = self.from_routing.pop_front() {
                    self.dispatch.event(place, answer, self.now);
                }
            }
            Happens::Hear => {
                if let Some(outcome) = self.to_client.pop_front()
                    && outcome.status() == pb::Status::Rejected
                {
                    self.unsent.insert(outcome.id[0]);
                }
            }
            Happens::Limit(limited) => self.limited = limited,
        }
        while let Some(act) = self.dispatch.next_act() {
            match act {
                Act::Send(place, ToRouting::Submit(submitted)) => self.to_routing.push_back((place, submitted)),
                Act::Tell(Told::Outcome(outcome)) => self.to_client.push_back(outcome),
                // A client that does not answer yet.
                Act::Send(..) | Act::Tell(Told::Attached(_) | Told::Ping(_)) => {}
                Act::Tell(told) => panic!("{told:?}"),
            }
        }
    }
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Write),
        4 => Just(Happens::Send),
        4 => Just(Happens::Arrive),
        4 => Just(Happens::Decide),
        4 => Just(Happens::Answer),
        4 => Just(Happens::Hear),
        1 => any::<bool>().prop_map(Happens::Limit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// However eagerly a client sends, and however long anything is on its way, what routing accepts is in the order in
    /// which the client sent it first, and in the end it is everything.
    #[test]
    fn nothing_overtakes_what_was_refused(all in prop::collection::vec(happens(), 0..600)) {
        let mut line = Line {
            dispatch: Rig::attached().dispatch,
            now: Instant::now(),
            unsent: BTreeSet::new(),
            to_edge: VecDeque::new(),
            to_client: VecDeque::new(),
            to_routing: VecDeque::new(),
            from_routing: VecDeque::new(),
            closed: None,
            limited: false,
            accepted: Vec::new(),
            written: 0,
        };
        for happens in all {
            line.happen(happens);
        }
        line.happen(Happens::Limit(false));
        for _ in 0..2_000 {
            for happens in [Happens::Send, Happens::Arrive, Happens::Decide, Happens::Answer, Happens::Hear] {
                line.happen(happens);
            }
        }
        let sent: Vec<u8> = (0..line.written).collect();
        prop_assert_eq!(&line.accepted, &sent);
        prop_assert!(line.dispatch.lanes.is_empty());
        prop_assert_eq!(line.dispatch.owing.len(), 0);
    }
}
