//! A session's ways to routing: does what its `dispatch` decides, over the links that there are.

use std::sync::Arc;
use std::task::{Context, Poll};

use causeway_identity::SessionId;
use causeway_proto::routing::v1::edge_event::Event as ToRouting;
use causeway_proto::routing::v1::routing_event::Event as FromRouting;
use causeway_proto::routing::v1::{Attach, Detach};
use causeway_proto::wire::v1 as pb;
use tokio::time::Instant;

use crate::dispatch::{Act, Dispatch, Place, Told};
use crate::inbox::{Inbox, Routed, Taken};
use crate::links::{Links, Table};

/// One session's ways. Dropping it detaches the session everywhere.
pub(crate) struct Routes {
    id: SessionId,
    links: Links,
    dispatch: Dispatch,
    /// What `dispatch` knows of.
    current: Arc<Table>,
    inbox: Arc<Inbox>,
}

/// What happened on a session's ways.
#[derive(Debug)]
pub(crate) enum Turn {
    /// An event came.
    Event(Routed),
    /// An event came that does not wait for its turn.
    Urgent(Place, FromRouting),
    /// Other links are up.
    Links,
    /// The session's queue has overflowed.
    Lost,
}

impl Routes {
    pub(crate) fn new(id: SessionId, links: Links, dispatch: Dispatch, current: Arc<Table>, inbox: Arc<Inbox>) -> Self {
        Self { id, links, dispatch, current, inbox }
    }

    /// Whatever is there; ordinary events only if there is `room` for them.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Turn> {
        self.inbox.poll_take(cx, room).map(|taken| match taken {
            Taken::Event(routed) => Turn::Event(routed),
            Taken::Urgent(place, urgent) => Turn::Urgent(place, urgent.into()),
            Taken::Lost => Turn::Lost,
            Taken::Links => Turn::Links,
        })
    }

    /// The next ordinary event if there is one already.
    pub(crate) fn try_next(&mut self) -> Option<Routed> {
        self.inbox.try_take()
    }

    pub(crate) fn attach(&mut self, who: Attach, now: Instant) {
        self.dispatch.attach(who, now);
    }

    pub(crate) fn submit(&mut self, message: pb::Submit, now: Instant) {
        self.dispatch.submit(message, now);
    }

    pub(crate) fn processed(&mut self, tag: u64) {
        self.dispatch.processed(tag);
    }

    pub(crate) fn ponged(&mut self, number: u64, now: Instant) {
        self.dispatch.ponged(number, now);
    }

    pub(crate) fn event(&mut self, place: Place, event: FromRouting, now: Instant) {
        if matches!(event, FromRouting::Moved(_)) {
            self.links.metrics().session_moved();
        }
        self.dispatch.event(place, event, now);
    }

    /// Other links are up.
    pub(crate) fn see(&mut self, now: Instant) {
        self.current = self.links.table();
        let again = self.dispatch.see(Arc::clone(&self.current.view), now);
        self.links.metrics().submitted_again(again);
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.dispatch.next_tick()
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        if self.next_tick().is_some_and(|due| due <= now) {
            self.dispatch.tick(now);
        }
    }

    /// Nothing more should be read from the client for now.
    pub(crate) fn is_full(&self) -> bool {
        self.dispatch.is_full()
    }

    /// Every message of the client has its outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.dispatch.is_idle()
    }

    /// Lets go of the room that a burst needed.
    pub(crate) fn rest(&mut self) {
        self.dispatch.rest();
    }

    /// Sends what is to be sent, up to the next thing that the session must know.
    pub(crate) fn told(&mut self) -> Option<Told> {
        loop {
            match self.dispatch.next_act()? {
                Act::Send(place, event) => self.send(place, event),
                Act::Tell(told) => return Some(told),
            }
        }
    }

    fn send(&self, place: Place, event: ToRouting) {
        if let Some(outbound) = self.current.outbound.get(&place.link) {
            outbound.send(self.id, place, event);
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.links.forget(&self.id);
        // What is to be sent still counts: an acknowledgement, for instance.
        while self.told().is_some() {}
        for place in self.dispatch.places() {
            self.send(place, ToRouting::Detach(Detach {}));
        }
    }
}
