//! `Routing.Link`: the stream of an edge. Its events are taken in order and handed to actors without waiting for any of
//! them; when it ends, so do all its sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use causeway_identity::{MessageId, SessionId};
use causeway_proto::routing::v1::edge_event::Event;
use causeway_proto::routing::v1::routing_server::Routing;
use causeway_proto::routing::v1::{Attach, EdgeEvent, FromEdge, Submitted};
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
        let outbox = Outbox::new(self.0.link_bytes, self.0.name.clone());
        let link = Link {
            shared: Arc::clone(&self.0),
            outbox: Arc::clone(&outbox),
            sessions: HashMap::new(),
            next_sweep: FIRST_SWEEP,
        };
        let stream = outbox.stream();
        self.0.tasks.spawn(link.run(request.into_inner()));
        Ok(Response::new(stream))
    }
}

/// One edge.
struct Link {
    shared: Arc<LinksInner>,
    outbox: Arc<Outbox>,
    sessions: HashMap<SessionId, Arc<Session>>,
    /// At so many sessions, those that have ended are looked for.
    next_sweep: usize,
}

const FIRST_SWEEP: usize = 256;

impl Link {
    async fn run(mut self, mut incoming: Streaming<FromEdge>) {
        self.shared.metrics.link_opened();
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let batch = tokio::select! {
                biased;
                () = self.shared.draining.cancelled() => {
                    self.outbox.drain();
                    // What edges still send is not taken: their clients repeat it elsewhere. Answers still go out.
                    tokio::select! {
                        () = self.shared.finished.cancelled() => self.outbox.finish(),
                        () = self.outbox.closed() => {}
                    }
                    break;
                }
                () = self.outbox.closed() => break,
                _ = looks.tick() => {
                    if self.shared.is_out() {
                        tracing::warn!("the store is out of reach; edges are to try another replica");
                        self.outbox.close();
                        break;
                    }
                    continue;
                }
                batch = incoming.message() => batch,
            };
            let Ok(Some(batch)) = batch else { break };
            for event in batch.events {
                self.take(event);
            }
        }
    }

    fn take(&mut self, event: EdgeEvent) {
        let Ok(id) = SessionId::try_from(&event.session_id[..]) else {
            tracing::error!("an edge named a session by something that is no session id");
            return;
        };
        match event.event {
            Some(Event::Attach(attach)) => self.attach(id, &attach),
            Some(Event::Detach(_)) => {
                if let Some(session) = self.sessions.remove(&id) {
                    session.detach();
                }
            }
            // What sessions say that have been ended counts for nothing.
            Some(Event::Submit(submitted)) => {
                if let Some(session) = self.sessions.get(&id).filter(|session| !session.is_over()) {
                    self.submit(Arc::clone(session), submitted);
                }
            }
            Some(Event::Processed(tag)) => {
                if let Some(session) = self.sessions.get(&id).filter(|session| !session.is_over()) {
                    session.acknowledge(tag);
                }
            }
            None => {}
        }
    }

    fn attach(&mut self, id: SessionId, attach: &Attach) {
        let sender = match decode::attach(attach) {
            Ok(sender) => sender,
            Err(error) => {
                tracing::error!(%error, "an edge attached a device that cannot be");
                self.refuse(id, Ending::BadStanza);
                return;
            }
        };
        let voice = match self.sessions.get(&id).filter(|before| !before.is_over() && *before.device == sender) {
            // It is known already.
            Some(_) if attach.submits_only => return,
            Some(before) => Some(Arc::clone(before.voice())),
            None => None,
        };
        if let Some(before) = self.sessions.remove(&id) {
            match voice {
                Some(_) => before.supersede(),
                // A session id that comes twice is a new session; the older one has ended.
                None => before.detach(),
            }
        }
        if self.sessions.len() >= self.next_sweep {
            // Those that were ended from this side; an edge need not detach them.
            self.sessions.retain(|_, session| !session.is_over());
            self.next_sweep = (2 * self.sessions.len()).max(FIRST_SWEEP);
        }
        if self.sessions.len() >= self.shared.max_sessions {
            self.refuse(id, Ending::Overloaded);
            return;
        }
        let voice =
            voice.unwrap_or_else(|| Voice::new(id, sender, Arc::clone(&self.outbox), self.shared.metrics.clone()));
        let key = SessionKey(self.shared.last_session.fetch_add(1, Ordering::Relaxed));
        let session = Session::new(key, voice, attach.registration_id, attach.number, decode::login(attach));
        if attach.submits_only || self.shared.recipients.attach(&session) {
            self.sessions.insert(id, session);
        } else {
            session.end(Ending::Overloaded, self.shared.retry_ms);
        }
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

/// However the link ends, nobody on it is attached any more.
impl Drop for Link {
    fn drop(&mut self) {
        for session in self.sessions.values() {
            session.detach();
        }
        self.outbox.finish();
        self.shared.metrics.link_closed();
    }
}
