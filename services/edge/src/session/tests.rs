//! The state machine without a socket: its rules one by one, and under chance.

use std::collections::HashMap;
use std::time::Duration;

use bytes::BytesMut;
use causeway_identity::{AccountId, DeviceId, ProviderId};
use causeway_noise::{Limits, Received, StaticKey, Suite, client};
use causeway_stanza::{Encoding, End, FromClient, FromServer, decode_server, encode_client};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::EdgeConfig;
use crate::keys::Keys;
use crate::login::Device;
use crate::providers::Provider;

const NOW_MS: u64 = 1_800_000_000_000;

/// A session and the client at its other end, without anything between them.
struct Pair {
    session: Option<Session>,
    client: Option<causeway_noise::Session>,
    start: Instant,
    elapsed: Duration,
    did: Vec<Output>,
    heard: Vec<FromServer>,
}

fn rules(adjust: impl FnOnce(&mut EdgeConfig)) -> Arc<Rules> {
    let mut config = EdgeConfig { deployment: "net.example".to_owned(), ..EdgeConfig::default() };
    adjust(&mut config);
    Arc::new(Rules { keys: Keys::for_tests(StaticKey::from_bytes([1; 32])), config })
}

fn admitted(device: Option<u32>) -> Box<Admitted> {
    let provider = Provider::for_tests(ProviderId::from_bytes([1; 16]), "birdy.example");
    let device = device.map(|id| Device {
        account: AccountId::from_bytes([2; 16]),
        id: DeviceId::new(id).unwrap(),
        registration_id: 3,
    });
    let user = User {
        address: "ada@birdy.example".parse().unwrap(),
        provider: Arc::new(provider),
        noise_key: NoiseKey::new(*StaticKey::from_bytes([9; 32]).public()).unwrap(),
    };
    Box::new(Admitted {
        user: Arc::new(user),
        token: Token { jti: "t".to_owned(), expires_ms: NOW_MS + 60_000 },
        device,
        device_count: 1,
        prekeys_low: false,
        suspended: CancellationToken::new(),
    })
}

impl Pair {
    /// Through the handshake; after IK the proof is not sent yet.
    fn shaken(rules: &Arc<Rules>, ik: bool) -> (Self, BytesMut) {
        let mut rng = StdRng::seed_from_u64(1);
        let start = Instant::now();
        let session = Session::new(Arc::clone(rules), SessionId::from_bytes([4; 16]), &mut rng, start);
        let mut pair = Self {
            session: Some(session),
            client: None,
            start,
            elapsed: Duration::ZERO,
            did: Vec::new(),
            heard: Vec::new(),
        };
        let key = StaticKey::from_bytes([9; 32]);
        let hello = pb::ClientHello {
            token: "t".to_owned(),
            device_id: 1,
            encoding: pb::Encoding::Binary.into(),
            ..pb::ClientHello::default()
        };
        let hello = prost::Message::encode_to_vec(&hello);
        let (mut out, limits, suite) = (BytesMut::new(), Limits::client(), Suite::AesGcm);
        let last = if ik {
            let server = *rules.keys.static_key.public();
            let waiting = client::ik(&key, &server, suite, &hello, limits, &mut rng, &mut out).unwrap();
            pair.shake(&out);
            let client::Step::Answered(answer) = waiting.feed(&pair.written()) else { panic!("no answer") };
            let mut proof = BytesMut::new();
            pair.client = Some(answer.finish(&mut proof).unwrap());
            proof
        } else {
            let waiting = client::xx(&key, suite, limits, &mut rng, &mut out).unwrap();
            pair.shake(&out);
            let client::Step::Answered(answer) = waiting.feed(&pair.written()) else { panic!("no answer") };
            let mut third = BytesMut::new();
            pair.client = Some(answer.finish(&hello, &mut third).unwrap());
            third
        };
        (pair, last)
    }

    /// Feeds a part of a handshake byte by byte: only with the last one it does what is costly.
    fn shake(&mut self, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.step(Input::Bytes(&[*byte]));
            let was_costly = self.session.as_ref().unwrap().was_costly(&self.did);
            assert_eq!(was_costly, index + 1 == bytes.len(), "byte {index} of {}", bytes.len());
        }
    }

    fn checking(rules: &Arc<Rules>, ik: bool) -> Self {
        let (mut pair, last) = Self::shaken(rules, ik);
        pair.step(Input::Bytes(&last));
        assert!(matches!(pair.did.pop(), Some(Output::Verify(..))));
        pair
    }

    fn open(rules: &Arc<Rules>) -> Self {
        let mut pair = Self::checking(rules, false);
        pair.step(Input::Verdict(Ok(admitted(Some(1)))));
        assert!(matches!(pair.did.pop(), Some(Output::Attach(_))));
        pair.step(Input::Attached(7));
        assert!(matches!(pair.did.pop(), Some(Output::Enlisted)));
        assert!(matches!(pair.did.pop(), Some(Output::LoggedIn)));
        assert!(matches!(pair.heard.pop(), Some(FromServer::Success(success)) if success.waiting == 7));
        pair
    }

    fn now(&self) -> Now {
        let ms = u64::try_from(self.elapsed.as_millis()).unwrap();
        Now { at: self.start + self.elapsed, unix_ms: NOW_MS + ms }
    }

    fn step(&mut self, input: Input<'_>) {
        let now = self.now();
        let mut session = self.session.take().unwrap().step(input, now, &mut self.did);
        let mut wire = BytesMut::new();
        session.seal_into(&mut wire);
        self.session = Some(session);
        let Some(client) = &mut self.client else { return };
        client.receiver.feed(&wire);
        while let Some(received) = client.receiver.next().unwrap() {
            if let Received::Record(record) = received {
                self.heard.push(decode_server(Encoding::Binary, &record).unwrap());
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.elapsed += time;
        self.step(Input::Tick);
    }

    fn seal(&mut self, record: &[u8]) -> BytesMut {
        let sender = &mut self.client.as_mut().unwrap().sender;
        sender.queue(record).unwrap();
        sender.seal().unwrap();
        sender.sealed().split()
    }

    fn say(&mut self, stanza: FromClient) {
        let bytes = self.seal(&encode_client(Encoding::Binary, stanza));
        self.step(Input::Bytes(&bytes));
    }

    /// The bytes of the handshake so far.
    fn written(&mut self) -> BytesMut {
        let mut bytes = BytesMut::new();
        self.did.retain(|output| match output {
            Output::Write(written) => {
                bytes.extend_from_slice(written);
                false
            }
            _ => true,
        });
        bytes
    }

    fn why(&self) -> Option<Why> {
        self.session.as_ref().unwrap().ended()
    }

    fn state(&self) -> String {
        format!("{:?}", self.session.as_ref().unwrap())
    }
}

fn delivery(tag: u64) -> pb::Delivery {
    match crate::tests::delivery(tag) {
        routing::routing_event::Event::Deliver(delivery) => delivery,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn after_ik_nothing_is_asked_before_the_proof_and_nothing_is_said_without_it() {
    let rules = rules(|_| {});
    let (mut pair, proof) = Pair::shaken(&rules, true);
    assert_eq!(pair.state(), "Proving");
    assert!(pair.did.is_empty());
    pair.step(Input::Bytes(&proof[..proof.len() - 1]));
    pair.step(Input::Verdict(Ok(admitted(Some(1)))));
    pair.step(Input::Attached(1));
    pair.step(Input::Suspended);
    assert_eq!(pair.state(), "Proving");
    assert!(pair.did.is_empty());
    pair.step(Input::Bytes(&proof[proof.len() - 1..]));
    assert!(matches!(pair.did[..], [Output::Verify(..)]));

    let (mut replayed, proof) = Pair::shaken(&rules, true);
    let mut damaged = proof;
    damaged[5] ^= 1;
    replayed.step(Input::Bytes(&damaged));
    assert_eq!(replayed.why(), Some(Why::Broken));
    let (mut late, _) = Pair::shaken(&rules, true);
    late.pass(Duration::from_millis(4_999));
    assert_eq!(late.state(), "Proving");
    late.pass(Duration::from_millis(1));
    assert_eq!(late.why(), Some(Why::Silent));
    let (mut drained, _) = Pair::shaken(&rules, true);
    drained.step(Input::Drain);
    assert_eq!(drained.why(), Some(Why::Silent));
    for pair in [&replayed, &late, &drained] {
        assert!(pair.did.is_empty() && pair.heard.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_waits_for_its_verdict_and_for_routing_but_not_for_ever() {
    let rules = rules(|_| {});
    let overloaded = || Some(FromServer::Failure(FailureReason::Overloaded));
    for ik in [false, true] {
        let mut unanswered = Pair::checking(&rules, ik);
        assert!(!unanswered.session.as_ref().unwrap().wants_bytes(unanswered.now()));
        unanswered.pass(Duration::from_secs(10));
        assert_eq!(unanswered.heard.pop(), overloaded());

        let mut unattached = Pair::checking(&rules, ik);
        unattached.step(Input::Verdict(Ok(admitted(Some(1)))));
        assert!(!unattached.session.as_ref().unwrap().wants_bytes(unattached.now()));
        unattached.pass(Duration::from_secs(10));
        assert_eq!(unattached.heard.pop(), overloaded());

        let mut lost = Pair::checking(&rules, ik);
        lost.step(Input::Verdict(Ok(admitted(Some(1)))));
        lost.step(Input::RoutingLost);
        assert_eq!(lost.heard.pop(), overloaded());

        let mut refused = Pair::checking(&rules, ik);
        refused.step(Input::Verdict(Err(FailureReason::DeviceKey)));
        assert_eq!(refused.heard.pop(), Some(FromServer::Failure(FailureReason::DeviceKey)));
        assert_eq!(refused.why(), Some(Why::Failed(FailureReason::DeviceKey)));
        assert!(refused.did.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_replaced_while_it_attaches_hears_both() {
    let mut pair = Pair::checking(&rules(|_| {}), false);
    pair.step(Input::Verdict(Ok(admitted(Some(1)))));
    let replaced = pb::End { reason: pb::EndReason::Replaced.into(), retry_after_ms: 0 };
    pair.step(Input::RoutingEnd(replaced));
    assert!(matches!(pair.heard[..], [FromServer::Success(_), FromServer::End(_)]));
    assert_eq!(pair.why(), Some(Why::Ended(EndReason::Replaced)));
}

#[tokio::test(start_paused = true)]
async fn tags_can_be_acknowledged_once_they_were_sent() {
    let mut pair = Pair::open(&rules(|_| {}));
    for tag in 1..=3 {
        pair.step(Input::Deliver(delivery(tag)));
    }
    pair.say(FromClient::Ack(3));
    pair.say(FromClient::Ack(1));
    assert!(matches!(pair.did[..], [Output::Processed(3)]));
    pair.say(FromClient::Ack(4));
    assert_eq!(pair.why(), Some(Why::Ended(EndReason::BadAck)));
    assert_eq!(pair.did.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_session_is_pinged_once_and_ended_after_twice_the_interval() {
    let mut pair = Pair::open(&rules(|config| config.token_grace_ms = 300_000));
    pair.pass(Duration::from_millis(29_999));
    assert!(pair.heard.is_empty());
    pair.pass(Duration::from_millis(1));
    pair.pass(Duration::from_millis(1));
    assert!(matches!(pair.heard[..], [FromServer::Ping(_)]));
    pair.say(FromClient::Pong(0));
    pair.pass(Duration::from_secs(59));
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.why(), Some(Why::Ended(EndReason::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_enlist_ends() {
    let rules = rules(|config| config.enlist_timeout_ms = 20_000);
    let mut idle = Pair::checking(&rules, false);
    idle.step(Input::Verdict(Ok(admitted(None))));
    assert!(matches!(idle.did[..], [Output::LoggedIn]));
    idle.pass(Duration::from_millis(19_999));
    assert_eq!(idle.why(), None);
    idle.pass(Duration::from_millis(1));
    assert_eq!(idle.why(), Some(Why::Ended(EndReason::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn of_two_fresh_tokens_the_longer_one_counts() {
    let mut pair = Pair::open(&rules(|config| config.token_grace_ms = 0));
    for id in 1..=2 {
        let id = NonZeroU64::new(id).unwrap();
        pair.say(FromClient::Iq(causeway_stanza::Request { id, body: RequestBody::KeysCount }));
    }
    for (id, expires_ms) in [(1, NOW_MS + 90_000), (2, NOW_MS + 70_000)] {
        let token = Token { jti: "t".to_owned(), expires_ms };
        pair.step(Input::Answer(NonZeroU64::new(id).unwrap(), Answer::Refreshed(token)));
    }
    for _ in 0..3 {
        pair.pass(Duration::from_millis(29_999));
        pair.say(FromClient::Pong(0));
    }
    assert_eq!(pair.why(), None);
    pair.pass(Duration::from_millis(3));
    assert_eq!(pair.why(), Some(Why::Ended(EndReason::TokenExpired)));
}

#[tokio::test(start_paused = true)]
async fn a_session_outlives_its_token_by_the_grace() {
    let mut pair = Pair::open(&rules(|config| config.token_grace_ms = 5_000));
    for _ in 0..6 {
        pair.pass(Duration::from_secs(10));
        pair.say(FromClient::Pong(0));
    }
    pair.pass(Duration::from_millis(4_999));
    assert_eq!(pair.why(), None);
    pair.pass(Duration::from_millis(1));
    assert_eq!(pair.why(), Some(Why::Ended(EndReason::TokenExpired)));
}

#[tokio::test(start_paused = true)]
async fn silence_while_nothing_is_read_counts_a_little_later() {
    let mut pair = Pair::open(&rules(|config| config.token_grace_ms = 300_000));
    let second = Duration::from_secs(1);
    for _ in 0..79 {
        pair.session.as_mut().unwrap().not_reading(None);
        pair.pass(second);
    }
    assert_eq!(pair.why(), None);
    assert!(matches!(pair.heard[..], [FromServer::Ping(_)]));
    pair.session.as_mut().unwrap().not_reading(None);
    pair.pass(second);
    assert_eq!(pair.why(), Some(Why::Ended(EndReason::Timeout)), "twice the ping interval, and a write");
}

#[tokio::test(start_paused = true)]
async fn who_is_not_read_but_reads_is_there() {
    let mut pair = Pair::open(&rules(|config| config.token_grace_ms = 300_000));
    for _ in 0..10 {
        let now = pair.now().at;
        pair.session.as_mut().unwrap().not_reading(Some(now));
        pair.pass(Duration::from_secs(29));
    }
    assert_eq!(pair.why(), None);
    pair.pass(Duration::from_secs(51));
    assert_eq!(pair.why(), Some(Why::Ended(EndReason::Timeout)), "and then is no more");
}

#[tokio::test(start_paused = true)]
async fn what_is_over_the_pace_is_read_later_and_in_order() {
    let rules = rules(|config| (config.stanzas_per_s, config.stanza_burst) = (10, 5));
    let mut pair = Pair::open(&rules);
    let mut bytes = BytesMut::new();
    for n in 0..20 {
        bytes.extend_from_slice(&pair.seal(&encode_client(Encoding::Binary, FromClient::Ping(n))));
    }
    pair.step(Input::Bytes(&bytes));
    assert!(pair.heard.len() < 8);
    while pair.heard.len() < 20 {
        let now = pair.now();
        let session = pair.session.as_ref().unwrap();
        assert!(!session.wants_bytes(now));
        let wait = session.next_tick(now).unwrap() - now.at;
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        pair.pass(wait);
    }
    let pongs: Vec<_> = (0..20).map(FromServer::Pong).collect();
    assert_eq!(pair.heard, pongs);
}

/// One thing that may happen to a session, whether it makes sense or not.
#[derive(Debug, Clone)]
enum Chance {
    Garbage(Vec<u8>),
    Record(Vec<u8>),
    Damaged(Vec<u8>, usize),
    Say(u8, u64),
    Admit(Option<u32>),
    Refuse,
    Attached,
    Deliver(bool),
    Outcome,
    Notify,
    RoutingEnd(i32),
    RoutingLost,
    Answer(u64, u8),
    Suspended,
    Drain,
    Wait(u64),
}

fn chance() -> impl Strategy<Value = Chance> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        1 => bytes().prop_map(Chance::Garbage),
        2 => bytes().prop_map(Chance::Record),
        1 => (bytes(), any::<usize>()).prop_map(|(record, at)| Chance::Damaged(record, at)),
        12 => (0..6_u8, 0..5_u64).prop_map(|(kind, n)| Chance::Say(kind, n)),
        4 => prop::option::of(1..4_u32).prop_map(Chance::Admit),
        1 => Just(Chance::Refuse),
        4 => Just(Chance::Attached),
        6 => any::<bool>().prop_map(Chance::Deliver),
        1 => Just(Chance::Outcome),
        1 => Just(Chance::Notify),
        1 => (-1..14_i32).prop_map(Chance::RoutingEnd),
        1 => Just(Chance::RoutingLost),
        6 => (0..5_u64, 0..3_u8).prop_map(|(id, kind)| Chance::Answer(id, kind)),
        1 => Just(Chance::Suspended),
        1 => Just(Chance::Drain),
        4 => (0..40_000_u64).prop_map(Chance::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: no panic; nothing is verified before the proof, nothing attached, submitted
    /// or asked for before a verdict let the client in; an ended session wants nothing.
    #[test]
    fn no_order_of_events_gets_around_the_login(ik in any::<bool>(), events in prop::collection::vec(chance(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { play(ik, events) })?;
    }
}

fn play(ik: bool, events: Vec<Chance>) -> Result<(), TestCaseError> {
    let rules = rules(|config| config.open_requests = 3);
    let (mut pair, last) = Pair::shaken(&rules, ik);
    let mut handshake = Some(last);
    let (mut asked, mut let_in, mut logged_in, mut last_tag) = (false, false, false, 0);
    let mut open: HashMap<u64, ()> = HashMap::new();
    for event in events {
        let over = pair.why().is_some();
        if let Some(bytes) = handshake.take_if(|_| matches!(event, Chance::Say(..) | Chance::Record(_))) {
            pair.step(Input::Bytes(&bytes));
        }
        let wants_bytes = pair.session.as_ref().unwrap().wants_bytes(pair.now());
        match event {
            Chance::Garbage(bytes) if wants_bytes => pair.step(Input::Bytes(&bytes)),
            Chance::Record(record) if wants_bytes => {
                let bytes = pair.seal(&record);
                pair.step(Input::Bytes(&bytes));
            }
            Chance::Damaged(record, at) if wants_bytes => {
                let mut bytes = pair.seal(&record);
                let at = at % bytes.len();
                bytes[at] ^= 4;
                pair.step(Input::Bytes(&bytes));
            }
            Chance::Say(kind, n) if wants_bytes => pair.say(stanza(kind, n)),
            Chance::Garbage(_) | Chance::Record(_) | Chance::Damaged(..) | Chance::Say(..) => {}
            Chance::Admit(device) => {
                let_in |= pair.state() == "Checking";
                pair.step(Input::Verdict(Ok(admitted(device))));
            }
            Chance::Refuse => pair.step(Input::Verdict(Err(FailureReason::TokenExpired))),
            Chance::Attached => pair.step(Input::Attached(1)),
            Chance::Deliver(next) => {
                last_tag += u64::from(next);
                pair.step(Input::Deliver(delivery(last_tag)));
            }
            Chance::Outcome => pair.step(Input::Outcome(pb::Outcome::default())),
            Chance::Notify => pair.step(Input::Notify(pb::Notification::default())),
            Chance::RoutingEnd(reason) => pair.step(Input::RoutingEnd(pb::End { reason, retry_after_ms: 1 })),
            Chance::RoutingLost => pair.step(Input::RoutingLost),
            Chance::Answer(id, kind) => {
                let Some(id) = NonZeroU64::new(id) else { continue };
                let answer = match kind {
                    0 => Answer::Reply(ResponseBody::Done),
                    1 => Answer::Enlisted(admitted(Some(2)).device.unwrap()),
                    _ => Answer::Refreshed(admitted(None).token),
                };
                open.remove(&id.get());
                pair.step(Input::Answer(id, answer));
            }
            Chance::Suspended => pair.step(Input::Suspended),
            Chance::Drain => pair.step(Input::Drain),
            Chance::Wait(ms) => pair.pass(Duration::from_millis(ms)),
        }
        prop_assert!(!over || pair.did.is_empty(), "an ended session wants {:?}", pair.did);
        for output in pair.did.drain(..) {
            match output {
                Output::Write(_) => {}
                Output::Verify(..) => {
                    prop_assert!(handshake.is_none() && !asked);
                    asked = true;
                }
                Output::LoggedIn => {
                    prop_assert!(let_in && !logged_in);
                    logged_in = true;
                }
                Output::Attach(_) | Output::Enlisted => prop_assert!(let_in),
                Output::Request(id, _, _) => {
                    prop_assert!(logged_in);
                    open.insert(id.get(), ());
                    prop_assert!(open.len() <= 3);
                }
                Output::Processed(tag) => prop_assert!(logged_in && tag <= last_tag),
                Output::Submit(_) | Output::Ponged(_) | Output::BurnToken(..) | Output::Fault(_) => {
                    prop_assert!(logged_in)
                }
            }
        }
        if let Some(first) = pair.heard.first() {
            prop_assert!(matches!(first, FromServer::Success(_) | FromServer::Failure(_)), "{first:?}");
            prop_assert!(matches!(first, FromServer::Failure(_)) || logged_in);
        }
        let session = pair.session.as_ref().unwrap();
        prop_assert_eq!(session.next_tick(pair.now()).is_none(), pair.why().is_some());
    }
    Ok(())
}

fn stanza(kind: u8, n: u64) -> FromClient {
    use causeway_stanza::Request;
    let id = NonZeroU64::new(n + 1).unwrap();
    match kind {
        0 => FromClient::Ping(n),
        1 => FromClient::Pong(n),
        2 => FromClient::Ack(n + 1),
        3 => FromClient::Iq(Request { id, body: RequestBody::KeysCount }),
        4 => crate::tests::message(1),
        _ => FromClient::End(End::new(EndReason::Bye)),
    }
}
