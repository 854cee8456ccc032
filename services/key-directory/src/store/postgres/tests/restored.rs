//! A database that is made from a dump by PostgreSQL's own programs.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use causeway_redis::{Holds, Redis, RedisConfig, Value, cmd};
use causeway_runtime::clock::SystemClock;
use causeway_runtime::health::{Health, Part};

use super::*;
use crate::error::DirectoryError;
use crate::witness::Witness;

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

/// With owners and modes, as a physical backup has them.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn witness(store: &Arc<PostgresStore>, redis: Option<&Redis>) -> Witness {
    Witness::of(Arc::clone(store) as Arc<dyn Store>, redis.cloned(), Arc::new(SystemClock))
}

async fn redis() -> (servers::Redis, Redis) {
    let server = servers::Redis::start().unwrap();
    let config = RedisConfig { addresses: vec![format!("127.0.0.1:{}", server.port())], ..RedisConfig::default() };
    let redis = Redis::open(&config, "test", Holds::Hints).unwrap();
    redis.wait_until_up().await;
    (server, redis)
}

#[tokio::test]
async fn a_cluster_that_is_back_at_an_earlier_time_is_known_by_redis() {
    let (_redis_server, redis) = redis().await;
    let mut server = Server::start();
    let database = server.database();
    let open = async || Arc::new(PostgresStore::open(&database).await.unwrap());
    let witness = |store: &Arc<PostgresStore>| witness(store, Some(&redis));

    let store = open().await;
    let (account, device) = suite::restored::before_the_backup(store.as_ref()).await;
    witness(&store).turn().await;
    drop(store);
    server.0.stop_immediate().unwrap();
    let (data, backup) = (server.0.data(), server.0.data().with_extension("backup"));
    copy(&data, &backup);
    server.0.start_again().unwrap();

    let store = open().await;
    assert!(!witness(&store).knows_better().await, "a restart is no restore");
    suite::restored::after_the_backup(store.as_ref(), account, device).await;
    // Several turn at the same time, and none takes the other for newer.
    let turn = async || {
        witness(&store).turn().await;
        assert!(!witness(&store).knows_better().await);
    };
    tokio::join!(turn(), turn(), turn());
    drop(store);
    server.0.stop_immediate().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    server.0.start_again().unwrap();

    let store = open().await;
    assert!(witness(&store).knows_better().await);
    // Whoever has not noticed yet does.
    witness(&store).watch(&Health::default()).await;
    drop(store);
    assert_eq!(PostgresStore::after_restore(&database, true).await.unwrap(), 6);
    let store = open().await;
    assert!(!witness(&store).knows_better().await);
    suite::restored::after_the_restore(store.as_ref(), account, device).await;
}

#[tokio::test]
async fn whoever_writes_to_redis_parts_nobody_from_the_database_for_good() {
    let (_redis_server, redis) = redis().await;
    let server = Server::start();
    let database = server.database();
    let store = Arc::new(PostgresStore::open(&database).await.unwrap());
    let (account, device) = suite::restored::before_the_backup(store.as_ref()).await;
    suite::restored::after_the_backup(store.as_ref(), account, device).await;
    let write = async |text: &str| {
        let key = redis.key("epoch", &store.epoch().await.unwrap().unwrap().incarnation);
        redis.run::<Value>(cmd("SET").arg(key).arg(text)).await.unwrap();
    };
    let mine = witness(&store, Some(&redis));
    let health = Health::default();
    let is_degraded = async || {
        // Goes as far as to the pause after the first look.
        let watch = mine.watch(&health);
        tokio::pin!(watch);
        tokio::select! {
            () = &mut watch => panic!("is no reason to end"),
            () = async { while health.parts().is_empty() { tokio::task::yield_now().await } } => {}
        }
        matches!(health.parts()["directory.epoch"], Part::Degraded(_))
    };
    let impossible = ["9007199254740991", "18446744073709551615", "99999999999999999999999", "1e300", "nan", "x", ""];
    for text in impossible {
        write(text).await;
        assert!(!mine.knows_better().await && !witness(&store, Some(&redis)).knows_better().await, "{text}");
        mine.turn().await;
    }
    assert!(is_degraded().await);

    // What could be true is believed, until the operator says that nothing was lost.
    write("1000000").await;
    assert!(mine.knows_better().await);
    assert_eq!(PostgresStore::after_restore(&database, false).await.unwrap(), 0);
    let store = Arc::new(PostgresStore::open(&database).await.unwrap());
    let again = witness(&store, Some(&redis));
    assert!(!again.knows_better().await);
    again.turn().await;
    assert!(!again.knows_better().await && mine.knows_better().await, "it does not go on as if nothing had been");
    suite::restored::after_a_move(store.as_ref(), account, device).await;
}

#[tokio::test]
async fn a_database_that_is_replaced_under_a_directory_is_noticed_without_redis() {
    let server = Server::start();
    let database = server.database();
    let store = Arc::new(PostgresStore::open(&database).await.unwrap());
    suite::restored::before_the_backup(store.as_ref()).await;
    let dump = server.0.dump("test_1").unwrap();
    let running = witness(&store, None);
    running.turn().await;
    assert!(!running.knows_better().await);

    // The epoch falls, as in a cluster that is put back. Whoever starts afterwards is told by who has seen it.
    server.0.execute("test_1", "UPDATE directory_home SET epoch = 0").unwrap();
    assert!(!witness(&store, None).knows_better().await);
    running.watch(&Health::default()).await;
    let refused = PostgresStore::open(&database).await.err().expect("must be refused");
    assert!(matches!(refused, DirectoryError::PutBack), "{refused}");
    assert_eq!(PostgresStore::after_restore(&database, false).await.unwrap(), 0);

    let store = Arc::new(PostgresStore::open(&database).await.unwrap());
    let running = witness(&store, None);
    assert!(!running.knows_better().await);
    server.0.restore("test_1", &dump).unwrap();
    // Connections to the database of before end first.
    while !running.knows_better().await {}
}

#[tokio::test]
async fn an_epoch_that_no_standby_had_when_it_was_seen_may_be_gone_after_a_fail_over() {
    let (_redis_server, redis) = redis().await;
    let server = Server::start();
    let store = Arc::new(PostgresStore::open(&server.database()).await.unwrap());
    suite::restored::before_the_backup(store.as_ref()).await;
    let (running, with_redis) = (witness(&store, None), witness(&store, Some(&redis)));
    running.turn().await;
    with_redis.turn().await;
    let moves_by = async |by: i64| {
        let sql = format!("UPDATE directory_home SET epoch = epoch + {by}");
        server.0.execute("test_1", &sql).unwrap();
        (running.knows_better().await, with_redis.knows_better().await)
    };
    // Another directory's turn is seen, of which that directory does not know whether it lasts.
    assert_eq!(moves_by(1).await, (false, false));
    assert_eq!(moves_by(-1).await, (false, false), "it did not");
    assert_eq!(moves_by(-2).await, (true, true), "what was confirmed is gone");
}
