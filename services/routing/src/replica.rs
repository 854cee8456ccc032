//! This process among the replicas: its id, and the lease under which it decides (docs/replicas.md, "Who owns a
//! mailbox").
//!
//! The lease is counted from before it was asked for, so it ends here before it ends in the store. It also ends when the
//! time of day has moved on by as much: a machine that was suspended may not have counted the time in between.

use std::sync::Arc;
use std::time::Duration;

use causeway_runtime::clock::SharedClock;
use causeway_runtime::health::{Health, Part};
use rand::TryRngCore as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::mailbox::{Mailbox, Replica, ReplicaId, StoreError};
use crate::metrics::Metrics;

/// A lease is renewed when this part of it is over.
const RENEWALS: u32 = 4;
/// What could not be renewed is tried again after this part of it.
const ATTEMPTS: u32 = 16;

/// Whether this process may decide; shared by all actors.
pub(crate) struct Lease {
    /// The store is this process's alone, which never changes: the id.
    always: Option<ReplicaId>,
    state: watch::Sender<State>,
    clock: SharedClock,
    /// Somebody has reason to believe that it has ended.
    doubted: Notify,
}

#[derive(Debug, Clone, Copy)]
struct State {
    id: ReplicaId,
    holds: Holds,
    /// When it held last, if it does not; else of no meaning.
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Holds {
    /// The store is this process's alone.
    Always,
    Until {
        instant: Instant,
        /// The time of day when it was asked for, in milliseconds.
        asked_ms: u64,
        lasts_ms: u64,
    },
    /// Not registered yet, or refused.
    Not,
}

impl Lease {
    /// Of a process that has its store for itself.
    pub(crate) fn always(clock: SharedClock) -> Arc<Self> {
        Self::new(Holds::Always, clock)
    }

    /// Of one of several; it does not hold before [`Lease::keep`] runs.
    pub(crate) fn of_many(clock: SharedClock) -> Arc<Self> {
        Self::new(Holds::Not, clock)
    }

    fn new(holds: Holds, clock: SharedClock) -> Arc<Self> {
        let id = new_id();
        let state = watch::Sender::new(State { id, holds, since: Instant::now() });
        let always = matches!(holds, Holds::Always).then_some(id);
        Arc::new(Self { always, state, clock, doubted: Notify::new() })
    }

    /// The id of now, whether or not its lease holds.
    pub(crate) fn id(&self) -> ReplicaId {
        self.always.unwrap_or_else(|| self.state.borrow().id)
    }

    /// The id if its lease holds at this instant.
    pub(crate) fn holds(&self) -> Option<ReplicaId> {
        if self.always.is_some() {
            return self.always;
        }
        let State { id, holds, .. } = *self.state.borrow();
        match holds {
            Holds::Always => Some(id),
            Holds::Not => None,
            Holds::Until { instant, asked_ms, lasts_ms } => {
                let day = self.clock.now_ms();
                let in_time = Instant::now() < instant && day < asked_ms.saturating_add(lasts_ms);
                (in_time || crate::planted::is("owner-not-fenced")).then_some(id)
            }
        }
    }

    /// For how long nothing can have been decided.
    pub(crate) fn out_for(&self) -> Duration {
        if self.holds().is_some() {
            return Duration::ZERO;
        }
        let State { holds, since, .. } = *self.state.borrow();
        let from = match holds {
            Holds::Until { instant, .. } => instant,
            Holds::Always | Holds::Not => since,
        };
        Instant::now().saturating_duration_since(from)
    }

    /// Waits until it holds.
    pub(crate) async fn held(&self) -> ReplicaId {
        let mut changes = self.state.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(id) = self.holds() {
                return id;
            }
            self.doubted.notify_one();
            if changes.changed().await.is_err() {
                // Nobody will renew it: whoever waits has a bound of its own.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The store says that it has ended.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Registers and renews until `stop`. A lease that the store says has ended is followed by one under a new id, and
    /// `renamed` is told.
    pub(crate) async fn keep(
        &self,
        mailbox: &dyn Mailbox,
        url: &str,
        lasts: Duration,
        metrics: &Metrics,
        renamed: impl Fn(),
        stop: CancellationToken,
    ) {
        if matches!(self.state.borrow().holds, Holds::Always) {
            return stop.cancelled().await;
        }
        loop {
            let replica = Replica { id: self.id(), url: url.to_owned() };
            let (asked_at, asked_ms) = (Instant::now(), self.clock.now_ms());
            let renewed = tokio::select! {
                renewed = tokio::time::timeout(lasts / 2, mailbox.renew(&replica, lasts)) => renewed,
                () = stop.cancelled() => return,
            };
            let wait = match renewed {
                Ok(Ok(())) => {
                    let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
                    let holds = Holds::Until { instant: asked_at + lasts, asked_ms, lasts_ms };
                    self.state.send_modify(|state| state.holds = holds);
                    lasts / RENEWALS
                }
                Ok(Err(StoreError::Fenced)) if crate::planted::is("owner-not-fenced") => lasts / RENEWALS,
                Ok(Err(StoreError::Fenced)) => {
                    tracing::warn!(id = %replica.id, "the lease of this replica has ended; it takes another id");
                    metrics.reset("lease");
                    self.state.send_modify(|state| {
                        let since = match state.holds {
                            Holds::Until { instant, .. } => instant.min(Instant::now()),
                            Holds::Always | Holds::Not => state.since,
                        };
                        *state = State { id: new_id(), holds: Holds::Not, since };
                    });
                    renamed();
                    Duration::ZERO
                }
                Ok(Err(error)) => {
                    metrics.store_failed(&error);
                    tracing::warn!(%error, "the lease of this replica could not be renewed; it is tried again");
                    lasts / ATTEMPTS
                }
                Err(_elapsed) => lasts / ATTEMPTS,
            };
            // From when it was asked for: a slow store takes nothing of the time that is left.
            tokio::select! {
                () = tokio::time::sleep_until(asked_at + wait) => {}
                () = self.doubted.notified(), if wait > lasts / ATTEMPTS => {}
                () = stop.cancelled() => return,
            }
            if wait > lasts / ATTEMPTS {
                continue;
            }
            // However often it is doubted or refused, the store is not asked in a circle.
            tokio::select! {
                () = tokio::time::sleep(lasts / (4 * ATTEMPTS)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Tells the process's health, each so often, whether this process may decide, until `stop`.
    pub(crate) async fn tell(&self, health: &Health, each: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(each)).await.is_some() {
            let part = match self.holds() {
                Some(_) => Part::Up,
                None => {
                    Part::Degraded("its store does not answer: messages wait, then go to other replicas".to_owned())
                }
            };
            health.report("routing.mailbox", part);
        }
    }

    /// Gives it up: another replica may own everything at once.
    pub(crate) async fn leave(&self, mailbox: &dyn Mailbox, patience: Duration) {
        let id = self.id();
        self.state.send_modify(|state| {
            if !matches!(state.holds, Holds::Always) {
                state.holds = Holds::Not;
            }
        });
        match tokio::time::timeout(patience, mailbox.leave(id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be given up; it ends by itself"),
            Err(_elapsed) => tracing::warn!("the lease could not be given up in time; it ends by itself"),
        }
    }
}

fn new_id() -> ReplicaId {
    let mut bytes = [0; 16];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the system has random numbers");
    ReplicaId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use causeway_runtime::clock::ManualClock;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::config::RoutingConfig;
    use crate::mailbox::memory::MemoryMailbox;

    const LASTS: Duration = Duration::from_millis(2_000);

    fn rig() -> (Arc<ManualClock>, MemoryMailbox, Arc<Lease>) {
        let clock = ManualClock::at_ms(1_000_000);
        let mailbox = MemoryMailbox::new(&RoutingConfig::default(), clock.clone(), 1);
        (clock.clone(), mailbox, Lease::of_many(clock))
    }

    /// Keeps it; the number of times that it took another id.
    fn keep(lease: &Arc<Lease>, mailbox: &MemoryMailbox) -> (AbortOnDropHandle<()>, watch::Receiver<u64>) {
        let (count, counted) = watch::channel(0);
        let (lease, mailbox) = (Arc::clone(lease), mailbox.clone());
        let task = tokio::spawn(async move {
            let renamed = || count.send_modify(|count| *count += 1);
            let stop = CancellationToken::new();
            lease.keep(&mailbox, "http://a", LASTS, &Metrics::new(), renamed, stop).await;
        });
        (AbortOnDropHandle::new(task), counted)
    }

    #[tokio::test(start_paused = true)]
    async fn it_holds_while_it_is_renewed_and_ends_when_it_is_not() {
        let (clock, mailbox, lease) = rig();
        assert_eq!(lease.holds(), None);
        let (_task, _renamed) = keep(&lease, &mailbox);
        let id = lease.held().await;
        for _ in 0..20 {
            tokio::time::sleep(LASTS / 2).await;
            clock.advance(LASTS / 2);
            tokio::time::sleep(LASTS / 3).await;
            assert_eq!((lease.holds(), lease.id()), (Some(id), id));
        }
        // The store does not answer: it ends here by itself.
        mailbox.hold(true);
        tokio::time::sleep(LASTS).await;
        assert_eq!(lease.holds(), None);
        tokio::time::sleep(LASTS).await;
        assert!(lease.out_for() >= LASTS, "{:?}", lease.out_for());
        // By the store's clock it has not ended: it goes on under the same id.
        mailbox.hold(false);
        assert_eq!(lease.held().await, id);
        assert_eq!(lease.out_for(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_ended_in_the_store_is_followed_by_another() {
        let (clock, mailbox, lease) = rig();
        let (_task, mut renamed) = keep(&lease, &mailbox);
        let id = lease.held().await;
        // Also if the process did not count the time, since its machine stood still.
        clock.advance(LASTS);
        assert_eq!(lease.holds(), None);
        let next = lease.held().await;
        assert_ne!(next, id);
        renamed.wait_for(|count| *count == 1).await.unwrap();
        let known = mailbox.replicas().await.unwrap();
        assert_eq!(known.iter().map(|replica| replica.id).collect::<Vec<_>>(), [next]);
        lease.leave(&mailbox, LASTS).await;
        assert_eq!(lease.holds(), None);
        assert_eq!(mailbox.replicas().await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_counted_from_before_it_was_asked_for() {
        let (_clock, mailbox, lease) = rig();
        mailbox.take(LASTS / 4);
        let (_task, _renamed) = keep(&lease, &mailbox);
        lease.held().await;
        mailbox.hold(true);
        tokio::time::sleep(LASTS * 3 / 4 + Duration::from_millis(1)).await;
        assert_eq!(lease.holds(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_a_store_for_itself_needs_none() {
        let clock = ManualClock::at_ms(1);
        let lease = Lease::always(clock.clone());
        clock.advance(LASTS);
        assert_eq!(lease.holds(), Some(lease.id()));
        assert_eq!(lease.held().await, lease.id());
    }

    #[tokio::test(start_paused = true)]
    async fn health_tells_whether_the_store_lets_this_replica_decide() {
        let (health, stop) = (Health::default(), CancellationToken::new());
        let telling = |lease: Arc<Lease>| {
            let (health, stop) = (health.clone(), stop.clone());
            async move { lease.tell(&health, Duration::from_millis(500), stop).await }
        };
        let second = Duration::from_secs(1);
        let _goes_on = tokio::time::timeout(second, telling(Lease::of_many(ManualClock::at_ms(0)))).await;
        assert!(matches!(health.parts().get("routing.mailbox"), Some(Part::Degraded(_))));
        let _goes_on = tokio::time::timeout(second, telling(Lease::always(ManualClock::at_ms(0)))).await;
        assert_eq!(health.parts().get("routing.mailbox"), Some(&Part::Up));
        stop.cancel();
        telling(Lease::always(ManualClock::at_ms(0))).await;
    }
}
