//! One connection of a link.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::frontend::Frontend;
use super::{Break, CommitCut, Direction, Flow, Mode, Shared};

/// Why a connection is over before both sides have closed it.
enum Over {
    /// One of the sides has reset it, or is gone.
    Lost,
    /// It is cut here.
    Cut,
    /// It is cut for the client; the server has this still to get.
    CutWith(Bytes),
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// Carries bytes until both sides have closed, or something breaks.
pub(super) async fn carry(mut client: TcpStream, shared: &Shared, mut resets: watch::Receiver<u64>, mut rng: StdRng) {
    let connecting = async {
        // Who connects is heard only where bytes go there.
        let mut mode = shared.mode.subscribe();
        if flow(*mode.borrow(), Direction::There) == Flow::Stall {
            shared.touched();
        }
        open(&mut mode, Direction::There).await;
        let target = shared.next_target().ok_or(io::ErrorKind::NotFound)?;
        TcpStream::connect(target).await
    };
    let mut server = tokio::select! {
        _ = resets.changed() => return abort(&client),
        connected = connecting => match connected {
            Ok(server) => server,
            Err(_) => return abort(&client),
        },
    };
    let _best_effort = (client.set_nodelay(true), server.set_nodelay(true));
    let answered = AtomicBool::new(false);
    let muted = AtomicBool::new(false);
    let over = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let side = |direction, rng| Side { shared, direction, rng, answered: &answered, muted: &muted };
        let there = side(Direction::There, StdRng::from_rng(&mut rng)).pump(client_reads, server_writes);
        let back = side(Direction::Back, StdRng::from_rng(&mut rng)).pump(server_reads, client_writes);
        tokio::select! {
            _ = resets.changed() => Err(Over::Cut),
            over = async { tokio::try_join!(there, back).map(drop) } => over,
        }
    };
    match over {
        Ok(()) => {}
        Err(Over::Lost | Over::Cut) => {
            abort(&client);
            abort(&server);
        }
        Err(Over::CutWith(rest)) => {
            abort(&client);
            drop(client);
            if !rest.is_empty() {
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..LATEST_COMMIT_MS))).await;
                let _gone = server.write_all(&rest).await;
            }
            // Closed in order, answers read: a reset could overtake what the server has not read.
            let _gone = server.shutdown().await;
            let _late = tokio::time::timeout(PARTING, tokio::io::copy(&mut server, &mut tokio::io::sink())).await;
        }
    }
}

/// What is under way in one direction.
enum Item {
    /// Bytes, and when they are due.
    Bytes(Instant, Bytes),
    /// Somebody wants to know when all before it has been written.
    Flush(oneshot::Sender<()>),
}

/// One direction of a connection.
struct Side<'a> {
    shared: &'a Shared,
    direction: Direction,
    rng: StdRng,
    /// The server has said something since a COMMIT was passed on.
    answered: &'a AtomicBool,
    /// What the server says is kept from the client, since its COMMIT is being cut.
    muted: &'a AtomicBool,
}

impl Side<'_> {
    async fn pump(self, read: ReadHalf<'_>, write: WriteHalf<'_>) -> Result<(), Over> {
        let (shared, direction, muted, answered) = (self.shared, self.direction, self.muted, self.answered);
        let (send, receive) = mpsc::channel(QUEUE);
        let writing = writing(shared, direction, receive, write, muted, answered);
        tokio::try_join!(self.reading(read, send), writing).map(drop)
    }

    async fn reading(mut self, mut read: ReadHalf<'_>, send: mpsc::Sender<Item>) -> Result<(), Over> {
        let mut mode = self.shared.mode.subscribe();
        let mut frontend = Frontend::default();
        let mut buffer = vec![0; PIECE];
        let mut first = [0];
        loop {
            let count = tokio::select! {
                count = read.read(&mut buffer) => count,
                // A side that is not to be heard must not be found dead either.
                () = stalls(&mut mode, self.direction) => {
                    tokio::select! {
                        _held_up = read.peek(&mut first) => {
                            self.shared.touched();
                            open(&mut mode, self.direction).await;
                        }
                        () = open(&mut mode, self.direction) => {}
                    }
                    continue;
                }
            };
            let count = match count {
                Ok(count) => count,
                Err(error) => {
                    open(&mut mode, self.direction).await;
                    return Err(error.into());
                }
            };
            if count == 0 {
                return Ok(());
            }
            let now = *mode.borrow_and_update();
            let mut due = Instant::now();
            if let Flow::Late { least, most } = flow(now, self.direction) {
                due += self.rng.random_range(least..=most.max(least));
                self.shared.touched();
            }
            let piece = &buffer[..count];
            let commit = if self.direction == Direction::There { frontend.read(piece) } else { None };
            match (now.breaks, commit) {
                (Break::Midway { one_in }, _) if self.chance(one_in) => {
                    let passed = self.rng.random_range(0..count);
                    let _gone = send.send(Item::Bytes(due, Bytes::copy_from_slice(&piece[..passed]))).await;
                    flush(&send).await;
                    self.shared.counts.midway.fetch_add(1, Ordering::Relaxed);
                    return Err(Over::Cut);
                }
                (Break::Commit { one_in }, Some(commit)) if self.chance(one_in) => {
                    return Err(self.cut_commit(piece, commit, &send).await);
                }
                _ => {}
            }
            if send.send(Item::Bytes(due, Bytes::copy_from_slice(piece))).await.is_err() {
                // The other direction has ended with an error.
                return Ok(());
            }
        }
    }

    async fn cut_commit(&mut self, piece: &[u8], commit: Range<usize>, send: &mpsc::Sender<Item>) -> Over {
        let (before, commit) = (&piece[..commit.start], &piece[commit]);
        let counts = &self.shared.counts;
        match CUTS[self.rng.random_range(0..CUTS.len())] {
            CommitCut::Undone => {
                counts.undone.fetch_add(1, Ordering::Relaxed);
                Over::Cut
            }
            CommitCut::Done => {
                self.muted.store(true, Ordering::SeqCst);
                self.answered.store(false, Ordering::SeqCst);
                let _gone =
                    send.send(Item::Bytes(Instant::now(), Bytes::copy_from_slice(&[before, commit].concat()))).await;
                // The server's answer is waited for, so that it is certain that it has happened.
                for _ in 0..ANSWER_STEPS {
                    if self.answered.load(Ordering::SeqCst) {
                        break;
                    }
                    tokio::time::sleep(ANSWER_STEP).await;
                }
                counts.done.fetch_add(1, Ordering::Relaxed);
                Over::CutWith(Bytes::new())
            }
            CommitCut::Later => {
                // What the COMMIT is about must be there before it.
                flush(send).await;
                counts.later.fetch_add(1, Ordering::Relaxed);
                Over::CutWith(Bytes::copy_from_slice(&[before, commit].concat()))
            }
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_ratio(1, one_in.max(1))
    }
}

async fn writing(
    shared: &Shared,
    direction: Direction,
    mut receive: mpsc::Receiver<Item>,
    mut write: WriteHalf<'_>,
    muted: &AtomicBool,
    answered: &AtomicBool,
) -> Result<(), Over> {
    let mut mode = shared.mode.subscribe();
    let mut half_closes = shared.half_closes.subscribe();
    loop {
        let next = tokio::select! {
            next = receive.recv() => next,
            () = half_closed(&mut half_closes, direction) => {
                write.shutdown().await?;
                // What comes now is lost, until the sender closes too.
                while receive.recv().await.is_some() {}
                return Ok(());
            }
        };
        let (due, bytes) = match next {
            Some(Item::Bytes(due, bytes)) => (due, bytes),
            Some(Item::Flush(done)) => {
                let _gone = done.send(());
                continue;
            }
            None => break,
        };
        if direction == Direction::Back && muted.load(Ordering::SeqCst) {
            answered.store(true, Ordering::SeqCst);
            continue;
        }
        tokio::time::sleep_until(due).await;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if flow(*mode.borrow(), direction) == Flow::Stall {
                shared.touched();
            }
            open(&mut mode, direction).await;
            let Flow::Slow { bytes_per_s } = flow(*mode.borrow(), direction) else {
                write.write_all(rest).await?;
                break;
            };
            shared.touched();
            let step = (bytes_per_s / SLOW_STEPS).max(1) as usize;
            let (now, later) = rest.split_at(step.min(rest.len()));
            write.write_all(now).await?;
            tokio::time::sleep(Duration::from_secs(1) * u32::try_from(now.len()).unwrap_or(1) / bytes_per_s.max(1))
                .await;
            rest = later;
        }
    }
    open(&mut mode, direction).await;
    Ok(write.shutdown().await?)
}

/// Waits until everything before has been written.
async fn flush(send: &mpsc::Sender<Item>) {
    let (done, written) = oneshot::channel();
    let _gone = send.send(Item::Flush(done)).await;
    let _gone = written.await;
}

fn flow(mode: Mode, direction: Direction) -> Flow {
    match direction {
        Direction::There => mode.there,
        Direction::Back => mode.back,
    }
}

/// Waits until something passes in this direction.
async fn open(mode: &mut watch::Receiver<Mode>, direction: Direction) {
    // The sender lives as long as the link's connections.
    drop(mode.wait_for(|mode| flow(*mode, direction) != Flow::Stall).await);
}

/// Waits until nothing passes in this direction.
async fn stalls(mode: &mut watch::Receiver<Mode>, direction: Direction) {
    drop(mode.wait_for(|mode| flow(*mode, direction) == Flow::Stall).await);
}

async fn half_closed(half_closes: &mut watch::Receiver<(u64, Direction)>, direction: Direction) {
    loop {
        if half_closes.changed().await.is_err() {
            return std::future::pending().await;
        }
        if half_closes.borrow_and_update().1 == direction {
            return;
        }
    }
}

/// Makes the close of a connection a reset.
fn abort(stream: &TcpStream) {
    let _best_effort = stream.set_zero_linger();
}

const CUTS: [CommitCut; 3] = [CommitCut::Undone, CommitCut::Done, CommitCut::Later];
const PIECE: usize = 16 * 1024;
/// Pieces that are under way in one direction.
const QUEUE: usize = 32;
const SLOW_STEPS: u32 = 20;
const LATEST_COMMIT_MS: u64 = 2_000;
const PARTING: Duration = Duration::from_secs(5);
const ANSWER_STEP: Duration = Duration::from_millis(2);
const ANSWER_STEPS: u32 = 500;
