//! A light client: a real session with opaque bodies. It keeps what a device keeps (messages without an outcome, ids that it
//! has seen), repeats in order, and writes down everything.
//!
//! A *wild* one does besides what the SDK never would: it leaves without a word in the middle of anything, reads and does
//! not acknowledge, does not read, acknowledges late or what was never sent, opens a second session beside the first, and
//! repeats messages that have an outcome.

mod enlisting;
mod inspect;
mod session;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use causeway_identity::NoiseKey;
use causeway_noise::StaticKey;
use causeway_stanza::{EndReason, FailureReason, RequestBody, ResponseBody};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::session::{Mood, Over};
use super::dial::{DialError, Login, dial};
use super::enlist::Keys;
use super::outbox::{Open, Outbox};
use crate::driver::world::{Enlisted, Phase, World};
use crate::ledger::{Class, Kind, MessageNumber, Record};

pub use enlisting::enlist;

/// Messages that a device holds at most.
const MAX_OPEN: usize = 4_000;
/// How often a device that is removed tries to log in all the same, and the time between two of these.
const KNOCKS: u32 = 10;
const KNOCK: Duration = Duration::from_millis(500);

/// What a device is told to do.
pub enum Command {
    /// Sends messages to an account.
    Send {
        /// Which.
        to: u32,
        /// How.
        class: Class,
        /// How many.
        count: u32,
        /// Bytes beside the canary.
        padding: usize,
        /// Beside the account's devices they name this one, which is removed.
        removed: Option<Arc<Enlisted>>,
    },
    /// Asks the server; `None`: nobody knows what became of it.
    Request {
        /// What.
        body: Box<RequestBody>,
        /// The answer.
        reply: oneshot::Sender<Option<ResponseBody>>,
    },
    /// Publishes further prekeys.
    Publish,
    /// Goes away for so long.
    Away(Duration),
}

/// A device and its state.
pub struct Light {
    world: Arc<World>,
    me: Arc<Enlisted>,
    kind: Kind,
    key: Arc<StaticKey>,
    keys: Keys,
    server_key: Option<NoiseKey>,
    commands: mpsc::Receiver<Command>,
    phase: watch::Receiver<Phase>,
    rng: StdRng,
    epoch: u32,
    outbox: Outbox,
    seen: HashSet<MessageNumber>,
    seqs: HashMap<u32, u32>,
    next: u32,
    drained: bool,
}

/// Generator of its own for each part of a run, so that one part does not change another.
pub fn rng(seed: u64, part: &str, number: u32) -> StdRng {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(number) + 1);
    for byte in part.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    StdRng::seed_from_u64(state)
}

impl Light {
    /// Lives until the run stops or the device is removed, and then tries a few times whether it still gets in.
    pub async fn run(mut self) {
        let (mut failures, mut knocks) = (0_u32, 0);
        loop {
            if *self.phase.borrow() == Phase::Stop {
                return;
            }
            let opened = self.open().await;
            let over = match opened {
                Ok(session) => {
                    failures = 0;
                    let mood = self.mood();
                    let waiting = session.success.waiting;
                    self.epoch += 1;
                    self.server_key = Some(session.server_key);
                    let (d, e) = (self.me.number, self.epoch);
                    self.world.ledger.write(|t| Record::Up { t, d, e, w: waiting });
                    self.world.counts.sessions.fetch_add(1, Ordering::Relaxed);
                    self.world.counts.logins.fetch_add(1, Ordering::Relaxed);
                    let over = self.session(session.connection, mood, waiting).await;
                    self.world.counts.sessions.fetch_sub(1, Ordering::Relaxed);
                    if !matches!(over, Over::Twin) {
                        let why = over.to_string();
                        self.world.ledger.write(|t| Record::Down { t, d, e, why });
                    }
                    over
                }
                Err(error) => {
                    if self.is_gone(&error) {
                        let d = self.me.number;
                        self.world.ledger.write(|t| Record::Unknown { t, d });
                        Over::Removed
                    } else {
                        failures += 1;
                        Over::Refused(error)
                    }
                }
            };
            let pause = match over {
                Over::Removed if knocks == KNOCKS => return,
                // Perhaps it gets in somewhere: nobody may have told all of them.
                Over::Removed => {
                    knocks += 1;
                    KNOCK
                }
                Over::Away(time) => time,
                Over::Twin | Over::Again => Duration::ZERO,
                Over::Ended(end) if end.retry_after_ms > 0 => {
                    let ms = end.retry_after_ms.min(10_000);
                    Duration::from_millis(ms + self.rng.random_range(0..=ms / 4 + 1))
                }
                Over::Ended(_) | Over::Lost(_) => Duration::from_millis(self.rng.random_range(5..200)),
                Over::Refused(_) => {
                    let most = 100 << failures.min(5);
                    Duration::from_millis(self.rng.random_range(most / 2..most))
                }
            };
            if !self.pause(pause).await {
                return;
            }
        }
    }

    /// The login says that the device is no more, and it was to go.
    fn is_gone(&self, error: &DialError) -> bool {
        let unknown = matches!(error, DialError::Refused(FailureReason::DeviceUnknown | FailureReason::DeviceKey))
            || matches!(error, DialError::Ended(end) if end.reason == EndReason::DeviceRemoved);
        unknown && self.me.leaving.load(Ordering::Relaxed)
    }

    async fn open(&mut self) -> Result<super::dial::Session, DialError> {
        let world = Arc::clone(&self.world);
        let account = world.account(self.me.account)?;
        let provider = world.provider(account)?;
        let token = provider.token(&account.user, self.key.public()).await?;
        let edge = *world.net.edges.choose(&mut self.rng).context("an edge")?;
        let login = Login { key: &self.key, device: Some(self.me.id), token, known: self.server_key };
        let d = self.me.number;
        world.ledger.write(|t| Record::Login { t, d });
        let opened = dial(&world.net, edge, login).await;
        if matches!(&opened, Err(DialError::Refused(reason)) if *reason != FailureReason::Overloaded) {
            provider.forget(self.key.public());
        }
        opened
    }

    /// How this session will go.
    fn mood(&mut self) -> Mood {
        if *self.phase.borrow() != Phase::Load {
            return Mood::Good;
        }
        match self.kind {
            Kind::Wild => match self.rng.random_range(0..10) {
                0 | 1 => Mood::Slow(Duration::from_millis(self.rng.random_range(30..1_000))),
                2 | 3 => Mood::Forgetful,
                4 => Mood::Deaf,
                _ => Mood::Good,
            },
            Kind::Light | Kind::Sdk => Mood::Good,
        }
    }

    /// When the device goes away by itself, if it does.
    fn leaves_after(&mut self, mood: Mood) -> Option<Duration> {
        if *self.phase.borrow() != Phase::Load {
            return None;
        }
        let ms = match (mood, self.kind) {
            (Mood::Forgetful | Mood::Deaf, _) => self.rng.random_range(500..4_000),
            (_, Kind::Wild) => self.rng.random_range(2_000..30_000),
            _ => self.rng.random_range(20_000..180_000),
        };
        Some(Duration::from_millis(ms))
    }

    /// Waits without a connection; commands pile up meanwhile. False: the run is over.
    async fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            let phase = *self.phase.borrow_and_update();
            if phase == Phase::Stop {
                return false;
            }
            let until =
                if phase == Phase::Drain { until.min(Instant::now() + Duration::from_millis(500)) } else { until };
            if Instant::now() >= until {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                command = self.commands.recv() => match command {
                    Some(Command::Request { reply, .. }) => drop(reply.send(None)),
                    Some(command) => self.enqueue(&command),
                    None => return false,
                },
                changed = self.phase.changed() => if changed.is_err() { return false },
            }
        }
    }

    /// Takes messages on.
    fn enqueue(&mut self, command: &Command) {
        let Command::Send { to, class, count, padding, removed } = command else { return };
        for _ in 0..*count {
            if self.outbox.len() >= MAX_OPEN {
                self.world.counts.shed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let number = MessageNumber::new(self.me.number, self.next);
            self.next += 1;
            let removed = removed.clone();
            let (to, class, padding) = (*to, *class, *padding);
            let open = Open { to, class, padding, removed, record: None, at: None, in_flight: false };
            self.outbox.push(number, open);
        }
    }
}
