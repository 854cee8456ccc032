//! `Routing.Link`: the stream of an edge. Its events are taken in order and handed to actors without waiting for any of
//! them; when it ends, so do all its sessions. An edge in this process speaks without the stream, each session in its own
//! order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::{MessageId, SessionId};
use causeway_proto::routing::v1::edge_event::Event;
use causeway_proto::routing::v1::routing_server::Routing;
use causeway_proto::routing::v1::{Attach, EdgeEvent, FromEdge, Submitted};
use causeway_runtime::grpc::Ear;
use causeway_runtime::telemetry::trace::{Hop, Step, TraceContext};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::decode;
use crate::limits::Budget;
use crate::message::{AsWritten, Ending, Outcome, Rejection};
use crate::metrics::Metrics;
use crate::outbox::{Outbox, OutboxStream};
use crate::recipient::{Job, ReplyTo};
use crate::recipients::{Recipients, Refused};
use crate::replica::Lease;
use crate::session::{Session, SessionKey, Voice};

/// Serves links; cheap to clone.
#[derive(Clone)]
pub(crate) struct Links(pub(crate) Arc<LinksInner>);

/// What all links share.
pub(crate) struct LinksInner {
    pub(crate) recipients: Arc<Recipients>,
    /// Memory for messages.
    pub(crate) memory: Arc<Budget>,
    pub(crate) metrics: Metrics,
    /// Of this replica.
    pub(crate) name: String,
    pub(crate) link_bytes: usize,
    pub(crate) max_sessions: usize,
    pub(crate) retry_ms: u64,
    /// Nothing is taken from edges any more.
    pub(crate) draining: CancellationToken,
    /// Everything has been said.
    pub(crate) finished: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) last_session: AtomicU64,
    pub(crate) lease: Arc<Lease>,
    /// When nothing could be decided for so long, edges are to try another replica.
    pub(crate) out_after: Duration,
}

impl LinksInner {
    fn is_out(&self) -> bool {
        self.lease.out_for() >= self.out_after
    }
}

/// How often a link looks whether it is of use.
const LOOK: Duration = Duration::from_millis(500);

#[tonic::async_trait]
impl Routing for Links {
    type LinkStream = OutboxStream;

    async fn link(&self, request: Request<Streaming<FromEdge>>) -> Result<Response<OutboxStream>, Status> {
        if self.0.draining.is_cancelled() {
            return Err(Status::unavailable("this routing stops"));
        }
        if self.0.is_out() {
            return Err(Status::unavailable("this routing does not get through to its store"));
        }
        let ear = Ear::of(request.extensions());
        let is_here = ear.is_some();
        let outbox = Outbox::new(self.0.link_bytes, self.0.name.clone(), ear);
        let mut response = Response::new(outbox.stream());
        let link = Arc::new(Link {
            shared: Arc::clone(&self.0),
            outbox,
            taking: AtomicBool::new(true),
            count: AtomicUsize::new(0),
            sessions: std::array::from_fn(|_| Mutex::default()),
        });
        if is_here {
            let heard = Arc::clone(&link);
            response.extensions_mut().insert(Ear::new(move |event| heard.take(event)));
        }
        self.0.tasks.spawn(Open(link).run(request.into_inner()));
        Ok(response)
    }
}

/// One edge.
struct Link {
    shared: Arc<LinksInner>,
    outbox: Arc<Outbox>,
    /// What the edge says counts.
    taking: AtomicBool,
    count: AtomicUsize,
    /// Spread, since the sessions of an edge in this process speak all at once. No lock is held while anybody is told anything.
    sessions: [Mutex<Sessions>; MAPS],
}

#[derive(Default)]
struct Sessions {
    known: HashMap<SessionId, Arc<Session>>,
    /// At so many, those that have ended are looked for.
    next_sweep: usize,
    /// No more are taken in.
    closed: bool,
}

const MAPS: usize = 16;
const FIRST_SWEEP: usize = 32;

/// A link that is served. However that ends, nobody on it is attached any more.
struct Open(Arc<Link>);

impl Open {
    async fn run(self, mut incoming: Streaming<FromEdge>) {
        let link = &*self.0;
        link.shared.metrics.link_opened();
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let batch = tokio::select! {
                biased;
                () = link.shared.draining.cancelled() => {
                    // What edges still send is not taken: their clients repeat it elsewhere. Answers still go out.
                    link.taking.store(false, Ordering::Release);
                    link.outbox.drain();
                    tokio::select! {
                        () = link.shared.finished.cancelled() => link.outbox.finish(),
                        () = link.outbox.closed() => {}
                    }
                    break;
                }
                () = link.outbox.closed() => break,
                _ = looks.tick() => {
                    if link.shared.is_out() {
                        tracing::warn!("the store is out of reach; edges are to try another replica");
                        link.outbox.close();
                        break;
                    }
                    continue;
                }
                batch = incoming.message() => batch,
            };
            let Ok(Some(batch)) = batch else { break };
            for event in batch.events {
                link.take(event);
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let link = &self.0;
        link.taking.store(false, Ordering::Release);
        for sessions in &link.sessions {
            let known = {
                let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
                sessions.closed = true;
                std::mem::take(&mut sessions.known)
            };
            for session in known.values() {
                session.detach();
            }
        }
        link.outbox.finish();
        link.shared.metrics.link_closed();
    }
}

impl Link {
    fn take(&self, event: EdgeEvent) {
        if !self.taking.load(Ordering::Acquire) {
            return;
        }
        let Ok(id) = SessionId::try_from(&event.session_id[..]) else {
            tracing::error!("an edge named a session by something that is no session id");
            return;
        };
        match event.event {
            Some(Event::Attach(attach)) => self.attach(id, &attach),
            Some(Event::Detach(_)) => {
                if let Some(session) = self.forget(&id) {
                    session.detach();
                }
            }
            // What sessions say that have been ended counts for nothing.
            Some(Event::Submit(submitted)) => {
                if let Some(session) = self.find(&id) {
                    self.submit(session, submitted);
                }
            }
            Some(Event::Processed(tag)) => {
                if let Some(session) = self.find(&id) {
                    session.acknowledge(tag);
                }
            }
            None => {}
        }
    }

    fn attach(&self, id: SessionId, attach: &Attach) {
        let sender = match decode::attach(attach) {
            Ok(sender) => sender,
            Err(error) => {
                tracing::error!(%error, "an edge attached a device that cannot be");
                self.refuse(id, Ending::BadStanza);
                return;
            }
        };
        let before = self.find(&id).filter(|before| *before.device == sender);
        if before.is_some() && attach.submits_only {
            // It is known already.
            return;
        }
        let voice = before.map(|before| Arc::clone(before.voice()));
        if let Some(before) = self.forget(&id) {
            match voice {
                Some(_) => before.supersede(),
                // A session id that comes twice is a new session; the older one has ended.
                None => before.detach(),
            }
        }
        self.sweep(&id);
        if !self.count_in() {
            self.refuse(id, Ending::Overloaded);
            return;
        }
        let voice =
            voice.unwrap_or_else(|| Voice::new(id, sender, Arc::clone(&self.outbox), self.shared.metrics.clone()));
        let key = SessionKey(self.shared.last_session.fetch_add(1, Ordering::Relaxed));
        let session = Session::new(key, voice, attach.registration_id, attach.number, decode::login(attach));
        if attach.submits_only || self.shared.recipients.attach(&session) {
            self.keep(id, session);
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed);
            session.end(Ending::Overloaded, self.shared.retry_ms);
        }
    }

    /// A session that has not been ended.
    fn find(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.sessions(id).known.get(id).filter(|session| !session.is_over()).cloned()
    }

    fn forget(&self, id: &SessionId) -> Option<Arc<Session>> {
        let known = self.sessions(id).known.remove(id)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(known)
    }

    /// One more; false if there are too many.
    fn count_in(&self) -> bool {
        let one_more = |count| Some(count + 1).filter(|count| *count <= self.shared.max_sessions);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn keep(&self, id: SessionId, session: Arc<Session>) {
        let mut sessions = self.sessions(&id);
        if !sessions.closed {
            sessions.known.insert(id, session);
            return;
        }
        drop(sessions);
        // The link has ended meanwhile.
        session.detach();
    }

    /// Forgets, now and then, sessions that were ended from this side; an edge need not detach them.
    fn sweep(&self, id: &SessionId) {
        let mut sessions = self.sessions(id);
        if sessions.known.len() < sessions.next_sweep.max(FIRST_SWEEP) {
            return;
        }
        let before = sessions.known.len();
        sessions.known.retain(|_, session| !session.is_over());
        sessions.next_sweep = 2 * sessions.known.len();
        self.count.fetch_sub(before - sessions.known.len(), Ordering::Relaxed);
    }

    fn sessions(&self, id: &SessionId) -> MutexGuard<'_, Sessions> {
        // Edges draw them at random, the first byte too.
        let map = usize::from(id.as_bytes()[0]) % MAPS;
        self.sessions[map].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, id: SessionId, reason: Ending) {
        self.shared.metrics.session_ended(reason);
        let retry_after_ms = if reason == Ending::Overloaded { self.shared.retry_ms } else { 0 };
        self.outbox.push(id, crate::outbox::Event::End { reason, retry_after_ms });
    }

    fn submit(&self, session: Arc<Session>, submitted: Submitted) {
        let Submitted { message, generation, traceparent } = submitted;
        let message = message.unwrap_or_default();
        let retry_after_ms = self.shared.retry_ms;
        let Some(charge) = self.shared.memory.charge(decode::weight(&message)) else {
            let (Ok(id), Ok(to)) = (MessageId::try_from(&message.id[..]), message.to.parse()) else {
                session.end(Ending::BadStanza, 0);
                return;
            };
            session.close(&to, generation, retry_after_ms);
            let no_room = Rejection::RateLimited { retry_after_ms };
            session.answer(Outcome::Rejected(no_room), id, AsWritten(message.to));
            return;
        };
        let (mut submission, to) = match decode::submission(message, Arc::clone(&session.device), charge) {
            Ok(parsed) => parsed,
            Err(error) => {
                tracing::warn!(%error, "an edge let through a message that is none; its session ends");
                session.end(Ending::BadStanza, 0);
                return;
            }
        };
        self.shared.metrics.submitted(submission.class, submission.enc.len());
        let step = Step::under(Hop::DECIDE, TraceContext::read(&traceparent)).map(Box::new);
        submission.trace = step.as_deref().map(Step::context);
        let since = tokio::time::Instant::now();
        let job = Job { submission, reply: ReplyTo { session, to, since, generation, step } };
        match self.shared.recipients.submit(job) {
            Ok(()) => {}
            Err(Refused::Full(job)) => {
                let Job { submission, reply } = *job;
                // What waits in the queue is refused too: it may have been decided by then, or not.
                reply.session.close(&submission.to, generation, retry_after_ms);
                let full = Rejection::Full { retry_after_ms };
                reply.session.answer(Outcome::Rejected(full), submission.id, reply.to);
            }
            // It gets no answer from here; its session ends with the link.
            Err(Refused::Draining) => {}
        }
    }
}
