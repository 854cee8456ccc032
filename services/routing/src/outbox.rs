//! What an edge is told. One in another process reads it as a stream: what waits for that is bounded, in order, and packed into
//! batches when there is much. One in this process hears it at once.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use causeway_identity::{MessageId, SessionId};
use causeway_proto::routing::v1::{Hello, RoutingEvent, ToEdge};
use causeway_runtime::grpc::Ear;
use causeway_runtime::telemetry::trace::{self, TraceContext};
use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::message::{AsWritten, Ending, Envelope, Outcome};
use crate::rpc::encode;
use crate::session::Notice;

/// A batch is closed at this many events or bytes.
const BATCH_EVENTS: usize = 512;
const BATCH_BYTES: usize = 256 * 1024;
/// What an event weighs that carries no ciphertext.
const EVENT_WEIGHT: usize = 256;

/// Something to tell a session.
#[derive(Debug)]
pub(crate) enum Event {
    Attached { waiting: u64, number: u64 },
    Deliver { tag: u64, envelope: Envelope, trace: Option<TraceContext> },
    Outcome { outcome: Outcome, id: MessageId, to: AsWritten },
    Notify(Notice),
    End { reason: Ending, retry_after_ms: u64 },
    Moved,
}

impl Event {
    fn trace(&self) -> Option<TraceContext> {
        match self {
            Self::Deliver { trace, .. } => *trace,
            _ => None,
        }
    }
}

/// The sending half of a link.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Deliveries stop at half of it, so that there is room for everything else.
    limit: usize,
    /// Of an edge in this process. The stream has no events then.
    ear: Option<Ear<RoutingEvent>>,
    /// No more events: the stream ends when those that wait have been read. Written under the lock.
    finished: AtomicBool,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<(SessionId, Event, usize)>,
    bytes: usize,
    waker: Option<Waker>,
    /// Who speaks; in the first message.
    hello: Option<Hello>,
    /// Nothing more is taken from the edge; said at once, and from then on.
    draining: bool,
    /// The edge has not been told so yet.
    tell_draining: bool,
}

impl Outbox {
    /// For a link of the replica with this name.
    pub(crate) fn new(limit: usize, name: String, ear: Option<Ear<RoutingEvent>>) -> Arc<Self> {
        let state = State { hello: Some(Hello { name }), ..State::default() };
        let (finished, closed) = (AtomicBool::new(false), CancellationToken::new());
        Arc::new(Self { state: Mutex::new(state), limit, ear, finished, closed })
    }

    /// Says that nothing more is taken.
    pub(crate) fn drain(&self) {
        let mut state = self.state();
        state.draining = true;
        state.tell_draining = true;
        wake(state);
    }

    /// True if there is room for deliveries.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_finished() && (self.ear.is_some() || self.state().bytes < self.limit / 2)
    }

    /// Takes room for a delivery that weighs `weight`.
    pub(crate) fn reserve(&self, weight: usize) -> bool {
        // What is heard at once never waits here; the edge has its own bounds.
        if self.ear.is_some() {
            return !self.is_finished();
        }
        let mut state = self.state();
        if self.is_finished() || state.bytes + weight > self.limit / 2 {
            return false;
        }
        state.bytes += weight;
        true
    }

    /// Queues an event for which room of this weight has been taken.
    pub(crate) fn push_reserved(&self, session: SessionId, event: Event, weight: usize) {
        if let Some(ear) = &self.ear {
            return self.say(ear, session, event);
        }
        let mut state = self.state();
        if self.is_finished() {
            return;
        }
        state.events.push_back((session, event, weight));
        wake(state);
    }

    /// Queues any other event. An edge that has let everything fill up loses its link: it would miss this.
    pub(crate) fn push(&self, session: SessionId, event: Event) {
        if let Some(ear) = &self.ear {
            return self.say(ear, session, event);
        }
        let mut state = self.state();
        if self.is_finished() {
            return;
        }
        if state.bytes + EVENT_WEIGHT > self.limit {
            drop(state);
            tracing::warn!("an edge does not read; its link is closed");
            self.close();
            return;
        }
        state.bytes += EVENT_WEIGHT;
        state.events.push_back((session, event, EVENT_WEIGHT));
        wake(state);
    }

    /// Ends the stream after what waits.
    pub(crate) fn finish(&self) {
        let state = self.state();
        self.finished.store(true, Ordering::Release);
        wake(state);
    }

    /// Ends the stream at once.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        self.finished.store(true, Ordering::Release);
        state.events.clear();
        state.bytes = 0;
        wake(state);
        self.closed.cancel();
    }

    /// Resolves when the link has been closed from either side.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// The stream for the edge. There is one.
    pub(crate) fn stream(self: &Arc<Self>) -> OutboxStream {
        OutboxStream(Arc::clone(self))
    }

    fn say(&self, ear: &Ear<RoutingEvent>, session: SessionId, event: Event) {
        if !self.is_finished() {
            ear.hear(to_edge(session, event));
        }
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_batch(&self, context: &mut Context<'_>) -> Poll<Option<ToEdge>> {
        let mut state = self.state();
        let news = state.hello.is_some() || state.tell_draining;
        if state.events.is_empty() && !news {
            if self.is_finished() {
                return Poll::Ready(None);
            }
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut taken = Vec::with_capacity(state.events.len().min(BATCH_EVENTS));
        let mut bytes = 0;
        while taken.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
            let Some((session, event, weight)) = state.events.pop_front() else { break };
            bytes += weight;
            taken.push((session, event));
        }
        state.bytes -= bytes.min(state.bytes);
        let (hello, draining) = (state.hello.take(), state.draining);
        state.tell_draining = false;
        drop(state);
        let events = taken.into_iter().map(|(session, event)| to_edge(session, event));
        Poll::Ready(Some(ToEdge { events: events.collect(), hello, draining }))
    }
}

fn to_edge(session: SessionId, event: Event) -> RoutingEvent {
    RoutingEvent {
        session_id: Bytes::copy_from_slice(session.as_bytes()),
        traceparent: trace::to_text(event.trace()),
        event: Some(encode::event(event)),
    }
}

/// Outside the lock, so that whoever is woken finds it free.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What an edge reads. Dropping it closes the link.
#[derive(Debug)]
pub(crate) struct OutboxStream(Arc<Outbox>);

impl Stream for OutboxStream {
    type Item = Result<ToEdge, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_batch(context).map(|batch| batch.map(Ok))
    }
}

impl Drop for OutboxStream {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    fn outbox(limit: usize) -> Arc<Outbox> {
        Outbox::new(limit, "here".to_owned(), None)
    }

    fn ended() -> Event {
        Event::End { reason: Ending::Overloaded, retry_after_ms: 1 }
    }

    #[tokio::test]
    async fn what_is_ready_leaves_in_one_batch_and_in_order() {
        let outbox = outbox(1 << 20);
        let mut stream = outbox.stream();
        for n in 0..3 {
            outbox.push(SessionId::from_bytes([n; 16]), ended());
        }
        let batch = stream.next().await.unwrap().unwrap();
        let order: Vec<u8> = batch.events.iter().map(|event| event.session_id[0]).collect();
        assert_eq!(order, [0, 1, 2]);
        outbox.push(SessionId::from_bytes([9; 16]), ended());
        outbox.finish();
        outbox.push(SessionId::from_bytes([8; 16]), ended());
        assert_eq!(stream.next().await.unwrap().unwrap().events.len(), 1);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn it_says_who_it_is_first_and_that_it_drains_at_once() {
        let outbox = outbox(1 << 20);
        let mut stream = outbox.stream();
        let first = stream.next().await.unwrap().unwrap();
        assert_eq!((first.hello.unwrap().name.as_str(), first.draining, first.events.len()), ("here", false, 0));
        outbox.drain();
        let second = stream.next().await.unwrap().unwrap();
        assert_eq!((second.hello, second.draining, second.events.len()), (None, true, 0));
        outbox.push(SessionId::from_bytes([1; 16]), ended());
        outbox.finish();
        let third = stream.next().await.unwrap().unwrap();
        assert_eq!((third.draining, third.events.len()), (true, 1));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn deliveries_stop_at_half_and_an_edge_that_never_reads_loses_its_link() {
        let outbox = outbox(4 * EVENT_WEIGHT);
        let _stream = outbox.stream();
        assert!(outbox.reserve(2 * EVENT_WEIGHT));
        assert!(!outbox.reserve(1));
        outbox.push(SessionId::from_bytes([1; 16]), ended());
        outbox.push(SessionId::from_bytes([1; 16]), ended());
        outbox.push(SessionId::from_bytes([1; 16]), ended());
        outbox.closed().await;
    }

    #[tokio::test]
    async fn an_edge_that_leaves_closes_the_link() {
        let outbox = outbox(1 << 20);
        drop(outbox.stream());
        outbox.closed().await;
        assert!(!outbox.reserve(1));
    }

    #[tokio::test]
    async fn an_edge_that_listens_hears_everything_at_once_until_the_end() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        let ear = Ear::new(move |event: RoutingEvent| hearing.lock().unwrap().push(event.session_id[0]));
        let outbox = Outbox::new(0, "here".to_owned(), Some(ear));
        let mut stream = outbox.stream();
        outbox.push(SessionId::from_bytes([1; 16]), ended());
        assert!(outbox.has_room() && outbox.reserve(1_000));
        outbox.push_reserved(SessionId::from_bytes([2; 16]), ended(), 1_000);
        assert_eq!(*heard.lock().unwrap(), [1, 2]);
        let first = stream.next().await.unwrap().unwrap();
        assert!(first.hello.is_some() && first.events.is_empty());
        outbox.finish();
        outbox.push(SessionId::from_bytes([3; 16]), ended());
        assert!(!outbox.has_room() && !outbox.reserve(1));
        assert_eq!(*heard.lock().unwrap(), [1, 2]);
        assert!(stream.next().await.is_none());
    }
}
