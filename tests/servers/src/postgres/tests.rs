//! What tests rely on.

use super::*;

#[test]
fn databases_are_separate_and_outlive_a_kill() {
    let mut server = Postgres::start().unwrap();
    let urls = [server.create_database().unwrap(), server.create_database().unwrap()];
    assert_eq!(urls[0], format!("postgres://causeway@127.0.0.1:{}/test_1", server.port()));
    assert_ne!(urls[0], urls[1]);
    server.execute("test_1", "CREATE TABLE t (x int); INSERT INTO t VALUES (7), (NULL)").unwrap();
    assert!(
        matches!(server.execute("test_2", "SELECT x FROM t"), Err(ServerError::Refused(text)) if text.contains("42P01"))
    );

    server.kill().unwrap();
    assert!(server.execute("test_1", "SELECT 1").is_err());
    server.start_again().unwrap();
    let rows = server.execute("test_1", "SELECT x FROM t ORDER BY x").unwrap();
    assert_eq!(rows, [vec![Some("7".to_owned())], vec![None]]);

    server.stop_immediate().unwrap();
    server.start_again().unwrap();
    assert_eq!(server.execute("test_1", "SELECT count(*) FROM t").unwrap(), [vec![Some("2".to_owned())]]);
}

#[test]
fn a_paused_server_does_not_answer_and_goes_on_afterwards() {
    let mut server = Postgres::start().unwrap();
    let mut session = Session::open(server.port(), "postgres", Some(Duration::from_millis(200))).unwrap();
    session.execute("SELECT 1").unwrap();
    server.pause().unwrap();
    assert!(matches!(session.execute("SELECT 2"), Err(ServerError::Io { .. })));
    server.resume().unwrap();
    server.execute("postgres", "SELECT 1").unwrap();
}

#[test]
fn a_server_that_is_dropped_leaves_nothing() {
    let server = Postgres::start().unwrap();
    let data = server.data();
    let id = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let id = id.lines().next().unwrap().to_owned();
    drop(server);
    assert!(!data.exists());
    assert!(!Path::new("/proc").join(id).exists());
}

#[test]
fn what_holds_it_back_is_said() {
    let options = Options { settings: vec![("no_such_setting".to_owned(), "1".to_owned())], ..Options::default() };
    let error = Postgres::start_with(options).unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}

/// The other half of the next test: a process that is killed while it has servers.
#[test]
#[ignore = "runs inside `servers_die_with_a_parent_that_is_killed`"]
fn parent_that_is_killed() {
    let mut postgres = Postgres::start().unwrap();
    let redis = crate::Redis::start().unwrap();
    let session = postgres.session("postgres").unwrap();
    postgres.pause().unwrap();
    println!("\nports {} {}", postgres.port(), redis.port());
    let forever = std::sync::mpsc::channel::<()>();
    let _never = forever.1.recv();
    drop(session);
}

#[test]
fn servers_die_with_a_parent_that_is_killed() {
    use std::io::BufRead as _;
    use std::net::TcpStream;
    use std::process::{Command, Stdio};

    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres::tests::parent_that_is_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(parent.stdout.take().unwrap());
    let line = output.lines().map_while(Result::ok).find(|line| line.starts_with("ports ")).unwrap();
    let ports: Vec<u16> = line.split(' ').skip(1).map(|port| port.parse().unwrap()).collect();
    for port in &ports {
        TcpStream::connect(("127.0.0.1", *port)).unwrap();
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    for port in ports {
        // What was stopped goes with the next folder that anybody makes.
        let gone = || {
            let _sweeps = Folder::create().unwrap();
            TcpStream::connect(("127.0.0.1", port)).is_err()
        };
        assert!(wait_for(PATIENCE, gone), "port {port} still answers");
    }
}
