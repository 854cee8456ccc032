//! A whole routing over its real interfaces: edges by gRPC, the real mailbox, a directory that speaks the real protocol.

mod delivery;
mod edge;
mod faults;
mod push;
mod redis;
mod replicas;
mod rules;
mod sessions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use causeway_proto::routing::v1::routing_client::RoutingClient;
use causeway_runtime::clock::{ManualClock, SharedClock};
use causeway_runtime::grpc;
use causeway_runtime::grpc::Channel;
use causeway_runtime::lifecycle::Lifecycle;
use tempfile::TempDir;

use super::*;
use crate::mailbox::DeviceUsage;
use crate::records::fake::{FakeDirectory, PATIENCE, record};
use edge::Edge;

/// A deployment for one test.
struct Deployment {
    directory: FakeDirectory,
    /// Of the directory, which outlives routings.
    life: Lifecycle,
    routing: Option<Running>,
    clock: Arc<ManualClock>,
    config: RoutingConfig,
    dir: TempDir,
}

/// A routing that serves.
struct Running {
    channel: Channel,
    mailbox: Arc<SqliteMailbox>,
    life: Lifecycle,
    /// Drains before `life`, which carries the connections.
    stage: Lifecycle,
    served: tokio::task::JoinHandle<Result<(), RoutingError>>,
}

const START_MS: u64 = 1_800_000_000_000;

impl Deployment {
    /// Ada at a third party and Bo at home, both open, with these devices.
    async fn new(ada: &[u32], bo: &[u32]) -> Self {
        Self::with(ada, bo, |_| {}).await
    }

    async fn with(ada: &[u32], bo: &[u32], adjust: impl FnOnce(&mut RoutingConfig)) -> Self {
        Self::beside(FakeDirectory::new(), ada, bo, adjust).await
    }

    /// With a directory that grants leases of this length.
    async fn with_lease(ada: &[u32], bo: &[u32], lease_ms: u32) -> Self {
        Self::beside(FakeDirectory::with_lease(lease_ms), ada, bo, |_| {}).await
    }

    async fn beside(
        directory: FakeDirectory,
        ada: &[u32],
        bo: &[u32],
        adjust: impl FnOnce(&mut RoutingConfig),
    ) -> Self {
        directory.enter(record("ada@birdy.example", 1, ada));
        directory.enter(record("bo@home.example", 2, bo));
        let dir = TempDir::new().unwrap();
        // A long window: unless a test is about it, acknowledgements are in time on any machine.
        let mut config = RoutingConfig {
            data_dir: dir.path().join("0"),
            ack_window_ms: 10_000,
            retry_ms: 100,
            ..RoutingConfig::default()
        };
        adjust(&mut config);
        let mut this =
            Self { directory, life: Lifecycle::new(), routing: None, clock: ManualClock::at_ms(START_MS), config, dir };
        this.start().await;
        this
    }

    async fn start(&mut self) {
        self.config.check().unwrap();
        let bounds = self.config.mailbox_bounds();
        let mailbox = Arc::new(SqliteMailbox::open(&self.config.data_dir, bounds, Metrics::new()).unwrap());
        let clock: SharedClock = self.clock.clone();
        let directory = self.directory.channel(&self.life);
        let store: Arc<dyn Mailbox> = mailbox.clone();
        let lease = Lease::always(clock.clone());
        let routing = Routing::with_mailbox(&self.config, store, lease, directory, clock, Metrics::new()).unwrap();
        let (life, stage) = (Lifecycle::new(), Lifecycle::new());
        let channel = grpc::in_process(routing.router(), &life);
        let served = tokio::spawn(routing.serve(stage.clone()));
        self.routing = Some(Running { channel, mailbox, life, stage, served });
        self.directory.followed().await;
    }

    fn routing(&self) -> &Running {
        self.routing.as_ref().unwrap()
    }

    fn mailbox(&self) -> &SqliteMailbox {
        &self.routing().mailbox
    }

    async fn edge(&self) -> Edge {
        Edge::link(RoutingClient::new(self.routing().channel.clone())).await
    }

    /// Ends the routing in order.
    async fn drain(&mut self) {
        let running = self.routing.take().unwrap();
        running.stage.drain();
        tokio::time::timeout(PATIENCE, running.served).await.unwrap().unwrap().unwrap();
        running.life.finish(Duration::from_secs(5)).await;
    }

    /// Starts another routing on what a killed one would have left at this instant; the old one is cut off.
    async fn kill_and_restart(&mut self) {
        let running = self.routing.take().unwrap();
        let next = self.dir.path().join(format!("{}x", self.config.data_dir.file_name().unwrap().to_string_lossy()));
        copy_as_after_a_kill(&self.config.data_dir, &next);
        running.served.abort();
        running.life.finish(Duration::ZERO).await;
        drop(running.mailbox);
        self.directory.cut_streams();
        self.config.data_dir = next;
        self.start().await;
    }

    /// What waits for an account.
    async fn waiting(&self, account: u8) -> Vec<DeviceUsage> {
        self.mailbox().usage(AccountId::from_bytes([account; 16])).await.unwrap()
    }

    async fn waiting_messages(&self, account: u8) -> u64 {
        self.waiting(account).await.iter().map(|known| known.usage.messages).sum()
    }
}

fn copy_as_after_a_kill(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in ["mailbox.sqlite", "mailbox.sqlite-wal"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}
