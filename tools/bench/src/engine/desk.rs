//! What a player sends with.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};

use bytes::Buf as _;
use causeway_noise::{Limits, SendError, Suite, client};
use causeway_stanza::{Encoding, End, EndReason, FromClient, encode_client};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rand::TryRngCore as _;
use rand::rngs::OsRng;

use super::link::{Ended, Handshake, Link, Login, Net};
use super::verify::Verified;

/// The place of the alarm among the clients.
pub(super) const ALARM: usize = usize::MAX;

/// How a client shakes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// As at the first time.
    Xx,
    /// As one that knows the server's key; XX if none is known.
    Ik,
}

/// The clients of a thread.
pub(crate) struct Desk {
    /// The time, a little before now.
    pub(crate) now: u64,
    pub(super) links: Vec<Link>,
    pub(super) ended: VecDeque<(usize, Ended)>,
    /// Those that may have something to write.
    to_flush: Vec<usize>,
    net: Net,
    verified: Verified,
    registry: Registry,
}

impl Desk {
    pub(super) fn new(net: Net, logins: Vec<Login>, registry: Registry) -> Self {
        let links = logins.into_iter().map(Link::new).collect();
        let (ended, to_flush) = (VecDeque::new(), Vec::new());
        Self { now: 0, links, ended, to_flush, net, verified: Verified::default(), registry }
    }

    /// How many clients there are.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// The edges' key, once one was seen.
    pub(crate) fn server_key(&self) -> Option<causeway_noise::PublicKey> {
        self.net.server_key
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
        if let Err(error) = self.begin(who, pattern) {
            self.end(who, Ended::Broken(format!("{error:#}")));
        }
    }

    fn begin(&mut self, who: usize, pattern: Pattern) -> anyhow::Result<()> {
        let link = &mut self.links[who];
        let mut stream = TcpStream::connect(link.login.edge)?;
        stream.set_nodelay(true)?;
        self.registry.register(&mut stream, Token(who), Interest::READABLE | Interest::WRITABLE)?;
        let (suite, limits, mut rng) = (Suite::default(), Limits::client(), OsRng.unwrap_err());
        let handshake = match (pattern, self.net.server_key) {
            (Pattern::Ik, Some(known)) => {
                let hello = &link.login.hello;
                Handshake::Ik(client::ik(&link.login.key, &known, suite, hello, limits, &mut rng, &mut link.out)?)
            }
            _ => Handshake::Xx(client::xx(&link.login.key, suite, limits, &mut rng, &mut link.out)?),
        };
        link.handshake = Some(handshake);
        link.stream = Some(stream);
        self.mark(who);
        Ok(())
    }

    /// Takes bytes if a handshake is under way; false if there is none. What comes behind the handshake is in the receiver.
    pub(super) fn shake_hands(&mut self, who: usize, bytes: &[u8]) -> bool {
        let link = &mut self.links[who];
        let Some(handshake) = link.handshake.take() else { return false };
        let stepped = match handshake {
            Handshake::Xx(waiting) => match waiting.feed(bytes) {
                client::Step::Waiting(waiting) => {
                    link.handshake = Some(Handshake::Xx(waiting));
                    return true;
                }
                client::Step::Failed(error) => Err(error.into()),
                client::Step::Answered(hello) => self
                    .verified
                    .check(&self.net, hello.server_key(), hello.server_hello())
                    .map_err(|error| Ended::Broken(format!("{error:#}")))
                    .and_then(|()| {
                        let key = *hello.server_key();
                        Ok((key, hello.finish(&link.login.hello, &mut link.out)?))
                    }),
            },
            Handshake::Ik(waiting) => match waiting.feed(bytes) {
                client::Step::Waiting(waiting) => {
                    link.handshake = Some(Handshake::Ik(waiting));
                    return true;
                }
                client::Step::Failed(error) => Err(error.into()),
                client::Step::Answered(hello) => self
                    .verified
                    .check(&self.net, hello.server_key(), hello.server_hello())
                    .map_err(|error| Ended::Broken(format!("{error:#}")))
                    .and_then(|()| {
                        let key = *hello.server_key();
                        Ok((key, hello.finish(&mut link.out)?))
                    }),
            },
        };
        match stepped {
            Ok((key, session)) => {
                self.net.server_key = Some(key);
                link.sender = Some(session.sender);
                link.receiver = Some(session.receiver);
                self.mark(who);
            }
            Err(why) => self.end(who, why),
        }
        true
    }

    /// Queues a record; it leaves at the end of the round. False: it cannot be taken now.
    pub(crate) fn send(&mut self, who: usize, record: &[u8]) -> bool {
        let Some(sender) = &mut self.links[who].sender else { return false };
        match sender.queue(record) {
            Ok(()) => {
                self.mark(who);
                true
            }
            Err(SendError::QueueFull) => false,
            Err(error) => {
                self.end(who, Ended::Broken(error.to_string()));
                false
            }
        }
    }

    /// Encodes a stanza and queues it.
    pub(crate) fn stanza(&mut self, who: usize, stanza: FromClient) {
        // A session that takes no more is told as ended, or will be.
        let _taken = self.send(who, &encode_client(Encoding::Binary, stanza));
    }

    /// Says goodbye; the server then closes, which is told as [`Ended::Closed`].
    pub(crate) fn leave(&mut self, who: usize) {
        self.stanza(who, FromClient::End(End::new(EndReason::Bye)));
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

fn flush(link: &mut Link) -> Result<(), Ended> {
    let Some(stream) = &mut link.stream else { return Ok(()) };
    loop {
        let waiting = if !link.out.is_empty() {
            &mut link.out
        } else if let Some(sender) = &mut link.sender {
            sender.seal().map_err(|error| Ended::Broken(error.to_string()))?;
            sender.sealed()
        } else {
            return Ok(());
        };
        if waiting.is_empty() {
            return Ok(());
        }
        match stream.write(waiting) {
            Ok(count) => waiting.advance(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // It is told when there is room, or when the connection stands.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
            Err(error) => return Err(Ended::Broken(error.kind().to_string())),
        }
    }
}
