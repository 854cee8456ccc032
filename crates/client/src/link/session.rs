//! One session: log in, then carry stanzas until something ends it.

use causeway_noise::transport::{Connection, ReadError};
use causeway_noise::{Received, SendError};
use causeway_stanza::hello::ClientHello;
use causeway_stanza::{
    Encoding, End, EndReason, FailureReason, FromClient, FromServer, Response, ResponseBody, Text, Token,
    decode_server, encode_client,
};
use tokio::time::{Instant, timeout};

use super::dial::{Dial, DialError, Dialled, Io};
use super::{LinkEvent, Over, Runner, Up, after_end, after_failure};
use crate::event::{DisconnectReason, Ended};

/// Bytes that may wait for the network before no more stanzas are taken.
const WRITE_AHEAD: usize = 256 * 1024;
/// The goodbye must leave within this.
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(1);

impl Runner {
    /// Opens a session and stays with it until it ends.
    pub(super) async fn attempt(&mut self) -> Over {
        let login = match self.tokens.login().await {
            Ok(login) => login,
            Err(reason) => return Over::again(DisconnectReason::Token(reason)),
        };
        let Ok(token) = Token::try_from(login.token) else {
            self.tokens.forget();
            return Over::again(DisconnectReason::Token("the provider's token is empty or too long".to_owned()));
        };
        let deadline = Instant::now() + self.config.timing.connect_timeout;
        let opened = tokio::time::timeout_at(deadline, self.log_in(token)).await;
        let (mut session, up) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(LogInError::Over(over))) => return over,
            Ok(Err(LogInError::Refused(reason))) => {
                if reason != FailureReason::Overloaded {
                    self.tokens.forget();
                }
                return after_failure(reason, login.fresh);
            }
            Err(_) => return Over::again(DisconnectReason::Timeout),
        };
        self.server_key = Some(up.server_key);
        if self.events.send(LinkEvent::Up(Box::new(up))).await.is_err() {
            session.say_goodbye().await;
            return Over::Unwanted;
        }
        let over = self.carry(&mut session).await;
        if let Over::Again { reason: DisconnectReason::Server(EndReason::TokenExpired), .. } = over {
            self.tokens.forget();
        }
        over
    }

    async fn log_in(&mut self, token: Token) -> Result<(Session, Up), LogInError> {
        let hello = ClientHello {
            token,
            device: self.device,
            encoding: self.config.encoding,
            agent: Text::lossy(&self.config.agent),
            forwarded: None,
        };
        let mut dial = Dial {
            config: &self.config,
            key: &self.key,
            clock: &self.clock,
            random: &mut self.random,
            clock_ahead_ms: &mut self.clock_ahead_ms,
        };
        let dialled = match self.server_key {
            Some(known) => match dial.ik(&known, &hello).await {
                Err(DialError::UseXx) => dial.xx(&hello).await,
                other => other,
            },
            None => dial.xx(&hello).await,
        };
        let dialled = match dialled {
            Ok(dialled) => dialled,
            Err(DialError::Over(over)) => return Err(LogInError::Over(over)),
            Err(DialError::UseXx) => {
                let reason = DisconnectReason::Handshake("the server asks for XX in answer to XX".to_owned());
                return Err(LogInError::Over(Over::again(reason)));
            }
        };
        let Dialled { connection, server_key, resumed, clock_ahead_ms, max_record, ping_interval } = dialled;
        let mut session = Session { connection, encoding: self.config.encoding, ping_interval };
        match session.read().await.map_err(LogInError::Over)? {
            FromServer::Success(success) if success.address != self.config.address => {
                session.say_goodbye().await;
                Err(LogInError::Over(Over::Never(Ended::OtherAddress)))
            }
            FromServer::Success(success) => {
                self.generation += 1;
                let generation = self.generation;
                Ok((session, Up { generation, success, server_key, resumed, clock_ahead_ms, max_record }))
            }
            FromServer::Failure(reason) => Err(LogInError::Refused(reason)),
            FromServer::End(end) => Err(LogInError::Over(after_end(end.reason, end.retry_after_ms))),
            other => Err(LogInError::Over(unexpected(other.name()))),
        }
    }

    /// Carries stanzas both ways. The engine never waits for this side, so waiting for the engine cannot lock up.
    async fn carry(&mut self, session: &mut Session) -> Over {
        let mut heard = Instant::now();
        let mut pinged = false;
        let generation = self.generation;
        let Self { tokens, to_send, events, device, .. } = self;
        let mut renewed = Box::pin(tokens.renewed());
        let over = loop {
            let silence = heard + session.ping_interval * if pinged { 2 } else { 1 };
            let Connection { reader, writer } = &mut session.connection;
            tokio::select! {
                received = reader.read() => {
                    (heard, pinged) = (Instant::now(), false);
                    let record = match received {
                        Ok(Some(Received::Record(record))) => record,
                        Ok(Some(Received::KeepAlive)) => continue,
                        Ok(None) => break closed(),
                        Err(error) => break broken(&error),
                    };
                    let stanza = match decode_server(session.encoding, &record) {
                        Ok(stanza) => stanza,
                        Err(error) => break Over::again(DisconnectReason::Protocol(error.to_string())),
                    };
                    match stanza {
                        FromServer::Ping(n) => if let Err(over) = session.queue(FromClient::Pong(n)) { break over },
                        FromServer::Pong(_) => {}
                        FromServer::End(end) => break after_end(end.reason, end.retry_after_ms),
                        FromServer::Success(_) | FromServer::Failure(_) => break unexpected("a second login"),
                        stanza => {
                            if let FromServer::Iq(Response { body: ResponseBody::Enlisted(enlisted), .. }) = &stanza {
                                *device = Some(enlisted.device);
                            }
                            if events.send(LinkEvent::Stanza(Box::new(stanza))).await.is_err() {
                                break Over::Unwanted;
                            }
                        }
                    }
                }
                stanza = to_send.recv(), if writer.queued() < WRITE_AHEAD => match stanza {
                    Some((session_of, stanza)) if session_of == generation => {
                        if let Err(over) = session.queue(stanza) { break over }
                    }
                    // Meant for a session that is gone.
                    Some(_) => {}
                    None => break Over::Unwanted,
                },
                flushed = writer.flush(), if writer.queued() > 0 => if let Err(error) = flushed {
                    break Over::again(DisconnectReason::Network(error.to_string()));
                },
                token = &mut renewed => {
                    if events.send(LinkEvent::FreshToken(token)).await.is_err() {
                        break Over::Unwanted;
                    }
                    drop(renewed);
                    renewed = Box::pin(tokens.renewed());
                }
                () = tokio::time::sleep_until(silence) => {
                    if pinged {
                        break Over::again(DisconnectReason::Timeout);
                    }
                    pinged = true;
                    if let Err(over) = session.queue(FromClient::Ping(1)) { break over }
                }
            }
        };
        drop(renewed);
        if matches!(over, Over::Unwanted) {
            while let Ok((session_of, stanza)) = self.to_send.try_recv() {
                if session_of == generation && session.queue(stanza).is_err() {
                    break;
                }
            }
            session.say_goodbye().await;
        }
        over
    }
}

enum LogInError {
    Over(Over),
    Refused(FailureReason),
}

struct Session {
    connection: Connection<Box<dyn Io>>,
    encoding: Encoding,
    ping_interval: std::time::Duration,
}

impl Session {
    /// The next stanza, for the login; a keep-alive is none.
    async fn read(&mut self) -> Result<FromServer, Over> {
        loop {
            match self.connection.reader.read().await {
                Ok(Some(Received::Record(record))) => {
                    let stanza = decode_server(self.encoding, &record);
                    return stanza.map_err(|error| Over::again(DisconnectReason::Protocol(error.to_string())));
                }
                Ok(Some(Received::KeepAlive)) => {}
                Ok(None) => return Err(closed()),
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    fn queue(&mut self, stanza: FromClient) -> Result<(), Over> {
        let record = encode_client(self.encoding, stanza);
        match self.connection.writer.queue(&record) {
            Ok(()) => Ok(()),
            // The engine asks for the limit before; what slips through would end the session in a loop.
            Err(error @ SendError::TooLarge { .. }) => {
                tracing::error!(%error, "a stanza beyond the server's limit was not sent");
                Ok(())
            }
            Err(error) => Err(Over::again(DisconnectReason::Network(error.to_string()))),
        }
    }

    async fn say_goodbye(&mut self) {
        if self.queue(FromClient::End(End::new(EndReason::Bye))).is_ok() {
            // Whether it arrives or not, the session is over.
            let _ = timeout(GOODBYE, self.connection.writer.close()).await;
        }
    }
}

fn closed() -> Over {
    Over::again(DisconnectReason::Network("closed by the server".to_owned()))
}

fn broken(error: &ReadError) -> Over {
    Over::again(match error {
        ReadError::Io(error) => DisconnectReason::Network(error.to_string()),
        other => DisconnectReason::Protocol(other.to_string()),
    })
}

fn unexpected(what: &str) -> Over {
    Over::again(DisconnectReason::Protocol(format!("the server sent {what} where it does not belong")))
}
