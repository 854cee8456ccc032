//! The links to all replicas of routing: which are up, and which sessions wait for what they say. A task for each known
//! address keeps a link to it (`link`); a session finds its way among them by `dispatch`, with `routes` in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::SessionId;
use causeway_proto::routing::v1::RoutingEvent;
use causeway_proto::routing::v1::routing_event::Event as FromRouting;
use causeway_runtime::grpc::Endpoints;
use causeway_runtime::health::{Health, Part};
use causeway_runtime::telemetry::trace::{Hop, Step, TraceContext};
use prost::Message as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::EdgeConfig;
use crate::dispatch::{Bounds, Dispatch, LinkId, Place, Seen, View};
pub(crate) use crate::inbox::Routed;
use crate::inbox::{Inbox, Urgent};
use crate::limits::Budget;
use crate::link::{self, Outbound};
use crate::metrics::Metrics;
use crate::random::Random;
use crate::routes::Routes;

/// A session's queue holds at most the free bytes of the edge divided by this,
const SHARES: usize = 16;
/// but this much in any case: one message of the largest size.
const LEAST_SHARE: usize = 320 * 1024;
/// Sessions are spread over so many maps, since each event of each of them is looked up.
const MAPS: usize = 64;
const NO_ROUTING: &str =
    "no replica can be reached: no messages pass, logins are put off, and sessions end after edge.routing_grace_ms";

/// Handle of the links; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Links(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue_messages: usize,
    queue_bytes: usize,
    /// For what waits for sessions' sockets.
    total: Arc<Budget>,
    bounds: Bounds,
    metrics: Metrics,
    random: Random,
    last: AtomicU64,
    table: watch::Sender<Arc<Table>>,
    sessions: [Mutex<HashMap<SessionId, Arc<Inbox>>>; MAPS],
}

/// The links that are up.
#[derive(Debug, Default, Clone)]
pub(crate) struct Table {
    pub(crate) view: Arc<View>,
    pub(crate) outbound: BTreeMap<LinkId, Outbound>,
}

impl Table {
    /// Links to replicas that take something new, and to those that drain.
    fn count(&self) -> (usize, usize) {
        let up = self.view.taking().count();
        (up, self.view.links.len() - up)
    }
}

impl Links {
    pub(crate) fn new(config: &EdgeConfig, metrics: Metrics, random: Random) -> Self {
        let bounds = Bounds {
            grace: Duration::from_millis(config.routing_grace_ms),
            messages: config.pending_messages,
            bytes: config.pending_bytes,
            total: Budget::new(config.total_pending_bytes),
            metrics: Arc::new(metrics.clone()),
        };
        let total = Budget::new(config.total_queue_bytes);
        metrics.observe_budgets(&bounds.total, &total);
        let links = Self(Arc::new(Shared {
            queue_messages: config.queue_messages,
            queue_bytes: config.queue_bytes,
            total,
            bounds,
            metrics,
            random,
            last: AtomicU64::new(0),
            table: watch::Sender::new(Arc::default()),
            sessions: std::array::from_fn(|_| Mutex::default()),
        }));
        let seen = Arc::downgrade(&links.0);
        links.0.metrics.observe_links(move || seen.upgrade().map_or((0, 0), |shared| shared.table.borrow().count()));
        links
    }

    /// A session that deals with routing from now on. The last four bytes of `id` must be zero.
    pub(crate) fn join(&self, id: SessionId) -> Routes {
        let inbox = Inbox::new(self.0.queue_messages, self.0.queue_bytes);
        // First, so that it hears of all links that come after those that it sees here.
        self.0.sessions(&id).insert(id, Arc::clone(&inbox));
        let current = self.table();
        let dispatch = Dispatch::new(self.0.bounds.clone(), Arc::clone(&current.view));
        Routes::new(id, self.clone(), dispatch, current, inbox)
    }

    /// The links that are up now.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.table.borrow())
    }

    pub(crate) fn forget(&self, id: &SessionId) {
        self.0.sessions(id).remove(id);
    }

    /// Resolves once there is a replica that takes something.
    pub(crate) async fn wait_until_up(&self) {
        let mut table = self.0.table.subscribe();
        // The sender lives in self, so it cannot be gone.
        let _gone = table.wait_for(|table| table.view.taking().next().is_some()).await;
    }

    /// Keeps links up to all of `endpoints` until `stop`; by then all sessions must have left.
    pub(crate) async fn run(self, mut endpoints: Endpoints, stop: CancellationToken) {
        let mut wanted: BTreeMap<String, watch::Sender<bool>> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let current = endpoints.current();
            for (url, wanted) in &wanted {
                wanted.send_replace(current.contains_key(url));
            }
            for (url, channel) in &*current {
                if wanted.contains_key(url) {
                    continue;
                }
                let sender = watch::Sender::new(true);
                let kept = link::keep(self.clone(), url.clone(), channel.clone(), sender.subscribe(), stop.clone());
                let url = url.clone();
                wanted.insert(url.clone(), sender);
                tasks.spawn(async move {
                    kept.await;
                    url
                });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next() => {
                    // It was not wanted any more; should it be wanted again by now, the next turn starts another.
                    if let Ok(url) = ended {
                        wanted.remove(&url);
                    }
                }
                () = endpoints.changed() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Tells in the process's health whether there is routing, from the first time on that there is, until `stop`.
    pub(crate) async fn report(self, health: Health, stop: CancellationToken) {
        let mut table = self.0.table.subscribe();
        let mut before = false;
        let reporting = async {
            // The sender lives in self, so it cannot be gone.
            while let Ok(up) = table.wait_for(|table| table.view.taking().next().is_some() != before).await {
                drop(up);
                before = !before;
                health.report("edge.routing", if before { Part::Up } else { Part::Degraded(NO_ROUTING.to_owned()) });
            }
        };
        let _stopped = stop.run_until_cancelled(reporting).await;
    }

    /// Resolves while exactly so many links are up.
    #[cfg(test)]
    pub(crate) async fn wait_for_links(&self, links: usize) {
        self.0.table.subscribe().wait_for(|table| table.view.links.len() == links).await.unwrap();
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn random(&self) -> &Random {
        &self.0.random
    }

    /// For a stream that is about to begin.
    pub(crate) fn next_id(&self) -> LinkId {
        LinkId(self.0.last.fetch_add(1, Ordering::Relaxed))
    }

    /// A stream to the replica of this name has begun.
    pub(crate) fn up(&self, id: LinkId, name: &str, outbound: Outbound) {
        self.change(|table, view| {
            view.comes(id, Seen { name: name.into(), draining: false });
            table.outbound.insert(id, outbound);
        });
    }

    /// The replica takes nothing new.
    pub(crate) fn draining(&self, id: LinkId) {
        self.change(|_, view| {
            if let Some(seen) = view.links.get_mut(&id) {
                seen.draining = true;
            }
        });
    }

    /// The stream has ended.
    pub(crate) fn down(&self, id: LinkId) {
        self.change(|table, view| {
            view.links.remove(&id);
            table.outbound.remove(&id);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Table, &mut View)) {
        self.0.table.send_modify(|current| {
            let mut table = Table::clone(current);
            let mut view = View::clone(&table.view);
            change(&mut table, &mut view);
            table.view = Arc::new(view);
            *current = Arc::new(table);
        });
        for sessions in &self.0.sessions {
            let inboxes: Vec<_> = locked(sessions).values().cloned().collect();
            inboxes.iter().for_each(|inbox| inbox.see_links());
        }
    }

    /// Queues an event that came in a batch, of which it keeps nothing.
    pub(crate) fn hand_over(&self, link: LinkId, event: RoutingEvent) {
        self.hear(link, RoutingEvent { event: event.event.map(on_its_own), ..event });
    }

    /// Queues an event for its session. A session that has no room is forgotten, which ends it.
    pub(crate) fn hear(&self, link: LinkId, event: RoutingEvent) {
        let size = event.encoded_len();
        let step = Step::under(Hop::HAND_OVER, TraceContext::read(&event.traceparent)).map(Box::new);
        let (Some((id, number)), Some(event)) = (split(&event.session_id), event.event) else { return };
        let place = Place { link, number };
        // Events of sessions that have just left are normal.
        let Some(inbox) = self.0.sessions(&id).get(&id).cloned() else { return };
        let queued = match event {
            // Not behind what a client does not read.
            FromRouting::End(end) => inbox.put_urgent(place, Urgent::End(end)),
            FromRouting::Moved(moved) => inbox.put_urgent(place, Urgent::Moved(moved)),
            event => {
                // The fuller the edge, the less a single session may hold, so that those who do not read cannot use up
                // what the others need.
                let share = (self.0.total.free() / SHARES).max(LEAST_SHARE);
                let own = inbox.budget();
                let fits = own.held().saturating_add(size) <= share;
                let charges = own.charge(size).filter(|_| fits).zip(self.0.total.charge(size));
                charges.is_some_and(|(own, total)| inbox.put(Routed { place, event, step, charges: [own, total] }))
            }
        };
        if !queued {
            inbox.lose();
            if self.0.sessions(&id).remove(&id).is_some() {
                self.0.metrics.session_queue_full();
            }
        }
    }
}

impl Shared {
    fn sessions(&self, id: &SessionId) -> MutexGuard<'_, HashMap<SessionId, Arc<Inbox>>> {
        // Ids are drawn at random.
        locked(&self.sessions[usize::from(id.as_bytes()[0]) % MAPS])
    }
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing between lock and unlock can panic half-way.
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The event without the batch that it came in, of which its bytes would keep all: what waits for a client that does not
/// read must take as much memory as it is charged for.
fn on_its_own(mut event: FromRouting) -> FromRouting {
    let copy = |bytes: &mut Bytes| *bytes = Bytes::copy_from_slice(bytes);
    match &mut event {
        FromRouting::Deliver(delivery) => {
            copy(&mut delivery.id);
            copy(&mut delivery.from_account);
            copy(&mut delivery.ciphertext);
        }
        FromRouting::Outcome(outcome) => copy(&mut outcome.id),
        // These hold no bytes.
        FromRouting::Attached(_) | FromRouting::Notify(_) | FromRouting::End(_) | FromRouting::Moved(_) => {}
    }
    event
}

/// What a session is called at a place of it: its id, with the place's number as the last four bytes.
pub(crate) fn name_at(id: SessionId, number: u32) -> [u8; 16] {
    let mut name = *id.as_bytes();
    name[12..].copy_from_slice(&number.to_be_bytes());
    name
}

fn split(name: &[u8]) -> Option<(SessionId, u32)> {
    let mut name: [u8; 16] = name.try_into().ok()?;
    let [.., a, b, c, d] = name;
    name[12..].fill(0);
    Some((SessionId::from_bytes(name), u32::from_be_bytes([a, b, c, d])))
}

#[cfg(test)]
mod tests {
    use causeway_proto::routing::v1::ToEdge;
    use causeway_proto::wire::v1 as wire;

    use super::*;

    #[test]
    fn what_waits_keeps_nothing_of_the_batch_that_it_came_in() {
        let id = || Bytes::from_static(&[7; 16]);
        let delivery = |size: usize| wire::Delivery {
            id: id(),
            from_account: id(),
            ciphertext: vec![1; size].into(),
            ..wire::Delivery::default()
        };
        let outcome = wire::Outcome { id: id(), ..wire::Outcome::default() };
        let events = [
            FromRouting::Deliver(delivery(10)),
            FromRouting::Outcome(outcome),
            FromRouting::Deliver(delivery(200_000)),
        ];
        let events =
            events.map(|event| RoutingEvent { session_id: id(), event: Some(event), ..RoutingEvent::default() });
        let batch = ToEdge { events: events.into(), ..ToEdge::default() };
        let received = Bytes::from(batch.encode_to_vec());
        let mut batch = ToEdge::decode(received.clone()).unwrap();
        batch.events.truncate(2);
        assert!(!received.is_unique(), "10 bytes hold 200 kB");
        let kept: Vec<_> = batch.events.into_iter().map(|event| on_its_own(event.event.unwrap())).collect();
        assert!(received.is_unique());
        assert_eq!(kept[0], FromRouting::Deliver(delivery(10)));
    }
}
