//! Against a real server.

mod answers;
mod claims;
mod crashes;
mod measure;
mod restored;
mod turns;

use causeway_postgres::PostgresConfig;
use causeway_test_servers as servers;

use super::*;
use crate::store::suite;

/// A server of this test's own.
pub(super) struct Server(servers::Postgres);

impl Server {
    pub(super) fn start() -> Self {
        Self(servers::Postgres::start().expect("PostgreSQL starts"))
    }

    /// Settings for a new and empty database.
    pub(super) fn database(&self) -> PostgresConfig {
        PostgresConfig {
            url: self.0.create_database().expect("a database"),
            allow_unsafe_durability: true,
            max_connections: 6,
            ..PostgresConfig::default()
        }
    }
}

impl suite::Fresh for PostgresStore {
    fn store(&self) -> &dyn Store {
        self
    }
}

#[test]
fn keeps_the_contract() {
    let server = Server::start();
    suite::run(async || PostgresStore::open(&server.database()).await.unwrap());
}

struct Two([PostgresStore; 2]);

impl suite::shared::FreshPair for Two {
    fn handles(&self) -> [&dyn Store; 2] {
        self.0.each_ref().map(|store| store as &dyn Store)
    }
}

#[test]
fn keeps_the_contract_for_stores_that_are_shared() {
    let server = Server::start();
    suite::shared::run(async || {
        let database = server.database();
        // Both make the tables at once.
        let (one, other) = tokio::join!(PostgresStore::open(&database), PostgresStore::open(&database));
        Two([one.unwrap(), other.unwrap()])
    });
}

#[tokio::test]
async fn every_account_table_leads_its_keys_with_the_account() {
    let server = Server::start();
    let store = PostgresStore::open(&server.database()).await.unwrap();
    let connection = store.postgres().connection().await.unwrap();
    let rows = connection
        .query(
            "SELECT t.relname, i.relname, a.attname
             FROM pg_index x
             JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
             JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
             WHERE t.relnamespace = 'public'::regnamespace ORDER BY 1, 2",
            &[],
        )
        .await
        .unwrap();
    let mut of_accounts = 0;
    for row in &rows {
        let (table, index, first): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        match table {
            "causeway_migrations" | "providers" | "providers_lock" => {}
            "change_log" | "change_log_head" | "directory_replicas" | "directory_home" => {}
            "addresses" => assert_eq!(first, "address", "{index}"),
            "retired_keys" => assert!(["owner", "until_ms"].contains(&first), "{index}"),
            _ => {
                assert_eq!(first, "account_id", "{index}");
                of_accounts += 1;
            }
        }
    }
    assert!(of_accounts >= 9, "{of_accounts}");
    let without = connection
        .query(
            "SELECT t.relname FROM pg_class t WHERE t.relnamespace = 'public'::regnamespace AND t.relkind = 'r'
             AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = t.oid AND x.indisprimary)",
            &[],
        )
        .await
        .unwrap();
    assert!(without.is_empty(), "every table has a primary key");
}
