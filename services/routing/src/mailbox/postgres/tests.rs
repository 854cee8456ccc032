//! The suites on a real server, and what only this backend can get wrong.

use std::sync::Arc;
use std::time::Duration;

use causeway_postgres::PostgresConfig;
use causeway_test_servers::{Options, Postgres as Server};
use rand::SeedableRng as _;

use super::{PostgresMailbox, PostgresMailboxConfig};
use crate::mailbox::suite::{self, BOUNDS};
use crate::mailbox::{Bounds, Mailbox as _, shared_suite};
use crate::metrics::Metrics;

mod faults;
mod histories;
mod statements;
mod throughput;

/// Settings for a database of a test's own server.
fn config(url: String) -> PostgresMailboxConfig {
    let postgres = PostgresConfig { url, allow_unsafe_durability: true, ..PostgresConfig::default() };
    PostgresMailboxConfig { postgres, ..PostgresMailboxConfig::default() }
}

async fn open(config: &PostgresMailboxConfig) -> PostgresMailbox {
    open_with(config, BOUNDS).await
}

async fn open_with(config: &PostgresMailboxConfig, bounds: Bounds) -> PostgresMailbox {
    // Only that no two are the same matters.
    let mut rng = rand::rngs::StdRng::from_os_rng();
    PostgresMailbox::open(config, bounds, &Metrics::new(), &mut rng).await.unwrap()
}

#[tokio::test]
async fn it_passes_the_suite() {
    let server = Server::start().unwrap();
    suite::suite(async || open(&config(server.create_database().unwrap())).await).await;
}

#[tokio::test]
async fn it_passes_the_suite_of_stores_that_are_shared() {
    let server = Server::start().unwrap();
    let fresh = async || {
        let config = config(server.create_database().unwrap());
        (open(&config).await, open(&config).await)
    };
    shared_suite::shared_suite(fresh, async |time: Duration| tokio::time::sleep(time).await).await;
}

#[tokio::test]
async fn replicas_open_a_new_database_at_once() {
    let server = Server::start_with(Options::default()).unwrap();
    let config = Arc::new(config(server.create_database().unwrap()));
    let all = futures::future::join_all((0..4).map(|_| open(&config))).await;
    for mailbox in &all {
        mailbox.close().await;
    }
    assert_eq!(all.iter().map(PostgresMailbox::commits).sum::<u64>(), 0);
}
