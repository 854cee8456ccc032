//! One client's connection: the loop that owns its socket. It selects over bytes, verdicts, routing, requests, time and
//! drain, feeds the session, and does what the session wants. A client that does not read, or does not stop writing, can
//! only stall this loop.

mod finish;
mod socket;
mod traced;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, DeviceId, SessionId};
use causeway_proto::routing::v1::routing_event::Event as FromRouting;
use causeway_proto::routing::v1::{Attach, LoginOrder};
use causeway_runtime::clock::SharedClock;
use causeway_runtime::telemetry::trace::Step;
use causeway_stanza::{FailureReason, RequestBody};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::socket::{Event, Socket};
use self::traced::Traced;
use crate::dispatch::{Place, Told};
use crate::limits::{Admission, Charge, Newcomer, Permit};
use crate::links::{Links, Routed};
use crate::login::{Admitted, Login, Refusal};
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::random::Random;
use crate::report::{Fault, Report, Whose};
use crate::requests::{Asker, Requests};
use crate::routes::{Routes, Turn};
use crate::session::{Answer, Input, Now, Output, Rules, Session, Why};

/// What is ready is taken together up to this many events, and then written.
const EVENTS_AT_ONCE: usize = 64;
/// A login waits so long for services that are not there, before it fails.
const PATIENCE: Duration = Duration::from_secs(2);
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
    let mut rng = shared.random.clone();
    // The last four bytes tell its places at replicas of routing from each other.
    let mut id = [0; 16];
    rand::RngCore::fill_bytes(&mut rng, &mut id[..12]);
    let id = SessionId::from_bytes(id);
    // Before anything is answered, so that who logs in has begun it after this.
    let order = shared.logins.draw().await;
    let session = Session::new(Arc::clone(&shared.rules), id, &mut rng, since);
    let effects = Effects {
        id,
        order,
        permit,
        newcomer: None,
        routes: None,
        login: None,
        requests: FuturesUnordered::new(),
        waiting: VecDeque::new(),
        suspended: None,
        queued: Vec::new(),
        written: Vec::new(),
        whose: Whose::default(),
        fault: None,
        counted: Counted { metrics: shared.metrics.clone(), since, logged_in: false, end: None },
        arriving: None,
        traced: Traced::default(),
        shared,
    };
    let mut connection =
        Connection { socket: Socket::new(io), session: Some(session), effects, outputs: Vec::new(), leave_by: None };
    let left = connection.run().await;
    connection.finish(left).await;
}

/// A connection, and the session that it carries.
struct Connection<T> {
    socket: Socket<T>,
    /// Always there between steps.
    session: Option<Session>,
    effects: Effects,
    outputs: Vec<Output>,
    /// The edge drains: when the session is told at the latest.
    leave_by: Option<Instant>,
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

/// What the session has set going.
struct Effects {
    id: SessionId,
    /// Its place among its device's logins.
    order: Option<LoginOrder>,
    shared: Arc<Shared>,
    permit: Permit,
    /// While the session is not enlisted.
    newcomer: Option<Newcomer>,
    /// Once it is a device's.
    routes: Option<Box<Routes>>,
    login: Option<BoxFuture<'static, Result<Box<Admitted>, Refusal>>>,
    requests: FuturesUnordered<BoxFuture<'static, (NonZeroU64, Answer)>>,
    /// Requests for which there is no room among those that run.
    waiting: VecDeque<(NonZeroU64, Asker, Box<RequestBody>)>,
    suspended: Option<CancellationToken>,
    /// What is queued for the socket counts until it has left: first while it waits to be encrypted,
    queued: Vec<[Charge; 2]>,
    /// then while it is being written.
    written: Vec<[Charge; 2]>,
    /// For the log.
    whose: Whose,
    fault: Option<Fault>,
    counted: Counted,
    /// Of the delivery that is being taken in.
    arriving: Option<Box<Step>>,
    traced: Traced,
}

/// Keeps the gauges right on every way out.
struct Counted {
    metrics: Metrics,
    /// When the connection came.
    since: Instant,
    logged_in: bool,
    end: Option<&'static str>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.logged_in {
            self.metrics.session_ended(self.end.unwrap_or("cut-off"));
        }
        self.metrics.disconnected();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection<T> {
    async fn run(&mut self) -> Left {
        let shared = Arc::clone(&self.effects.shared);
        let write_timeout = shared.rules.config.write_timeout();
        let outbox = shared.rules.config.outbox_bytes;
        shared.metrics.connected();
        loop {
            self.perform();
            let now = shared.now();
            let Some(session) = self.session.as_mut() else { return Left::Gone };
            if let Some(why) = session.ended() {
                return Left::Session(why);
            }
            if self.leave_by.is_some_and(|by| by <= now.at || self.effects.is_idle()) {
                self.step(Input::Drain);
                continue;
            }
            if self.socket.is_flushed() {
                session.seal_into(self.socket.wire(now.at));
                self.effects.written = std::mem::take(&mut self.effects.queued);
            }
            let room = session.queued() < outbox;
            let reading = room && self.leave_by.is_none() && !self.effects.is_full() && session.wants_bytes(now);
            if !reading {
                session.not_reading(self.socket.went_on());
            }
            let write_deadline = self.socket.since().map(|since| since + write_timeout);
            if write_deadline.is_some_and(|deadline| deadline <= now.at) {
                return Left::Stalled;
            }
            let ways = self.effects.routes.as_ref().and_then(|routes| routes.next_tick());
            let wake = [session.next_tick(now), write_deadline, ways, self.leave_by].into_iter().flatten().min();
            let wake = wake.unwrap_or_else(|| now.at + write_timeout);

            let effects = &mut self.effects;
            // In an order: what is rare first, since it must not wait for what never pauses. The client comes before
            // routing because it cannot keep the socket ready for long: it has a pace.
            let happened = tokio::select! {
                biased;
                () = tokio::time::sleep_until(wake) => Happened::Tick,
                () = shared.drain.cancelled(), if self.leave_by.is_none() => Happened::Drain,
                () = cancelled(effects.suspended.as_ref()) => Happened::Suspended,
                verdict = maybe(effects.login.as_mut()) => Happened::Verdict(verdict),
                event = self.socket.turn(reading) => Happened::Socket(event),
                turn = maybe_turn(effects.routes.as_mut(), room) => Happened::Routing(turn),
                Some((id, answer)) = effects.requests.next(), if room => Happened::Answer(id, answer),
            };
            if let Some(left) = self.react(happened, outbox) {
                return left;
            }
        }
    }

    fn react(&mut self, happened: Happened, outbox: usize) -> Option<Left> {
        match happened {
            Happened::Socket(Event::Read(bytes)) => self.step(Input::Bytes(&bytes)),
            Happened::Socket(Event::Wrote) => self.effects.traced.written(),
            Happened::Socket(Event::Closed) => return Some(Left::Gone),
            Happened::Verdict(verdict) => {
                self.effects.login = None;
                let verdict = self.effects.judged(verdict);
                self.step(Input::Verdict(verdict));
            }
            Happened::Routing(Turn::Lost) => {
                self.effects.routes = None;
                self.step(Input::RoutingLost);
            }
            Happened::Routing(Turn::Links) => self.with_routes(Routes::see),
            Happened::Routing(Turn::Event(routed)) => {
                self.routed(routed);
                self.take_what_is_ready(outbox, EVENTS_AT_ONCE);
            }
            Happened::Routing(Turn::Urgent(place, event)) => {
                // What came before it goes first, but it does not wait for a client that does not read.
                self.take_what_is_ready(outbox, usize::MAX);
                self.urgent(place, event);
            }
            Happened::Answer(id, answer) => {
                self.step(Input::Answer(id, answer));
                self.effects.start_requests();
            }
            Happened::Suspended => {
                self.effects.suspended = None;
                self.step(Input::Suspended);
            }
            Happened::Drain => {
                let wait = if self.effects.counted.logged_in { WIND_UP } else { Duration::ZERO };
                self.leave_by = Some(Instant::now() + wait);
            }
            Happened::Tick => {
                self.with_routes(Routes::tick);
                self.step(Input::Tick);
            }
        }
        None
    }

    /// Takes further events that are there already, so that they share a Noise message and a system call.
    fn take_what_is_ready(&mut self, outbox: usize, most: usize) {
        for _ in 0..most {
            let queued = self.session.as_ref().map_or(usize::MAX, Session::queued);
            if queued >= outbox {
                return;
            }
            let Some(routed) = self.effects.routes.as_mut().and_then(|routes| routes.try_next()) else { return };
            self.routed(routed);
        }
    }

    fn routed(&mut self, routed: Routed) {
        self.effects.queued.push(routed.charges);
        self.effects.arriving = routed.step;
        self.urgent(routed.place, routed.event);
    }

    fn urgent(&mut self, place: Place, event: FromRouting) {
        self.with_routes(|routes, now| routes.event(place, event, now));
    }

    /// Has the session's ways do something, and the session know what comes of it.
    fn with_routes(&mut self, act: impl FnOnce(&mut Routes, Instant)) {
        let Some(routes) = &mut self.effects.routes else { return };
        act(routes, Instant::now());
        self.hear();
    }

    fn hear(&mut self) {
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
            self.step(input);
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let now = self.effects.shared.now();
        if let Some(session) = self.session.take() {
            self.session = Some(session.step(input, now, &mut self.outputs));
        }
    }

    /// Does what the session wants; what comes of it at once is fed back.
    fn perform(&mut self) {
        while !self.outputs.is_empty() {
            for output in self.outputs.drain(..) {
                match output {
                    Output::Write(bytes) => self.socket.wire(Instant::now()).extend_from_slice(&bytes),
                    output => self.effects.perform(output),
                }
            }
            self.hear();
        }
    }
}

impl Effects {
    fn perform(&mut self, output: Output) {
        match output {
            // Written by the connection, which has the socket.
            Output::Write(_) => {}
            Output::Verify(hello, key, proved) => {
                let (login, links) = (Arc::clone(&self.shared.login), self.shared.links.clone());
                self.login = Some(Box::pin(async move {
                    // What was restarted is back soon; clients that are told to wait come back by themselves.
                    let ready = async { tokio::join!(links.wait_until_up(), login.wait_until_ready()) };
                    tokio::time::timeout(PATIENCE, ready)
                        .await
                        .map_err(|_| Refusal::from(FailureReason::Overloaded))?;
                    login.admit(&hello, key, proved).await.map(Box::new)
                }));
            }
            Output::Enlisted => self.newcomer = None,
            Output::LoggedIn => {
                self.permit.logged_in();
                self.counted.logged_in = true;
                self.shared.metrics.logged_in(self.counted.since.elapsed());
            }
            Output::Attach(attach) => {
                self.whose.account = AccountId::try_from(&attach.account_id[..]).ok();
                self.whose.device = DeviceId::new(attach.device_id).ok();
                let routes = self.routes.insert(Box::new(self.shared.links.join(self.id)));
                routes.attach(Attach { login: self.order, ..*attach }, Instant::now());
            }
            Output::Submit(message) => {
                if let Some(routes) = &mut self.routes {
                    routes.submit(*message, Instant::now());
                }
            }
            Output::Processed(tag) => {
                self.traced.acknowledged(tag);
                if let Some(routes) = &mut self.routes {
                    routes.processed(tag);
                }
            }
            Output::Ponged(number) => {
                if let Some(routes) = &mut self.routes {
                    routes.ponged(number, Instant::now());
                }
            }
            Output::Request(id, asker, body) => {
                self.waiting.push_back((id, asker, body));
                self.start_requests();
            }
            Output::BurnToken(user, token) => self.shared.login.burn(&user, &token),
            Output::Fault(fault) => self.fault = Some(fault),
        }
    }

    /// A message is about to be handed to the client.
    fn delivering(&mut self, tag: u64) {
        self.shared.metrics.delivered();
        if let Some(step) = self.arriving.take() {
            self.traced.delivering(tag, *step);
        }
    }

    /// The client has more under way than may be kept for it.
    fn is_full(&self) -> bool {
        self.routes.as_ref().is_some_and(|routes| routes.is_full())
    }

    /// Nothing is under way that the client waits for.
    fn is_idle(&self) -> bool {
        self.requests.is_empty()
            && self.waiting.is_empty()
            && self.routes.as_ref().is_none_or(|routes| routes.is_idle())
    }

    fn judged(&mut self, verdict: Result<Box<Admitted>, Refusal>) -> Result<Box<Admitted>, FailureReason> {
        let verdict = verdict.map_err(|refusal| {
            self.whose.provider = refusal.provider;
            refusal.reason
        });
        verdict.and_then(|admitted| self.let_in(admitted))
    }

    fn let_in(&mut self, admitted: Box<Admitted>) -> Result<Box<Admitted>, FailureReason> {
        self.whose.provider = Some(admitted.user.provider.id);
        if admitted.device.is_none() {
            let newcomer = self.shared.admission.newcomer(&admitted.user.address, admitted.user.provider.id);
            self.newcomer = Some(newcomer.ok_or(FailureReason::Overloaded)?);
        }
        self.suspended = Some(admitted.suspended.clone());
        Ok(admitted)
    }

    fn start_requests(&mut self) {
        while self.requests.len() < self.shared.rules.config.concurrent_requests {
            let Some((id, asker, body)) = self.waiting.pop_front() else { return };
            let requests = Arc::clone(&self.shared.requests);
            self.requests.push(Box::pin(requests.carry_out(id, asker, *body)));
        }
    }
}

/// One thing that the loop reacts to.
enum Happened {
    Socket(Event),
    Verdict(Result<Box<Admitted>, Refusal>),
    Routing(Turn),
    Answer(NonZeroU64, Answer),
    Suspended,
    Drain,
    Tick,
}

async fn maybe<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn maybe_turn(routes: Option<&mut Box<Routes>>, room: bool) -> Turn {
    match routes {
        Some(routes) => routes.turn(room).await,
        None => std::future::pending().await,
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
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
        let bytes = size(serve::<tokio::net::TcpStream>);
        assert!(bytes <= 8 * 1024, "{bytes}");
    }
}
