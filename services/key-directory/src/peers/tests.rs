//! Two directories on one PostgreSQL.

use std::time::Duration;

use causeway_postgres::{Postgres, PostgresConfig};
use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::token_keys_update::Update;
use causeway_proto::wire::v1 as wire;
use causeway_redis::RedisConfig;
use causeway_runtime::grpc;
use causeway_runtime::lifecycle::Ended;
use causeway_test_servers as servers;
use futures::FutureExt as _;
use tokio::time::Instant;
use tonic::{Code, Streaming};

use super::{Log as _, Place, Read, ReplicaId};
use crate::DirectoryConfig;
use crate::changes::Change;
use crate::config::StoreKind;
use crate::store::{PostgresLog, PostgresStore};
use crate::testing::{Deployment, TestProvider};

const PATIENCE: Duration = Duration::from_secs(20);

async fn server() -> servers::Postgres {
    let start = || servers::Postgres::start().expect("PostgreSQL starts");
    tokio::task::spawn_blocking(start).await.unwrap()
}

fn database(server: &servers::Postgres) -> PostgresConfig {
    PostgresConfig {
        url: server.create_database().expect("a database"),
        allow_unsafe_durability: true,
        max_connections: 4,
        ..PostgresConfig::default()
    }
}

async fn directory(database: &PostgresConfig, change: impl FnOnce(&mut DirectoryConfig)) -> Deployment {
    let net = Deployment::start_with(|config| {
        config.store = StoreKind::Postgres;
        config.postgres = database.clone();
        config.keys_refresh_ms = 3_600_000;
        config.lease_ms = 1_500;
        config.replica_lease_ms = 2_500;
        change(config);
    })
    .await;
    // Registered, when it can be followed.
    let registered = async {
        loop {
            let (_speak, messages) = tokio::sync::mpsc::channel(1);
            let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
            if net.records().follow(messages).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, registered).await.expect("it registers");
    net
}

async fn two(server: &servers::Postgres) -> (Deployment, Deployment) {
    let database = database(server);
    tokio::join!(Box::pin(directory(&database, |_| {})), Box::pin(directory(&database, |_| {})))
}

/// Whose leases are so long that a busy machine does nothing as slowly as they pass.
async fn two_with_long_leases(server: &servers::Postgres) -> (Deployment, Deployment) {
    let database = database(server);
    let long = |config: &mut DirectoryConfig| (config.lease_ms, config.replica_lease_ms) = (4_000, 8_000);
    tokio::join!(Box::pin(directory(&database, long)), Box::pin(directory(&database, long)))
}

async fn watch(net: &Deployment) -> Streaming<pb::TokenKeysUpdate> {
    net.token_keys().watch(pb::WatchTokenKeys {}).await.unwrap().into_inner()
}

async fn told(stream: &mut Streaming<pb::TokenKeysUpdate>, expected: impl Fn(&pb::ProviderKeys) -> bool) {
    let reading = async {
        loop {
            let providers = match stream.message().await.unwrap().unwrap().update.unwrap() {
                Update::Provider(keys) => vec![keys],
                Update::Full(full) => full.providers,
                Update::Heartbeat(_) => continue,
            };
            if providers.iter().any(&expected) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("watchers are told");
}

async fn joined(one: &Deployment) -> wire::Enlisted {
    let birdy = TestProvider::start("birdy.example").await;
    let provider = one.register(&birdy, wire::ProviderKind::ThirdParty).await.unwrap();
    one.join(&provider, "ada", 1, 1).await.0
}

#[tokio::test]
async fn a_change_waits_for_the_followers_of_every_directory() {
    let server = server().await;
    let (one, other) = two_with_long_leases(&server).await;
    let ada = joined(&one).await;
    let mut follower = other.follow_with_pings().await;
    let mut setting = Box::pin(one.set_consent(&ada, |settings| settings.reach = wire::Reach::Nobody.into()));
    let (number, record) = tokio::select! {
        told = follower.next_record() => told,
        _ = &mut setting => panic!("confirmed before a follower of the other directory has heard of it"),
    };
    assert_eq!((record.address.as_str(), record.what()), ("ada@birdy.example", pb::RecordChange::Consent));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut setting).await.is_err(), "not acknowledged yet");
    follower.say(number, 2).await;
    let confirmed = Instant::now();
    setting.await.unwrap();
    assert!(
        confirmed.elapsed() < Duration::from_millis(3_500),
        "by the word of the follower: {:?}",
        confirmed.elapsed()
    );
    assert_eq!(other.record("ada@birdy.example").await.unwrap().consent.unwrap().reach(), wire::Reach::Nobody);
}

#[tokio::test]
async fn what_an_operator_does_at_one_reaches_the_watchers_of_the_other() {
    let server = server().await;
    let (one, other) = two(&server).await;
    let mut watching = watch(&other).await;
    let birdy = TestProvider::start("birdy.example").await;
    one.register(&birdy, wire::ProviderKind::ThirdParty).await.unwrap();
    told(&mut watching, |keys| keys.domain == "birdy.example" && keys.status() == pb::ProviderStatus::Live).await;
    let (follower, mut watched_later) = (other.follow_with_pings().await, watch(&other).await);
    follower.keep_up();
    one.set_status("birdy.example", pb::ProviderStatus::Suspended).await.unwrap();
    let at_once = watch(&other).await.message().await.unwrap().unwrap().update.unwrap();
    let Update::Full(full) = at_once else { panic!("the full set comes first") };
    assert_eq!(full.providers[0].status(), pb::ProviderStatus::Suspended, "confirmed, so it is known everywhere");
    told(&mut watched_later, |keys| keys.status() == pb::ProviderStatus::Suspended).await;

    // Keys that one has fetched are not fetched by the other.
    one.set_status("birdy.example", pb::ProviderStatus::Live).await.unwrap();
    birdy.publish_keys(&["k1", "k2"]);
    let asked = pb::RefetchTokenKeys { issuer: birdy.issuer(), kid: "k2".to_owned() };
    one.token_keys().refetch(grpc::call(asked)).await.unwrap();
    let has_new =
        |keys: &pb::ProviderKeys| causeway_identity::token::KeySet::from_jwks(&keys.jwks).unwrap().contains("k2");
    told(&mut watching, has_new).await;
}

#[tokio::test]
async fn a_directory_that_has_died_is_waited_for_until_its_lease_has_passed() {
    let server = server().await;
    let (one, _other) = two(&server).await;
    let ada = joined(&one).await;
    let dead = "INSERT INTO directory_replicas (replica_id, lease_until, lease_ms, confirmed) \
                SELECT '\\x00112233445566778899aabbccddeeff', clock_timestamp() - interval '1 day', 1200, number \
                FROM change_log_head";
    let postgres = Postgres::open(&one.config.postgres, "test", &[]).await.unwrap();
    postgres.connection().await.unwrap().execute(dead, &[]).await.unwrap();
    let start = Instant::now();
    one.set_consent(&ada, |settings| settings.interop = false).await.unwrap();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(800), "{took:?}, though the store's clock says that it is long dead");
    let left = "SELECT FROM directory_replicas WHERE replica_id = '\\x00112233445566778899aabbccddeeff'";
    let left = postgres.connection().await.unwrap().query(left, &[]).await.unwrap();
    assert!(left.is_empty(), "it is waited for once");
}

#[tokio::test]
async fn a_directory_that_stops_is_not_waited_for() {
    let server = server().await;
    let (one, other) = two_with_long_leases(&server).await;
    let ada = joined(&one).await;
    other.stop().await;
    let start = Instant::now();
    one.set_consent(&ada, |settings| settings.interop = false).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(6), "not until its lease has passed: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_database_that_stands_still_holds_no_stop_up() {
    let mut server = server().await;
    let database = database(&server);
    let one = directory(&database, |config| {
        config.lease_ms = 4_000;
        config.replica_lease_ms = 8_000;
    })
    .await;
    server.pause().unwrap();
    // Less than its lease, for which it would wait for a database that answers.
    assert_eq!(one.stop_within(Duration::from_secs(6)).await, Ended::Clean);
    server.resume().unwrap();
}

#[tokio::test]
async fn a_crash_of_the_database_is_survived() {
    let mut server = server().await;
    let (one, other) = two(&server).await;
    let ada = joined(&one).await;
    let mut follower = other.follow_with_pings().await;
    server = tokio::task::spawn_blocking(move || {
        server.kill().unwrap();
        server.start_again().unwrap();
        server
    })
    .await
    .unwrap();
    let repeated = async {
        loop {
            let request = pb::SetConsentRequest {
                account_id: ada.account_id.clone(),
                settings: Some(wire::ConsentSettings {
                    interop: false,
                    inbox: wire::InboxSetting::Separate.into(),
                    reach: wire::Reach::Nobody.into(),
                    providers: Vec::new(),
                }),
                from_device_id: ada.device_id,
            };
            match one.consent().set(grpc::call(request)).await {
                Ok(_) => return,
                Err(status) => assert!(matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)),
            }
        }
    };
    let follow = async {
        // Its stream goes on, or ends; whichever, it has acknowledged what it was told.
        while let Ok(message) = follower.next().await {
            if message.number > 0 {
                follower.say(message.number, 0).await;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        confirmed = tokio::time::timeout(2 * PATIENCE, repeated) => confirmed.expect("changes are confirmed again"),
        () = follow => {}
    }
    assert!(!other.record("ada@birdy.example").await.unwrap().consent.unwrap().interop);
    drop(server);
}

#[tokio::test]
async fn who_finds_a_gap_in_the_log_cuts_off_its_followers() {
    let server = server().await;
    let (one, other) = two(&server).await;
    let mut follower = other.follow_with_pings().await;
    let postgres = Postgres::open(&one.config.postgres, "test", &[]).await.unwrap();
    let skip = "WITH head AS (UPDATE change_log_head SET number = number + 3 RETURNING number) \
                INSERT INTO change_log (number, payload) SELECT number, 'x' FROM head";
    postgres.connection().await.unwrap().execute(skip, &[]).await.unwrap();
    let cut = loop {
        if let Err(status) = follower.next().await {
            break status;
        }
    };
    assert_eq!(cut.code(), Code::Unavailable, "{cut}");
    assert!(cut.message().contains("empty cache"), "{cut}");
    let ada = tokio::time::timeout(PATIENCE, joined(&one)).await.expect("all goes on");
    tokio::time::timeout(PATIENCE, other.set_consent(&ada, |settings| settings.interop = false))
        .await
        .expect("here, too")
        .unwrap();
}

#[tokio::test]
async fn hints_make_it_quick_and_are_not_needed() {
    let (server, database) = {
        let server = server().await;
        let database = database(&server);
        (server, database)
    };
    let mut redis = tokio::task::spawn_blocking(|| servers::Redis::start().unwrap()).await.unwrap();
    let address = format!("127.0.0.1:{}", redis.port());
    let with_hints = |config: &mut DirectoryConfig| {
        (config.poll_ms, config.replica_lease_ms) = (2_000, 8_000);
        config.redis = Some(RedisConfig { addresses: vec![address.clone()], ..RedisConfig::default() });
    };
    let (one, other) =
        tokio::join!(Box::pin(directory(&database, with_hints)), Box::pin(directory(&database, with_hints)));
    let ada = joined(&one).await;
    other.follow_with_pings().await.keep_up();
    let quick = async {
        // The channel may not be listened to yet.
        for round in 0_u32.. {
            let start = Instant::now();
            one.set_consent(&ada, |settings| settings.interop = round % 2 == 1).await.unwrap();
            if start.elapsed() < Duration::from_millis(500) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, quick).await.expect("hints are heard");
    let redis = tokio::task::spawn_blocking(move || {
        redis.kill().unwrap();
        redis
    })
    .await
    .unwrap();
    let start = Instant::now();
    one.set_consent(&ada, |settings| settings.reach = wire::Reach::Nobody.into()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(6), "by reading the log, not by a lease: {:?}", start.elapsed());
    drop((redis, server));
}

#[tokio::test]
async fn what_one_lets_through_counts_at_the_other() {
    const BURST: u32 = 20;
    let server = server().await;
    let database = database(&server);
    let redis = tokio::task::spawn_blocking(|| servers::Redis::start().unwrap()).await.unwrap();
    let address = format!("127.0.0.1:{}", redis.port());
    let limited = |config: &mut DirectoryConfig| {
        (config.publish_burst, config.publish_interval_ms) = (BURST, 3_600_000);
        config.redis = Some(RedisConfig { addresses: vec![address.clone()], ..RedisConfig::default() });
    };
    let (one, other) = tokio::join!(Box::pin(directory(&database, limited)), Box::pin(directory(&database, limited)));
    let birdy = TestProvider::start("birdy.example").await;
    let provider = one.register(&birdy, wire::ProviderKind::ThirdParty).await.unwrap();
    let (ada, phone) = one.join(&provider, "ada", 1, 1).await;
    for _ in 0..BURST {
        one.publish(&ada, phone.publish(&[1], &[])).await.unwrap();
    }
    one.publish(&ada, phone.publish(&[1], &[])).await.unwrap_err();
    let count = async {
        let mut passed = 0;
        while other.publish(&ada, phone.publish(&[1], &[])).await.is_ok() {
            passed += 1;
            // Until what it has told has been answered.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        passed
    };
    let passed = tokio::time::timeout(PATIENCE, count).await.expect("it is refused");
    assert!(passed <= BURST / 2, "{passed}");
    drop(redis);
}

#[tokio::test]
async fn numbers_are_dense_whoever_changes_what() {
    let server = server().await;
    let (one, other) = two(&server).await;
    let birdy = TestProvider::start("birdy.example").await;
    let provider = one.register(&birdy, wire::ProviderKind::ThirdParty).await.unwrap();
    let users: Vec<_> = (0..8).map(|n| format!("user{n}")).collect();
    let joins = users.iter().enumerate().map(|(n, user)| {
        let net = if n % 2 == 0 { &one } else { &other };
        net.join(&provider, user, 1, 1).boxed()
    });
    futures::future::join_all(joins).await;
    let postgres = Postgres::open(&one.config.postgres, "test", &[]).await.unwrap();
    let connection = postgres.connection().await.unwrap();
    let row = connection
        .query_one(
            "SELECT count(*), min(number), max(number), (SELECT number FROM change_log_head) FROM change_log",
            &[],
        )
        .await
        .unwrap();
    let of = |column: usize| row.try_get::<_, i64>(column).unwrap();
    // The provider; for each user a device and a consent.
    assert_eq!([of(0), of(1), of(2), of(3)], [17, 1, 17, 17]);
}

#[tokio::test]
async fn the_log_and_the_register_keep_their_contract() {
    let server = server().await;
    let config = database(&server);
    let store = PostgresStore::open(&config).await.unwrap();
    let postgres = Postgres::open(&config, "test", &[]).await.unwrap();
    let log = PostgresLog::new(postgres.clone());
    let (first, second, lasts) = (ReplicaId([1; 16]), ReplicaId([2; 16]), Duration::from_secs(2));
    assert_eq!(log.register(first, lasts).await.unwrap(), Place::default());
    assert_eq!(log.read(Place::default(), 10).await.unwrap(), Read::Entries(Vec::new()));
    let changes: Vec<Change> =
        (0..5).map(|n| Change::Provider { domain: format!("p{n}.example").parse().unwrap() }).collect();
    for change in &changes {
        let mut connection = postgres.connection().await.unwrap();
        let transaction = connection.begin().await.unwrap();
        crate::store::append(&transaction, std::slice::from_ref(change)).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let Read::Entries(entries) = log.read(Place::default(), 3).await.unwrap() else { panic!("no gap") };
    assert_eq!(entries.iter().map(|entry| entry.place.number).collect::<Vec<_>>(), [1, 2, 3]);
    let third = entries[2].place;
    let Read::Entries(rest) = log.read(third, 10).await.unwrap() else { panic!("no gap") };
    let told: Vec<_> = entries.iter().chain(&rest).map(|entry| entry.change.clone().unwrap()).collect();
    assert_eq!(told, changes);
    assert_eq!(log.read(Place { tag: third.tag ^ 1, ..third }, 10).await.unwrap(), Read::Gap, "another history");
    let last = rest[1].place;
    assert_eq!(log.read(last, 10).await.unwrap(), Read::Entries(Vec::new()));
    assert_eq!(log.read(Place { number: 6, tag: 0 }, 10).await.unwrap(), Read::Gap, "beyond its end");
    assert_eq!(log.register(second, lasts).await.unwrap(), last);

    assert!(log.renew(first, lasts, 3).await.unwrap());
    assert!(log.renew(first, lasts, 2).await.unwrap(), "what is confirmed stays so");
    let mut peers = log.peers().await.unwrap();
    peers.sort_by_key(|peer| peer.id);
    assert_eq!((peers[0].confirmed, peers[0].renewals, peers[0].lasts, peers[1].confirmed), (3, 2, lasts, 5));
    assert!(log.renew(first, lasts, 4).await.unwrap());
    assert!(!log.end(&peers[0]).await.unwrap(), "renewed since it was seen");
    let peers = log.peers().await.unwrap();
    let seen = peers.iter().find(|peer| peer.id == first).unwrap();
    assert!(log.end(seen).await.unwrap() && !log.end(seen).await.unwrap());
    assert!(!log.renew(first, lasts, 5).await.unwrap(), "ended for ever");
    log.leave(second, Duration::from_millis(300)).await.unwrap();
    assert_eq!(log.peers().await.unwrap()[0].lasts, Duration::from_millis(300));
    log.leave(second, Duration::ZERO).await.unwrap();
    assert!(log.peers().await.unwrap().is_empty());

    log.trim(Duration::from_secs(60), 2).await.unwrap();
    assert_eq!(log.read(third, 10).await.unwrap(), Read::Gap);
    assert!(matches!(log.read(rest[0].place, 10).await.unwrap(), Read::Entries(left) if left.len() == 1));
    log.trim(Duration::ZERO, 2).await.unwrap();
    assert_eq!(log.read(rest[0].place, 10).await.unwrap(), Read::Gap);
    assert_eq!(log.read(last, 10).await.unwrap(), Read::Entries(Vec::new()), "its place stays");
    let left = "SELECT count(*) FROM change_log WHERE payload IS NOT NULL";
    let left: i64 = postgres.connection().await.unwrap().query_one(left, &[]).await.unwrap().try_get(0).unwrap();
    assert_eq!(left, 0, "nobody's address stays");
    drop(store);
}
