//! Figures for docs/performance.md, which has the command. Without `CAUSEWAY_MEASURE` there is a round of a few calls only, so
//! that all of this still works when it is wanted.

use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{Client, PATTERNS, SERVER_HELLO, SUITES, accepted, answering, establish, reading, rng};
use crate::server::Reading;
use crate::transport::{Reader, Writer};
use crate::{Limits, Pattern, Received, Suite};

const ROUNDS: usize = 9;

/// So many, if it is to be measured.
fn many(count: usize, otherwise: usize) -> usize {
    if std::env::var_os("CAUSEWAY_MEASURE").is_some() { count } else { otherwise }
}

/// The median of several rounds, in nanoseconds a call.
fn median(calls: u32, call: impl FnMut()) -> f64 {
    medians(calls, [Box::new(call)])[0]
}

/// The medians of works that take turns, so that whatever else the machine does meets all of them.
pub(super) fn medians<const N: usize>(calls: u32, mut works: [Box<dyn FnMut() + '_>; N]) -> [f64; N] {
    let calls = many(calls as usize, 2);
    let mut rounds = vec![[0.0; N]; many(ROUNDS, 1)];
    for round in &mut rounds {
        for (work, took) in works.iter_mut().zip(round) {
            let started = Instant::now();
            for _ in 0..calls {
                work();
            }
            *took = started.elapsed().as_nanos() as f64 / calls as f64;
        }
    }
    std::array::from_fn(|work| {
        let mut took: Vec<f64> = rounds.iter().map(|round| round[work]).collect();
        took.sort_by(f64::total_cmp);
        took[took.len() / 2]
    })
}

#[test]
fn measure_handshakes() {
    let key = super::server_key();
    for pattern in PATTERNS {
        for suite in SUITES {
            let ns = median(300, || {
                let (client, opening) = Client::start(pattern, suite, key.public());
                let mut answer = BytesMut::new();
                let server = Reading::new(&key, Limits::server(), &mut rng(3));
                let state = answering(server.feed(&opening)).answer(SERVER_HELLO, &mut answer);
                let (_, last) = client.finish(&answer).unwrap();
                if pattern == Pattern::Xx {
                    black_box(accepted(reading(state).feed(&last)));
                }
            });
            println!("{pattern:?} {suite:?}: both sides of a handshake {:.1} us", ns / 1e3);
        }
    }
}

/// The server's share, and so what a login costs it before it looks at the token.
#[test]
fn measure_responders() {
    let key = super::server_key();
    for pattern in PATTERNS {
        let (client, opening) = Client::start(pattern, Suite::AesGcm, key.public());
        let mut answer = BytesMut::new();
        let server = || Reading::new(&key, Limits::server(), &mut rng(3));
        let state = answering(server().feed(&opening)).answer(SERVER_HELLO, &mut answer);
        let (_, last) = client.finish(&answer).unwrap();
        drop(state);
        let ns = median(500, || {
            let mut out = BytesMut::new();
            let state = answering(server().feed(&opening)).answer(SERVER_HELLO, &mut out);
            match pattern {
                Pattern::Xx => drop(black_box(accepted(reading(state).feed(&last)))),
                Pattern::Ik => drop(black_box(state)),
            }
        });
        println!("{pattern:?}: responder {:.1} us", ns / 1e3);
    }
}

#[test]
fn measure_records() {
    for suite in SUITES {
        let (mut client, server, _) = establish(Pattern::Xx, suite);
        let mut server = server.session;
        for (size, batch) in [(400, 1), (400, 32), (16_000, 1), (60_000, 1)] {
            let record = vec![7; size];
            let ns = median(20_000 / batch / (1 + size as u32 / 4_000), || {
                for _ in 0..batch {
                    client.sender.queue(&record).unwrap();
                }
                client.sender.seal().unwrap();
                server.receiver.feed(&client.sender.sealed().split());
                for _ in 0..batch {
                    let Ok(Some(Received::Record(received))) = server.receiver.next() else {
                        panic!("a record is due")
                    };
                    black_box(received);
                }
            });
            println!("{suite:?}: record of {size} bytes, {batch} a flush: {:.0} ns each", ns / f64::from(batch));
        }
    }
}

/// Resident memory of sessions that have had a login's worth of records and wait for more.
#[test]
fn measure_idle_sessions() {
    let sessions = many(4_000, 4);
    let mut cx = Context::from_waker(Waker::noop());
    // Warms up, so that what a handshake needs for a moment is there.
    drop((0..many(100, 1)).map(|_| establish(Pattern::Xx, Suite::AesGcm)).collect::<Vec<_>>());
    let before = resident();
    let kept: Vec<_> = (0..sessions).map(|_| establish(Pattern::Xx, Suite::AesGcm).1.session).collect();
    println!("a session in itself: {} bytes resident", resident().saturating_sub(before) / sessions);
    drop(kept);
    let wires: Vec<_> = (0..sessions)
        .map(|_| {
            let (mut client, server, _) = establish(Pattern::Xx, Suite::AesGcm);
            client.sender.queue(&[7; 400]).unwrap();
            client.sender.seal().unwrap();
            (server.session, client.sender.sealed().split().to_vec())
        })
        .collect();
    let mut idle = Vec::with_capacity(sessions);
    let before = resident();
    for (session, bytes) in wires {
        let mut reader = Reader::new(Wire(bytes), session.receiver);
        let mut writer = Writer::new(Wire(Vec::new()), session.sender);
        assert!(matches!(pin!(reader.read()).poll(&mut cx), Poll::Ready(Ok(Some(_)))));
        assert!(pin!(writer.send(&[7; 400])).poll(&mut cx).is_ready());
        assert!(pin!(reader.read()).poll(&mut cx).is_pending());
        idle.push((reader, writer));
    }
    println!("buffers of an idle session: {} bytes resident", resident().saturating_sub(before) / sessions);
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Yields its bytes and then nothing; takes whatever is written.
struct Wire(Vec<u8>);

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let len = self.0.len().min(buf.remaining());
        buf.put_slice(&self.0[..len]);
        self.0 = self.0.split_off(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
