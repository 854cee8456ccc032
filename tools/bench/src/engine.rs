//! Many client sessions on one thread: sockets that do not block, a queue of readiness, and a player that decides what is
//! sent.
//!
//! Light on purpose, since it shares the machine with what it measures. What one read brings is all looked at before
//! anything is written, and what is to go to one server leaves in one Noise message and one system call. Nothing is
//! allocated for a message but what the Noise layer needs.

mod desk;
mod link;
mod timer;
mod verify;

use std::io::{ErrorKind, Read as _};

use anyhow::Context as _;
use causeway_noise::Received;
use causeway_stanza::{FromClient, FromServer, Success};
use mio::{Events, Poll, Token};

use self::desk::ALARM;
use self::timer::Timer;
use crate::measure::clock;
use crate::wire::glance::{Seen, glance};

pub(crate) use self::desk::{Desk, Pattern};
pub(crate) use self::link::{Ended, Login, Net};

/// When a player wants to be asked again, at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// At this time.
    At(u64),
    /// Never: it has done its part.
    Done,
}

/// Decides what the clients of one thread do.
pub(crate) trait Player {
    /// What is left when it has done its part.
    type Done: Send + 'static;

    /// A session is open.
    fn opened(&mut self, desk: &mut Desk, who: usize, success: &Success);

    /// A stanza has come.
    fn seen(&mut self, desk: &mut Desk, who: usize, seen: Seen);

    /// All that one read has brought has been seen.
    fn read(&mut self, _desk: &mut Desk, _who: usize) {}

    /// A session or an attempt has ended.
    fn closed(&mut self, desk: &mut Desk, who: usize, why: Ended);

    /// Called whenever all that was there has been seen.
    fn round(&mut self, desk: &mut Desk) -> Next;

    /// Gives what it has measured.
    fn finish(self) -> Self::Done;
}

/// A thread's sessions and its player.
pub(crate) struct Engine<P> {
    poll: Poll,
    timer: Timer,
    desk: Desk,
    player: P,
    buffer: Box<[u8]>,
}

/// Bytes that one read takes at most.
const BUFFER: usize = 64 * 1024;
/// Events that one look takes at most.
const EVENTS: usize = 1024;

impl<P: Player> Engine<P> {
    /// With these clients, none of which has a session yet; they are known by their places.
    pub(crate) fn new(net: Net, logins: Vec<Login>, player: P) -> anyhow::Result<Self> {
        let poll = Poll::new().context("epoll")?;
        let timer = Timer::new(poll.registry(), ALARM)?;
        let desk = Desk::new(net, logins, poll.registry().try_clone()?);
        Ok(Self { poll, timer, desk, player, buffer: vec![0; BUFFER].into() })
    }

    /// Runs until the player is done. All sessions that are left are dropped then.
    pub(crate) fn run(mut self) -> anyhow::Result<P::Done> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.desk.now = clock::now();
            let next = self.player.round(&mut self.desk);
            if next == Next::Done {
                // What was queued, such as a goodbye, may leave.
                self.desk.flush();
                return Ok(self.player.finish());
            }
            self.desk.flush();
            let again = self.tell_ended();
            let wait = match next {
                _ if again => Some(std::time::Duration::ZERO),
                Next::At(at) => self.timer.arm(at, clock::now())?,
                Next::Done => None,
            };
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.context("epoll")?,
            }
            for event in &events {
                let Token(who) = event.token();
                if who == ALARM {
                    self.timer.rang();
                    continue;
                }
                if event.is_writable() {
                    self.desk.mark(who);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(who, event.is_read_closed() || event.is_error());
                }
            }
        }
    }

    /// Tells the player of what has ended; gives whether there was any.
    fn tell_ended(&mut self) -> bool {
        let mut any = false;
        while let Some((who, why)) = self.desk.ended.pop_front() {
            any = true;
            self.player.closed(&mut self.desk, who, why);
        }
        any
    }

    fn read(&mut self, who: usize, to_the_end: bool) {
        while let Some(stream) = &mut self.desk.links[who].stream {
            let count = match stream.read(&mut self.buffer) {
                Ok(0) => {
                    self.desk.end(who, Ended::Closed);
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.desk.end(who, Ended::Broken(error.kind().to_string()));
                    break;
                }
            };
            self.desk.now = clock::now();
            self.take(who, count);
            if count < self.buffer.len() && !to_the_end {
                break;
            }
        }
        self.player.read(&mut self.desk, who);
    }

    /// Takes the first bytes of the buffer, which came for this client.
    fn take(&mut self, who: usize, count: usize) {
        let bytes = &self.buffer[..count];
        let shook_hands = self.desk.shake_hands(who, bytes);
        let Some(mut receiver) = self.desk.links[who].receiver.take() else { return };
        let attempt = self.desk.links[who].attempt;
        if !shook_hands {
            receiver.feed(bytes);
        }
        loop {
            let seen = match receiver.next() {
                Ok(None) => break,
                Ok(Some(Received::KeepAlive)) => continue,
                Ok(Some(Received::Record(record))) => glance(&record),
                Err(error) => return self.desk.end(who, Ended::Broken(error.to_string())),
            };
            match seen {
                Ok(seen) => self.see(who, seen),
                Err(error) => return self.desk.end(who, Ended::Broken(error.to_string())),
            }
            if self.desk.links[who].attempt != attempt || self.desk.links[who].stream.is_none() {
                return;
            }
        }
        self.desk.links[who].receiver = Some(receiver);
    }

    fn see(&mut self, who: usize, seen: Seen) {
        let Seen::Other(stanza) = seen else { return self.player.seen(&mut self.desk, who, seen) };
        match *stanza {
            FromServer::Success(success) => self.player.opened(&mut self.desk, who, &success),
            FromServer::Failure(reason) => self.desk.end(who, Ended::Refused(format!("{reason:?}"))),
            FromServer::Ping(number) => self.desk.stanza(who, FromClient::Pong(number)),
            FromServer::End(end) => self.desk.end(who, Ended::Told(end)),
            other => self.player.seen(&mut self.desk, who, Seen::Other(Box::new(other))),
        }
    }
}
