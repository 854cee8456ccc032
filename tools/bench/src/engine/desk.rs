//! What a player sends with.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};

use bytes::Buf as _;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::link::{Ended, Link};
use super::wire::{Pattern, Wire};
use crate::wire::mark::Mark;

/// The place of the alarm among the clients.
pub(super) const ALARM: usize = usize::MAX;

/// The clients of a thread.
pub(crate) struct Desk<W: Wire> {
    /// The time, a little before now.
    pub(crate) now: u64,
    pub(super) links: Vec<Link<W>>,
    pub(super) ended: VecDeque<(usize, Ended)>,
    /// Those that may have something to write.
    to_flush: Vec<usize>,
    net: W::Net,
    registry: Registry,
}

impl<W: Wire> Desk<W> {
    pub(super) fn new(net: W::Net, logins: Vec<W::Login>, registry: Registry) -> Self {
        let links = logins.into_iter().map(Link::new).collect();
        Self { now: 0, links, ended: VecDeque::new(), to_flush: Vec::new(), net, registry }
    }

    /// How many clients there are.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// What is known of the server.
    pub(crate) fn net(&self) -> &W::Net {
        &self.net
    }

    /// When a client began to connect.
    pub(crate) fn began(&self, who: usize) -> u64 {
        self.links[who].began
    }

    /// Begins to connect. What the client had is dropped without a word.
    pub(crate) fn open(&mut self, who: usize, pattern: Pattern) {
        self.cut(who);
        let link = &mut self.links[who];
        link.attempt += 1;
        link.began = self.now;
        if let Err(why) = self.begin(who, pattern) {
            self.end(who, why);
        }
    }

    fn begin(&mut self, who: usize, pattern: Pattern) -> Result<(), Ended> {
        let link = &mut self.links[who];
        let mut stream = TcpStream::connect(W::server(&link.login)).map_err(Ended::broken)?;
        stream.set_nodelay(true).map_err(Ended::broken)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut stream, Token(who), both).map_err(Ended::broken)?;
        link.wire = Some(W::begin(&self.net, &link.login, pattern)?);
        link.stream = Some(stream);
        self.mark(who);
        Ok(())
    }

    /// Takes bytes that came for a client.
    pub(super) fn feed(&mut self, who: usize, bytes: &[u8]) {
        let link = &mut self.links[who];
        let Some(wire) = &mut link.wire else { return };
        match wire.feed(&mut self.net, &link.login, bytes) {
            // An answer may wait, such as the next part of a handshake.
            Ok(()) => self.mark(who),
            Err(why) => self.end(who, why),
        }
    }

    /// Queues a message; it leaves at the end of the round. False: it cannot be taken now.
    pub(crate) fn submit(&mut self, who: usize, message: &mut W::Message, mark: Mark) -> bool {
        self.say(who, |wire| wire.submit(message, mark)).unwrap_or(false)
    }

    /// Acknowledges what has come.
    pub(crate) fn acknowledge(&mut self, who: usize) {
        self.say(who, W::acknowledge);
    }

    /// Says goodbye; the server then closes, which is told as [`Ended::Closed`].
    pub(crate) fn leave(&mut self, who: usize) {
        self.say(who, W::leave);
    }

    /// Lets a client queue something; `None` if it has no connection, or has none any more.
    pub(crate) fn say<T>(&mut self, who: usize, say: impl FnOnce(&mut W) -> Result<T, Ended>) -> Option<T> {
        match say(self.links[who].wire.as_mut()?) {
            Ok(said) => {
                self.mark(who);
                Some(said)
            }
            Err(why) => {
                self.end(who, why);
                None
            }
        }
    }

    /// Closes without a word, and without telling the player.
    pub(crate) fn cut(&mut self, who: usize) {
        self.links[who].clear();
    }

    /// Closes, and tells the player so.
    pub(super) fn end(&mut self, who: usize, why: Ended) {
        self.links[who].clear();
        self.ended.push_back((who, why));
    }

    /// It may have something to write.
    pub(super) fn mark(&mut self, who: usize) {
        let link = &mut self.links[who];
        if !link.marked {
            link.marked = true;
            self.to_flush.push(who);
        }
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) {
        let mut list = std::mem::take(&mut self.to_flush);
        for who in list.drain(..) {
            self.links[who].marked = false;
            if let Err(why) = flush(&mut self.links[who]) {
                self.end(who, why);
            }
        }
        // The list is used again.
        if self.to_flush.is_empty() {
            self.to_flush = list;
        }
    }
}

fn flush<W: Wire>(link: &mut Link<W>) -> Result<(), Ended> {
    let (Some(stream), Some(wire)) = (&mut link.stream, &mut link.wire) else { return Ok(()) };
    loop {
        let waiting = wire.waiting()?;
        if waiting.is_empty() {
            return Ok(());
        }
        match stream.write(waiting) {
            Ok(count) => waiting.advance(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // It is told when there is room, or when the connection stands.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
            Err(error) => return Err(Ended::broken(error.kind())),
        }
    }
}
