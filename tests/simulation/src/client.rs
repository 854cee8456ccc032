//! A client: a Noise session with stanzas in it, a queue of what has no outcome yet, a table of what it has had.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use causeway_identity::MessageId;
use causeway_noise::{Limits, Received, Session, Suite, client};
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{
    Delivery, Enc, EncList, EncType, Encoding, EndReason, Fate, FromClient, FromServer, MessageClass, RegistrationId,
    Submit, decode_server, encode_client,
};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use turmoil::net::TcpStream;

use crate::ledger::{Arrival, Ledger, Message, Told};
use crate::people::{Person, account_id, address};

/// Where edges listen.
pub(crate) const EDGE_PORT: u16 = 7443;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const PING_EVERY: Duration = Duration::from_millis(700);
const SILENCE: Duration = Duration::from_millis(2_500);
/// What pings ask; another number is asked behind a lie.
const PING: u64 = 1;
const PING_BEHIND_LIE: u64 = 2;
const NEVER: Duration = Duration::from_secs(86_400);

/// What a client is to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) person: Person,
    pub(crate) seed: u64,
    pub(crate) edges: Vec<String>,
    /// The other devices of everybody.
    pub(crate) people: Vec<Person>,
    /// When to send, from the beginning, and to which account; in order.
    pub(crate) sends: Vec<(Duration, u8)>,
    /// When to leave without a word.
    pub(crate) drops: Vec<Duration>,
    /// When to acknowledge what was never sent.
    pub(crate) lies: Vec<Duration>,
    /// When to send once more what has an outcome.
    pub(crate) repeats: Vec<Duration>,
    /// Acknowledges at most this much later.
    pub(crate) ack_delay: Duration,
    /// Repeats what was refused for a while as soon as it hears so, and not when it may.
    pub(crate) eager: bool,
}

/// Goes on for ever.
pub(crate) async fn run(plan: Plan, ledger: Ledger) -> anyhow::Result<()> {
    let mut client = Client {
        rng: StdRng::seed_from_u64(plan.seed),
        begun: Instant::now(),
        sends: plan.sends.iter().copied().collect(),
        drops: plan.drops.iter().copied().collect(),
        lies: plan.lies.iter().copied().collect(),
        repeats: plan.repeats.iter().copied().collect(),
        waiting: VecDeque::new(),
        refused: BTreeMap::new(),
        numbers: BTreeMap::new(),
        sessions: 0,
        plan,
        ledger,
    };
    loop {
        let left = match client.connect().await {
            Ok(connection) => client.serve(connection).await,
            Err(error) => error,
        };
        client.ledger.note(&format!("{:?} is not connected: {left:#}", client.plan.person));
        let pause = Duration::from_millis(client.rng.random_range(20..400));
        tokio::time::sleep(pause).await;
    }
}

struct Client {
    plan: Plan,
    rng: StdRng,
    begun: Instant,
    sends: VecDeque<(Duration, u8)>,
    drops: VecDeque<Duration>,
    lies: VecDeque<Duration>,
    repeats: VecDeque<Duration>,
    /// Sent, without an outcome, in order.
    waiting: VecDeque<Message>,
    /// Of those, what is to be sent again, by recipient, and when.
    refused: BTreeMap<u8, (Instant, BTreeSet<Message>)>,
    numbers: BTreeMap<u8, u32>,
    sessions: u32,
    ledger: Ledger,
}

struct Connection {
    io: TcpStream,
    session: Session,
    heard: Instant,
    /// The greatest tag that came, and when to acknowledge it.
    to_acknowledge: Option<(u64, Instant)>,
    acknowledged: u64,
}

impl Client {
    async fn connect(&mut self) -> anyhow::Result<Connection> {
        let edge = self.plan.edges[self.rng.random_range(0..self.plan.edges.len())].clone();
        tokio::time::timeout(CONNECT_TIMEOUT, self.log_in(&edge)).await.context("the login takes too long")?
    }

    async fn log_in(&mut self, edge: &str) -> anyhow::Result<Connection> {
        let mut io = TcpStream::connect((edge, EDGE_PORT)).await.context("connect")?;
        let person = self.plan.person;
        let hello = pb::ClientHello {
            token: person.token(),
            device_id: person.device_id().get(),
            encoding: pb::Encoding::Binary.into(),
            agent: "simulation/1".to_owned(),
            forwarded: None,
        };
        let (key, mut out) = (person.noise_key(), BytesMut::new());
        let mut waiting = client::xx(&key, Suite::AesGcm, Limits::client(), &mut self.rng, &mut out)?;
        io.write_all_buf(&mut out).await?;
        let session = loop {
            waiting = match waiting.feed(&some(&mut io).await?) {
                client::Step::Waiting(waiting) => waiting,
                client::Step::Answered(answer) => break answer.finish(&hello.encode_to_vec(), &mut out)?,
                client::Step::Failed(error) => bail!("handshake: {error}"),
            };
        };
        io.write_all_buf(&mut out).await?;
        let mut connection = Connection { io, session, heard: Instant::now(), to_acknowledge: None, acknowledged: 0 };
        match connection.next().await? {
            FromServer::Success(success) => anyhow::ensure!(success.address == address(person.account), "not who I am"),
            other => bail!("refused: {other:?}"),
        }
        self.sessions += 1;
        let session = self.sessions;
        self.ledger.note(&format!("{person:?} is connected to {edge}, session {session}"));
        self.ledger.connected(person, session);
        Ok(connection)
    }

    /// Why it ended.
    async fn serve(&mut self, mut connection: Connection) -> anyhow::Error {
        let ended = self.converse(&mut connection).await;
        self.ledger.ended(self.plan.person, self.sessions);
        match ended {
            Ok(()) => anyhow::anyhow!("it left without a word"),
            Err(error) => error,
        }
    }

    async fn converse(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        self.refused.clear();
        for message in self.waiting.clone() {
            self.submit(connection, message).await?;
        }
        let mut ping_at = Instant::now() + PING_EVERY;
        loop {
            let send_at = self.at(self.sends.front().map(|(at, _)| *at));
            let drop_at = self.at(self.drops.front().copied());
            let lie_at = self.at(self.lies.front().copied());
            let repeat_at = self.at(self.repeats.front().copied());
            let again_at = self.refused.values().map(|(at, _)| *at).min().unwrap_or_else(|| self.at(None));
            let ack_at = connection.to_acknowledge.map_or_else(|| self.at(None), |(_, at)| at);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(drop_at) => {
                    self.drops.pop_front();
                    return Ok(());
                }
                () = tokio::time::sleep_until(lie_at) => {
                    self.lies.pop_front();
                    let last = connection.to_acknowledge.map_or(connection.acknowledged, |(tag, _)| tag);
                    self.ledger.lies(self.plan.person, self.sessions);
                    connection.send(FromClient::Ack(last + 1_000)).await?;
                    connection.send(FromClient::Ping(PING_BEHIND_LIE)).await?;
                }
                () = tokio::time::sleep_until(repeat_at) => {
                    self.repeats.pop_front();
                    if let Some(message) = self.has_outcome() {
                        self.submit(connection, message).await?;
                    }
                }
                () = tokio::time::sleep_until(send_at) => {
                    if let Some((_, to)) = self.sends.pop_front() {
                        let number = self.numbers.entry(to).or_default();
                        *number += 1;
                        let message = Message { from: self.plan.person, to, number: *number };
                        self.waiting.push_back(message);
                        match self.refused.get_mut(&to) {
                            // Behind those.
                            Some((_, refused)) => drop(refused.insert(message)),
                            None => self.submit(connection, message).await?,
                        }
                    }
                }
                () = tokio::time::sleep_until(again_at) => {
                    let due = self.refused.iter().find(|(_, (at, _))| *at == again_at).map(|(to, _)| *to);
                    if let Some((_, refused)) = due.and_then(|to| self.refused.remove(&to)) {
                        for message in refused {
                            self.submit(connection, message).await?;
                        }
                    }
                }
                () = tokio::time::sleep_until(ack_at) => {
                    if let Some((tag, _)) = connection.to_acknowledge.take() {
                        connection.acknowledged = tag;
                        self.ledger.acknowledges(self.plan.person, self.sessions, tag);
                        connection.send(FromClient::Ack(tag)).await?;
                    }
                }
                () = tokio::time::sleep_until(ping_at) => {
                    anyhow::ensure!(connection.heard.elapsed() < SILENCE, "the server is silent");
                    ping_at = Instant::now() + PING_EVERY;
                    connection.send(FromClient::Ping(PING)).await?;
                }
                stanza = connection.next() => self.hear(connection, stanza?).await?,
            }
        }
    }

    /// The last message to somebody to whom nothing is open, so that its place is the last in any case.
    fn has_outcome(&mut self) -> Option<Message> {
        let from = self.plan.person;
        let is_open = |to: u8| self.refused.contains_key(&to) || self.waiting.iter().any(|open| open.to == to);
        let closed = self.numbers.iter().filter(|(to, _)| !is_open(**to));
        let messages: Vec<Message> = closed.map(|(to, number)| Message { from, to: *to, number: *number }).collect();
        messages.choose(&mut self.rng).copied()
    }

    fn again_later(&mut self, message: Message, wait: Duration) {
        self.ledger.note(&format!("{message:?} is refused for {wait:?}"));
        let at = Instant::now() + if self.plan.eager { Duration::from_millis(1) } else { wait };
        let (until, refused) = self.refused.entry(message.to).or_insert((at, BTreeSet::new()));
        *until = at.max(*until);
        refused.insert(message);
    }

    fn at(&self, since_begin: Option<Duration>) -> Instant {
        self.begun + since_begin.unwrap_or(NEVER)
    }

    async fn submit(&mut self, connection: &mut Connection, message: Message) -> anyhow::Result<()> {
        self.ledger.submitted(message, self.sessions);
        let devices = self.plan.people.iter().filter(|other| other.account == message.to && **other != message.from);
        let enc: anyhow::Result<Vec<Enc>> = devices.map(|device| part(message, *device)).collect();
        let submit = Submit {
            id: id_of(message),
            to: address(message.to),
            class: MessageClass::Chat,
            enc: EncList::try_from(enc?)?,
        };
        connection.send(FromClient::Message(submit)).await
    }

    async fn hear(&mut self, connection: &mut Connection, stanza: FromServer) -> anyhow::Result<()> {
        match stanza {
            FromServer::Message(delivery) => {
                match arrival(&delivery) {
                    Ok(arrival) => self.ledger.arrived(self.plan.person, self.sessions, arrival),
                    Err(error) => self.ledger.garbled(self.plan.person, self.sessions, &format!("{error:#}")),
                }
                let delay = self.rng.random_range(0..=self.plan.ack_delay.as_micros());
                let at = Instant::now() + Duration::from_micros(u64::try_from(delay).unwrap_or(0));
                let at = connection.to_acknowledge.map_or(at, |(_, earlier)| earlier);
                connection.to_acknowledge = Some((delivery.tag, at));
            }
            FromServer::Ack(outcome) => {
                let message = decoded(outcome.id.as_bytes());
                if !self.ledger.named(self.plan.person, self.sessions, message, &outcome.to.to_string()) {
                    return Ok(());
                }
                let told = match outcome.fate {
                    Fate::Delivered => Told::Delivered,
                    Fate::Stored => Told::Stored,
                    Fate::Rejected(causeway_stanza::Rejected::RateLimited { retry_after_ms }) => {
                        self.again_later(message, Duration::from_millis(retry_after_ms));
                        return Ok(());
                    }
                    Fate::Dropped | Fate::Rejected(_) => Told::Rejected,
                };
                self.ledger.told(message, told);
                self.waiting.retain(|waiting| *waiting != message);
            }
            FromServer::Ping(n) => connection.send(FromClient::Pong(n)).await?,
            FromServer::End(end) => {
                if end.reason == EndReason::Replaced {
                    self.ledger.replaced(self.plan.person, self.sessions);
                }
                if end.reason == EndReason::BadAck {
                    self.ledger.disbelieved(self.plan.person, self.sessions);
                }
                bail!("ended: {:?}", end.reason);
            }
            FromServer::Pong(PING_BEHIND_LIE) => self.ledger.believed(self.plan.person, self.sessions),
            FromServer::Pong(_) | FromServer::Notification(_) => {}
            other => bail!("unexpected {}", other.name()),
        }
        Ok(())
    }
}

impl Connection {
    async fn send(&mut self, stanza: FromClient) -> anyhow::Result<()> {
        self.session.sender.queue(&encode_client(Encoding::Binary, stanza))?;
        self.session.sender.seal()?;
        let bytes = self.session.sender.sealed().split();
        self.io.write_all(&bytes).await.context("write")
    }

    /// Cancel safe: bytes that have been read are in the receiver.
    async fn next(&mut self) -> anyhow::Result<FromServer> {
        loop {
            match self.session.receiver.next()? {
                Some(Received::Record(record)) => {
                    self.heard = Instant::now();
                    return Ok(decode_server(Encoding::Binary, &record)?);
                }
                Some(Received::KeepAlive) => {}
                None => {
                    let bytes = some(&mut self.io).await?;
                    self.session.receiver.feed(&bytes);
                }
            }
        }
    }
}

async fn some(io: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut buffer = vec![0; 4_096];
    let read = io.read(&mut buffer).await.context("read")?;
    anyhow::ensure!(read > 0, "the server has closed");
    buffer.truncate(read);
    Ok(buffer)
}

fn encoded(message: Message) -> [u8; 16] {
    let mut bytes = [0x5a; 16];
    (bytes[0], bytes[1], bytes[2]) = (message.from.account, message.from.device, message.to);
    bytes[4..8].copy_from_slice(&message.number.to_be_bytes());
    bytes
}

fn id_of(message: Message) -> MessageId {
    MessageId::from_bytes(encoded(message))
}

/// The ciphertext says for which device it is, so that a mix-up shows.
fn part(message: Message, device: Person) -> anyhow::Result<Enc> {
    let text = [&encoded(message)[..], &[device.account, device.device]].concat();
    Ok(Enc {
        device: device.device_id(),
        registration: RegistrationId::new(device.registration()).map_err(|problem| anyhow::anyhow!("{problem:?}"))?,
        kind: EncType::Whisper,
        ciphertext: text.try_into()?,
    })
}

fn decoded(bytes: &[u8; 16]) -> Message {
    let from = Person { account: bytes[0], device: bytes[1] };
    Message { from, to: bytes[2], number: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) }
}

fn arrival(delivery: &Delivery) -> anyhow::Result<Arrival> {
    let body: [u8; 18] = delivery.ciphertext.as_bytes().try_into().context("a body of ours has 18 bytes")?;
    let message = decoded(body.first_chunk().context("it has 18 bytes")?);
    let Person { account, .. } = message.from;
    let device = delivery.from.device;
    anyhow::ensure!(delivery.id == id_of(message), "the id is not that of {message:?}");
    anyhow::ensure!(delivery.from.account == address(account), "{message:?} from {:?}", delivery.from);
    anyhow::ensure!(device == message.from.device_id(), "{message:?} from device {device:?}");
    anyhow::ensure!(delivery.from_account == account_id(account), "{message:?} from another account");
    let body_for = Person { account: body[16], device: body[17] };
    Ok(Arrival { tag: delivery.tag, message, body_for })
}
