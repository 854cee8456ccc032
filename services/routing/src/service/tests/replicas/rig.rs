//! Several routings, the store that they share, and how they reach each other.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::watch;

use super::super::edge::Edge;
use super::*;
use crate::mailbox::memory::MemoryMailbox;
use crate::mailbox::{Claimed, Replica, ReplicaId};

/// A deployment with replicas.
pub(in crate::service::tests) struct Replicas {
    pub(in crate::service::tests) directory: FakeDirectory,
    pub(in crate::service::tests) clock: Arc<ManualClock>,
    /// Of the directory.
    life: Lifecycle,
    /// A handle of nobody's.
    store: MemoryMailbox,
    running: Vec<Option<Process>>,
    config: RoutingConfig,
    peers: Peers,
}

struct Process {
    channel: Channel,
    mailbox: MemoryMailbox,
    life: Lifecycle,
    stage: Lifecycle,
    served: tokio::task::JoinHandle<Result<(), RoutingError>>,
}

/// How replicas reach each other, by URL.
#[derive(Clone)]
struct Peers {
    channels: Arc<Mutex<HashMap<String, Channel>>>,
    /// How often each was looked for in vain.
    missed: watch::Sender<u64>,
}

fn url(index: usize) -> String {
    format!("http://routing-{index}")
}

impl Replicas {
    pub(in crate::service::tests) async fn new(count: usize) -> Self {
        Self::with(count, |_| {}).await
    }

    pub(in crate::service::tests) async fn with(count: usize, adjust: impl FnOnce(&mut RoutingConfig)) -> Self {
        let directory = FakeDirectory::new();
        directory.enter(record(ADA, 1, &[1]));
        directory.enter(record(BO, 2, &[1]));
        let mut config = RoutingConfig { ack_window_ms: 10_000, retry_ms: 100, ..RoutingConfig::default() };
        adjust(&mut config);
        let clock = ManualClock::at_ms(START_MS);
        let peers = Peers { channels: Arc::default(), missed: watch::Sender::new(0) };
        let store = MemoryMailbox::new(&config, clock.clone(), 1);
        let running = (0..count).map(|_| None).collect();
        let mut this = Self { directory, clock, life: Lifecycle::new(), store, running, config, peers };
        for index in 0..count {
            this.restart(index).await;
        }
        this
    }

    pub(in crate::service::tests) async fn restart(&mut self, index: usize) {
        let config = RoutingConfig { advertise_url: url(index), ..self.config.clone() };
        let (mailbox, clock) = (self.store.another(), self.clock.clone());
        let directory = self.directory.channel(&self.life);
        let routing = Routing::with_memory_mailbox(config, mailbox.clone(), directory, clock).await.unwrap();
        let peers = self.peers.clone();
        let routing = routing.reach_peers_by(move |url| {
            let channel = peers.channels.lock().unwrap().get(url).cloned();
            if channel.is_none() {
                peers.missed.send_modify(|missed| *missed += 1);
            }
            channel
        });
        let (life, stage) = (Lifecycle::new(), Lifecycle::new());
        let channel = grpc::in_process(routing.router(), &life);
        let served = tokio::spawn(routing.serve(stage.clone()));
        self.running[index] = Some(Process { channel, mailbox, life, stage, served });
        self.reach(index);
        self.directory.followed().await;
    }

    fn process(&self, index: usize) -> &Process {
        self.running[index].as_ref().expect("it runs")
    }

    pub(in crate::service::tests) fn mailbox(&self, index: usize) -> &MemoryMailbox {
        &self.process(index).mailbox
    }

    pub(in crate::service::tests) fn lease(&self) -> Duration {
        Duration::from_millis(self.config.lease_ms)
    }

    pub(in crate::service::tests) async fn edge(&self, index: usize) -> Edge {
        Edge::link_from_afar(RoutingClient::new(self.process(index).channel.clone())).await
    }

    /// True if it takes no edges.
    pub(super) async fn link_refused(&self, index: usize) -> bool {
        let mut client = RoutingClient::new(self.process(index).channel.clone());
        client.link(tokio_stream::empty()).await.is_err()
    }

    /// Peers do not get through to it.
    pub(in crate::service::tests) fn cut_off(&self, index: usize) {
        self.peers.channels.lock().unwrap().remove(&url(index));
    }

    /// Peers get through to it.
    pub(in crate::service::tests) fn reach(&self, index: usize) {
        let channel = self.process(index).channel.clone();
        self.peers.channels.lock().unwrap().insert(url(index), channel);
    }

    /// Resolves when somebody has tried in vain to reach a peer so often.
    pub(in crate::service::tests) async fn asked_for_release(&self, times: u64) {
        let mut missed = self.peers.missed.subscribe();
        tokio::time::timeout(PATIENCE, missed.wait_for(|missed| *missed >= times)).await.unwrap().unwrap();
    }

    /// The process is gone from one instant to the next.
    pub(in crate::service::tests) async fn kill(&mut self, index: usize) {
        self.cut_off(index);
        let process = self.running[index].take().unwrap();
        process.mailbox.kill(0);
        process.served.abort();
        process.life.finish(Duration::ZERO).await;
    }

    /// The process ends in order.
    pub(in crate::service::tests) async fn drain(&mut self, index: usize) {
        let process = self.running[index].take().unwrap();
        process.stage.drain();
        tokio::time::timeout(PATIENCE, process.served).await.unwrap().unwrap().unwrap();
        self.cut_off(index);
        process.life.finish(Duration::from_secs(5)).await;
    }

    pub(in crate::service::tests) async fn stop(&mut self) {
        for index in 0..self.running.len() {
            if self.running[index].is_some() {
                self.drain(index).await;
            }
        }
    }

    pub(in crate::service::tests) async fn waiting_messages(&self, account: u8) -> u64 {
        let usage = self.store.usage(AccountId::from_bytes([account; 16])).await.unwrap();
        usage.iter().map(|known| known.usage.messages).sum()
    }

    /// Which of the running replicas owns an account.
    pub(in crate::service::tests) async fn sole_owner(&self, account: u8) -> Option<usize> {
        let visitor = Replica { id: ReplicaId::from_bytes([0xee; 16]), url: String::new() };
        self.store.renew(&visitor, Duration::from_secs(1)).await.unwrap();
        match self.store.claim(visitor.id, AccountId::from_bytes([account; 16])).await.unwrap() {
            Claimed::Held(owner) => (0..self.running.len()).find(|index| url(*index) == owner.url),
            Claimed::Ours { .. } => None,
        }
    }
}
