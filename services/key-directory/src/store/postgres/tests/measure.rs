//! Figures, for people: `cargo nextest run -p causeway-key-directory --run-ignored only measure --no-capture`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::store::suite::{self as made, added};

const ACCOUNTS: u8 = 60;
const PER_ACCOUNT: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn claims_per_second() {
    let options = servers::Options { durable: true, ..servers::Options::default() };
    let server = Server(servers::Postgres::start_with(options).unwrap());
    let database = PostgresConfig { max_connections: 16, ..server.database() };
    let store = Arc::new(PostgresStore::open(&database).await.unwrap());
    store.register_provider(&made::provider(1), &made::token_keys(1), 10).await.unwrap();
    let mut accounts = Vec::new();
    for user in 0..ACCOUNTS {
        let (account, device) = added(store.enlist(&made::enlistment(user, 1)).await.unwrap().outcome);
        let start = user as u32 * PER_ACCOUNT;
        let ids: Vec<u32> = (start + 1..=start + PER_ACCOUNT).collect();
        store.publish(account, device, &made::one_time_keys(1, ids.clone(), ids)).await.unwrap();
        accounts.push((account, device));
    }
    for callers in [1, 16, 256] {
        let each = (PER_ACCOUNT as usize * accounts.len()) / 4 / callers;
        let start = Instant::now();
        let claims: Vec<_> = (0..callers)
            .map(|caller| {
                let (store, accounts) = (Arc::clone(&store), accounts.clone());
                tokio::spawn(async move {
                    let mut slowest = Duration::ZERO;
                    for n in 0..each {
                        let (account, device) = accounts[(caller + n * 7) % accounts.len()];
                        let asked = Instant::now();
                        store.claim(account, &[device], true, 0).await.unwrap();
                        slowest = slowest.max(asked.elapsed());
                    }
                    slowest
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        for claim in claims {
            slowest = slowest.max(claim.await.unwrap());
        }
        let rate = (each * callers) as f64 / start.elapsed().as_secs_f64();
        eprintln!("{callers} callers: {rate:.0} claims/s, slowest {slowest:?}");
    }
}
