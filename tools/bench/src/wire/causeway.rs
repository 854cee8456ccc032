//! Causeway's wire: Noise, and stanzas in its records.

mod glance;
mod net;
mod template;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use causeway_noise::{Alert, Limits, Received, SendError, Session, StaticKey, Suite, client};
use causeway_stanza::{Encoding, End, EndReason, FromClient, FromServer, Status, encode_client};
use rand::TryRngCore as _;
use rand::rngs::OsRng;

use self::glance::{Glance, glance};
use super::mark::Mark;
use crate::engine::{Desk, Ended, Fate, Pattern, Seen, Wire};

pub(crate) use self::net::Net;
pub(crate) use self::template::Template;

/// What a client logs in with.
#[derive(Clone)]
pub(crate) struct Login {
    /// Its edge.
    pub(crate) edge: SocketAddr,
    /// Its key.
    pub(crate) key: Arc<StaticKey>,
    /// Its `ClientHello`, encoded.
    pub(crate) hello: Arc<[u8]>,
}

/// A client's side of a connection.
pub(crate) struct Causeway {
    handshake: Option<Handshake>,
    session: Option<Session>,
    /// Bytes of the handshake that wait to be written.
    out: BytesMut,
    /// The last delivery that is to be acknowledged; 0: none.
    due: u64,
}

/// A handshake that waits for the server.
enum Handshake {
    Xx(client::XxWaiting),
    Ik(client::IkWaiting),
}

impl Causeway {
    /// Queues a record; false if it cannot be taken now.
    fn send(&mut self, record: &[u8]) -> Result<bool, Ended> {
        let Some(session) = &mut self.session else { return Ok(false) };
        match session.sender.queue(record) {
            Ok(()) => Ok(true),
            Err(SendError::QueueFull) => Ok(false),
            Err(error) => Err(Ended::broken(error)),
        }
    }

    /// Queues a stanza. A session that takes no more is told as ended, or will be.
    fn stanza(&mut self, stanza: FromClient) -> Result<(), Ended> {
        self.send(&encode_client(Encoding::Binary, stanza)).map(drop)
    }
}

impl Wire for Causeway {
    type Net = Net;
    type Login = Login;
    type Message = Template;
    type Other = Box<FromServer>;

    fn server(login: &Login) -> SocketAddr {
        login.edge
    }

    fn begin(net: &Net, login: &Login, pattern: Pattern) -> Result<Self, Ended> {
        let (suite, limits, mut rng, mut out) =
            (Suite::default(), Limits::client(), OsRng.unwrap_err(), BytesMut::new());
        let handshake = match (pattern, net.server_key()) {
            (Pattern::Ik, Some(known)) => {
                Handshake::Ik(client::ik(&login.key, known, suite, &login.hello, limits, &mut rng, &mut out)?)
            }
            _ => Handshake::Xx(client::xx(&login.key, suite, limits, &mut rng, &mut out)?),
        };
        Ok(Self { handshake: Some(handshake), session: None, out, due: 0 })
    }

    fn feed(&mut self, net: &mut Net, login: &Login, bytes: &[u8]) -> Result<(), Ended> {
        // What comes behind the handshake is in the session that it gives.
        match self.handshake.take() {
            None => {
                if let Some(session) = &mut self.session {
                    session.receiver.feed(bytes);
                }
            }
            Some(Handshake::Xx(waiting)) => match waiting.feed(bytes) {
                client::Step::Waiting(waiting) => self.handshake = Some(Handshake::Xx(waiting)),
                client::Step::Failed(error) => return Err(error.into()),
                client::Step::Answered(hello) => {
                    net.check(hello.server_key(), hello.server_hello()).map_err(Ended::broken)?;
                    self.session = Some(hello.finish(&login.hello, &mut self.out)?);
                }
            },
            Some(Handshake::Ik(waiting)) => match waiting.feed(bytes) {
                client::Step::Waiting(waiting) => self.handshake = Some(Handshake::Ik(waiting)),
                client::Step::Failed(error) => return Err(error.into()),
                client::Step::Answered(hello) => {
                    net.check(hello.server_key(), hello.server_hello()).map_err(Ended::broken)?;
                    self.session = Some(hello.finish(&mut self.out)?);
                }
            },
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Seen<Self::Other>>, Ended> {
        loop {
            let Some(session) = &mut self.session else { return Ok(None) };
            let record = match session.receiver.next().map_err(Ended::broken)? {
                None => return Ok(None),
                Some(Received::KeepAlive) => continue,
                Some(Received::Record(record)) => record,
            };
            let stanza = match glance(&record)? {
                Glance::Delivery { id, tag } => {
                    self.due = tag;
                    return Ok(Some(Seen::Delivery(Mark::from_bytes(id))));
                }
                Glance::Outcome { id, status } => {
                    let fate = match status {
                        Status::Delivered => Fate::Delivered,
                        Status::Stored => Fate::Stored,
                        _ => Fate::Refused,
                    };
                    return Ok(Some(Seen::Outcome(Mark::from_bytes(id), fate)));
                }
                Glance::Other(stanza) => stanza,
            };
            match *stanza {
                FromServer::Success(success) => return Ok(Some(Seen::Opened { waiting: Some(success.waiting) })),
                FromServer::Failure(reason) => return Err(Ended::Refused(format!("{reason:?}"))),
                FromServer::Ping(number) => self.stanza(FromClient::Pong(number))?,
                FromServer::End(end) => return Err(Ended::Told(end)),
                other => return Ok(Some(Seen::Other(Box::new(other)))),
            }
        }
    }

    fn submit(&mut self, message: &mut Template, mark: Mark) -> Result<bool, Ended> {
        self.send(message.with(mark.to_bytes()))
    }

    fn acknowledge(&mut self) -> Result<(), Ended> {
        match std::mem::take(&mut self.due) {
            0 => Ok(()),
            tag => self.stanza(FromClient::Ack(tag)),
        }
    }

    fn leave(&mut self) -> Result<(), Ended> {
        self.stanza(FromClient::End(End::new(EndReason::Bye)))
    }

    fn waiting(&mut self) -> Result<&mut BytesMut, Ended> {
        match &mut self.session {
            Some(session) if self.out.is_empty() => {
                session.sender.seal().map_err(Ended::broken)?;
                Ok(session.sender.sealed())
            }
            _ => Ok(&mut self.out),
        }
    }
}

impl Desk<Causeway> {
    /// Queues a record; it leaves at the end of the round. False: it cannot be taken now.
    pub(crate) fn send(&mut self, who: usize, record: &[u8]) -> bool {
        self.say(who, |wire| wire.send(record)).unwrap_or(false)
    }

    /// Encodes a stanza and queues it.
    pub(crate) fn stanza(&mut self, who: usize, stanza: FromClient) {
        self.say(who, |wire| wire.stanza(stanza));
    }
}

impl From<client::ClientError> for Ended {
    fn from(error: client::ClientError) -> Self {
        match error {
            client::ClientError::Alert(Alert::Overloaded { retry_after_s }) => Self::Busy { retry_after_s },
            other => Self::broken(other),
        }
    }
}
