//! Putting a routing together.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use causeway_identity::{AccountId, Address, Domain};
use causeway_proto::routing::v1::peers_server::PeersServer;
use causeway_proto::routing::v1::routing_server::RoutingServer;
use causeway_proto::routing::v1::traces_server::TracesServer;
use causeway_redis::{Health, Holds, Redis};
use causeway_runtime::clock::SharedClock;
use causeway_runtime::config::Check as _;
use causeway_runtime::grpc::Channel;
use causeway_runtime::grpc::{self, Router};
use causeway_runtime::health::Tables;
use causeway_runtime::lifecycle::Lifecycle;
use rand::TryRngCore as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{RoutingConfig, StoreKind};
use crate::error::RoutingError;
use crate::levels;
use crate::limits::{Budget, Limits};
#[cfg(any(test, feature = "simulation"))]
use crate::mailbox::memory::MemoryMailbox;
use crate::mailbox::postgres::PostgresMailbox;
use crate::mailbox::sqlite::SqliteMailbox;
use crate::mailbox::{Claimed, Mailbox, StoreError};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::peers::Peers;
use crate::presence::Presence;
use crate::push::Pusher;
use crate::recipient::actor::Shared;
use crate::recipients::Recipients;
use crate::records::{Change, Changes, Records, follow};
use crate::replica::Lease;
use crate::rpc::link::{Links, LinksInner};
use crate::rpc::peers::PeersService;
use crate::rpc::traces::TracesService;
use crate::shared_counters;
use crate::strangers::Strangers;
use crate::sweep::{self, Seen};
use crate::trails::Trails;
use crate::twins;

/// A routing: built, then served.
pub struct Routing {
    links: Links,
    shared: Arc<Shared>,
    tables: Tables,
    registration: Registration,
    redis: Option<Redis>,
    sweep_every: Duration,
    seen: Arc<Seen>,
    leftovers: mpsc::Receiver<Leftover>,
    changes: Arc<Told>,
}

/// How this replica makes itself known to the others.
struct Registration {
    url: String,
    lasts: Duration,
}

impl Routing {
    /// Opens the mailbox and prepares everything; serves nothing yet. `directory` is the channel to key-directory,
    /// which need not be there yet.
    ///
    /// # Errors
    /// [`RoutingError`]: a setting out of range, or a mailbox that cannot be opened.
    pub async fn build(config: RoutingConfig, directory: Channel, clock: SharedClock) -> Result<Self, RoutingError> {
        config.check()?;
        let metrics = Metrics::new();
        let bounds = config.mailbox_bounds();
        if config.store == StoreKind::Postgres {
            let mut rng = rand::rngs::OsRng.unwrap_err();
            let mailbox = PostgresMailbox::open(&config.postgres, bounds, &metrics, &mut rng).await?;
            let lease = Lease::of_many(Arc::clone(&clock));
            return Self::with_mailbox(&config, Arc::new(mailbox), lease, directory, clock, metrics);
        }
        let (dir, for_mailbox) = (config.data_dir.clone(), metrics.clone());
        // Opening recovers the log of a process that was killed, which takes as long as the disk needs.
        let opening = tokio::task::spawn_blocking(move || SqliteMailbox::open(&dir, bounds, for_mailbox));
        let mailbox = opening
            .await
            .map_err(|join| RoutingError::Mailbox { path: config.data_dir.clone(), reason: join.to_string() })??;
        Self::with_mailbox(&config, Arc::new(mailbox), Lease::always(Arc::clone(&clock)), directory, clock, metrics)
    }

    /// For simulations: a routing on a mailbox in memory, which it shares with others. Each start needs a handle of its
    /// own ([`MemoryMailbox::another`]), and a way to its peers ([`Routing::reach_peers_by`]).
    ///
    /// # Errors
    /// [`RoutingError`]: a setting out of range.
    #[cfg(any(test, feature = "simulation"))]
    pub async fn with_memory_mailbox(
        config: RoutingConfig,
        mailbox: MemoryMailbox,
        directory: Channel,
        clock: SharedClock,
    ) -> Result<Self, RoutingError> {
        let lease = Lease::of_many(Arc::clone(&clock));
        Self::with_mailbox(&config, Arc::new(mailbox), lease, directory, clock, Metrics::new())
    }

    /// How a peer is reached by its URL, instead of in plain text over TCP. To be said before it serves.
    #[must_use]
    pub fn reach_peers_by(self, connect: impl Fn(&str) -> Option<Channel> + Send + Sync + 'static) -> Self {
        self.shared.peers.connect_by(Box::new(connect));
        self
    }

    pub(crate) fn with_mailbox(
        config: &RoutingConfig,
        mailbox: Arc<dyn Mailbox>,
        lease: Arc<Lease>,
        directory: Channel,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Result<Self, RoutingError> {
        let timeout = Duration::from_millis(config.directory_timeout_ms);
        let records = Records::new(directory, config.cached_records, timeout, metrics.clone());
        let keep = Duration::from_millis(config.trace_keep_ms);
        let trails = Trails::new(keep, config.trace_max_messages, Arc::clone(&clock));
        let pusher = Pusher::new(config, records.clone(), Arc::clone(&clock), metrics.clone(), Arc::clone(&trails))?;
        let redis = config.redis.as_ref().map(|redis| Redis::open(redis, "routing", Holds::Hints)).transpose()?;
        let recipients = Recipients::new(config.max_recipients, config.recipient_queue, config.device_policy());
        let shared = Arc::new(Shared {
            mailbox,
            lease,
            peers: Peers::new(Duration::from_millis(config.release_timeout_ms)),
            claim_timeout: Duration::from_millis(config.claim_timeout_ms),
            records,
            limits: Limits::new(config),
            strangers: Strangers::new(config),
            pace: Pace::new(Duration::from_millis(config.refusal_delay_ms), config.retry_ms),
            pusher,
            presence: Presence::new(redis.clone(), &config.stable_name()),
            clock,
            trails,
            metrics: metrics.clone(),
            retry_ms: config.retry_ms,
            idle: Duration::from_millis(config.recipient_idle_ms),
        });
        recipients.equip(Arc::clone(&shared));
        let links = Links(Arc::new(LinksInner {
            recipients: Arc::clone(&recipients),
            memory: Budget::new(config.memory_bytes),
            metrics,
            name: config.stable_name(),
            link_bytes: config.link_bytes,
            max_sessions: config.max_sessions,
            retry_ms: config.retry_ms,
            draining: CancellationToken::new(),
            finished: CancellationToken::new(),
            tasks: TaskTracker::new(),
            last_session: AtomicU64::new(1),
            lease: Arc::clone(&shared.lease),
            out_after: Duration::from_millis(config.lease_ms + config.claim_timeout_ms),
        }));
        let (leave, leftovers) = mpsc::channel(LEFTOVERS);
        let changes = Arc::new(Told { recipients, leave, pusher: shared.pusher.clone() });
        let sweep_every = Duration::from_millis(config.sweep_interval_ms);
        let seen = Arc::default();
        levels::observe(&shared, &links.0, &seen);
        let registration =
            Registration { url: config.advertise_url.clone(), lasts: Duration::from_millis(config.lease_ms) };
        let tables = match config.store {
            StoreKind::Sqlite => SqliteMailbox::TABLES,
            StoreKind::Postgres => PostgresMailbox::TABLES,
        };
        Ok(Self { links, shared, tables, registration, redis, sweep_every, seen, leftovers, changes })
    }

    /// How the Redis with shared rates and presence is, if there is one: while it is degraded, this replica counts alone.
    pub fn redis_health(&self) -> Option<tokio::sync::watch::Receiver<Health>> {
        self.redis.as_ref().map(Redis::health)
    }

    /// The internal gRPC services `causeway.routing.v1.Routing`, for edges, `Peers`, for other routings, and `Traces`, for
    /// key-directory.
    pub fn router(&self) -> Router {
        let peers = PeersService { recipients: Arc::clone(&self.changes.recipients) };
        let service = RoutingServer::new(self.links.clone())
            .max_decoding_message_size(grpc::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(grpc::MAX_MESSAGE_BYTES);
        let traces = TracesService { trails: Arc::clone(&self.shared.trails) };
        grpc::server().add_service(service).add_service(PeersServer::new(peers)).add_service(TracesServer::new(traces))
    }

    /// Follows the directory, keeps its lease, sweeps and sends webhooks until `life` drains. Then it takes nothing more
    /// from edges, and tells them so; writes what is not acknowledged to the mailbox, tells what it still can, gives up
    /// what it owns, has all sessions attach elsewhere, and returns.
    ///
    /// # Errors
    /// [`RoutingError::Background`]. Anything else that fails is tried again, or told to those whom it concerns.
    pub async fn serve(self, life: Lifecycle) -> Result<(), RoutingError> {
        let stop = CancellationToken::new();
        let mut background = JoinSet::new();
        background.spawn(follow(self.shared.records.clone(), self.changes.clone(), stop.clone()));
        background.spawn(sweep::run(Arc::clone(&self.shared), self.seen, self.sweep_every, stop.clone()));
        background.spawn(self.shared.pusher.clone().run(stop.clone()));
        let (keeper, registration) = (Arc::clone(&self.shared), self.registration);
        let (renamed, stopped) = (Arc::clone(&self.changes.recipients), stop.clone());
        let (patience, twin_url) = (registration.lasts, registration.url.clone());
        background.spawn(async move {
            let Registration { url, lasts } = registration;
            let renamed = || renamed.renamed();
            keeper.lease.keep(&*keeper.mailbox, &url, lasts, &keeper.metrics, renamed, stopped).await;
        });
        life.health().tables("routing.mailbox", self.tables);
        let (telling, health, drained) = (Arc::clone(&self.shared), life.health().clone(), life.drain_token());
        // Not one of those that never end by themselves: it ends with the drain.
        tokio::spawn(async move { telling.lease.tell(&health, patience / 4, drained).await });
        if !twin_url.is_empty() {
            let (watching, health, drained) = (Arc::clone(&self.shared), life.health().clone(), life.drain_token());
            tokio::spawn(async move {
                let mailbox = &*watching.mailbox;
                twins::watch(&watching.lease, mailbox, &twin_url, patience, &health, drained).await;
            });
        }
        let (present, stopped) = (Arc::clone(&self.shared), stop.clone());
        background.spawn(async move { present.presence.run(stopped).await });
        if let Some(redis) = self.redis {
            let (counting, stopped) = (Arc::clone(&self.shared), stop.clone());
            background.spawn(async move {
                shared_counters::run(redis, &counting.limits, &counting.strangers, stopped).await;
            });
        }
        let (paced, stopped) = (Arc::clone(&self.shared), stop.clone());
        background.spawn(async move { paced.pace.run(&stopped).await });
        let recipients = Arc::clone(&self.changes.recipients);
        background.spawn(clean_up(self.leftovers, Arc::clone(&self.shared), recipients, stop.clone()));
        let served = tokio::select! {
            () = life.draining() => Ok(()),
            // None of them ends by itself.
            _ended = background.join_next() => Err(RoutingError::Background),
        };
        let links = &self.links.0;
        links.draining.cancel();
        links.recipients.settle().await;
        self.shared.lease.leave(&*self.shared.mailbox, patience).await;
        links.recipients.leave().await;
        links.finished.cancel();
        links.tasks.close();
        links.tasks.wait().await;
        stop.cancel();
        while background.join_next().await.is_some() {}
        self.shared.mailbox.close().await;
        served
    }
}

/// Accounts whose mailboxes are to be looked through at a time. More are seen to when their actors load.
const LEFTOVERS: usize = 4_096;

/// What an account has left behind.
enum Leftover {
    /// Devices have changed, and no actor is in memory.
    Devices(Address, AccountId),
    /// It has left.
    Account(Address, AccountId),
}

/// Passes changes on to actors.
struct Told {
    recipients: Arc<Recipients>,
    leave: mpsc::Sender<Leftover>,
    pusher: Pusher,
}

impl Changes for Told {
    fn changed(&self, address: Address, account: Option<AccountId>, change: Change) {
        let leftover = match (&change, account) {
            (Change::Withdrawn, Some(account)) => Some(Leftover::Account(address.clone(), account)),
            (Change::Devices, Some(account)) => Some(Leftover::Devices(address.clone(), account)),
            _ => None,
        };
        let told = self.recipients.tell(&address, change, false);
        match leftover {
            Some(Leftover::Devices(..)) if told => {}
            Some(leftover) => {
                let _full = self.leave.try_send(leftover);
            }
            None => {}
        }
    }

    fn provider_changed(&self, provider: &Domain) {
        self.pusher.forget_provider(provider);
    }
}

/// Erases what removed devices and accounts have left, where no actor does, until `stop`.
async fn clean_up(
    mut leftovers: mpsc::Receiver<Leftover>,
    shared: Arc<Shared>,
    recipients: Arc<Recipients>,
    stop: CancellationToken,
) {
    let cleaning = async {
        while let Some(leftover) = leftovers.recv().await {
            clean(leftover, &shared, &recipients).await;
        }
        // Nobody leaves anything any more.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = cleaning => {}
        () = stop.cancelled() => {}
    }
}

async fn clean(leftover: Leftover, shared: &Shared, recipients: &Arc<Recipients>) {
    match leftover {
        Leftover::Account(address, account) => {
            while let Err(error) = erase(&address, account, shared, recipients).await {
                tracing::warn!(%account, %error, "what a withdrawn account has left could not be erased yet");
                tokio::time::sleep(ERASE_AGAIN).await;
            }
        }
        Leftover::Devices(address, account) => {
            let usage = shared.mailbox.usage(account).await;
            if usage.is_ok_and(|usage| !usage.is_empty()) {
                recipients.tell(&address, Change::Other, true);
            }
        }
    }
}

/// Erases what an account has left, unless another replica owns it, which hears of it too.
async fn erase(
    address: &Address,
    account: AccountId,
    shared: &Shared,
    recipients: &Recipients,
) -> Result<(), StoreError> {
    let replica = shared.lease.held().await;
    match shared.mailbox.claim(replica, account).await? {
        Claimed::Held(_) => Ok(()),
        Claimed::Ours { .. } => {
            let erased = shared.mailbox.drop_account(replica, account).await;
            recipients.release_unless_used(address, account);
            erased
        }
    }
}

/// Before what an account has left is erased again.
const ERASE_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
