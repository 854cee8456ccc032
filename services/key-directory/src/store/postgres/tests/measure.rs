//! Figures, for people: `cargo nextest run -p causeway-key-directory --run-ignored only measure --no-capture`. What they
//! were is in `docs/performance.md`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::store::suite::{self as made, added};

const ACCOUNTS: u8 = 240;
const PER_ACCOUNT: u32 = 100;

/// A store with keys, and how many claims it has had.
struct Filled {
    store: PostgresStore,
    accounts: Vec<(AccountId, DeviceId)>,
    claims: AtomicUsize,
    _server: Server,
}

impl Filled {
    async fn new() -> Arc<Self> {
        let mut settings = Vec::new();
        // As in earnest: the tests' usual server has so little that it makes a checkpoint every second.
        for (name, value) in [("shared_buffers", "256MB"), ("max_wal_size", "2GB"), ("min_wal_size", "512MB")] {
            settings.push((name.to_owned(), value.to_owned()));
        }
        let options = servers::Options { durable: true, settings, ..servers::Options::default() };
        let server = Server(servers::Postgres::start_with(options).unwrap());
        let database = PostgresConfig { max_connections: 16, allow_unsafe_durability: false, ..server.database() };
        let store = PostgresStore::open(&database).await.unwrap();
        store.register_provider(&made::provider(1), &made::token_keys(1), 10).await.unwrap();
        let mut accounts = Vec::new();
        for user in 0..ACCOUNTS {
            let (account, device) = added(store.enlist(&made::enlistment(user, 1)).await.unwrap().outcome);
            let start = u32::from(user) * PER_ACCOUNT;
            let ids: Vec<u32> = (start + 1..=start + PER_ACCOUNT).collect();
            store.publish(account, device, &made::one_time_keys(1, ids.clone(), ids)).await.unwrap();
            accounts.push((account, device));
        }
        Arc::new(Self { store, accounts, claims: AtomicUsize::new(0), _server: server })
    }

    /// Keys of one device after the other; how long it took, and the number of the key.
    async fn claim(&self) -> (Duration, u32) {
        let (account, device) = self.accounts[self.claims.fetch_add(1, Ordering::Relaxed) % self.accounts.len()];
        let asked = Instant::now();
        let bundle = self.store.claim(account, &[device], true, 0).await.unwrap().outcome.pop().unwrap();
        assert_eq!(bundle.taken, (true, true));
        (asked.elapsed(), bundle.kyber.id.get())
    }
}

/// Prints the figures; each key must have been given once.
fn report(what: &str, start: Instant, claims: &[(Duration, u32)], given: &mut BTreeSet<u32>) {
    let rate = claims.len() as f64 / start.elapsed().as_secs_f64();
    let mut times: Vec<Duration> = claims.iter().map(|(time, _)| *time).collect();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 1_000).min(times.len() - 1)];
    eprintln!("{what}: {rate:.0} claims/s; median {:?}, p99 {:?}, slowest {:?}", at(500), at(990), at(1_000));
    assert!(claims.iter().all(|(_, key)| given.insert(*key)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn claims_per_second() {
    let filled = Filled::new().await;
    let mut given = BTreeSet::new();
    for (callers, each) in [(1, 300), (16, 100), (256, 40)] {
        let start = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let filled = Arc::clone(&filled);
                tokio::spawn(async move {
                    let mut claims = Vec::with_capacity(each);
                    for _ in 0..each {
                        claims.push(filled.claim().await);
                    }
                    claims
                })
            })
            .collect();
        let mut claims = Vec::new();
        for caller in tasks {
            claims.extend(caller.await.unwrap());
        }
        report(&format!("{callers} callers"), start, &claims, &mut given);
    }
    // Whoever comes does not wait for those before: so much a second, however long each takes.
    let (rate, seconds) = (2_500, 4);
    let mut ticks = tokio::time::interval(Duration::from_millis(4));
    let start = Instant::now();
    let mut under_way = Vec::new();
    for _ in 0..250 * seconds {
        ticks.tick().await;
        under_way.extend((0..rate / 250).map(|_| {
            let filled = Arc::clone(&filled);
            tokio::spawn(async move { filled.claim().await })
        }));
    }
    let mut claims = Vec::new();
    for claim in under_way {
        claims.push(claim.await.unwrap());
    }
    report(&format!("at {rate} a second"), start, &claims, &mut given);
}
