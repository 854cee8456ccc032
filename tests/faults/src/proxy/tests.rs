use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A server that sends back what it hears, and a link to it.
async fn echo() -> Link {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.split();
                let _ended = tokio::io::copy(&mut reads, &mut writes).await;
                let _ended = writes.shutdown().await;
            });
        }
    });
    Link::open("a>b", target, 7).await.unwrap()
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn hear(stream: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    tokio::time::timeout(20 * SECOND, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, text.as_bytes());
}

async fn silence(stream: &mut TcpStream) {
    let mut byte = [0];
    let heard = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte)).await;
    assert!(heard.is_err(), "{heard:?}");
}

async fn reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(20 * SECOND, stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bytes_and_ends_pass() {
    let link = echo().await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    let long = "x".repeat(1_000_000);
    let (mut reads, mut writes) = stream.split();
    let mut heard = String::new();
    let write = async {
        writes.write_all(long.as_bytes()).await.unwrap();
        writes.shutdown().await.unwrap();
    };
    tokio::join!(write, async { reads.read_to_string(&mut heard).await.unwrap() });
    assert_eq!(heard, long);
}

#[tokio::test]
async fn a_link_knows_whether_it_has_touched_anything() {
    let link = echo().await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
    link.set(Mode::CUT);
    silence(&mut stream).await;
    assert_eq!(link.seen().touched, 0);
    say(&mut stream, "two").await;
    while link.seen().touched == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    link.set(Mode::both(Flow::Late { least: Duration::ZERO, most: Duration::ZERO }));
    hear(&mut stream, "two").await;
    let before = link.seen().touched;
    say(&mut stream, "three").await;
    hear(&mut stream, "three").await;
    assert!(link.seen().touched > before);
}

#[tokio::test]
async fn connections_go_to_several_in_turn() {
    let (first, second) = (echo().await, echo().await);
    let link = Link::open("clients>both", first.address(), 7).await.unwrap();
    link.balance(vec![first.address(), second.address()]);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        say(&mut stream, "one").await;
        hear(&mut stream, "one").await;
        open.push(stream);
    }
    assert_eq!((first.seen().open, second.seen().open), (1, 1));
}

#[tokio::test]
async fn a_cut_link_stalls_and_loses_nothing() {
    let link = echo().await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
    for mode in
        [Mode::CUT, Mode { there: Flow::Stall, ..Mode::default() }, Mode { back: Flow::Stall, ..Mode::default() }]
    {
        link.set(mode);
        say(&mut stream, "two").await;
        silence(&mut stream).await;
        link.set(Mode::default());
        hear(&mut stream, "two").await;
    }
    link.set(Mode::CUT);
    let mut late = TcpStream::connect(link.address()).await.unwrap();
    say(&mut late, "three").await;
    silence(&mut late).await;
    link.set(Mode::default());
    hear(&mut late, "three").await;
    link.set(Mode::CUT);
    link.reset();
    reset(&mut late).await;
}

#[tokio::test]
async fn late_bytes_keep_their_order_and_slow_ones_take_their_time() {
    let link = echo().await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    let least = Duration::from_millis(50);
    link.set(Mode::both(Flow::Late { least, most: 2 * least }));
    let began = Instant::now();
    for word in ["one", "two", "three"] {
        say(&mut stream, word).await;
    }
    hear(&mut stream, "onetwothree").await;
    assert!(began.elapsed() >= 2 * least);

    link.set(Mode { there: Flow::Slow { bytes_per_s: 1_000 }, ..Mode::default() });
    let began = Instant::now();
    let text = "y".repeat(300);
    say(&mut stream, &text).await;
    hear(&mut stream, &text).await;
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn half_of_a_connection_ends() {
    let link = echo().await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
    link.half_close(Direction::Back);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    // The way there is open, though nobody hears of it.
    say(&mut stream, "two").await;
    // Towards the echo: it closes its side in turn.
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
    link.half_close(Direction::There);
    stream.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_piece_is_cut_midway() {
    let link = echo().await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    link.set(Mode { breaks: Break::Midway { one_in: 1 }, ..Mode::default() });
    say(&mut stream, "0123456789").await;
    reset(&mut stream).await;
    assert_eq!(link.seen().midway, 1);
}

#[tokio::test]
async fn a_link_to_nobody_resets_and_finds_its_target_when_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let link = Link::open("a>nobody", nobody, 1).await.unwrap();
    reset(&mut TcpStream::connect(link.address()).await.unwrap()).await;
    let other = echo().await;
    link.redirect(other.address());
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
}

/// As much of a client as it takes to try a COMMIT over a link.
async fn commit(address: SocketAddr, number: u64) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let parameters = b"user\0causeway\0database\0test_1\0\0";
    let mut startup = u32::try_from(parameters.len() + 8).unwrap().to_be_bytes().to_vec();
    startup.extend_from_slice(&196_608_u32.to_be_bytes());
    startup.extend_from_slice(parameters);
    stream.write_all(&startup).await.unwrap();
    for sql in ["", "BEGIN", &format!("INSERT INTO t VALUES ({number})"), "COMMIT"] {
        if !sql.is_empty() {
            let mut query = vec![b'Q'];
            query.extend_from_slice(&u32::try_from(sql.len() + 5).unwrap().to_be_bytes());
            query.extend_from_slice(sql.as_bytes());
            query.push(0);
            stream.write_all(&query).await.unwrap();
        }
        // Up to the ReadyForQuery.
        loop {
            let mut head = [0; 5];
            if stream.read_exact(&mut head).await.is_err() {
                assert_eq!(sql, "COMMIT");
                return false;
            }
            let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body = vec![0; size - 4];
            stream.read_exact(&mut body).await.unwrap();
            assert_ne!(head[0], b'E', "{}", String::from_utf8_lossy(&body));
            if head[0] == b'Z' {
                break;
            }
        }
    }
    true
}

#[tokio::test]
async fn commits_are_cut_before_after_and_long_after_they_are_done() {
    let postgres = tokio::task::spawn_blocking(|| {
        let postgres = causeway_test_servers::Postgres::start().unwrap();
        postgres.create_database().unwrap();
        postgres.execute("test_1", "CREATE TABLE t (x int)").unwrap();
        postgres
    });
    let postgres = postgres.await.unwrap();
    let count = || {
        let rows = postgres.execute("test_1", "SELECT count(*) FROM t").unwrap();
        rows[0][0].as_ref().unwrap().parse::<u64>().unwrap()
    };
    let link = Link::open("a>postgres", SocketAddr::from((Ipv4Addr::LOCALHOST, postgres.port())), 3).await.unwrap();
    assert!(commit(link.address(), 0).await);
    link.set(Mode { breaks: Break::Commit { one_in: 1 }, ..Mode::default() });
    for number in 1..=20 {
        assert!(!commit(link.address(), number).await);
    }
    let seen = link.seen();
    assert_eq!(seen.undone + seen.done + seen.later, 20);
    assert!(seen.undone > 0 && seen.done > 0 && seen.later > 0, "{seen:?}");
    let patience = Instant::now() + 20 * SECOND;
    while count() < 1 + seen.done + seen.later && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count(), 1 + seen.done + seen.later);
    link.set(Mode { breaks: Break::Commit { one_in: 1_000_000 }, ..Mode::default() });
    assert!(commit(link.address(), 21).await);
}
