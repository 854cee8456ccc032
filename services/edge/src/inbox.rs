//! What replicas say to a session, from their links until its connection takes it. Of one that is idle it holds no memory but
//! its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use causeway_proto::routing::v1::Moved;
use causeway_proto::routing::v1::routing_event::Event as FromRouting;
use causeway_proto::wire::v1::End;
use causeway_runtime::telemetry::trace::Step;
use tokio::task::coop;

use crate::dispatch::Place;
use crate::limits::{Budget, Charge};

/// Ends and moves that may wait for a session: one each for a place that it has at a replica.
const URGENT: usize = 64;

/// Filled by links, emptied by the one session that it is of.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    messages: usize,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Routed>,
    urgent: VecDeque<(Place, Urgent)>,
    /// Something did not fit. Nothing is told behind it.
    lost: bool,
    /// Other links are up than the session knows of.
    links: bool,
    waiting: Option<Waiting>,
}

/// The session waits.
#[derive(Debug)]
struct Waiting {
    waker: Waker,
    /// Also for what is not urgent.
    room: bool,
}

/// What a replica says to a session; its bytes count against the budgets until it is dropped.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) place: Place,
    pub(crate) event: FromRouting,
    /// Of a delivery that is traced: from here until it has left for its device.
    pub(crate) step: Option<Box<Step>>,
    pub(crate) charges: [Charge; 2],
}

/// What a replica says to a session that does not wait behind what its client does not read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Urgent {
    End(End),
    Moved(Moved),
}

impl From<Urgent> for FromRouting {
    fn from(urgent: Urgent) -> Self {
        match urgent {
            Urgent::End(end) => Self::End(end),
            Urgent::Moved(moved) => Self::Moved(moved),
        }
    }
}

/// What is taken out.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "almost all are the large one, and none is kept")]
pub(crate) enum Taken {
    Event(Routed),
    Urgent(Place, Urgent),
    /// There was no room for something.
    Lost,
    /// Other links are up.
    Links,
}

impl Inbox {
    /// One for so many messages and bytes.
    pub(crate) fn new(messages: usize, bytes: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), messages, budget: Budget::new(bytes) })
    }

    /// What has been put in, and taken out without having left for the client.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Puts an event in; false if there is no room for it.
    #[must_use]
    pub(crate) fn put(&self, routed: Routed) -> bool {
        let mut state = self.state();
        if state.lost || state.events.len() >= self.messages {
            return false;
        }
        state.events.push_back(routed);
        wake(state, false);
        true
    }

    /// The same for what does not wait for its turn.
    #[must_use]
    pub(crate) fn put_urgent(&self, place: Place, urgent: Urgent) -> bool {
        let mut state = self.state();
        if state.lost || state.urgent.len() >= URGENT {
            return false;
        }
        state.urgent.push_back((place, urgent));
        wake(state, true);
        true
    }

    /// Nothing more is put in: something was lost.
    pub(crate) fn lose(&self) {
        let mut state = self.state();
        state.lost = true;
        wake(state, true);
    }

    /// Other links are up.
    pub(crate) fn see_links(&self) {
        let mut state = self.state();
        state.links = true;
        wake(state, true);
    }

    /// What is urgent first, then that something was lost, then events, but only if there is `room` for them; links when there
    /// is nothing else.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, room: bool) -> Poll<Taken> {
        // Others of its task have their turn, however much waits here.
        let turn = ready!(coop::poll_proceed(cx));
        let mut state = self.state();
        let taken = if let Some((place, urgent)) = state.urgent.pop_front() {
            Taken::Urgent(place, urgent)
        } else if state.lost {
            Taken::Lost
        } else if room && let Some(routed) = state.pop() {
            Taken::Event(routed)
        } else if std::mem::take(&mut state.links) {
            Taken::Links
        } else {
            match &mut state.waiting {
                Some(waiting) if waiting.waker.will_wake(cx.waker()) => waiting.room = room,
                waiting => *waiting = Some(Waiting { waker: cx.waker().clone(), room }),
            }
            return Poll::Pending;
        };
        turn.made_progress();
        Poll::Ready(taken)
    }

    /// The next event, if there is one already.
    pub(crate) fn try_take(&self) -> Option<Routed> {
        self.state().pop()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop(&mut self) -> Option<Routed> {
        let routed = self.events.pop_front();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        routed
    }
}

/// Outside the lock, so that whoever is woken finds it free.
fn wake(mut state: MutexGuard<'_, State>, urgent: bool) {
    let waits = state.waiting.as_ref().is_some_and(|waiting| urgent || waiting.room);
    let waiting = if waits { state.waiting.take() } else { None };
    drop(state);
    if let Some(Waiting { waker, .. }) = waiting {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use causeway_proto::routing::v1::Attached;
    use futures::FutureExt as _;

    use super::*;
    use crate::dispatch::LinkId;

    const PLACE: Place = Place { link: LinkId(1), number: 1 };

    fn routed(n: u64) -> Routed {
        let charge = || Budget::new(1).charge(1).unwrap();
        let event = FromRouting::Attached(Attached { waiting: n, number: 1 });
        Routed { place: PLACE, event, step: None, charges: [charge(), charge()] }
    }

    fn moved(inbox: &Inbox) -> bool {
        inbox.put_urgent(PLACE, Urgent::Moved(Moved {}))
    }

    /// What is there now, as a word.
    fn take(inbox: &Inbox, room: bool) -> String {
        match std::future::poll_fn(|cx| inbox.poll_take(cx, room)).now_or_never() {
            None => "nothing".to_owned(),
            Some(Taken::Lost) => "lost".to_owned(),
            Some(Taken::Links) => "links".to_owned(),
            Some(Taken::Urgent(..)) => "urgent".to_owned(),
            Some(Taken::Event(Routed { event: FromRouting::Attached(attached), .. })) => attached.waiting.to_string(),
            Some(Taken::Event(other)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn events_come_in_order_and_what_is_urgent_before_them() {
        let inbox = Inbox::new(8, 1_000);
        assert_eq!(take(&inbox, true), "nothing");
        inbox.see_links();
        inbox.see_links();
        assert!(inbox.put(routed(1)) && inbox.put(routed(2)) && moved(&inbox));
        assert_eq!([take(&inbox, false), take(&inbox, false)], ["urgent", "links"]);
        assert_eq!(take(&inbox, false), "nothing", "there is no room for what is not urgent");
        assert_eq!([take(&inbox, true), take(&inbox, true), take(&inbox, true)], ["1", "2", "nothing"]);
        assert_eq!(inbox.state().events.capacity(), 0, "an idle one holds no memory");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_told_behind_it() {
        let inbox = Inbox::new(2, 1_000);
        assert!(inbox.put(routed(1)) && inbox.put(routed(2)) && !inbox.put(routed(3)));
        assert!(moved(&inbox));
        inbox.lose();
        assert!(!inbox.put(routed(4)) && !moved(&inbox));
        assert_eq!([take(&inbox, true), take(&inbox, true)], ["urgent", "lost"]);
        let inbox = Inbox::new(2, 1_000);
        assert!((0..URGENT).all(|_| moved(&inbox)) && !moved(&inbox));
    }

    #[tokio::test]
    async fn who_waits_is_woken_for_what_there_is_room_for() {
        let inbox = Inbox::new(2, 1_000);
        let waiting = inbox.clone();
        let waits = tokio::spawn(async move { std::future::poll_fn(|cx| waiting.poll_take(cx, true)).await });
        tokio::task::yield_now().await;
        assert!(inbox.put(routed(1)));
        assert!(matches!(waits.await.unwrap(), Taken::Event(_)));
    }
}
