//! One replica of routing: a stream to it that carries the events of all sessions, in batches, made anew whenever it ends.
//! It is up from the replica's `Hello` on. A replica that stops without closing is noticed by the channel's keepalive.
//!
//! With a replica in this process, sessions and actors speak without the stream between them (`causeway_runtime::grpc::Ear`):
//! what it carries then is the hello, that the replica drains, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::SessionId;
use causeway_proto::routing::v1::edge_event::Event as ToRouting;
use causeway_proto::routing::v1::routing_client::RoutingClient;
use causeway_proto::routing::v1::{EdgeEvent, FromEdge, Hello, RoutingEvent, ToEdge};
use causeway_runtime::grpc::{Channel, Ear, MAX_MESSAGE_BYTES};
use futures::Stream;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Streaming};

use crate::dispatch::{LinkId, Place};
use crate::links::{Links, name_at};

/// A batch is closed at this many events or bytes; one event more than the bytes still fits a gRPC message.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;
/// A replica must answer a new stream, and say who it is, within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream that takes nothing for so long, while something waits for it, is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_FOR_STALLS: Duration = Duration::from_secs(1);
/// After the last session has left, routing has so long to end its half of the stream.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Where sessions put what they send on a link. What waits there is bounded by what sessions may have without an outcome,
/// and by the deliveries that they may acknowledge; it is never waited for.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    /// Our half of the stream ends when the last of these goes.
    events: mpsc::UnboundedSender<EdgeEvent>,
    counts: Arc<Counts>,
    /// Of a replica in this process, which hears everything at once.
    ear: Option<Ear<EdgeEvent>>,
}

/// Events that were ever put in, and taken out.
#[derive(Debug, Default)]
struct Counts {
    put: AtomicU64,
    taken: AtomicU64,
}

impl Outbound {
    /// Sends an event. If the stream is gone, its session hears of it by other means.
    pub(crate) fn send(&self, session: SessionId, place: Place, event: ToRouting) {
        let session_id = Bytes::copy_from_slice(&name_at(session, place.number));
        let event = EdgeEvent { session_id, event: Some(event) };
        if let Some(ear) = &self.ear {
            ear.hear(event);
        } else if self.events.send(event).is_ok() {
            self.counts.put.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Keeps a stream up until `stop`, or until it ends while it is not `wanted` any more. A replica that is missing in
/// the list of addresses is not cut off: the list may be wrong.
pub(crate) async fn keep(
    links: Links,
    url: String,
    channel: Channel,
    mut wanted: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut retry = FIRST_RETRY;
    while !stop.is_cancelled() {
        if one_stream(&links, &url, channel.clone(), &stop).await {
            retry = FIRST_RETRY;
        }
        let pause = links.random().jitter(retry);
        retry = (retry * 2).min(LAST_RETRY);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _not_wanted = wanted.wait_for(|wanted| !wanted) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Opens a stream and serves it to its end; false when none could be opened.
async fn one_stream(links: &Links, url: &str, channel: Channel, stop: &CancellationToken) -> bool {
    let (events, waiting) = mpsc::unbounded_channel();
    let counts = Arc::new(Counts::default());
    let batches = batches(waiting, Arc::clone(&counts));
    let id = links.next_id();
    let hearing = links.clone();
    let ear = Ear::new(move |event: RoutingEvent| hearing.hear(id, event));
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => return false,
        opened = tokio::time::timeout(HELLO_TIMEOUT, open(channel, batches, ear)) => opened,
    };
    let Opened { hello, first, mut inbound, ear } = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(code)) => {
            tracing::debug!(replica = url, ?code, "routing is not there");
            return false;
        }
        Err(_elapsed) => return false,
    };
    let name = if hello.name.is_empty() { url } else { &hello.name };
    let in_process = ear.is_some();
    let up = Up { links, id };
    links.up(id, name, Outbound { events, counts: Arc::clone(&counts), ear });
    tracing::info!(replica = name, in_process, "linked to routing");
    take(links, id, first);

    let mut stall = Stall { counts, taken: 0, since: Instant::now() };
    let mut looks = tokio::time::interval(LOOK_FOR_STALLS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            received = inbound.message() => received,
            _ = looks.tick() => {
                if stall.goes_on(Instant::now()) {
                    continue;
                }
                tracing::warn!(replica = name, "routing takes nothing any more");
                break;
            }
        };
        let Ok(Some(batch)) = received else { break };
        take(links, id, batch);
    }

    // Drops the last sender but those of sessions, so that our half of the stream ends when they are gone.
    drop(up);
    if stop.is_cancelled() {
        let farewell = async { while let Ok(Some(_late)) = inbound.message().await {} };
        let _cut_off = tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await;
    } else {
        links.metrics().link_lost();
        tracing::warn!(replica = name, "lost the link to routing; its sessions go elsewhere");
    }
    true
}

/// A link that is up; down, however its task ends.
struct Up<'a> {
    links: &'a Links,
    id: LinkId,
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.links.down(self.id);
    }
}

/// A stream that a replica has answered.
struct Opened {
    hello: Hello,
    /// The message that the name came with.
    first: ToEdge,
    inbound: Streaming<ToEdge>,
    /// If the replica is in this process.
    ear: Option<Ear<EdgeEvent>>,
}

async fn open(
    channel: Channel,
    batches: impl Stream<Item = FromEdge> + Send + 'static,
    ear: Ear<RoutingEvent>,
) -> Result<Opened, tonic::Code> {
    let mut client = RoutingClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut request = Request::new(batches);
    request.extensions_mut().insert(ear);
    let response = client.link(request).await.map_err(|status| status.code())?;
    let ear = Ear::of(response.extensions());
    let mut inbound = response.into_inner();
    let mut first = inbound.message().await.map_err(|status| status.code())?.ok_or(tonic::Code::Unavailable)?;
    let hello = first.hello.take().ok_or(tonic::Code::FailedPrecondition)?;
    Ok(Opened { hello, first, inbound, ear })
}

fn take(links: &Links, id: LinkId, batch: ToEdge) {
    for event in batch.events {
        links.hand_over(id, event);
    }
    if batch.draining {
        links.draining(id);
    }
}

/// Watches whether the stream takes what it is given.
struct Stall {
    counts: Arc<Counts>,
    taken: u64,
    /// Since when nothing was taken, or there was nothing to take.
    since: Instant,
}

impl Stall {
    fn goes_on(&mut self, now: Instant) -> bool {
        let taken = self.counts.taken.load(Ordering::Relaxed);
        if taken != self.taken || self.counts.put.load(Ordering::Relaxed) <= taken {
            (self.taken, self.since) = (taken, now);
        }
        now < self.since + STALL_TIMEOUT
    }
}

/// Packs what is ready into one message; waits for nothing but the first event.
fn batches(
    events: mpsc::UnboundedReceiver<EdgeEvent>,
    counts: Arc<Counts>,
) -> impl Stream<Item = FromEdge> + Send + 'static {
    futures::stream::unfold((events, counts), async |(mut waiting, counts)| {
        let first = waiting.recv().await?;
        let mut bytes = first.encoded_len();
        let mut events = vec![first];
        while events.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += next.encoded_len();
            events.push(next);
        }
        counts.taken.fetch_add(events.len() as u64, Ordering::Relaxed);
        Some((FromEdge { events }, (waiting, counts)))
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::{Mutex, OnceLock};
    use std::task::Poll;

    use causeway_proto::routing::v1::routing_event::Event as FromRouting;
    use causeway_proto::routing::v1::routing_server::{Routing, RoutingServer};
    use causeway_proto::routing::v1::{Attach, Attached};
    use causeway_runtime::grpc::{self, Endpoints};
    use causeway_runtime::lifecycle::Lifecycle;
    use futures::stream::BoxStream;
    use futures::{FutureExt as _, StreamExt as _};
    use tonic::{Response, Status};

    use super::*;
    use crate::EdgeConfig;
    use crate::dispatch::Told;
    use crate::metrics::Metrics;
    use crate::random::Random;
    use crate::routes::{Routes, Turn};

    /// A replica in this process, and all that it has heard.
    #[derive(Default)]
    struct Replica {
        ear: OnceLock<Ear<RoutingEvent>>,
        heard: Mutex<Vec<EdgeEvent>>,
    }

    impl Replica {
        fn heard(&self) -> Vec<EdgeEvent> {
            std::mem::take(&mut self.heard.lock().unwrap())
        }
    }

    struct Service(Arc<Replica>);

    #[tonic::async_trait]
    impl Routing for Service {
        type LinkStream = BoxStream<'static, Result<ToEdge, Status>>;

        async fn link(&self, request: Request<Streaming<FromEdge>>) -> Result<Response<Self::LinkStream>, Status> {
            self.0.ear.set(Ear::of(request.extensions()).unwrap()).unwrap();
            let mut incoming = request.into_inner();
            let left =
                async move { assert!(incoming.message().await.unwrap().is_none(), "nothing comes by the stream") };
            let hello = ToEdge { hello: Some(Hello { name: "here".to_owned() }), ..ToEdge::default() };
            let stream = futures::stream::iter([Ok(hello)]).chain(futures::stream::pending());
            let mut response = Response::new(stream.take_until(Box::pin(left)).boxed());
            let replica = Arc::clone(&self.0);
            let ear = Ear::new(move |event: EdgeEvent| replica.heard.lock().unwrap().push(event));
            response.extensions_mut().insert(ear);
            Ok(response)
        }
    }

    fn told(routes: &mut Routes) -> Option<Told> {
        let Some(Poll::Ready(Turn::Event(routed))) =
            poll_fn(|cx| Poll::Ready(routes.poll_turn(cx, true))).now_or_never()
        else {
            return None;
        };
        routes.event(routed.place, routed.event, Instant::now());
        routes.told()
    }

    #[tokio::test]
    async fn a_replica_in_this_process_and_its_sessions_hear_each_other_at_once() {
        let (replica, life, stop) = (Arc::<Replica>::default(), Lifecycle::new(), CancellationToken::new());
        let server = grpc::server().add_service(RoutingServer::new(Service(Arc::clone(&replica))));
        let endpoints = Endpoints::fixed([("here".to_owned(), grpc::in_process(server, &life))]);
        let links = Links::new(&EdgeConfig::default(), Metrics::new(), Random::system());
        let kept = tokio::spawn(links.clone().run(endpoints, stop.clone()));
        links.wait_for_links(1).await;
        let mut routes = links.join(SessionId::from_bytes([0; 16]));
        routes.attach(Attach { address: "ada@home.example".to_owned(), ..Attach::default() }, Instant::now());
        assert!(routes.told().is_none());
        let [EdgeEvent { session_id, event: Some(ToRouting::Attach(_)) }] = &replica.heard()[..] else {
            panic!("no attachment has been heard");
        };
        assert!(told(&mut routes).is_none());
        let attached = FromRouting::Attached(Attached { waiting: 3, number: 1 });
        let event = RoutingEvent { session_id: session_id.clone(), event: Some(attached), ..RoutingEvent::default() };
        replica.ear.get().unwrap().hear(event);
        assert!(matches!(told(&mut routes), Some(Told::Attached(3))));
        drop(routes);
        assert!(matches!(&replica.heard()[..], [EdgeEvent { event: Some(ToRouting::Detach(_)), .. }]));
        stop.cancel();
        kept.await.unwrap();
        links.wait_for_links(0).await;
    }
}
