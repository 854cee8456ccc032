//! One client's connection: the loop that owns its socket. It looks at bytes, verdicts, routing, requests, time and drain,
//! feeds the session, and does what the session wants. A client that does not read, or does not stop writing, can only
//! stall this loop.
//!
//! There is one turn of the loop for whatever has come by the time that the task runs, and one write for all that it led
//! to. What is rare has wakers of its own (`rare`), so that a turn does not look at it.

mod effects;
mod finish;
mod rare;
mod socket;
mod traced;

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use causeway_identity::SessionId;
use causeway_proto::routing::v1::routing_event::Event as FromRouting;
use causeway_runtime::clock::SharedClock;
use causeway_runtime::rarely::Rarely;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::effects::Effects;
use self::rare::{Rare, Seldom};
use self::socket::Socket;
use crate::dispatch::{Place, Told};
use crate::limits::{Admission, Permit};
use crate::links::{Links, Routed};
use crate::login::Login;
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::pacing::{Slot, Waiting};
use crate::random::Random;
use crate::report::Report;
use crate::requests::Requests;
use crate::routes::{Routes, Turn};
use crate::session::{Input, Now, Output, Rules, Session, Why};

/// What is ready is taken together up to this many events, and then written.
const EVENTS_AT_ONCE: usize = 64;
/// Bytes that one system call reads, and how often one turn reads.
const READ_AT_ONCE: usize = 16 * 1024;
const READS_AT_ONCE: usize = 4;
/// After so many turns it is others' turn.
const TURNS_AT_ONCE: usize = 8;
/// A draining edge waits so long for outcomes and answers that are under way, before it ends a session.
const WIND_UP: Duration = Duration::from_millis(500);

/// What all connections of an edge share.
pub(crate) struct Shared {
    pub(crate) rules: Arc<Rules>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) login: Arc<Login>,
    pub(crate) logins: Logins,
    pub(crate) links: Links,
    pub(crate) requests: Arc<Requests>,
    pub(crate) metrics: Metrics,
    pub(crate) report: Arc<Report>,
    pub(crate) clock: SharedClock,
    pub(crate) random: Random,
    pub(crate) drain: CancellationToken,
}

impl Shared {
    fn now(&self) -> Now {
        Now { at: Instant::now(), unix_ms: self.clock.now_ms() }
    }
}

/// Serves one connection to its end. `since` is when it was accepted.
pub(crate) async fn serve<T>(io: T, shared: Arc<Shared>, permit: Permit, since: Instant)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    // All on the heap, each with what it needs and no longer than that: a task holds what is in it for good, and what is
    // moved into it twice.
    let logins = shared.logins.clone();
    let mut connection = Box::new(Connection::new(io, shared, permit, since));
    // Before anything is answered, so that who logs in has begun it after this.
    connection.effects.order = Box::pin(async move { logins.draw().await }).await;
    let left = poll_fn(|cx| connection.poll_run(cx)).await;
    Box::pin(connection.finish(left)).await;
}

/// A connection, and the session that it carries.
struct Connection<T> {
    socket: Socket<T>,
    /// Always there between steps.
    session: Option<Session>,
    effects: Effects,
    outputs: Vec<Output>,
    rare: Rarely<Rare>,
    /// For a slot, to go on with the handshake.
    waiting: Option<Box<Waiting>>,
    /// The edge drains: when the session is told at the latest.
    leave_by: Option<Instant>,
}

/// What a turn has left where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Nothing: what comes next wakes the task.
    Nothing,
    /// There may be more, for which there is no time in this turn.
    More,
    /// It is not wanted now, and was not asked for.
    Unwanted,
}

/// How the loop ended, other than by the session's own will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The session is over.
    Session(Why),
    /// The client closed, or the network did.
    Gone,
    /// The client does not read.
    Stalled,
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection<T> {
    fn new(io: T, shared: Arc<Shared>, permit: Permit, since: Instant) -> Self {
        let mut rng = shared.random.clone();
        // The last four bytes tell its places at replicas of routing from each other.
        let mut id = [0; 16];
        rand::RngCore::fill_bytes(&mut rng, &mut id[..12]);
        let id = SessionId::from_bytes(id);
        let session = Session::new(Arc::clone(&shared.rules), id, &mut rng, since);
        Self {
            socket: Socket::new(io),
            session: Some(session),
            outputs: Vec::new(),
            rare: Rarely::new(Rare::new(&shared.drain, since)),
            waiting: None,
            effects: Effects::new(id, shared, permit, since),
            leave_by: None,
        }
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Left> {
        for _ in 0..TURNS_AT_ONCE {
            let now = self.effects.shared.now();
            match self.turn(now, cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(left) => {
                    self.waiting = None;
                    return Poll::Ready(left);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes what is there, acts on it and writes what comes of it. True if there may be more at once; otherwise all that
    /// may come will wake the task.
    ///
    /// In an order: what is rare first, since it must not wait for what never pauses. The client comes before routing
    /// because it cannot keep the socket ready for long: it has a pace.
    fn turn(&mut self, now: Now, cx: &mut Context<'_>) -> Result<bool, Left> {
        self.take_what_is_rare(now, cx);
        self.take_verdict(now, cx);
        let bytes = self.take_bytes(now, cx)?;
        let events = self.take_events(now, cx);
        let answers = self.take_answers(now, cx);
        self.perform(now);
        if self.leave_by.is_some_and(|by| by <= now.at || self.effects.is_idle()) {
            self.step(Input::Drain, now);
            self.perform(now);
        }
        if let Some(why) = self.session.as_ref().and_then(Session::ended) {
            return Err(Left::Session(why));
        }
        self.write(now, cx)?;
        // What has been begun must be asked for the first time before it can wake anybody, and so must be what is wanted
        // by now.
        let more = std::mem::take(&mut self.effects.began)
            || [bytes, events, answers].contains(&Rest::More)
            || (bytes == Rest::Unwanted && self.wants_bytes(now))
            || ([events, answers].contains(&Rest::Unwanted) && self.has_room());
        Ok(more || self.wait(now))
    }

    fn take_what_is_rare(&mut self, now: Now, cx: &mut Context<'_>) {
        while let Poll::Ready(seldom) = self.rare.poll(cx) {
            match seldom {
                Seldom::Tick => self.tick(now),
                Seldom::Drain => {
                    let wait = if self.effects.is_logged_in() { WIND_UP } else { Duration::ZERO };
                    self.leave_by = Some(now.at + wait);
                }
                Seldom::Suspended => self.step(Input::Suspended, now),
            }
        }
    }

    fn tick(&mut self, now: Now) {
        self.with_routes(now, Routes::tick);
        self.step(Input::Tick, now);
        self.rest();
    }

    fn take_verdict(&mut self, now: Now, cx: &mut Context<'_>) {
        let Some(login) = &mut self.effects.login else { return };
        if let Poll::Ready(verdict) = login.as_mut().poll(cx) {
            self.effects.login = None;
            let verdict = self.effects.judged(verdict);
            if let Ok(admitted) = &verdict {
                self.rare.change().watch(&admitted.suspended);
                self.effects.began = true;
            }
            self.step(Input::Verdict(verdict), now);
            self.perform(now);
        }
    }

    fn take_bytes(&mut self, now: Now, cx: &mut Context<'_>) -> Result<Rest, Left> {
        for _ in 0..READS_AT_ONCE {
            if !self.wants_bytes(now) {
                if let Some(session) = &mut self.session {
                    session.not_reading(self.socket.went_on());
                }
                self.waiting = None;
                return Ok(Rest::Unwanted);
            }
            let Poll::Ready(slot) = self.poll_slot(cx) else { return Ok(Rest::Nothing) };
            let mut buffer = [MaybeUninit::uninit(); READ_AT_ONCE];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            match self.socket.poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(Rest::Nothing),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.step(Input::Bytes(buffer.filled()), now);
                    if let Some(slot) = slot
                        && self.session.as_ref().is_none_or(|session| session.was_costly(&self.outputs))
                    {
                        slot.used();
                    }
                    self.perform(now);
                }
                Poll::Ready(_) => return Err(Left::Gone),
            }
        }
        Ok(Rest::More)
    }

    /// The slot that it takes to read what is costly. One that is not used is given back at once, so a client that is silent, or
    /// that sends its message byte by byte, holds none.
    fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        if !self.session.as_ref().is_some_and(Session::is_costly) {
            return Poll::Ready(None);
        }
        let pacing = self.effects.shared.login.pacing();
        if self.waiting.is_none()
            && let Some(slot) = pacing.free_slot()
        {
            return Poll::Ready(Some(slot));
        }
        let slot = ready!(self.waiting.get_or_insert_with(|| Box::new(pacing.wait())).poll(cx));
        self.waiting = None;
        Poll::Ready(slot)
    }

    fn take_events(&mut self, now: Now, cx: &mut Context<'_>) -> Rest {
        for _ in 0..EVENTS_AT_ONCE {
            let room = self.has_room();
            let Some(routes) = &mut self.effects.routes else { return Rest::Nothing };
            let Poll::Ready(turn) = routes.poll_turn(cx, room) else {
                return if room { Rest::Nothing } else { Rest::Unwanted };
            };
            match turn {
                Turn::Lost => {
                    self.effects.routes = None;
                    self.step(Input::RoutingLost, now);
                }
                Turn::Links => self.with_routes(now, Routes::see),
                Turn::Event(routed) => self.routed(routed, now),
                Turn::Urgent(place, event) => {
                    // What came before it goes first, but it does not wait for a client that does not read.
                    while self.has_room()
                        && let Some(routed) = self.effects.routes.as_mut().and_then(|routes| routes.try_next())
                    {
                        self.routed(routed, now);
                    }
                    self.urgent(place, event, now);
                }
            }
        }
        Rest::More
    }

    fn take_answers(&mut self, now: Now, cx: &mut Context<'_>) -> Rest {
        for _ in 0..EVENTS_AT_ONCE {
            if !self.has_room() {
                return Rest::Unwanted;
            }
            let Poll::Ready((id, answer)) = self.effects.poll_answer(cx) else { return Rest::Nothing };
            self.step(Input::Answer(id, answer), now);
            self.effects.start_requests();
        }
        Rest::More
    }

    /// More may be queued for the client.
    fn has_room(&self) -> bool {
        let outbox = self.effects.shared.rules.config.outbox_bytes;
        self.session.as_ref().is_some_and(|session| session.queued() < outbox)
    }

    fn wants_bytes(&self, now: Now) -> bool {
        self.has_room()
            && self.leave_by.is_none()
            && !self.effects.is_full()
            && self.session.as_ref().is_some_and(|session| session.wants_bytes(now))
    }

    fn routed(&mut self, routed: Routed, now: Now) {
        self.effects.queued.push(routed.charges);
        self.effects.arriving = routed.step;
        self.urgent(routed.place, routed.event, now);
    }

    fn urgent(&mut self, place: Place, event: FromRouting, now: Now) {
        self.with_routes(now, |routes, at| routes.event(place, event, at));
    }

    /// Has the session's ways do something, and the session know what comes of it.
    fn with_routes(&mut self, now: Now, act: impl FnOnce(&mut Routes, Instant)) {
        let Some(routes) = &mut self.effects.routes else { return };
        act(routes, now.at);
        self.hear(now);
    }

    fn hear(&mut self, now: Now) {
        while let Some(told) = self.effects.routes.as_mut().and_then(|routes| routes.told()) {
            let input = match told {
                Told::Attached(waiting) => Input::Attached(waiting),
                Told::Deliver(delivery) => {
                    self.effects.delivering(delivery.tag);
                    Input::Deliver(delivery)
                }
                Told::Outcome(outcome) => Input::Outcome(outcome),
                Told::Notify(notification) => Input::Notify(notification),
                Told::Ping(number) => Input::Ping(number),
                Told::End(end) => Input::RoutingEnd(end),
                Told::Lost => Input::RoutingLost,
            };
            self.step(input, now);
        }
    }

    fn step(&mut self, input: Input<'_>, now: Now) {
        if let Some(session) = self.session.take() {
            self.session = Some(session.step(input, now, &mut self.outputs));
        }
    }

    /// Does what the session wants; what comes of it at once is fed back.
    fn perform(&mut self, now: Now) {
        while !self.outputs.is_empty() {
            for output in self.outputs.drain(..) {
                match output {
                    Output::Write(bytes) => self.socket.wire(now.at).extend_from_slice(&bytes),
                    output => self.effects.perform(output, now.at),
                }
            }
            self.hear(now);
        }
    }

    /// Writes what is queued, as far as the network takes it.
    fn write(&mut self, now: Now, cx: &mut Context<'_>) -> Result<(), Left> {
        loop {
            if self.socket.is_flushed() {
                self.effects.written.clear();
                let Some(session) = self.session.as_mut().filter(|session| session.queued() > 0) else {
                    self.effects.queued.clear();
                    break;
                };
                std::mem::swap(&mut self.effects.written, &mut self.effects.queued);
                session.seal_into(self.socket.wire(now.at));
                if self.socket.is_flushed() {
                    break;
                }
            }
            match self.socket.poll_write(cx) {
                Poll::Ready(Ok(())) => self.effects.traced.written(),
                Poll::Ready(Err(_)) => return Err(Left::Gone),
                Poll::Pending => break,
            }
        }
        match self.write_deadline() {
            Some(deadline) if deadline <= now.at => Err(Left::Stalled),
            _ => Ok(()),
        }
    }

    fn write_deadline(&self) -> Option<Instant> {
        self.socket.since().map(|since| since + self.effects.shared.rules.config.write_timeout())
    }

    /// Sees to it that the task is woken when the next deadline comes. True if there is something to look at before.
    fn wait(&mut self, now: Now) -> bool {
        let session = self.session.as_ref().and_then(|session| session.next_tick(now));
        let ways = self.effects.routes.as_ref().and_then(|routes| routes.next_tick());
        let wake = [session, self.write_deadline(), ways, self.leave_by].into_iter().flatten().min();
        let wake = wake.unwrap_or_else(|| now.at + self.effects.shared.rules.config.write_timeout());
        if wake <= now.at {
            self.tick(now);
            return true;
        }
        let set = self.rare.future().ticks_by(wake);
        if !set {
            self.rare.change().tick_at(wake);
        }
        !set
    }

    /// Lets go of the room that a burst needed: most connections are idle.
    fn rest(&mut self) {
        self.outputs.shrink_to_fit();
        if let Some(session) = &mut self.session {
            session.rest();
        }
        self.effects.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Silent connections are many; each may take a few KiB.
    #[test]
    fn a_connection_is_small() {
        fn size<F: Future>(_: impl FnOnce(tokio::net::TcpStream, Arc<Shared>, Permit, Instant) -> F) -> usize {
            size_of::<F>()
        }
        let task = size(serve::<tokio::net::TcpStream>);
        let connection = size_of::<Connection<tokio::net::TcpStream>>();
        assert!(task + connection <= 1024, "{task} {connection}");
    }
}
