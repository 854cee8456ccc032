//! A database that is made from a dump by PostgreSQL's own programs.

use super::*;
use crate::error::DirectoryError;

#[tokio::test]
async fn a_database_from_a_dump_is_refused_until_its_one_time_keys_are_given_up() {
    let server = Server::start();
    let database = server.database();
    let store = PostgresStore::open(&database).await.unwrap();
    let (account, device) = suite::restored::before_the_backup(&store).await;
    let dump = server.0.dump("test_1").unwrap();
    suite::restored::after_the_backup(&store, account, device).await;
    drop(store);
    PostgresStore::open(&database).await.expect("a restart is no restore");

    // In its own place, and elsewhere.
    let elsewhere = PostgresConfig { url: server.0.url("elsewhere"), ..database.clone() };
    for (name, database) in [("test_1", &database), ("elsewhere", &elsewhere)] {
        server.0.restore(name, &dump).unwrap();
        for _ in 0..2 {
            let refused = PostgresStore::open(database).await.err().expect("must be refused");
            assert!(matches!(refused, DirectoryError::PutBack), "{refused}");
        }
        assert_eq!(PostgresStore::after_restore(database, true).await.unwrap(), 6);
        let store = PostgresStore::open(database).await.unwrap();
        suite::restored::after_the_restore(&store, account, device).await;
    }
}

#[tokio::test]
async fn a_database_that_is_moved_keeps_its_keys() {
    let server = Server::start();
    let database = server.database();
    let store = PostgresStore::open(&database).await.unwrap();
    let (account, device) = suite::restored::before_the_backup(&store).await;
    suite::restored::after_the_backup(&store, account, device).await;
    drop(store);
    let dump = server.0.dump("test_1").unwrap();
    server.0.restore("test_1", &dump).unwrap();
    assert!(PostgresStore::open(&database).await.is_err());
    assert_eq!(PostgresStore::after_restore(&database, false).await.unwrap(), 0);
    suite::restored::after_a_move(&PostgresStore::open(&database).await.unwrap(), account, device).await;
}

#[tokio::test]
async fn whoever_may_not_see_the_number_of_the_cluster_finds_a_dump_all_the_same() {
    let server = Server::start();
    let mut database = server.database();
    let (name, url) = ("plain", server.0.url("test_1"));
    server.0.execute("test_1", &format!("CREATE ROLE {name} LOGIN; GRANT ALL ON SCHEMA public TO {name}")).unwrap();
    server.0.execute("test_1", "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC").unwrap();
    database.url = url.replace("causeway@", &format!("{name}@"));
    let store = PostgresStore::open(&database).await.unwrap();
    suite::restored::before_the_backup(&store).await;
    drop(store);
    let dump = server.0.dump("test_1").unwrap();
    server.0.restore("test_1", &dump).unwrap();
    server.0.execute("test_1", "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC").unwrap();
    let refused = PostgresStore::open(&database).await.err().expect("must be refused");
    assert!(matches!(refused, DirectoryError::PutBack), "{refused}");
}
