//! One session of a light client.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use causeway_noise::Received;
use causeway_noise::transport::{Connection, Reader, Writer};
use causeway_stanza::{
    Delivery, Encoding, End, EndReason, Fate, FromClient, FromServer, MessageClass, Outcome as Told, Rejected, Request,
    RequestBody, ResponseBody, Submit, decode_server,
};
use futures::FutureExt as _;
use rand::Rng as _;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use super::inspect::{encode, inspect};
use super::{Command, Light};
use crate::client::dial::{DialError, record};
use crate::driver::world::{Phase, World};
use crate::ledger::{Class, Kind, Outcome, Record};

/// Messages without an outcome that a session has at a time.
const WINDOW: usize = 256;
/// Bytes that may wait for the socket before nothing more is submitted.
const WRITE_AHEAD: usize = 128 * 1024;
/// Deliveries that are taken at once before one acknowledgement.
const BATCH: usize = 64;
/// How often a session looks around.
const TICK: Duration = Duration::from_millis(250);
/// A message without an outcome is repeated after this.
const RETRY: Duration = Duration::from_secs(5);
/// Silence after which the server is asked whether it is there, and after which it is given up.
const QUIET: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(9));
/// While draining: nothing has come for this long.
const SETTLED: Duration = Duration::from_secs(2);

/// How a device treats what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should.
    Good,
    /// Acknowledges so much later.
    Slow(Duration),
    /// Reads, and forgets all of it: neither shows nor acknowledges.
    Forgetful,
    /// Does not read.
    Deaf,
}

/// Why a session is over.
pub(super) enum Over {
    /// The device is no more.
    Removed,
    /// The device leaves for so long.
    Away(Duration),
    /// A second session comes beside this one.
    Twin,
    /// Connect again at once.
    Again,
    /// The server has ended it.
    Ended(End),
    /// The connection is lost.
    Lost(anyhow::Error),
    /// There was none.
    Refused(DialError),
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("removed"),
            Self::Away(time) => write!(f, "away for {} ms", time.as_millis()),
            Self::Twin => f.write_str("twin"),
            Self::Again => f.write_str("again"),
            Self::Ended(end) => write!(f, "ended: {:?}", end.reason),
            Self::Lost(error) => write!(f, "lost: {error:#}"),
            Self::Refused(error) => write!(f, "refused: {error:#}"),
        }
    }
}

/// What belongs to one session.
struct Now {
    mood: Mood,
    heard: Instant,
    pinged: bool,
    /// The last tag that came, the last that is to be acknowledged, and the last that was.
    tag: u64,
    due: u64,
    acked: u64,
    /// When the first delivery came that is not acknowledged yet.
    since: Option<Instant>,
    requests: HashMap<u64, oneshot::Sender<Option<ResponseBody>>>,
    next_request: u64,
    /// Nothing is submitted before this.
    not_before: Option<Instant>,
    /// A tag that was never sent has been acknowledged, and this ping sent behind it.
    trap: Option<u64>,
    /// When the last delivery or outcome came.
    moved: Instant,
    /// What waited at the login, and whether that was after the load had ended.
    waiting: u64,
    fresh: bool,
}

type Out = Vec<Vec<u8>>;

impl Light {
    /// Stays with a session until it is over.
    pub(super) async fn session(&mut self, connection: Connection<TcpStream>, mood: Mood, waiting: u64) -> Over {
        let Connection { mut reader, mut writer } = connection;
        let leaves = self.leaves_after(mood).map(|time| Instant::now() + time);
        let fresh = *self.phase.borrow_and_update() == Phase::Drain;
        let mut now = Now::new(mood, waiting, fresh);
        self.outbox.rewind();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut out = Out::new();
        loop {
            self.submit(&now, writer.queued(), &mut out);
            self.acknowledge(&mut now, &mut out);
            if let Err(error) = queue(&mut writer, &mut out) {
                return Over::Lost(error);
            }
            tokio::select! {
                received = reader.read(), if now.mood != Mood::Deaf => {
                    let mut received = received;
                    for left in (0..BATCH).rev() {
                        match received {
                            Ok(Some(Received::Record(record))) => {
                                (now.heard, now.pinged) = (Instant::now(), false);
                                match decode_server(Encoding::Binary, &record) {
                                    Ok(stanza) => if let Some(over) = self.take(stanza, &mut now, &mut out) {
                                        return over;
                                    },
                                    Err(error) => return Over::Lost(anyhow!("no stanza: {error}")),
                                }
                            }
                            Ok(Some(Received::KeepAlive)) => {}
                            Ok(None) => return Over::Lost(anyhow!("closed by the server")),
                            Err(error) => return Over::Lost(anyhow!("{error}")),
                        }
                        if left == 0 {
                            break;
                        }
                        match reader.read().now_or_never() {
                            Some(next) => received = next,
                            None => break,
                        }
                    }
                }
                flushed = writer.flush(), if writer.queued() > 0 => if let Err(error) = flushed {
                    return Over::Lost(error.into());
                },
                command = self.commands.recv() => match command {
                    None => return Over::Removed,
                    Some(Command::Away(time)) => return Over::Away(time),
                    Some(Command::Request { body, reply }) => now.ask(*body, Some(reply), &mut out),
                    Some(Command::Publish) => if let Ok(publish) = self.keys.publish() {
                        now.ask(RequestBody::KeysPublish(publish), None, &mut out);
                    },
                    Some(send) => self.enqueue(&send),
                },
                _ = tick.tick() => {
                    if leaves.is_some_and(|at| at <= Instant::now()) && *self.phase.borrow() == Phase::Load {
                        return self.leave(reader, &now);
                    }
                    if let Some(over) = self.look_around(&mut now, &mut out) {
                        return over;
                    }
                }
                changed = self.phase.changed() => {
                    if changed.is_err() || *self.phase.borrow_and_update() == Phase::Stop {
                        return Over::Away(Duration::ZERO);
                    }
                    // What this session does not do any more, the next one does.
                    if now.mood != Mood::Good {
                        return Over::Again;
                    }
                }
            }
        }
    }

    /// Leaves by itself: for a while, for a moment, or only seemingly.
    fn leave(&mut self, reader: Reader<ReadHalf<TcpStream>>, now: &Now) -> Over {
        if self.kind == Kind::Wild && now.mood == Mood::Good && self.rng.random_bool(0.3) {
            tokio::spawn(linger(Arc::clone(&self.world), self.me.number, (self.epoch, now.tag), reader));
            return Over::Twin;
        }
        if self.rng.random_bool(0.3) {
            return Over::Again;
        }
        Over::Away(Duration::from_millis(self.rng.random_range(500..12_000)))
    }

    /// Submits what may be.
    fn submit(&mut self, now: &Now, queued: usize, out: &mut Out) {
        if now.not_before.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let (e, mut bytes) = (self.epoch, queued);
        while self.outbox.in_flight() < WINDOW && bytes < WRITE_AHEAD {
            let Some((number, open)) = self.outbox.next() else { return };
            let Ok(account) = self.world.account(open.to) else { return self.outbox.skip(number) };
            let address = account.address.clone();
            let wire = match &open.record {
                Some(record) => {
                    self.world.ledger.write(|t| Record::Again { t, m: number, e });
                    self.world.counts.again.fetch_add(1, Ordering::Relaxed);
                    record.clone()
                }
                None => {
                    let mut devices = account.devices();
                    devices.extend(open.removed.clone());
                    let seq = self.seqs.entry(open.to).or_insert(0);
                    let made = encode(&self.world.secret, number, *seq, open.to, &devices, open.padding);
                    let Ok(enc) = made else {
                        self.outbox.skip(number);
                        continue;
                    };
                    let class = match open.class {
                        Class::Chat => MessageClass::Chat,
                        Class::Call => MessageClass::Call,
                        Class::Ephemeral => MessageClass::Ephemeral,
                    };
                    let submit = Submit { id: self.world.secret.id(number), to: address.clone(), class, enc };
                    let made = record(FromClient::Message(submit));
                    let to = devices.iter().map(|device| device.number).collect();
                    let (a, c, q) = (open.to, open.class, *seq);
                    self.world.ledger.write(|t| Record::Submit { t, m: number, e, a, q, c, to });
                    self.world.counts.submitted.fetch_add(1, Ordering::Relaxed);
                    *seq += 1;
                    open.record = Some(made.clone());
                    made
                }
            };
            self.outbox.submitted(number, address, &wire);
            bytes += wire.len();
            out.push(wire);
        }
    }

    /// Acknowledges what is due.
    fn acknowledge(&self, now: &mut Now, out: &mut Out) {
        if now.due <= now.acked {
            return;
        }
        if let (Mood::Slow(wait), Some(since)) = (now.mood, now.since)
            && since.elapsed() < wait
        {
            return;
        }
        let (d, e, g) = (self.me.number, self.epoch, now.due);
        self.world.ledger.write(|t| Record::AckOut { t, d, e, g });
        (now.acked, now.since) = (g, None);
        out.push(record(FromClient::Ack(g)));
    }

    /// Takes what the server says.
    fn take(&mut self, stanza: FromServer, now: &mut Now, out: &mut Out) -> Option<Over> {
        match stanza {
            FromServer::Message(delivery) => self.deliver(&delivery, now),
            FromServer::Ack(outcome) => self.told(&outcome, now),
            FromServer::Iq(response) => {
                if let Some(reply) = now.requests.remove(&response.id.get()) {
                    // Whoever asked may have given up.
                    let _given_up = reply.send(Some(response.body));
                }
            }
            FromServer::Ping(n) => out.push(record(FromClient::Pong(n))),
            FromServer::Pong(n) => {
                if now.trap == Some(n) {
                    let (d, e) = (self.me.number, self.epoch);
                    self.world.ledger.write(|t| Record::WrongAckTaken { t, d, e });
                    now.trap = None;
                }
            }
            FromServer::End(end) => {
                let removed = end.reason == EndReason::DeviceRemoved && self.me.leaving.load(Ordering::Relaxed);
                return Some(if removed { Over::Removed } else { Over::Ended(end) });
            }
            FromServer::Notification(_) => {}
            FromServer::Success(_) | FromServer::Failure(_) => return Some(Over::Lost(anyhow!("a second login"))),
        }
        None
    }

    fn told(&mut self, outcome: &Told, now: &mut Now) {
        now.moved = Instant::now();
        let (d, e) = (self.me.number, self.epoch);
        let number = self.world.secret.number(&outcome.id);
        let Some(m) = number.filter(|number| self.outbox.has_submitted(*number, &outcome.to)) else {
            let what = format!("{} to {}", outcome.id, outcome.to);
            self.world.ledger.write(|t| Record::StrayAck { t, d, e, what });
            return;
        };
        let counts = &self.world.counts;
        let (o, r, count) = match &outcome.fate {
            Fate::Delivered => (Outcome::Delivered, String::new(), &counts.delivered),
            Fate::Stored => (Outcome::Stored, String::new(), &counts.stored),
            Fate::Dropped => (Outcome::Dropped, String::new(), &counts.dropped),
            Fate::Rejected(rejected) => {
                if let Rejected::RateLimited { retry_after_ms } = rejected {
                    now.not_before = Some(Instant::now() + Duration::from_millis((*retry_after_ms).min(2_000)));
                }
                (Outcome::Rejected, format!("{:?}", rejected.reason()), &counts.rejected)
            }
        };
        self.world.ledger.write(|t| Record::Ack { t, m, e, o, r });
        if self.outbox.close(m) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if o == Outcome::Rejected {
            self.outbox.forget_recent(m);
        }
    }

    fn deliver(&mut self, delivery: &Delivery, now: &mut Now) {
        let (d, e, g) = (self.me.number, self.epoch, delivery.tag);
        let (m, mut bad) = inspect(&self.world, d, self.me.account, delivery);
        if g != now.tag + 1 {
            bad.get_or_insert(format!("tag {g} after {}", now.tag));
        }
        (now.tag, now.moved) = (g, Instant::now());
        self.world.ledger.write(|t| Record::Wire { t, d, e, g, m, bad });
        self.world.counts.wire.fetch_add(1, Ordering::Relaxed);
        if now.mood == Mood::Forgetful {
            return;
        }
        if self.seen.insert(m) {
            self.world.ledger.write(|t| Record::App { t, d, m });
            self.world.counts.app.fetch_add(1, Ordering::Relaxed);
        }
        now.due = g;
        now.since.get_or_insert_with(Instant::now);
    }

    /// What does not depend on what comes.
    fn look_around(&mut self, now: &mut Now, out: &mut Out) -> Option<Over> {
        let e = self.epoch;
        let silence = now.heard.elapsed();
        if silence > QUIET.1 && now.mood != Mood::Deaf {
            return Some(Over::Lost(anyhow!("silence")));
        }
        if silence > QUIET.0 && !now.pinged {
            now.pinged = true;
            out.push(record(FromClient::Ping(1)));
        }
        for (m, wire) in self.outbox.overdue(Instant::now() - RETRY) {
            self.world.ledger.write(|t| Record::Again { t, m, e });
            self.world.counts.again.fetch_add(1, Ordering::Relaxed);
            out.push(wire);
        }
        let phase = *self.phase.borrow();
        match phase {
            Phase::Drain => return self.drain(now),
            Phase::Stop => return Some(Over::Away(Duration::ZERO)),
            Phase::Load => {}
        }
        if self.kind == Kind::Wild && now.mood == Mood::Good {
            self.misbehave(now, out);
        }
        None
    }

    /// What the SDK never would.
    fn misbehave(&mut self, now: &mut Now, out: &mut Out) {
        let (d, e) = (self.me.number, self.epoch);
        let choice = self.rng.random_range(0..16);
        if self.rng.random_bool(0.1)
            && let Some((m, wire)) = self.outbox.recent(choice)
        {
            let m = *m;
            self.world.ledger.write(|t| Record::Again { t, m, e });
            out.push(wire.clone());
        }
        if self.rng.random_bool(0.01) && now.trap.is_none() {
            let (g, n) = (now.tag + 1_000, self.rng.random_range(1_000..u64::from(u32::MAX)));
            self.world.ledger.write(|t| Record::WrongAck { t, d, e, g });
            out.extend([record(FromClient::Ack(g)), record(FromClient::Ping(n))]);
            now.trap = Some(n);
        }
    }

    /// Finished when nothing is open, nothing comes, and a login after that says that nothing waits.
    fn drain(&mut self, now: &Now) -> Option<Over> {
        if self.drained || !self.outbox.is_empty() || now.moved.elapsed() < SETTLED {
            return None;
        }
        if !now.fresh || now.waiting > 0 {
            return Some(Over::Again);
        }
        self.drained = true;
        let (d, w) = (self.me.number, now.waiting);
        self.world.ledger.write(|t| Record::Drained { t, d, w, open: 0 });
        self.world.counts.drained.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Now {
    fn new(mood: Mood, waiting: u64, fresh: bool) -> Self {
        Self {
            mood,
            heard: Instant::now(),
            pinged: false,
            tag: 0,
            due: 0,
            acked: 0,
            since: None,
            requests: HashMap::new(),
            next_request: 1,
            not_before: None,
            trap: None,
            moved: Instant::now(),
            waiting,
            fresh,
        }
    }

    fn ask(&mut self, body: RequestBody, reply: Option<oneshot::Sender<Option<ResponseBody>>>, out: &mut Out) {
        let Some(id) = NonZeroU64::new(self.next_request) else { return };
        self.next_request += 1;
        if let Some(reply) = reply {
            self.requests.insert(id.get(), reply);
        }
        out.push(record(FromClient::Iq(Request { id, body })));
    }
}

fn queue(writer: &mut Writer<WriteHalf<TcpStream>>, out: &mut Out) -> anyhow::Result<()> {
    for record in out.drain(..) {
        writer.queue(&record).context("queue a record")?;
    }
    Ok(())
}

/// Goes on reading a session beside which a newer one was opened, and writes down what comes.
async fn linger(world: Arc<World>, d: u32, (e, mut tag): (u32, u64), mut reader: Reader<ReadHalf<TcpStream>>) {
    let Some(a) = world.device(d).map(|device| device.account) else { return };
    let listen = async {
        loop {
            let record = match reader.read().await {
                Ok(Some(Received::Record(record))) => record,
                Ok(Some(Received::KeepAlive)) => continue,
                Ok(None) => return "closed by the server".to_owned(),
                Err(error) => return error.to_string(),
            };
            match decode_server(Encoding::Binary, &record) {
                Ok(FromServer::Message(delivery)) => {
                    let (m, mut bad) = inspect(&world, d, a, &delivery);
                    let g = delivery.tag;
                    if g != tag + 1 {
                        bad.get_or_insert(format!("tag {g} after {tag}"));
                    }
                    tag = g;
                    world.ledger.write(|t| Record::Wire { t, d, e, g, m, bad });
                    world.counts.wire.fetch_add(1, Ordering::Relaxed);
                }
                Ok(FromServer::End(end)) => return format!("ended: {:?}", end.reason),
                Ok(_) => {}
                Err(error) => return format!("no stanza: {error}"),
            }
        }
    };
    let why = tokio::time::timeout(Duration::from_secs(20), listen).await.unwrap_or_else(|_| "lingered".to_owned());
    world.ledger.write(|t| Record::Down { t, d, e, why });
}
