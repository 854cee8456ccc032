//! The machines over connections of tokio.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{CLIENT_HELLO, SERVER_HELLO, client_key, rng, server_key};
use crate::server::HandshakeError;
use crate::transport::{
    AcceptError, Accepted, ConnectError, Connection, ReadError, WriteError, accept, connect_ik, connect_xx, refuse,
};
use crate::{Alert, Limits, Preamble, Received, SendError, StaticKey, Suite};

/// Small, so that everything happens in many pieces.
const PIPE: usize = 61;

pub(super) async fn serve<S>(io: S) -> Result<Accepted<S>, AcceptError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin,
{
    accept(io, &server_key(), Limits::server(), &mut rng(5), || SERVER_HELLO.to_vec()).await
}

pub(super) async fn xx<S>(io: S) -> Result<Connection<S>, ConnectError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let xx = connect_xx(io, &client_key(), Suite::AesGcm, Limits::client(), &mut rng(6)).await?;
    assert_eq!(xx.server_hello(), SERVER_HELLO);
    assert_eq!(xx.server_key(), server_key().public());
    xx.finish(CLIENT_HELLO).await
}

async fn ik(io: DuplexStream, server_key: &StaticKey) -> Result<Connection<DuplexStream>, ConnectError> {
    let (key, limits) = (client_key(), Limits::client());
    let suite = Suite::ChaChaPoly;
    let ik = connect_ik(io, &key, server_key.public(), suite, CLIENT_HELLO, limits, &mut rng(7)).await?;
    assert_eq!(ik.server_hello(), SERVER_HELLO);
    ik.finish().await
}

/// A client and a server in session, over a connection that holds this many bytes.
async fn session(pipe: usize) -> (Connection<DuplexStream>, Connection<DuplexStream>) {
    let (near, far) = duplex(pipe);
    let (client, server) = tokio::join!(xx(near), serve(far));
    (client.unwrap(), server.unwrap().connection)
}

#[tokio::test]
async fn xx_and_ik_over_a_narrow_connection() {
    let (near, far) = duplex(PIPE);
    let (client, server) = tokio::join!(xx(near), serve(far));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    assert_eq!(server.client_hello, CLIENT_HELLO);
    assert_eq!(&server.client_key, client_key().public());
    assert!(server.connection.reader.proved().is_some());
    both_ways(&mut client, &mut server.connection).await;

    let (near, far) = duplex(PIPE);
    let key = server_key();
    let (client, server) = tokio::join!(ik(near, &key), serve(far));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    assert!(server.connection.reader.proved().is_none(), "it may be a replay");
    assert_eq!(server.connection.reader.read().await.unwrap(), Some(Received::KeepAlive));
    assert!(server.connection.reader.proved().is_some());
    both_ways(&mut client, &mut server.connection).await;
}

async fn both_ways(client: &mut Connection<DuplexStream>, server: &mut Connection<DuplexStream>) {
    let large = vec![3; 200_000];
    let (sent, received) = tokio::join!(client.writer.send(&large), server.reader.read());
    sent.unwrap();
    assert_eq!(received.unwrap(), Some(Received::Record(large.clone().into())));
    let (sent, received) = tokio::join!(server.writer.send(&large), client.reader.read());
    sent.unwrap();
    assert_eq!(received.unwrap(), Some(Received::Record(large.into())));
    client.writer.close().await.unwrap();
    assert_eq!(server.reader.read().await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_dislikes_the_certificate_has_told_nothing() {
    let (near, far) = duplex(4096);
    let client = async {
        let xx = connect_xx(near, &client_key(), Suite::AesGcm, Limits::client(), &mut rng(1)).await.unwrap();
        drop(xx);
    };
    let ((), server) = tokio::join!(client, serve(far));
    assert!(matches!(server, Err(AcceptError::Closed)));
}

#[tokio::test]
async fn a_rotated_server_key_leads_to_xx() {
    let (near, far) = duplex(4096);
    let before = StaticKey::from_bytes([88; 32]);
    let (client, server) = tokio::join!(ik(near, &before), serve(far));
    assert!(client.err().unwrap().use_xx());
    assert!(matches!(server, Err(AcceptError::Refused(HandshakeError::OtherServerKey))));
    session(4096).await;
}

#[tokio::test]
async fn a_refused_client_hears_why_before_the_close() {
    let (mut near, far) = duplex(4096);
    let client = async {
        near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).await.unwrap();
        drop(near);
        heard
    };
    let (heard, server) = tokio::join!(client, serve(far));
    assert_eq!(heard, Alert::Version.encode());
    assert!(matches!(server, Err(AcceptError::Refused(HandshakeError::Preamble(_)))));
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_server_says_so_and_waits_for_nobody() {
    let (near, far) = duplex(4096);
    let alert = Alert::Overloaded { retry_after_s: 30 };
    let started = tokio::time::Instant::now();
    let (client, ()) = tokio::join!(xx(near), refuse(far, alert));
    let Err(ConnectError::Handshake(error)) = client else { panic!("the client should have been refused") };
    assert_eq!(error, crate::client::ClientError::Alert(alert));
    // A client that neither reads nor closes.
    let (_silent, far) = duplex(1);
    refuse(far, alert).await;
    assert!(started.elapsed().as_millis() < 1_000);
}

#[tokio::test]
async fn a_handshake_cut_anywhere_is_a_close() {
    let (mut tap, far) = duplex(4096);
    let opening = Preamble { pattern: crate::Pattern::Ik, suite: Suite::AesGcm }.encode();
    tap.write_all(&opening).await.unwrap();
    drop(tap);
    assert!(matches!(serve(far).await, Err(AcceptError::Closed)));
}

#[tokio::test]
async fn a_record_cut_anywhere_is_never_handed_out() {
    // The wire bytes of a record, from a session that is the same each time.
    let (client, server) = establish_machines();
    let mut sender = client.sender;
    sender.queue(b"one whole stanza").unwrap();
    sender.seal().unwrap();
    let wire = sender.sealed().split();
    drop(server);
    for cut in 0..=wire.len() {
        let (mut tap, far) = duplex(4096);
        let (_, server) = establish_machines();
        let mut reader = crate::transport::Reader::new(far, server.receiver);
        tap.write_all(&wire[..cut]).await.unwrap();
        drop(tap);
        match reader.read().await {
            Ok(None) => assert_eq!(cut, 0),
            Ok(Some(Received::Record(record))) => {
                assert_eq!((cut, &record[..]), (wire.len(), &b"one whole stanza"[..]));
            }
            Err(ReadError::Truncated) => assert!(cut > 0 && cut < wire.len()),
            other => panic!("cut after {cut}: {other:?}"),
        }
    }
}

fn establish_machines() -> (crate::Session, crate::Session) {
    let (client, server, _) = super::establish(crate::Pattern::Xx, Suite::AesGcm);
    (client, server.session)
}

#[tokio::test]
async fn dropping_a_read_or_a_flush_loses_nothing() {
    let (mut client, mut server) = session(7).await;
    let records: Vec<Vec<u8>> = (1..60_u8).map(|n| vec![n; usize::from(n) * 5]).collect();
    for record in &records {
        client.writer.queue(record).unwrap();
    }
    let mut received = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    // Each future is polled once and dropped: all progress is in the halves.
    while received.len() < records.len() {
        if client.writer.queued() > 0
            && let Poll::Ready(flushed) = pin!(client.writer.flush()).poll(&mut cx)
        {
            flushed.unwrap();
        }
        if let Poll::Ready(read) = pin!(server.reader.read()).poll(&mut cx) {
            let Some(Received::Record(record)) = read.unwrap() else { panic!("only records were sent") };
            received.push(record.to_vec());
        }
        tokio::task::yield_now().await; // tokio lets a task that never yields make no progress
    }
    assert_eq!(received, records);
    assert_eq!(client.writer.queued(), 0);
}

#[tokio::test]
async fn an_idle_session_holds_no_buffers() {
    let (mut client, mut server) = session(4096).await;
    for size in [1, 400, 3_000, 200_000] {
        let record = vec![9; size];
        for _ in 0..3 {
            let (sent, received) = tokio::join!(client.writer.send(&record), server.reader.read());
            sent.unwrap();
            assert!(received.unwrap().is_some());
            let (sent, received) = tokio::join!(server.writer.send(&record), client.reader.read());
            sent.unwrap();
            assert!(received.unwrap().is_some());
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(server.reader.read()).poll(&mut cx).is_pending());
        assert!(pin!(client.reader.read()).poll(&mut cx).is_pending());
        let held = [server.reader.held(), server.writer.held(), client.reader.held(), client.writer.held()];
        assert_eq!(held, [0; 4], "after records of {size} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_under_way_has_an_age() {
    let (mut client, mut server) = session(64).await;
    assert!(server.reader.partial_since().is_none());
    client.writer.queue(&[1; 1_000]).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(client.writer.flush()).poll(&mut cx).is_pending());
    let began = tokio::time::Instant::now();
    while server.reader.partial_since().is_none() {
        assert!(pin!(server.reader.read()).poll(&mut cx).is_pending());
    }
    tokio::time::advance(std::time::Duration::from_secs(3)).await;
    assert!(pin!(server.reader.read()).poll(&mut cx).is_pending());
    assert_eq!(server.reader.partial_since(), Some(began));
    let (flushed, read) = tokio::join!(client.writer.flush(), server.reader.read());
    flushed.unwrap();
    assert!(read.unwrap().is_some());
    assert!(server.reader.partial_since().is_none());
}

#[tokio::test]
async fn a_full_queue_is_an_error_and_not_memory() {
    let (mut client, _server) = session(64).await;
    let record = vec![0; 256 * 1024];
    let error = loop {
        if let Err(error) = client.writer.queue(&record) {
            break error;
        }
    };
    assert_eq!(error, SendError::QueueFull);
    assert!(client.writer.queued() <= Limits::client().send_queue + 1024);
}

#[tokio::test]
async fn writing_to_a_closed_connection_is_an_error() {
    let (mut client, server) = session(64).await;
    drop(server);
    assert!(matches!(client.writer.send(b"anyone?").await, Err(WriteError::Io(_))));
}

#[tokio::test]
async fn over_tcp_an_alert_outlives_what_the_client_still_sends() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        for _ in 0..2 {
            serve(listener.accept().await.unwrap().0).await.map(|_| ()).unwrap_or_default();
        }
    };
    let client = async {
        let mut refused = tokio::net::TcpStream::connect(address).await.unwrap();
        refused.write_all(&[0xaa; 100_000]).await.unwrap();
        let mut heard = [0; Alert::LEN];
        refused.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, Alert::Version.encode());
        drop(refused);
        xx(tokio::net::TcpStream::connect(address).await.unwrap()).await.unwrap();
    };
    tokio::join!(server, client);
}
