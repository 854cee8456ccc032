//! Many client sessions on one thread: sockets that do not block, a queue of readiness, and a player that decides what is
//! sent.
//!
//! Light on purpose, since it shares the machine with what it measures. What one read brings is all looked at before
//! anything is written, and what is to go to one server leaves encrypted in one go and in one system call. Nothing is
//! allocated for a message but what the layer that encrypts needs. What the bytes mean is a [`Wire`]'s matter.

mod desk;
mod link;
mod timer;
mod wire;

use std::io::{ErrorKind, Read as _};

use anyhow::Context as _;
use mio::{Events, Poll, Token};

use self::desk::ALARM;
use self::timer::Timer;
use crate::measure::clock;

pub(crate) use self::desk::Desk;
pub(crate) use self::link::Ended;
pub(crate) use self::wire::{Fate, Pattern, Seen, Wire};

/// When a player wants to be asked again, at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// At this time.
    At(u64),
    /// Never: it has done its part.
    Done,
}

/// Decides what the clients of one thread do.
pub(crate) trait Player<W: Wire> {
    /// What is left when it has done its part.
    type Done: Send + 'static;

    /// A session is open; so many messages wait for it, if the server tells.
    fn opened(&mut self, desk: &mut Desk<W>, who: usize, waiting: Option<u64>);

    /// Something has come.
    fn seen(&mut self, desk: &mut Desk<W>, who: usize, seen: Seen<W::Other>);

    /// All that one read has brought has been seen.
    fn read(&mut self, _desk: &mut Desk<W>, _who: usize) {}

    /// A session or an attempt has ended.
    fn closed(&mut self, desk: &mut Desk<W>, who: usize, why: Ended);

    /// Called whenever all that was there has been seen.
    fn round(&mut self, desk: &mut Desk<W>) -> Next;

    /// Gives what it has measured.
    fn finish(self) -> Self::Done;
}

/// A thread's sessions and its player.
pub(crate) struct Engine<W: Wire, P> {
    poll: Poll,
    timer: Timer,
    desk: Desk<W>,
    player: P,
    buffer: Box<[u8]>,
}

/// Bytes that one read takes at most.
const BUFFER: usize = 64 * 1024;
/// Events that one look takes at most.
const EVENTS: usize = 1024;

impl<W: Wire, P: Player<W>> Engine<W, P> {
    /// With these clients, none of which has a session yet; they are known by their places.
    pub(crate) fn new(net: W::Net, logins: Vec<W::Login>, player: P) -> anyhow::Result<Self> {
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
                    self.desk.end(who, Ended::broken(error.kind()));
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
        let attempt = self.desk.links[who].attempt;
        self.desk.feed(who, &self.buffer[..count]);
        loop {
            let link = &mut self.desk.links[who];
            let Some(wire) = link.wire.as_mut().filter(|_| link.attempt == attempt) else { return };
            match wire.next() {
                Ok(None) => return,
                Ok(Some(Seen::Opened { waiting })) => self.player.opened(&mut self.desk, who, waiting),
                Ok(Some(seen)) => self.player.seen(&mut self.desk, who, seen),
                Err(why) => return self.desk.end(who, why),
            }
        }
    }
}
