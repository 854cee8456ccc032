//! What happens to the system when, from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::client::Plan;
use crate::people::Person;

/// Hosts by name.
pub(crate) const ROUTINGS: [&str; 3] = ["routing-0", "routing-1", "routing-2"];
pub(crate) const EDGES: [&str; 2] = ["edge-0", "edge-1"];
pub(crate) const DIRECTORY: &str = "directory";

/// Load and faults happen until then; what is broken is mended.
pub(crate) const LOAD: Duration = Duration::from_secs(8);
/// Everything must be settled by then.
pub(crate) const END: Duration = Duration::from_secs(40);

/// Something that goes wrong, and is mended.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A process dies and comes back.
    Crash(String),
    /// Nothing passes between two hosts, in one direction or both; what was under way is lost.
    Cut { from: String, to: String, both: bool },
    /// What passes between two hosts arrives later.
    Hold { from: String, to: String },
    /// The store fails some writes of all processes; some of those may have happened.
    Store,
    /// Nothing passes between a routing and the store; what was under way arrives when that is mended.
    Away(String),
}

impl Fault {
    /// True if what passes to or from this host is lost.
    pub(crate) fn cuts(&self, host: &str) -> bool {
        matches!(self, Self::Cut { from, to, .. } if from == host || to == host)
    }
}

/// A fault and when.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
    pub(crate) fault: Fault,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) people: Vec<Person>,
    pub(crate) clients: Vec<Plan>,
    pub(crate) faults: Vec<Planned>,
    /// Accounts that close, from when to when.
    pub(crate) closings: Vec<(u8, Duration, Duration)>,
    /// How long writes take.
    pub(crate) write: Duration,
    /// Errors of the hosts' clocks.
    pub(crate) ahead: Vec<Duration>,
    /// Messages a second of an account, and at once. Some runs have limits that are hit all the time.
    pub(crate) rate: (u32, u32),
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let accounts: u8 = rng.random_range(3..=5);
        let mut people = Vec::new();
        for account in 0..accounts {
            people.extend((1..=rng.random_range(1..=2)).map(|device| Person { account, device }));
        }
        let clients = people.iter().map(|person| plan(*person, &people, accounts, &mut rng)).collect();
        let mut faults: Vec<Planned> = (0..rng.random_range(0..=8)).map(|_| fault(&people, &mut rng)).collect();
        faults.sort_by_key(|planned| planned.begin);
        let closings = (0..accounts).filter(|_| rng.random_bool(0.3)).collect::<Vec<u8>>().into_iter().map(|account| {
            let (from, lasts) = (at(&mut rng, 1.0, 6.0), at(&mut rng, 0.2, 2.0));
            (account, from, from + lasts)
        });
        let closings = closings.collect();
        let ahead = (0..ROUTINGS.len()).map(|_| at(&mut rng, 0.0, 0.5)).collect();
        let write = Duration::from_millis(*[1, 3, 20, 80].choose(&mut rng).unwrap_or(&1));
        let rate =
            if rng.random_bool(0.5) { (rng.random_range(4..30), rng.random_range(2..12)) } else { (10_000, 10_000) };
        Self { people, clients, faults, closings, write, ahead, rate }
    }
}

fn at(rng: &mut StdRng, from: f64, to: f64) -> Duration {
    Duration::from_micros((rng.random_range(from..to) * 1_000_000.0) as u64)
}

fn plan(person: Person, people: &[Person], accounts: u8, rng: &mut StdRng) -> Plan {
    // Only home and third parties talk to each other.
    let partners: Vec<u8> = (0..accounts).filter(|other| other % 2 != person.account % 2).collect();
    let count = rng.random_range(5..25);
    let mut sends: Vec<(Duration, u8)> = Vec::new();
    while sends.len() < count {
        let (when, to) = (at(rng, 0.3, LOAD.as_secs_f64()), *partners.choose(rng).unwrap_or(&0));
        // Some come in bursts.
        let burst = if rng.random_bool(0.2) { rng.random_range(2..8) } else { 1 };
        sends.extend(std::iter::repeat_n((when, to), burst));
    }
    sends.sort();
    let mut drops: Vec<Duration> = (0..rng.random_range(0..3)).map(|_| at(rng, 0.5, LOAD.as_secs_f64())).collect();
    drops.sort();
    let lies = if rng.random_bool(0.1) { vec![at(rng, 1.0, LOAD.as_secs_f64())] } else { Vec::new() };
    let seed: u64 = rng.random();
    // Of its own, so that what else a seed gives does not depend on it.
    let mut own = StdRng::seed_from_u64(!seed);
    let mut repeats: Vec<Duration> =
        (0..own.random_range(0..4)).map(|_| at(&mut own, 1.0, LOAD.as_secs_f64())).collect();
    repeats.sort();
    Plan {
        person,
        seed,
        edges: EDGES.map(str::to_owned).to_vec(),
        people: people.to_vec(),
        sends,
        drops,
        lies,
        repeats,
        ack_delay: Duration::from_millis(*[0, 10, 60].choose(rng).unwrap_or(&0)),
        eager: rng.random_bool(0.5),
    }
}

fn fault(people: &[Person], rng: &mut StdRng) -> Planned {
    let begin = at(rng, 0.5, LOAD.as_secs_f64());
    let end = begin + at(rng, 0.05, 4.0);
    let any = |names: &[&str], rng: &mut StdRng| names.choose(rng).map(|name| (*name).to_owned()).unwrap_or_default();
    let client = people.choose(rng).map(host_of).unwrap_or_default();
    let crashed = any(&[ROUTINGS.as_slice(), EDGES.as_slice()].concat(), rng);
    // Those who talk to each other.
    let (from, to) = match rng.random_range(0..6) {
        0..=1 => (any(&EDGES, rng), any(&ROUTINGS, rng)),
        2 => (any(&ROUTINGS[..1], rng), any(&ROUTINGS[1..], rng)),
        3 => (any(&ROUTINGS, rng), DIRECTORY.to_owned()),
        4 => (any(&EDGES, rng), DIRECTORY.to_owned()),
        _ => (client, any(&EDGES, rng)),
    };
    let (from, to) = if rng.random_bool(0.5) { (from, to) } else { (to, from) };
    let fault = match rng.random_range(0..12) {
        0..=3 => Fault::Crash(crashed),
        4..=6 => Fault::Cut { from, to, both: rng.random_bool(0.6) },
        7..=8 => Fault::Hold { from, to },
        9 => Fault::Store,
        _ => Fault::Away(any(&ROUTINGS, rng)),
    };
    Planned { begin, end: end.min(LOAD), fault }
}

/// The host of a client.
pub(crate) fn host_of(person: &Person) -> String {
    format!("client-{}-{}", person.account, person.device)
}
