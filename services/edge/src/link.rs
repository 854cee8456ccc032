//! The stream to routing. One stream carries the events of all sessions of this edge, in batches; each session has a
//! bounded queue of its own. When the stream breaks, every session on it ends: routing has detached them all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::SessionId;
use causeway_proto::routing::v1::edge_event::Event as ToRouting;
use causeway_proto::routing::v1::routing_client::RoutingClient;
use causeway_proto::routing::v1::routing_event::Event as FromRouting;
use causeway_proto::routing::v1::{Detach, EdgeEvent, FromEdge, RoutingEvent};
use causeway_runtime::grpc::MAX_MESSAGE_BYTES;
use futures::Stream;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::config::EdgeConfig;
use crate::jitter;
use crate::limits::{Budget, Charge};
use crate::metrics::Metrics;

/// Events of all sessions that may wait for the stream; behind it sessions stop reading from their clients.
const OUTBOUND_EVENTS: usize = 256;
/// A batch is closed at this many events or bytes; one event more than the bytes still fits a gRPC message.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;
/// A session's queue holds at most the free bytes of the edge divided by this,
const SHARES: usize = 16;
/// but this much in any case: one message of the largest size.
const LEAST_SHARE: usize = 320 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream that does not take a `Detach` for so long is given up, which detaches everybody.
const DETACH_TIMEOUT: Duration = Duration::from_secs(10);
/// After the last session has left, routing has so long to end its half of the stream.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Handle of the link; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue_messages: usize,
    queue_bytes: usize,
    total: Arc<Budget>,
    metrics: Metrics,
    up: watch::Sender<bool>,
    stream: Mutex<Option<Live>>,
}

/// The stream as it is now.
#[derive(Debug)]
struct Live {
    outbound: mpsc::Sender<EdgeEvent>,
    sessions: HashMap<SessionId, Inbox>,
    broken: CancellationToken,
}

#[derive(Debug)]
struct Inbox {
    events: mpsc::Sender<Routed>,
    budget: Arc<Budget>,
}

/// What routing says to a session; its bytes count against the budgets until it is dropped.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) event: FromRouting,
    pub(crate) charges: [Charge; 2],
}

impl Link {
    pub(crate) fn new(config: &EdgeConfig, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            queue_messages: config.queue_messages,
            queue_bytes: config.queue_bytes,
            total: Budget::new(config.total_queue_bytes),
            metrics,
            up: watch::Sender::new(false),
            stream: Mutex::new(None),
        }))
    }

    /// A place on the stream for a session; `None` while there is no stream.
    pub(crate) fn join(&self, id: SessionId) -> Option<LinkSession> {
        let (events, inbox) = mpsc::channel(self.0.queue_messages);
        let mut stream = self.0.stream();
        let live = stream.as_mut()?;
        live.sessions.insert(id, Inbox { events, budget: Budget::new(self.0.queue_bytes) });
        Some(LinkSession {
            id,
            shared: Arc::clone(&self.0),
            outbound: live.outbound.clone(),
            broken: live.broken.clone(),
            inbox,
            left: false,
        })
    }

    /// Resolves once there is a stream.
    pub(crate) async fn wait_until_up(&self) {
        // The sender lives in self, so it cannot be gone.
        let mut up = self.0.up.subscribe();
        let _gone = up.wait_for(|up| *up).await;
    }

    /// Keeps a stream up until `stop`; by then all sessions must have left.
    pub(crate) async fn run(self, channel: Channel, stop: CancellationToken) {
        let mut retry = FIRST_RETRY;
        while !stop.is_cancelled() {
            if self.one_stream(channel.clone(), &stop).await {
                retry = FIRST_RETRY;
            }
            if stop.is_cancelled() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(jitter(retry)) => {}
                () = stop.cancelled() => {}
            }
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Opens a stream and serves it to its end; false when none could be opened.
    async fn one_stream(&self, channel: Channel, stop: &CancellationToken) -> bool {
        let mut client = RoutingClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (outbound, waiting) = mpsc::channel(OUTBOUND_EVENTS);
        let opened = tokio::select! {
            opened = tokio::time::timeout(CONNECT_TIMEOUT, client.link(batches(waiting))) => opened,
            () = stop.cancelled() => return false,
        };
        let mut inbound = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                tracing::debug!(code = ?status.code(), "routing is not there");
                return false;
            }
            Err(_elapsed) => return false,
        };
        let broken = CancellationToken::new();
        *self.0.stream() = Some(Live { outbound, sessions: HashMap::new(), broken: broken.clone() });
        self.0.up.send_replace(true);
        tracing::info!("linked to routing");

        loop {
            let received = tokio::select! {
                received = inbound.message() => received,
                () = broken.cancelled() => break,
                () = stop.cancelled() => break,
            };
            let Ok(Some(batch)) = received else { break };
            for event in batch.events {
                self.0.hand_over(event);
            }
        }

        self.0.up.send_replace(false);
        // Drops the queues: each session takes what it has, then sees the end. Drops also the last sender but the
        // sessions' own, so that the outbound half ends when they are gone.
        *self.0.stream() = None;
        if stop.is_cancelled() {
            let farewell = async { while let Ok(Some(_late)) = inbound.message().await {} };
            let _cut_off = tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await;
        } else {
            self.0.metrics.link_lost();
            tracing::warn!("lost the link to routing; its sessions end");
        }
        true
    }
}

impl Shared {
    fn stream(&self) -> MutexGuard<'_, Option<Live>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an event for its session. A session that has no room is forgotten, which ends it.
    fn hand_over(&self, event: RoutingEvent) {
        let size = event.encoded_len();
        let (Ok(id), Some(event)) = (SessionId::try_from(&event.session_id[..]), event.event) else { return };
        let mut stream = self.stream();
        let Some(live) = stream.as_mut() else { return };
        // Events of sessions that have just left are normal.
        let Some(inbox) = live.sessions.get(&id) else { return };
        // The fuller the edge, the less a single session may hold, so that those who do not read cannot use up what the
        // others need.
        let share = (self.total.free() / SHARES).max(LEAST_SHARE);
        let fits = inbox.budget.held().saturating_add(size) <= share;
        let charges = inbox.budget.charge(size).filter(|_| fits).zip(self.total.charge(size));
        let queued =
            charges.is_some_and(|(own, total)| inbox.events.try_send(Routed { event, charges: [own, total] }).is_ok());
        if !queued {
            live.sessions.remove(&id);
            self.metrics.session_queue_full();
        }
    }
}

/// One session's place on the stream. Dropping it leaves; [`LinkSession::leave`] does so in order.
#[derive(Debug)]
pub(crate) struct LinkSession {
    id: SessionId,
    shared: Arc<Shared>,
    outbound: mpsc::Sender<EdgeEvent>,
    broken: CancellationToken,
    inbox: mpsc::Receiver<Routed>,
    left: bool,
}

impl LinkSession {
    /// The next event if there is one already.
    pub(crate) fn try_next(&mut self) -> Option<Routed> {
        self.inbox.try_recv().ok()
    }

    /// Whatever comes first: room for the first of `events`, or, if `room`, the next event from routing. Cancel-safe.
    pub(crate) async fn turn(&mut self, events: &mut VecDeque<ToRouting>, room: bool) -> Turn {
        let waiting = !events.is_empty();
        tokio::select! {
            permit = self.outbound.reserve(), if waiting => match (permit, events.pop_front()) {
                (Ok(permit), Some(event)) => {
                    permit.send(named(self.id, event));
                    Turn::Sent
                }
                _ => Turn::Lost,
            },
            routed = self.inbox.recv(), if room => routed.map_or(Turn::Lost, Turn::Event),
            else => std::future::pending().await,
        }
    }

    /// Sends everything that there is room for now.
    pub(crate) fn send_ready(&self, events: &mut VecDeque<ToRouting>) {
        while !events.is_empty() {
            let Ok(permit) = self.outbound.try_reserve() else { return };
            if let Some(event) = events.pop_front() {
                permit.send(named(self.id, event));
            }
        }
    }

    /// Sends what is left of `events`, then detaches the session: what its device has not acknowledged stays with
    /// routing.
    pub(crate) async fn leave(mut self, events: &mut VecDeque<ToRouting>) {
        self.forget();
        self.left = true;
        events.push_back(ToRouting::Detach(Detach {}));
        let sending = async {
            for event in events.drain(..) {
                // A closed stream has detached the session already.
                if self.outbound.send(named(self.id, event)).await.is_err() {
                    return;
                }
            }
        };
        // Routing must not take the session for live: breaking the stream is the surest detach.
        if tokio::time::timeout(DETACH_TIMEOUT, sending).await.is_err() {
            self.broken.cancel();
        }
    }

    fn forget(&self) {
        if let Some(live) = self.shared.stream().as_mut() {
            live.sessions.remove(&self.id);
        }
    }
}

/// Covers a session task that was cut off.
impl Drop for LinkSession {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        self.forget();
        let detach = named(self.id, ToRouting::Detach(Detach {}));
        if let Err(mpsc::error::TrySendError::Full(_)) = self.outbound.try_send(detach) {
            self.broken.cancel();
        }
    }
}

/// What happened on a session's place.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "consumed at once; a box would cost an allocation an event")]
pub(crate) enum Turn {
    /// An event was sent.
    Sent,
    /// An event came.
    Event(Routed),
    /// The stream is lost, or the session's queue has overflowed.
    Lost,
}

fn named(id: SessionId, event: ToRouting) -> EdgeEvent {
    EdgeEvent { session_id: Bytes::copy_from_slice(id.as_bytes()), event: Some(event) }
}

/// Packs what is ready into one message; waits for nothing but the first event.
fn batches(events: mpsc::Receiver<EdgeEvent>) -> impl Stream<Item = FromEdge> + Send + 'static {
    futures::stream::unfold(events, async |mut waiting| {
        let first = waiting.recv().await?;
        let mut bytes = first.encoded_len();
        let mut events = vec![first];
        while events.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += next.encoded_len();
            events.push(next);
        }
        Some((FromEdge { events }, waiting))
    })
}
