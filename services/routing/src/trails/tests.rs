use std::pin::pin;
use std::task::{Context, Poll};

use causeway_runtime::clock::{Clock as _, ManualClock};
use futures::task::noop_waker_ref;
use proptest::prelude::*;

use super::*;
use crate::message::{Class, Enc, EncType, Inbox, Kind, MessageKey, Origin};

const KEEP: Duration = Duration::from_secs(60);

fn account(n: u8) -> AccountId {
    AccountId::from_bytes([n; 16])
}

fn device(n: u32) -> DeviceId {
    DeviceId::new(n).unwrap()
}

fn sender(n: u8, provider: &str) -> Arc<Sender> {
    let provider: Domain = provider.parse().unwrap();
    let address = Address::new(&format!("user{n}"), &provider).unwrap();
    Arc::new(Sender { account: account(n), device: device(1), address, provider })
}

fn header(n: u8, seq: u64, expires_ms: u64) -> Header {
    let from = sender(1, "birdy.example");
    Header {
        seq: Seq(seq),
        key: MessageKey { account: from.account, device: from.device, id: MessageId::from_bytes([n; 16]) },
        from: from.address.clone(),
        class: Class::Chat,
        ts_ms: 0,
        expires_ms,
        origin: Origin { provider: from.provider.clone(), kind: Kind::ThirdParty, inbox: Inbox::ThirdParty },
        charge: None,
        trace: None,
    }
}

struct Rig {
    clock: Arc<ManualClock>,
    trails: Arc<Trails>,
    from: Arc<Sender>,
    to: Arc<Sender>,
}

impl Rig {
    fn new(limit: usize) -> Self {
        let clock = ManualClock::at_ms(1_000_000);
        let trails = Trails::new(KEEP, limit, clock.clone());
        Self { clock, trails, from: sender(1, "birdy.example"), to: sender(2, "home.example") }
    }

    fn now(&self) -> Now {
        Now { instant: Instant::now(), unix_us: self.clock.now_ms() * 1_000 }
    }

    fn acknowledge(&self, seq: u64, number: u32) {
        self.trails.acknowledged(self.to.account, Seq(seq), device(number), self.now());
    }

    fn queue(&self, seq: u64, devices: &[u32]) {
        let devices: Vec<_> = devices.iter().map(|number| device(*number)).collect();
        self.trails.queued(self.to.account, Seq(seq), &devices, self.now());
    }

    fn settle(&self, seq: u64, how: Settled) {
        self.trails.settled(self.to.account, Seq(seq), how, self.now());
    }

    fn accept(&self, header: &Header, devices: &[u32]) {
        let devices: Vec<_> = devices.iter().map(|number| device(*number)).collect();
        let to = Recipient { account: self.to.account, address: &self.to.address, provider: &self.to.provider };
        self.trails.accepted(to, &self.from, header, &devices, false, self.now());
    }

    fn hand(&self, header: Header, number: u32, from_mailbox: bool) {
        let enc = Enc { device: device(number), registration: 1, kind: EncType::Whisper, ciphertext: "x".into() };
        let to = Sender { device: device(number), ..(*self.to).clone() };
        self.trails.handed(&to, &Envelope { header: Arc::new(header), enc }, from_mailbox, self.now());
    }

    /// Does something in each pause of it.
    fn tidy(&self, meanwhile: impl FnMut()) {
        with_pauses(self.trails.tidy(), meanwhile);
    }

    fn ask(&self, wanted: Wanted, provider: Option<&str>) -> Vec<Found> {
        let provider = provider.map(|provider| provider.parse().unwrap());
        self.answer(&Query { wanted, since_ms: 0, provider, limit: 100 }, || ()).0
    }

    /// Does something in each pause of the question.
    fn answer(&self, query: &Query, meanwhile: impl FnMut()) -> (Vec<Found>, bool) {
        with_pauses(self.trails.find(query), meanwhile)
    }

    fn names(&self, message: u8, provider: Option<&str>) -> Vec<String> {
        let found = self.ask(Wanted::Message(MessageId::from_bytes([message; 16])), provider);
        let parts = found.iter().flat_map(|found| &found.checkpoints);
        parts.map(|part| format!("{} {} {}", part.name, part.device, part.word).trim_end().to_owned()).collect()
    }
}

/// Runs to the end, and something else in each pause.
fn with_pauses<T>(work: impl Future<Output = T>, mut meanwhile: impl FnMut()) -> T {
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(noop_waker_ref())) {
            return done;
        }
        meanwhile();
    }
}

/// A message for two devices: one is here, the other is woken and comes later.
fn one_way(rig: &Rig) {
    let to = rig.to.account;
    rig.accept(&header(1, 7, u64::MAX), &[1, 2]);
    rig.hand(header(1, 7, u64::MAX), 1, false);
    rig.acknowledge(7, 1);
    rig.clock.advance(Duration::from_millis(25));
    rig.queue(7, &[2]);
    rig.settle(7, Settled::Waiting);
    rig.trails.push_sent(to, device(2));
    rig.trails.push_answered(to, device(2), "taken");
    rig.trails.push_sent(to, device(1));
    rig.clock.advance(Duration::from_secs(3));
    rig.hand(header(1, 7, u64::MAX), 2, true);
    rig.acknowledge(7, 2);
    rig.acknowledge(7, 2);
}

#[test]
fn the_operator_sees_each_checkpoint_once_and_each_provider_its_own_side() {
    let rig = Rig::new(1_000);
    one_way(&rig);
    let of_recipient = [
        "handed 1 live",
        "acknowledged 1",
        "queued 2",
        "push-sent 2",
        "push-answered 2 taken",
        "handed 2 mailbox",
        "acknowledged 2",
    ];
    let of_sender = ["accepted 0 for 2", "told 0 stored"];
    let mut all = of_recipient.to_vec();
    all.insert(0, of_sender[0]);
    all.insert(4, of_sender[1]);
    assert_eq!(rig.names(1, None), all);
    assert_eq!(rig.names(1, Some("birdy.example")), of_sender);
    assert_eq!(rig.names(1, Some("home.example")), of_recipient);
    assert!(rig.names(1, Some("other.example")).is_empty());
    assert_eq!(rig.trails.under_way(), 0);
}

#[test]
fn what_is_anothers_is_as_if_it_were_not_there() {
    let rig = Rig::new(1_000);
    one_way(&rig);
    let (from, to) = (rig.from.address.clone(), rig.to.address.clone());
    let id = rig.ask(Wanted::Address(to.clone()), None)[0].id;
    assert_ne!(id.as_bytes(), &[1; 16], "it is not the message's id");
    for (wanted, home, birdy) in [
        (Wanted::Trace(id), 1, 1),
        (Wanted::Address(to), 1, 0),
        (Wanted::Address(from), 0, 1),
        (Wanted::Places(vec![(rig.to.account, Seq(7))]), 1, 1),
        (Wanted::Address("nobody@home.example".parse().unwrap()), 0, 0),
    ] {
        assert_eq!(rig.ask(wanted.clone(), Some("other.example")).len(), 0);
        let of_home = rig.ask(wanted.clone(), Some("home.example"));
        let of_birdy = rig.ask(wanted, Some("birdy.example"));
        assert_eq!((of_home.len(), of_birdy.len()), (home, birdy));
        assert!(of_home.iter().all(|found| found.from.is_none() && found.to == Some(rig.to.account)));
        assert!(of_birdy.iter().all(|found| found.from == Some((rig.from.account, 1)) && found.to.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_books_are_closed_by_settling_and_by_nothing_else() {
    let rig = Rig::new(0);
    for (seq, how) in [
        (1, Settled::Acknowledged),
        (2, Settled::Waiting),
        (3, Settled::Dropped),
        (4, Settled::Unanswered),
        (5, Settled::Withdrawn),
    ] {
        rig.accept(&header(1, seq, u64::MAX), &[1]);
        rig.settle(seq, how);
    }
    assert_eq!((rig.trails.under_way(), rig.names(1, None).len()), (0, 0));
    rig.accept(&header(1, 6, u64::MAX), &[1]);
    rig.acknowledge(6, 1);
    assert_eq!((rig.trails.under_way(), rig.trails.unaccounted()), (1, 0));
    rig.clock.advance(Duration::from_secs(100_000));
    rig.tidy(|| ());
    assert_eq!(rig.trails.unaccounted(), 0, "somebody has set the time of day");
    tokio::time::advance(Duration::from_secs(61)).await;
    rig.tidy(|| ());
    assert_eq!(rig.trails.unaccounted(), 1);
    rig.settle(6, Settled::Acknowledged);
    assert_eq!(rig.trails.unaccounted(), 0);
}

#[test]
fn they_end_as_messages_do() {
    let rig = Rig::new(1_000);
    let to = rig.to.account;
    let waits = |n: u8, expires_ms| {
        rig.accept(&header(n, n.into(), expires_ms), &[1, 2]);
        rig.queue(n.into(), &[1, 2]);
        rig.settle(n.into(), Settled::Waiting);
    };
    let ends = |n: u8| rig.names(n, None)[4..].to_vec();
    waits(1, 1_000_500);
    rig.acknowledge(1, 2);
    rig.clock.advance(Duration::from_secs(1));
    rig.tidy(|| ());
    rig.tidy(|| ());
    assert_eq!(ends(1), ["acknowledged 2", "expired 1"]);
    waits(2, u64::MAX);
    rig.trails.removed(to, device(1));
    rig.trails.withdrawn(to);
    rig.trails.left_to_others(to);
    assert_eq!(ends(2), ["device-removed 1", "withdrawn 0"]);
    waits(3, u64::MAX);
    rig.trails.left_to_others(to);
    assert_eq!(ends(3), ["elsewhere 0"]);
    rig.accept(&header(4, 4, 0), &[1, 2]);
    rig.settle(4, Settled::Dropped);
    assert_eq!(rig.names(4, None), ["accepted 0 for 2", "dropped 1", "dropped 2", "told 0 dropped"]);
    rig.trails.refused(&rig.from, MessageId::from_bytes([5; 16]), &Rejection::NotAvailable);
    assert_eq!(rig.names(5, Some("birdy.example")), ["refused 0 rejected-not-available"]);
    assert!(rig.names(5, Some("home.example")).is_empty());
}

#[test]
fn what_another_replica_has_accepted_goes_on_here_for_its_recipient_alone() {
    let rig = Rig::new(1_000);
    rig.hand(header(1, 7, u64::MAX), 1, true);
    rig.acknowledge(7, 1);
    assert_eq!(rig.names(1, None), ["handed 1 mailbox", "acknowledged 1"]);
    assert!(!rig.ask(Wanted::Address(rig.to.address.clone()), None)[0].begun_here);
    assert_eq!(rig.names(1, Some("home.example")).len(), 2);
    assert!(rig.names(1, Some("birdy.example")).is_empty());
}

#[test]
fn they_are_bounded_in_number_and_time_and_so_are_their_checkpoints() {
    let rig = Rig::new(16 * 4);
    for n in 1..=10 {
        rig.accept(&header(n, n.into(), u64::MAX), &[1]);
        rig.trails.refused(&rig.from, MessageId::from_bytes([n; 16]), &Rejection::TooLarge);
    }
    let known = |n| rig.names(n, None).len();
    assert_eq!((known(6), known(7), known(9), known(10)), (0, 1, 1, 2));
    rig.queue(10, &[1]);
    for _ in 0..100 {
        rig.trails.push_sent(rig.to.account, device(1));
        rig.hand(header(10, 10, u64::MAX), 1, true);
    }
    let found = rig.ask(Wanted::Places(vec![(rig.to.account, Seq(10))]), None);
    assert!(found[0].checkpoints.len() < 64 && found[0].left_out > 100);
    rig.clock.advance(KEEP + Duration::from_millis(1));
    assert_eq!(known(10), 0, "also before it is tidied up");
    rig.tidy(|| ());
    assert!(rig.trails.shards.iter().all(|shard| {
        let shard = lock(shard);
        shard.accounts.is_empty() && shard.order.len() == 0 && shard.refused.len() == 0
    }));
}

/// A message of `from` to the account with this number.
fn send(trails: &Trails, from: &Arc<Sender>, number: u32, to: u32) {
    let mut account = [0; 16];
    account[..4].copy_from_slice(&to.to_be_bytes());
    let account = AccountId::from_bytes(account);
    let mut header = header(0, u64::from(number) + 1, u64::MAX);
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    header.key = MessageKey { account: from.account, device: from.device, id: MessageId::from_bytes(id) };
    header.origin.provider = from.provider.clone();
    let now = Now { instant: Instant::now(), unix_us: trails.clock.now_ms() * 1_000 };
    let (address, provider) = ("bo@home.example".parse().unwrap(), "home.example".parse().unwrap());
    trails.accepted(
        Recipient { account, address: &address, provider: &provider },
        from,
        &header,
        &[device(1)],
        false,
        now,
    );
}

/// How many of the messages of `from` are known.
fn known(rig: &Rig, from: &Sender) -> usize {
    let query = Query {
        wanted: Wanted::Address(from.address.clone()),
        since_ms: 0,
        provider: Some(from.provider.clone()),
        limit: 100_000,
    };
    rig.answer(&query, || ()).0.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    /// However many of its accounts send, to however many: a provider that floods loses its own trails.
    #[test]
    fn a_flood_pushes_out_nobody_elses(flooders in 1..200_u8, recipients in 1..3_000_u32, before in 0..6_000_u32) {
        let rig = Rig::new(16 * 16 * 20);
        let owner = |sender: &Sender| Owner::of(&rig.trails.hasher, &sender.provider, sender.account);
        let flood: Vec<_> = (1..=flooders).map(|n| sender(n, "flood.example")).collect();
        // Two that the hash takes for the same provider share its part.
        let mut honest = (0..).map(|n| sender(250, &format!("honest{n}.example")));
        let honest = honest.find(|honest| owner(honest).provider() != owner(&flood[0]).provider()).unwrap();
        for number in 0..12_000 {
            let at = usize::try_from(number).unwrap() % flood.len();
            send(&rig.trails, &flood[at], number, number % recipients);
            if number >= before && number < before + 20 {
                send(&rig.trails, &honest, 20_000 + number, number);
            }
        }
        prop_assert_eq!(known(&rig, &honest), 20);
    }
}

#[test]
fn a_sender_pushes_out_nobody_else_of_its_provider() {
    let rig = Rig::new(16 * 256 * 4);
    let lane = |sender: &Sender| Owner::of(&rig.trails.hasher, &sender.provider, sender.account);
    let heavy = sender(1, "birdy.example");
    let other = (2..250).map(|n| sender(n, "birdy.example")).find(|other| lane(other) != lane(&heavy)).unwrap();
    (0..4).for_each(|number| send(&rig.trails, &other, number, number));
    (100..25_100).for_each(|number| send(&rig.trails, &heavy, number, number));
    assert_eq!(known(&rig, &other), 4);
    assert!((10_000..16 * 256 * 4).contains(&known(&rig, &heavy)), "it has all the rest");
}

#[test]
fn a_question_lets_others_in_between_and_is_answered_within_bounds() {
    let rig = Rig::new(16 * 10_000);
    (0..40_000).for_each(|number| send(&rig.trails, &rig.from, number, number % 100));
    let query = |limit| Query { wanted: Wanted::Address(rig.from.address.clone()), since_ms: 0, provider: None, limit };
    let mut pauses = 0;
    rig.clock.advance(Duration::from_millis(1));
    let (found, more) = rig.answer(&query(10), || {
        assert!(rig.trails.shards.iter().all(|shard| shard.try_lock().is_ok()), "a lock is held");
        send(&rig.trails, &rig.to, 50_000 + pauses, pauses);
        pauses += 1;
    });
    assert!(pauses >= 40_000 / 256 && more && found.len() == 10, "{pauses}");
    let (found, more) = rig.answer(&query(100_000), || ());
    let places: Vec<_> = found.iter().filter_map(|found| found.place).collect();
    assert_eq!((found.len(), more), (40_000, false), "each once");
    let (found, _) = rig.answer(&Query { wanted: Wanted::Places(places[..1_000].to_vec()), ..query(1_000) }, || ());
    assert_eq!(found.len(), 1_000);
}

#[test]
fn others_get_their_turn_while_what_is_old_is_forgotten() {
    let rig = Rig::new(16 * 10_000);
    for number in 0..20_000 {
        send(&rig.trails, &rig.from, number, number % 100);
        rig.trails.refused(&rig.from, MessageId::from_bytes([7; 16]), &Rejection::TooLarge);
    }
    let kept = || -> usize {
        let free = rig.trails.shards.iter().map(|shard| shard.try_lock().expect("a lock is held"));
        free.map(|shard| shard.order.len() + shard.refused.len()).sum()
    };
    rig.clock.advance(KEEP + Duration::from_millis(1));
    let (before, now) = (kept(), std::cell::Cell::new(kept()));
    assert!(before > 20_000);
    rig.tidy(|| {
        let left = kept();
        // The end of a shard and the first slice of the next may come without a pause.
        assert!(now.replace(left) - left <= 2 * A_SLICE);
    });
    assert_eq!(kept(), 0);
}

#[test]
fn the_operator_does_not_wait_for_providers_and_they_wait_for_each_other() {
    let rig = Rig::new(16 * 10_000);
    (0..10_000).for_each(|number| send(&rig.trails, &rig.from, number, number % 100));
    let wanted = Wanted::Address(rig.from.address.clone());
    let of = |provider: Option<&Domain>| Query {
        wanted: wanted.clone(),
        since_ms: 0,
        provider: provider.cloned(),
        limit: 10,
    };
    let (birdy, home, operator) = (of(Some(&rig.from.provider)), of(Some(&rig.to.provider)), of(None));
    let mut context = Context::from_waker(noop_waker_ref());
    let mut first = pin!(rig.trails.find(&birdy));
    let mut second = pin!(rig.trails.find(&home));
    assert!(first.as_mut().poll(&mut context).is_pending());
    (0..1_000).for_each(|_| assert!(second.as_mut().poll(&mut context).is_pending()));
    assert_eq!(rig.answer(&operator, || ()).0.len(), 10);
    while first.as_mut().poll(&mut context).is_pending() {}
    while second.as_mut().poll(&mut context).is_pending() {}
}

/// What a message costs: `cargo nextest run -p causeway-routing --run-ignored only what_a_trail_costs --no-capture`.
#[test]
#[ignore = "a measurement"]
fn what_a_trail_costs() {
    let rig = Rig::new(20_000);
    let clock = Arc::new(causeway_runtime::clock::SystemClock);
    let trails = Trails::new(KEEP, 20_000, clock);
    let rounds = 200_000;
    let (since, now) = (Instant::now(), rig.now());
    for n in 0..rounds {
        let mut to = (*rig.to).clone();
        to.account = AccountId::from_bytes([u8::try_from(n % 256).unwrap(); 16]);
        let header = Arc::new(header(1, n, u64::MAX));
        let recipient = Recipient { account: to.account, address: &to.address, provider: &to.provider };
        trails.accepted(recipient, &rig.from, &header, &[device(1)], false, now);
        let enc = Enc { device: device(1), registration: 1, kind: EncType::Whisper, ciphertext: Default::default() };
        trails.handed(&to, &Envelope { header, enc }, false, now);
        trails.acknowledged(to.account, Seq(n), device(1), now);
        trails.settled(to.account, Seq(n), Settled::Acknowledged, now);
    }
    let each = since.elapsed().as_nanos() / u128::from(rounds);
    println!("{each} ns a message with three checkpoints, {} bytes a trail", size_of::<Trail>());
}
