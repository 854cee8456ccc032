//! Links: every TCP connection between two processes goes through a small proxy in the driver, which can do to it what
//! networks do.
//!
//! A link is one who connects, one who listens, and a port of its own between them. What it does is in its [`Mode`], which
//! changes while connections are open: *there* is from the one who connects to the one who listens, *back* the other way.
//!
//! Two things differ from a real network. A connection attempt over a link that is cut is accepted by the system
//! and then stalls, instead of stalling before it is accepted: services that limit only the time of connecting would not
//! notice. And to connect to a process that is dead ends in a reset instead of a refusal. In exchange, no rights, name
//! spaces or kernel modules are needed, each pair of processes has its own faults, and COMMITs can be told from other bytes.

mod carry;
mod frontend;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// What happens to bytes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They wait; so does the news that the other side has closed.
    Stall,
    /// They come late by a time between these.
    Late {
        /// At least.
        least: Duration,
        /// At most.
        most: Duration,
    },
    /// So many come in a second.
    Slow {
        /// At least 1.
        bytes_per_s: u32,
    },
}

/// What breaks connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Break {
    /// Nothing.
    #[default]
    Nothing,
    /// One in so many pieces of a stream passes only up to some byte; then the connection is reset.
    Midway {
        /// At least 1.
        one_in: u32,
    },
    /// One in so many COMMITs of PostgreSQL's protocol: see [`CommitCut`]. The link must lead to PostgreSQL.
    Commit {
        /// At least 1.
        one_in: u32,
    },
}

/// How a connection to PostgreSQL breaks at a COMMIT. All look the same to the client: the connection is reset before there
/// is an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitCut {
    /// The COMMIT never arrives.
    Undone,
    /// It arrives, and is done before the client knows that the connection is gone.
    Done,
    /// It arrives and is done up to 2 s after the client has seen its connection go.
    Later,
}

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// From the one who connects.
    pub there: Flow,
    /// From the one who listens.
    pub back: Flow,
    /// What breaks connections.
    pub breaks: Break,
}

impl Mode {
    /// Nothing passes.
    pub const CUT: Self = Self { there: Flow::Stall, back: Flow::Stall, breaks: Break::Nothing };

    /// Both directions.
    pub const fn both(flow: Flow) -> Self {
        Self { there: flow, back: flow, breaks: Break::Nothing }
    }
}

/// A direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the one who connects.
    There,
    /// From the one who listens.
    Back,
}

/// A link. Dropping it ends its connections.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What a link and its connections share.
#[derive(Debug)]
struct Shared {
    name: String,
    address: SocketAddr,
    /// Where connections go: each to the next of these.
    targets: watch::Sender<Vec<SocketAddr>>,
    mode: watch::Sender<Mode>,
    /// Counts resets.
    resets: watch::Sender<u64>,
    /// Counts half-closes; the direction is that of the last one.
    half_closes: watch::Sender<(u64, Direction)>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    undone: AtomicU64,
    done: AtomicU64,
    later: AtomicU64,
    midway: AtomicU64,
    touched: AtomicU64,
    accepted: AtomicUsize,
}

/// What a link has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Connections that are open now.
    pub open: u64,
    /// COMMITs that were cut off before they arrived.
    pub undone: u64,
    /// COMMITs that were done and not answered.
    pub done: u64,
    /// COMMITs that were done after their connection was gone.
    pub later: u64,
    /// Connections that were cut midway.
    pub midway: u64,
    /// How often bytes, the end of a stream or a new connection were held up, or bytes came late or slowly.
    pub touched: u64,
}

impl Link {
    /// Opens a link to `target` on a port of 127.0.0.1. `seed` decides where it cuts and how long it delays.
    ///
    /// # Errors
    /// No port is free.
    pub async fn open(name: &str, target: SocketAddr, seed: u64) -> std::io::Result<Self> {
        Self::open_on(name, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), target, seed).await
    }

    /// As [`open`](Self::open), on this address.
    ///
    /// # Errors
    /// It cannot be bound.
    pub async fn open_on(name: &str, listen: SocketAddr, target: SocketAddr, seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            address: listener.local_addr()?,
            targets: watch::Sender::new(vec![target]),
            mode: watch::Sender::new(Mode::default()),
            resets: watch::Sender::new(0),
            half_closes: watch::Sender::new((0, Direction::There)),
            counts: Counts::default(),
        });
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), StdRng::seed_from_u64(hasher.finish())));
        Ok(Self { shared, accepting })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where the one who connects finds it.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// What it does now.
    pub fn mode(&self) -> Mode {
        *self.shared.mode.borrow()
    }

    /// What it does from now on, also to connections that are open.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Resets all connections, also while the link is cut.
    pub fn reset(&self) {
        self.shared.resets.send_modify(|count| *count += 1);
    }

    /// Ends all connections in this direction: the receiver sees the end of the stream, what is sent after it is lost.
    pub fn half_close(&self, direction: Direction) {
        self.shared.half_closes.send_modify(|(count, last)| (*count, *last) = (*count + 1, direction));
    }

    /// Connections that are made from now on go there.
    pub fn redirect(&self, target: SocketAddr) {
        self.shared.targets.send_replace(vec![target]);
    }

    /// Connections that are made from now on go to these in turn, as behind a load balancer that looks at nothing.
    pub fn balance(&self, targets: Vec<SocketAddr>) {
        self.shared.targets.send_replace(targets);
    }

    /// What it has done.
    pub fn seen(&self) -> Seen {
        let counts = &self.shared.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Seen {
            open: get(&counts.open),
            undone: get(&counts.undone),
            done: get(&counts.done),
            later: get(&counts.later),
            midway: get(&counts.midway),
            touched: get(&counts.touched),
        }
    }
}

impl Shared {
    /// Where the next connection goes.
    fn next_target(&self) -> Option<SocketAddr> {
        let targets = self.targets.borrow();
        let turn = self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        targets.get(turn % targets.len().max(1)).copied()
    }

    /// Something did not pass as it would have.
    fn touched(&self) {
        self.counts.touched.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut rng: StdRng) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // From before the connection is there, so that no reset is missed.
        let resets = shared.resets.subscribe();
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, most likely: the ones who connect wait.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (shared, rng) = (Arc::clone(&shared), StdRng::from_rng(&mut rng));
        tokio::spawn(async move {
            shared.counts.open.fetch_add(1, Ordering::Relaxed);
            carry::carry(client, &shared, resets, rng).await;
            shared.counts.open.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
}

/// Of one link.
const MAX_CONNECTIONS: usize = 4_096;

#[cfg(test)]
mod tests;
