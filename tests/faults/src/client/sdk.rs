//! A device of the SDK: full encryption, the SDK's own retries and dedup, a store in memory that outlives its clients.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use causeway_client::{
    Client, ClientConfig, ClientError, Content, Ended, EventKind, Events, MemoryStore, MessageId, RejectReason,
    SendResult, ServerAddress, Store as _,
};
use causeway_stanza::RegistrationId;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::canary::WORD;
use super::light::{Command, rng};
use crate::driver::world::{Account, Enlisted, Phase, World};
use crate::ledger::{Class, Kind, MessageNumber, Outcome, Record};

/// While draining: nothing has come for this long.
const SETTLED: Duration = Duration::from_secs(3);

/// A device of the SDK and its state.
pub struct Sdk {
    world: Arc<World>,
    me: Arc<Enlisted>,
    config: ClientConfig,
    store: Arc<MemoryStore>,
    running: Option<(Client, Events)>,
    commands: mpsc::Receiver<Command>,
    phase: watch::Receiver<Phase>,
    rng: StdRng,
    epoch: u32,
    up: bool,
    open: HashMap<MessageId, MessageNumber>,
    /// Shown, but the SDK could not remember that: it will show it again.
    shown: HashSet<MessageNumber>,
    seqs: HashMap<u32, u32>,
    next: u32,
    moved: Instant,
    waiting: u64,
    reopened: bool,
    drained: bool,
}

/// Enlists a device of the SDK on `account`.
///
/// # Errors
/// The server refuses, or does not answer until `deadline`.
pub async fn enlist(world: &Arc<World>, account: &Account, deadline: Instant) -> anyhow::Result<Sdk> {
    let number = world.new_device();
    let mut rng = rng(world.seed, "device", number);
    let edge = *world.net.edges.choose(&mut rng).context("an edge")?;
    let server: ServerAddress = edge.to_string().parse()?;
    let mut config = ClientConfig::new(account.address.clone(), server, &world.net.name, vec![world.net.root]);
    config.timing.backoff_first = Duration::from_millis(50);
    config.timing.backoff_longest = Duration::from_secs(2);
    config.timing.connect_timeout = Duration::from_secs(5);
    config.timing.ack_timeout = Duration::from_secs(6);
    let tokens = world.provider(account)?.tokens(&account.user);
    let store = Arc::new(MemoryStore::new());
    let (client, events) = Client::open(config.clone(), store.clone(), tokens).await?;
    let enlisted = tokio::time::timeout_at(deadline, client.enlist()).await.context("enlist")??;
    let record = store.device().await?.context("a device")?;
    let account_id = record.enlisted.context("an enlisted device")?.account;
    let registration = RegistrationId::new(record.registration_id).ok().context("a registration id")?;
    let (sender, commands) = mpsc::channel(256);
    let leaving = AtomicBool::new(false);
    let id = enlisted.device;
    let me = Arc::new(Enlisted { number, account: account.number, id, registration, commands: sender, leaving });
    world.ledger.write(|t| Record::Device { t, d: number, a: account.number, id: id.get(), kind: Kind::Sdk });
    world.add(account, account_id, &me);
    Ok(Sdk {
        world: Arc::clone(world),
        me,
        config,
        store,
        running: Some((client, events)),
        commands,
        phase: world.phase.subscribe(),
        rng,
        epoch: 0,
        up: false,
        open: HashMap::new(),
        shown: HashSet::new(),
        seqs: HashMap::new(),
        next: 0,
        moved: Instant::now(),
        waiting: 0,
        reopened: false,
        drained: false,
    })
}

impl Sdk {
    /// Lives until the run stops.
    pub async fn run(mut self) {
        loop {
            let away = match self.live().await {
                Ok(Some(away)) => away,
                Ok(None) => break,
                Err(error) => {
                    let (d, why) = (self.me.number, format!("{error:#}"));
                    let replaced = matches!(error.downcast_ref(), Some(ClientError::Ended(Ended::Replaced)));
                    self.world.ledger.write(|t| Record::Stopped { t, d, why, replaced });
                    Duration::from_millis(200)
                }
            };
            if let Some((client, _)) = self.running.take() {
                client.shutdown().await;
            }
            self.down("away");
            tokio::time::sleep(away).await;
        }
        if let Some((client, _)) = self.running.take() {
            client.shutdown().await;
        }
        self.down("stop");
    }

    /// One life of a client; gives how long the device is away after it, or nothing when the run stops.
    async fn live(&mut self) -> anyhow::Result<Option<Duration>> {
        if self.running.is_none() {
            let account = self.world.account(self.me.account)?;
            let tokens = self.world.provider(account)?.tokens(&account.user);
            let edge = *self.world.net.edges.choose(&mut self.rng).context("an edge")?;
            self.config.server = edge.to_string().parse()?;
            self.running =
                Some(Client::open(self.config.clone(), self.store.clone(), tokens).await.context("open it again")?);
        }
        let (client, mut events) = self.running.take().context("a client")?;
        let over = self.serve(&client, &mut events).await;
        self.running = Some((client, events));
        over
    }

    async fn serve(&mut self, client: &Client, events: &mut Events) -> anyhow::Result<Option<Duration>> {
        let leaves = Instant::now() + Duration::from_millis(self.rng.random_range(15_000..90_000));
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event else {
                        // Why is in its state.
                        client.connected().await.context("there are no more events")?;
                        bail!("there are no more events, but the client is connected");
                    };
                    let message = self.happened(&event.kind);
                    if let Err(error) = event.done().await {
                        self.shown.extend(message);
                        return Err(error).context("an event is done");
                    }
                    if matches!(event.kind, EventKind::Connected(_)) {
                        self.ask_outcomes(client).await?;
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Send { to, count, padding, .. }) => for _ in 0..count {
                        self.send(client, to, padding).await.context("send a message")?;
                    },
                    Some(Command::Request { body, reply }) => {
                        let client = client.clone();
                        tokio::spawn(async move {
                            // Whoever asked may have given up.
                            let _given_up = reply.send(client.request(*body).await.ok());
                        });
                    }
                    Some(Command::Away(time)) => return Ok(Some(time)),
                    Some(Command::Publish) => {}
                    None => return Ok(None),
                },
                _ = tick.tick() => {
                    let phase = *self.phase.borrow();
                    match phase {
                        Phase::Stop => return Ok(None),
                        Phase::Load if Instant::now() > leaves => {
                            return Ok(Some(Duration::from_millis(self.rng.random_range(0..8_000))));
                        }
                        Phase::Drain if !self.drained && self.open.is_empty() && self.up && self.moved.elapsed() > SETTLED => {
                            if !self.reopened || self.waiting > 0 {
                                self.reopened = true;
                                return Ok(Some(Duration::ZERO));
                            }
                            self.drained = true;
                            let (d, w) = (self.me.number, self.waiting);
                            self.world.ledger.write(|t| Record::Drained { t, d, w, open: 0 });
                            self.world.counts.drained.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// Hands a message to the SDK.
    async fn send(&mut self, client: &Client, to: u32, padding: usize) -> anyhow::Result<()> {
        let account = self.world.account(to)?;
        let m = MessageNumber::new(self.me.number, self.next);
        let seq = self.seqs.entry(to).or_insert(0);
        let devices = account.devices().iter().map(|device| device.number).collect();
        let (a, q, e) = (to, *seq, self.epoch);
        self.world.ledger.write(|t| Record::Submit { t, m, e, a, q, c: Class::Chat, to: devices });
        self.world.counts.submitted.fetch_add(1, Ordering::Relaxed);
        self.next += 1;
        *seq += 1;
        let text = format!("{WORD} {} {to} {}", m.0, ".".repeat(padding));
        match client.send(&account.address, Content::text(&text)).await {
            Ok(id) => {
                self.open.insert(id, m);
                Ok(())
            }
            Err(ClientError::QueueFull) => {
                self.world.counts.shed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Outcomes are told to who is there: those of a life before are asked for.
    async fn ask_outcomes(&mut self, client: &Client) -> anyhow::Result<()> {
        for id in self.open.keys().copied().collect::<Vec<_>>() {
            if let Some(outcome) = client.outcome(id).await.context("ask for an outcome")? {
                self.happened(&EventKind::Outcome(outcome));
            }
        }
        Ok(())
    }

    /// Writes an event down; gives the message that it shows.
    fn happened(&mut self, kind: &EventKind) -> Option<MessageNumber> {
        let (d, e) = (self.me.number, self.epoch);
        match kind {
            EventKind::Message(message) => {
                self.moved = Instant::now();
                let (m, bad) = match self.read(message) {
                    Ok(m) => (m, None),
                    Err((m, error)) => (m, Some(error.to_string())),
                };
                if bad.is_some() {
                    self.world.ledger.write(|t| Record::Wire { t, d, e, g: 0, m, bad });
                }
                if !self.shown.remove(&m) {
                    self.world.ledger.write(|t| Record::App { t, d, m });
                    self.world.counts.app.fetch_add(1, Ordering::Relaxed);
                }
                return Some(m);
            }
            EventKind::Outcome(outcome) => {
                self.moved = Instant::now();
                let m = self.open.remove(&outcome.id)?;
                let counts = &self.world.counts;
                let (o, count) = match outcome.result {
                    SendResult::Delivered => (Outcome::Delivered, &counts.delivered),
                    SendResult::Stored => (Outcome::Stored, &counts.stored),
                    SendResult::Dropped => (Outcome::Dropped, &counts.dropped),
                    SendResult::Rejected(_) => (Outcome::Rejected, &counts.rejected),
                };
                let r = match outcome.result {
                    SendResult::Rejected(RejectReason::Server(reason)) => format!("{reason:?}"),
                    SendResult::Rejected(reason) => format!("{reason:?}"),
                    _ => String::new(),
                };
                self.world.ledger.write(|t| Record::Ack { t, m, e, o, r });
                count.fetch_add(1, Ordering::Relaxed);
            }
            EventKind::Connected(connected) => {
                self.epoch += 1;
                (self.up, self.waiting, self.moved) = (true, connected.waiting, Instant::now());
                let e = self.epoch;
                self.world.ledger.write(|t| Record::Up { t, d, e, w: connected.waiting });
                self.world.counts.sessions.fetch_add(1, Ordering::Relaxed);
                self.world.counts.logins.fetch_add(1, Ordering::Relaxed);
            }
            EventKind::Disconnected(disconnected) => self.down(&format!("{:?}", disconnected.reason)),
            _ => {}
        }
        None
    }

    fn down(&mut self, why: &str) {
        if !std::mem::take(&mut self.up) {
            return;
        }
        let (d, e) = (self.me.number, self.epoch);
        self.world.ledger.write(|t| Record::Down { t, d, e, why: why.to_owned() });
        self.world.counts.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Which message the text names; it must be to this account, from that sender.
    fn read(&self, message: &causeway_client::Message) -> Result<MessageNumber, (MessageNumber, anyhow::Error)> {
        let unknown = MessageNumber(u64::MAX);
        let text = message.content.as_text().context("no text").map_err(|error| (unknown, error))?;
        let mut words = text.split(' ');
        let number = words.nth(1).and_then(|word| word.parse().ok()).map(MessageNumber);
        let number = number.context("no number").map_err(|error| (unknown, error))?;
        let check = || {
            let to: u32 = words.next().context("no account")?.parse()?;
            ensure!(to == self.me.account, "made for account {to}");
            let sender = self.world.device(number.device()).context("no such sender")?;
            let account = self.world.account(sender.account)?;
            ensure!(message.from.device == sender.id && message.from.account == account.address, "another sender");
            Ok(number)
        };
        let mut check = check;
        check().map_err(|error| (number, error))
    }
}
