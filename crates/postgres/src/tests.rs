//! Against a real server.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use causeway_test_servers::{Options, Postgres as Server, PostgresPair};
use futures::future::join_all;

use crate::{Abort, Class, Migration, Postgres, PostgresConfig, PostgresError, Repeat, SqlState};

const DEADLINE: Duration = Duration::from_secs(20);

fn config(url: String) -> PostgresConfig {
    PostgresConfig { url, allow_unsafe_durability: true, ..PostgresConfig::default() }
}

/// A server with a table `pairs`.
async fn ready(options: Options) -> (Server, PostgresConfig) {
    let server = Server::start_with(options).unwrap();
    let config = config(server.create_database().unwrap());
    let postgres = open(&config).await;
    let table = Migration::new(1, "pairs", "CREATE TABLE pairs (id integer PRIMARY KEY, value integer NOT NULL)");
    postgres.migrate("test", &[table]).await.unwrap();
    (server, config)
}

async fn open(config: &PostgresConfig) -> Postgres {
    Postgres::open(config, "test", &[("jit", "off")]).await.unwrap()
}

async fn count(postgres: &Postgres) -> i64 {
    let connection = postgres.connection().await.unwrap();
    connection.query_one("SELECT count(*) FROM pairs", &[]).await.unwrap().get(0)
}

async fn add(postgres: &Postgres, id: i32) -> Result<u64, Abort<()>> {
    let work = postgres.transact(DEADLINE, Repeat::Always, |tx| {
        Box::pin(async move {
            let sql = "INSERT INTO pairs VALUES ($1, 0) ON CONFLICT DO NOTHING";
            tx.execute(sql, &[&id]).await.map_err(Abort::from)
        })
    });
    work.await
}

#[tokio::test]
async fn what_is_committed_lasts_and_nothing_else() {
    let (_server, config) = ready(Options::default()).await;
    let postgres = open(&config).await;
    add(&postgres, 1).await.unwrap();
    let refused: Result<(), _> = postgres
        .transact(DEADLINE, Repeat::Always, |tx| {
            Box::pin(async move {
                tx.execute("INSERT INTO pairs VALUES (2, 0)", &[]).await?;
                Err(Abort::Refused("no"))
            })
        })
        .await;
    assert_eq!(refused, Err(Abort::Refused("no")));
    let mut connection = postgres.connection().await.unwrap();
    let transaction = connection.begin().await.unwrap();
    transaction.execute("INSERT INTO pairs VALUES (3, 0)", &[]).await.unwrap();
    drop(transaction);
    // An error that nobody looked at does not become a commit that did nothing.
    let transaction = connection.begin().await.unwrap();
    transaction.execute("INSERT INTO pairs VALUES (4, 0)", &[]).await.unwrap();
    let twice = transaction.execute("INSERT INTO pairs VALUES (1, 4711)", &[]).await.unwrap_err();
    assert!(twice.is_unique_violation() && twice.class() == Class::Failed, "{twice}");
    assert!(!format!("{twice} {twice:?}").contains("(1)"), "no values: {twice:?}");
    assert_ne!(transaction.commit().await.unwrap_err().class(), Class::Unknown);
    assert!(connection.is_usable());
    drop(connection);
    assert_eq!(count(&postgres).await, 1);
    let status = postgres.status();
    assert_eq!((status.open, status.idle), (1, 1));
    postgres.close();
    assert_eq!(postgres.connection().await.err(), Some(PostgresError::Closed));
}

#[tokio::test]
async fn locks_and_statements_have_time_outs_and_transactions_meet() {
    let (_server, config) = ready(Options::default()).await;
    let config = PostgresConfig { lock_timeout_ms: 100, statement_timeout_ms: 400, ..config };
    let postgres = open(&config).await;
    for id in 1..=2 {
        add(&postgres, id).await.unwrap();
    }
    let (mut one, mut two) = (postgres.connection().await.unwrap(), postgres.connection().await.unwrap());
    {
        let first = one.begin().await.unwrap();
        first.execute("UPDATE pairs SET value = 1 WHERE id = 1", &[]).await.unwrap();
        let second = two.begin().await.unwrap();
        let error = second.execute("UPDATE pairs SET value = 2 WHERE id = 1", &[]).await.unwrap_err();
        assert_eq!((error.code(), error.class()), (Some(&SqlState::LOCK_NOT_AVAILABLE), Class::Retry));
    }
    let error = one.execute("SELECT pg_sleep(5)", &[]).await.unwrap_err();
    assert_eq!((error.code(), error.class()), (Some(&SqlState::QUERY_CANCELED), Class::Failed));
    {
        let first = one.begin_serializable().await.unwrap();
        let second = two.begin_serializable().await.unwrap();
        for transaction in [&first, &second] {
            transaction.query("SELECT sum(value) FROM pairs", &[]).await.unwrap();
        }
        first.execute("UPDATE pairs SET value = 5 WHERE id = 1", &[]).await.unwrap();
        second.execute("UPDATE pairs SET value = 5 WHERE id = 2", &[]).await.unwrap();
        first.commit().await.unwrap();
        let error = second.commit().await.unwrap_err();
        assert_eq!((error.code(), error.class()), (Some(&SqlState::T_R_SERIALIZATION_FAILURE), Class::Retry));
    }
    assert!(one.is_usable() && two.is_usable());
    let error = one.query("SELECT nothing FROM nowhere", &[]).await.unwrap_err();
    assert_eq!(error.class(), Class::Failed);
    assert!(error.to_string().contains("nowhere"), "{error}");
    let error = one.query("SELECT $1::integer", &[&"text"]).await.unwrap_err();
    assert!(matches!(error, PostgresError::Value(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_is_killed_leaves_no_doubt_before_the_commit() {
    let (mut server, config) = ready(Options { durable: true, ..Options::default() }).await;
    let config = PostgresConfig { allow_unsafe_durability: false, ..config };
    let postgres = open(&config).await;
    add(&postgres, 1).await.unwrap();
    let (mut one, mut two) = (postgres.connection().await.unwrap(), postgres.connection().await.unwrap());
    let first = one.begin().await.unwrap();
    first.execute("INSERT INTO pairs VALUES (2, 0)", &[]).await.unwrap();
    let second = two.begin().await.unwrap();
    second.execute("INSERT INTO pairs VALUES (3, 0)", &[]).await.unwrap();
    server.kill().unwrap();
    let error = first.execute("INSERT INTO pairs VALUES (4, 0)", &[]).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{error}");
    let error = second.commit().await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error}");
    drop(first);
    assert!(!one.is_usable() && !two.is_usable());
    drop((one, two));
    let error = postgres.connection().await.unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{error}");
    // It is repeated until the server is there again.
    let adding = add(&postgres, 5);
    let starting = tokio::task::spawn_blocking(move || {
        server.start_again().unwrap();
        server
    });
    let (added, server) = futures::join!(adding, starting);
    added.unwrap();
    assert_eq!(count(&postgres).await, 2);
    drop(server);
}

#[tokio::test]
async fn a_server_that_hangs_is_taken_for_lost() {
    let (mut server, config) = ready(Options::default()).await;
    let config = PostgresConfig { statement_timeout_ms: 100, connect_timeout_ms: 100, ..config };
    let postgres = open(&config).await;
    let mut one = postgres.connection().await.unwrap();
    let transaction = one.begin().await.unwrap();
    transaction.execute("INSERT INTO pairs VALUES (1, 0)", &[]).await.unwrap();
    server.pause().unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error}");
    let error = postgres.connection().await.unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{error}");
    assert!(!one.is_usable());
    server.resume().unwrap();
    drop(one);
    // Which may well have happened.
    add(&postgres, 1).await.unwrap();
    assert_eq!(count(&postgres).await, 1);
}

#[tokio::test]
async fn too_many_connections_are_a_matter_of_time() {
    let settings = vec![
        ("max_connections".to_owned(), "4".to_owned()),
        ("superuser_reserved_connections".to_owned(), "0".to_owned()),
    ];
    let (_server, config) = ready(Options { settings, ..Options::default() }).await;
    let config = PostgresConfig { connect_timeout_ms: 300, ..config };
    let (one, two) = (open(&config).await, open(&PostgresConfig { max_connections: 2, ..config.clone() }).await);
    let all = join_all((0..3).map(|_| one.connection())).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let error = one.connection().await.unwrap_err();
    assert!(matches!(&error, PostgresError::Unreachable(reason) if reason.contains("53300")), "{error}");
    assert_eq!(error.class(), Class::Retry);
    drop(all);
    let _both = (two.connection().await.unwrap(), one.connection().await.unwrap());
    let _second = two.connection().await;
    assert_eq!(two.connection().await.unwrap_err().class(), Class::Retry);
}

#[tokio::test]
async fn a_server_that_became_read_only_is_left_by_all_connections() {
    let (server, config) = ready(Options::default()).await;
    let postgres = open(&config).await;
    let held = postgres.connection().await.unwrap();
    let idle = join_all((0..3).map(|_| postgres.connection())).await;
    drop(idle);
    assert_eq!(postgres.status().idle, 3);
    server.execute("postgres", "ALTER SYSTEM SET default_transaction_read_only = on").unwrap();
    server.execute("postgres", "SELECT pg_reload_conf()").unwrap();
    // The server tells its sessions when it gets to it.
    let error = loop {
        let Err(Abort::Postgres(error)) = postgres
            .transact(Duration::ZERO, Repeat::IfUndone, |tx| {
                Box::pin(async move { tx.execute("UPDATE pairs SET value = 1", &[]).await.map_err(Abort::<()>::from) })
            })
            .await
        else {
            continue;
        };
        break error;
    };
    assert_eq!((error.code(), error.class()), (Some(&SqlState::READ_ONLY_SQL_TRANSACTION), Class::Retry));
    assert!(!held.is_usable());
    drop(held);
    assert_eq!(postgres.status().open, 0);
    let error = postgres.connection().await.unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{error}");
    server.execute("postgres", "ALTER SYSTEM RESET default_transaction_read_only").unwrap();
    server.execute("postgres", "SELECT pg_reload_conf()").unwrap();
    add(&postgres, 1).await.unwrap();
}

#[tokio::test]
async fn the_standby_takes_over_and_no_confirmed_write_is_lost() {
    let mut pair = PostgresPair::start().unwrap();
    let (first, second) = pair.urls("postgres");
    let host = second.unwrap().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    // The standby first, so that it is asked and passed over.
    let url = first.replace("causeway@", &format!("causeway@{host},"));
    let postgres = open(&PostgresConfig { connect_timeout_ms: 1_000, ..config(url) }).await;
    let table = Migration::new(1, "pairs", "CREATE TABLE pairs (id integer PRIMARY KEY, value integer NOT NULL)");
    postgres.migrate("test", &[table]).await.unwrap();
    for id in 0..10 {
        add(&postgres, id).await.unwrap();
    }
    let promoting = tokio::task::spawn_blocking(move || {
        pair.promote().unwrap();
        pair
    });
    for id in 10..100 {
        add(&postgres, id).await.unwrap();
    }
    let _pair = promoting.await.unwrap();
    for id in 100..110 {
        add(&postgres, id).await.unwrap();
    }
    assert_eq!(count(&postgres).await, 110);
}

#[tokio::test]
async fn a_commit_whose_standby_was_not_waited_for_is_in_doubt() {
    let mut pair = PostgresPair::start().unwrap();
    let postgres = open(&config(pair.urls("postgres").0)).await;
    let mut connection = postgres.connection().await.unwrap();
    connection.execute("CREATE TABLE pairs (id integer PRIMARY KEY, value integer NOT NULL)", &[]).await.unwrap();
    pair.standby().unwrap().pause().unwrap();
    let impatient = |mut pair: PostgresPair| {
        tokio::task::spawn_blocking(move || {
            let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            while pair.primary().execute("postgres", cancel).unwrap()[0][0].as_deref() != Some("1") {}
            pair
        })
    };
    let transaction = connection.begin().await.unwrap();
    transaction.execute("INSERT INTO pairs VALUES (1, 0)", &[]).await.unwrap();
    let cancelled = impatient(pair);
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error}");

    // A statement by itself is a commit, too.
    let cancelled = impatient(cancelled.await.unwrap());
    let alone = connection.query("INSERT INTO pairs VALUES (2, 0) RETURNING id", &[]).await.unwrap_err();
    assert_eq!(alone.class(), Class::Unknown, "{alone}");
    let mut pair = cancelled.await.unwrap();
    pair.standby().unwrap().resume().unwrap();
}

#[tokio::test]
async fn a_repeat_waits_for_the_standby_though_it_finds_everything_done() {
    let mut pair = PostgresPair::start().unwrap();
    let config = PostgresConfig { statement_timeout_ms: 10_000, ..config(pair.urls("postgres").0) };
    let postgres = open(&config).await;
    let table = Migration::new(1, "pairs", "CREATE TABLE pairs (id integer PRIMARY KEY, value integer NOT NULL)");
    postgres.migrate("test", &[table]).await.unwrap();
    pair.standby().unwrap().pause().unwrap();
    let impatient = tokio::task::spawn_blocking(move || {
        let waits = "SELECT pid, query_start FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let next = |pair: &mut PostgresPair, not: Option<&Vec<Option<String>>>| {
            loop {
                let found = pair.primary().execute("postgres", waits).unwrap();
                if let Some(commit) = found.into_iter().find(|commit| Some(commit) != not) {
                    return commit;
                }
            }
        };
        let first = next(&mut pair, None);
        let cancel = format!("SELECT pg_cancel_backend({})", first[0].as_deref().unwrap());
        pair.primary().execute("postgres", &cancel).unwrap();
        let second = next(&mut pair, Some(&first));
        pair.standby().unwrap().resume().unwrap();
        (first != second, pair)
    });
    add(&postgres, 1).await.unwrap();
    let (waited, _pair) = impatient.await.unwrap();
    assert!(waited);
    assert_eq!(count(&postgres).await, 1);
}

#[tokio::test]
async fn a_server_that_may_forget_is_refused() {
    let off = |name: &str| {
        let settings = vec![(name.to_owned(), "off".to_owned())];
        Options { durable: true, settings, ..Options::default() }
    };
    for (options, problem) in [(Options::default(), "fsync"), (off("synchronous_commit"), "synchronous_commit")] {
        let (_server, config) = ready(options).await;
        let strict = PostgresConfig { allow_unsafe_durability: false, ..config };
        let error = Postgres::open(&strict, "test", &[]).await.err().unwrap();
        assert!(matches!(&error, PostgresError::Refused(reason) if reason.contains(problem)), "{error}");
        assert_eq!(error.class(), Class::Failed);
    }
}

#[tokio::test]
async fn eight_replicas_migrate_at_once() {
    let server = Server::start().unwrap();
    let config = PostgresConfig { max_connections: 2, ..config(server.create_database().unwrap()) };
    let one = Migration::new(1, "one", "CREATE TABLE one (id integer PRIMARY KEY)");
    let two = Migration::new(2, "two", "CREATE TABLE two (id integer PRIMARY KEY); INSERT INTO two VALUES (1)");
    let replicas = join_all((0..8).map(|_| open(&config))).await;
    let results = join_all(replicas.iter().map(|replica| async { replica.migrate("test", &[one, two]).await })).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let postgres = &replicas[0];
    // Another component, and a program that is older.
    postgres.migrate("other", &[Migration::new(1, "three", "CREATE TABLE three (id integer)")]).await.unwrap();
    postgres.migrate("test", &[one]).await.unwrap();

    let other = Migration::new(1, "one", "CREATE TABLE one (id bigint PRIMARY KEY)");
    let error = postgres.migrate("test", &[other, two]).await.unwrap_err();
    assert!(error.to_string().contains("step 1"), "{error}");
    let gap = Migration::new(3, "three", "SELECT 1");
    assert_eq!(postgres.migrate("test", &[gap]).await.unwrap_err().class(), Class::Failed);

    // A step that fails leaves nothing behind.
    let broken = Migration::new(3, "three", "CREATE TABLE half (id integer); SELECT nonsense FROM nowhere");
    assert!(postgres.migrate("test", &[one, two, broken]).await.is_err());
    let contract = Migration::new(3, "three", "DROP TABLE one").needs(3);
    postgres.migrate("test", &[one, two, contract]).await.unwrap();
    let error = postgres.migrate("test", &[one, two]).await.unwrap_err();
    assert!(error.to_string().contains("start a newer program"), "{error}");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let found: i64 = postgres.connection().await.unwrap().query_one(tables, &[]).await.unwrap().get(0);
    assert_eq!(found, 3, "the table of steps, two and three");
}

#[tokio::test]
async fn waiting_for_a_migration_has_an_end() {
    let server = Server::start().unwrap();
    let config = PostgresConfig { migration_timeout_ms: 1_000, ..config(server.create_database().unwrap()) };
    let postgres = open(&config).await;
    let mut other = postgres.connection().await.unwrap();
    let holding = other.begin().await.unwrap();
    holding.batch("SET LOCAL idle_in_transaction_session_timeout = 0").await.unwrap();
    holding.query("SELECT pg_advisory_xact_lock(4851862934820134982)::text", &[]).await.unwrap();
    let step = Migration::new(1, "one", "CREATE TABLE one (id integer)");
    assert!(postgres.migrate("test", &[step]).await.is_err());
    holding.rollback().await.unwrap();
    postgres.migrate("test", &[step]).await.unwrap();
}

/// Makes the server speak TLS with a certificate for `name`; gives the certificate, which vouches for itself.
fn with_tls(server: &Server, name: &str) -> PathBuf {
    let data = server.data();
    let (key, certificate) = (data.join("tls.key"), data.join("tls.crt"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", &format!("subjectAltName={name}")])
        .args([std::ffi::OsStr::new("-keyout"), key.as_ref(), "-out".as_ref(), certificate.as_ref()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let owner = std::fs::metadata(&data).unwrap();
    for file in [&key, &certificate] {
        chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    for setting in ["ssl_key_file = 'tls.key'", "ssl_cert_file = 'tls.crt'", "ssl = on"] {
        server.execute("postgres", &format!("ALTER SYSTEM SET {setting}")).unwrap();
    }
    server.execute("postgres", "SELECT pg_reload_conf()").unwrap();
    while server.execute("postgres", "SHOW ssl").unwrap()[0][0].as_deref() != Some("on") {}
    certificate
}

#[tokio::test]
async fn tls_verifies_the_authority_and_the_name() {
    let (server, plain) = ready(Options::default()).await;
    let url = |host: &str, mode: &str| format!("{}?sslmode={mode}", plain.url.replace("127.0.0.1", host));
    // A server that does not speak TLS is not spoken to in plaintext instead.
    let required = PostgresConfig { url: url("127.0.0.1", "require"), ..plain.clone() };
    assert!(Postgres::open(&required, "test", &[]).await.is_err());

    let certificate = with_tls(&server, "IP:127.0.0.1");
    let trusting = PostgresConfig { ca_file: Some(certificate), ..required.clone() };
    let postgres = open(&trusting).await;
    let connection = postgres.connection().await.unwrap();
    let tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(connection.query_one(tls, &[]).await.unwrap().get::<_, bool>(0));

    let stranger = Postgres::open(&required, "test", &[]).await.err().unwrap();
    assert_eq!(stranger.class(), Class::Failed, "an authority that nobody knows: {stranger}");
    let other_name = PostgresConfig { url: url("localhost", "verify-full"), ..trusting.clone() };
    let error = Postgres::open(&other_name, "test", &[]).await.err().unwrap();
    assert_eq!(error.class(), Class::Failed, "another name: {error}");
    let nothing = PostgresConfig { ca_file: Some(server.data().join("PG_VERSION")), ..trusting };
    assert!(matches!(Postgres::open(&nothing, "test", &[]).await, Err(PostgresError::Setup(_))));
}

#[tokio::test]
async fn a_password_comes_from_its_file_and_shows_nowhere() {
    let (server, config) = ready(Options::default()).await;
    let database = config.url.rsplit('/').next().unwrap();
    server.execute(database, "CREATE ROLE guest LOGIN PASSWORD 'hunter2'").unwrap();
    let rules = server.data().join("pg_hba.conf");
    let before = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("host all guest all scram-sha-256\n{before}")).unwrap();
    server.execute("postgres", "SELECT pg_reload_conf()").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secret = |content: &str| {
        let path = folder.path().join(content.trim());
        causeway_runtime::secret_file::create(&path, content.as_bytes()).unwrap();
        Some(path)
    };
    let url = config.url.replace("causeway@", "guest@");
    let guest = PostgresConfig { url, password_file: secret("hunter2\n"), max_connections: 2, ..config };
    // The server reads its rules when it gets to it; until then it asks nobody for a password.
    let wrong = PostgresConfig { password_file: secret("wrong-secret"), ..guest.clone() };
    let error = loop {
        if let Err(error) = Postgres::open(&wrong, "test", &[]).await {
            break error;
        }
    };
    assert!(matches!(&error, PostgresError::Refused(reason) if reason.contains("28P01")), "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong-secret"), "{error:?}");
    let postgres = open(&guest).await;
    let connection = postgres.connection().await.unwrap();
    assert_eq!(connection.query_one("SELECT current_user::text", &[]).await.unwrap().get::<_, String>(0), "guest");
    assert!(!format!("{postgres:?} {connection:?} {guest:?}").contains("hunter2\n"));
}
