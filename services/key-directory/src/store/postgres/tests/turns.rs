//! Changes that wait for the log of changes do not take all connections.

use futures::future::join_all;

use super::*;
use crate::store::suite::{self as made, added};

const USERS: u8 = 20;

#[tokio::test]
async fn changes_that_wait_for_the_log_leave_connections_for_readers() {
    let server = Server::start();
    // Longer than it takes, so that nobody gives up.
    let database = PostgresConfig { lock_timeout_ms: 5_000, ..server.database() };
    let store = PostgresStore::open(&database).await.unwrap();
    store.register_provider(&made::provider(1), &made::token_keys(1), 10).await.unwrap();
    let mut accounts = Vec::new();
    for user in 0..USERS {
        accounts.push(added(store.enlist(&made::enlistment(user, 1)).await.unwrap().outcome));
    }
    let mut session = server.0.session(database.url.rsplit('/').next().unwrap()).unwrap();
    session.execute("BEGIN; SELECT FROM change_log_head FOR UPDATE").unwrap();

    let consent = Consent { interop: true, ..Consent::default() };
    let changes = join_all(accounts.iter().map(|(account, device)| store.set_consent(*account, *device, &consent)));
    let watcher = Postgres::open(&database, "watcher", &[]).await.unwrap();
    let readers = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
            AND datname = current_database() AND query LIKE '%change_log_head%'";
        // One stands for the row, all others behind it.
        while watcher.connection().await.unwrap().query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) < 3 {}
        for (account, _) in &accounts {
            assert!(!made::record(&store, *account).await.consent.interop);
        }
        session.execute("ROLLBACK").unwrap();
    };
    let (changes, ()) = tokio::join!(changes, readers);
    assert!(changes.into_iter().all(|change| change.unwrap().outcome));
}
