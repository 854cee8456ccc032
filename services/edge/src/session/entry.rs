//! From the first byte to `success`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use causeway_identity::{NoiseKey, SessionId};
use causeway_noise::server::Accepted;
use causeway_noise::{Proved, Received, server};
use causeway_proto::routing::v1 as routing;
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{ClientHello, Encoding, FailureReason, hello};
use tokio::time::Instant;

use super::transport::Transport;
use super::{Input, Now, Output, Rules, Session, Why};
use crate::login::{Admitted, Device};

/// Most bytes that a client may send between handshake and `success`.
const MAX_EARLY_BYTES: usize = 64 * 1024;

/// Reads the client's Noise messages.
pub(crate) struct Handshake {
    pub(super) rules: Arc<Rules>,
    pub(super) id: SessionId,
    pub(super) reading: server::Reading,
    pub(super) deadline: Instant,
}

/// What the client said in the handshake: who it is, or why its login must fail.
type Claim = Result<(Box<ClientHello>, NoiseKey), FailureReason>;

/// Waits for the first authenticated record after IK.
pub(crate) struct Proving {
    pub(super) transport: Transport,
    claim: Claim,
    pub(super) deadline: Instant,
    fed: usize,
}

/// Waits for the verdict about the token.
pub(crate) struct Checking {
    pub(super) transport: Transport,
    /// A stanza that came as proof, to be acted on after `success`.
    first: Option<Bytes>,
    pub(super) deadline: Instant,
}

/// Waits for routing.
pub(crate) struct Attaching {
    pub(super) transport: Transport,
    first: Option<Bytes>,
    admitted: Box<Admitted>,
    pub(super) deadline: Instant,
}

impl Handshake {
    pub(super) fn read(self, bytes: &[u8], now: Now, out: &mut Vec<Output>) -> Session {
        let Self { rules, id, reading, deadline } = self;
        let mut state = reading.feed(bytes);
        loop {
            state = match state {
                server::Handshake::Reading(reading) => {
                    return Session::Handshake(Box::new(Self { rules, id, reading, deadline }));
                }
                server::Handshake::Answering(answering) => {
                    let mut wire = BytesMut::new();
                    let next = answering.answer(&rules.keys.server_hello(now.unix_ms), &mut wire);
                    out.push(Output::Write(wire));
                    next
                }
                server::Handshake::Accepted(accepted) => return accept(rules, id, *accepted, now, out),
                server::Handshake::Refused(error) => return Session::refused(error.alert(), out),
            };
        }
    }
}

fn accept(rules: Arc<Rules>, id: SessionId, accepted: Accepted, now: Now, out: &mut Vec<Output>) -> Session {
    let hello = ClientHello::decode(&accepted.client_hello);
    let encoding = hello.as_ref().map_or(Encoding::Binary, |hello| hello.encoding);
    let claim = match hello {
        Err(error) => Err(hello::failure_reason(&error)),
        // No provider can register a proxy yet.
        Ok(hello) if hello.forwarded.is_some() => Err(FailureReason::ProxyRefused),
        Ok(hello) => match NoiseKey::new(accepted.client_key) {
            Ok(key) => Ok((Box::new(hello), key)),
            // A key with several spellings, or of low order, is nobody's: no token can be bound to it.
            Err(_) => Err(FailureReason::TokenBinding),
        },
    };
    let (sender, receiver) = (accepted.session.sender, accepted.session.receiver);
    let transport = Transport { rules, id, sender, receiver, encoding };
    if let Some(proved) = transport.receiver.proved() {
        return transport.check(claim, proved, None, now, out);
    }
    let deadline = now.at + Rules::ms(transport.rules.config.proof_timeout_ms);
    let proving = Box::new(Proving { transport, claim, deadline, fed: 0 });
    // What came along with the first message is looked at like what comes later.
    proving.prove(now, out)
}

impl Proving {
    pub(super) fn read(mut self: Box<Self>, bytes: &[u8], now: Now, out: &mut Vec<Output>) -> Session {
        self.fed = self.fed.saturating_add(bytes.len());
        self.transport.receiver.feed(bytes);
        self.prove(now, out)
    }

    fn prove(mut self: Box<Self>, now: Now, out: &mut Vec<Output>) -> Session {
        let first = match self.transport.receiver.next() {
            Err(_) => return Session::over(Why::Broken),
            Ok(None) if self.fed > MAX_EARLY_BYTES => return Session::over(Why::Broken),
            Ok(None) => return Session::Proving(self),
            Ok(Some(Received::KeepAlive)) => None,
            Ok(Some(Received::Record(record))) => Some(record),
        };
        match self.transport.receiver.proved() {
            Some(proved) => self.transport.check(self.claim, proved, first, now, out),
            None => Session::Proving(self),
        }
    }
}

impl Transport {
    /// The client is live: has its token checked.
    fn check(self, claim: Claim, proved: Proved, first: Option<Bytes>, now: Now, out: &mut Vec<Output>) -> Session {
        match claim {
            Err(reason) => self.fail(reason),
            Ok((hello, key)) => {
                out.push(Output::Verify(hello, key, proved));
                let deadline = now.at + Rules::ms(self.rules.config.login_timeout_ms);
                Session::Checking(Box::new(Checking { transport: self, first, deadline }))
            }
        }
    }
}

impl Checking {
    pub(super) fn decide(
        self: Box<Self>,
        verdict: Result<Box<Admitted>, FailureReason>,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Session {
        let admitted = match verdict {
            Ok(admitted) => admitted,
            Err(reason) => return self.transport.fail(reason),
        };
        if let Some(device) = &admitted.device {
            out.push(Output::Attach(Box::new(attach(&admitted, device))));
            let Self { transport, first, deadline } = *self;
            return Session::Attaching(Box::new(Attaching { transport, first, admitted, deadline }));
        }
        self.transport.succeed(*admitted, 0, self.first, now, out)
    }
}

pub(super) fn attach(admitted: &Admitted, device: &Device) -> routing::Attach {
    routing::Attach {
        account_id: Bytes::copy_from_slice(device.account.as_bytes()),
        device_id: device.id.get(),
        registration_id: device.registration_id,
        address: admitted.user.address.as_str().to_owned(),
        provider_domain: admitted.user.provider.domain.as_str().to_owned(),
        submits_only: false,
        number: 0,
        login: None,
    }
}

impl Attaching {
    pub(super) fn open(self: Box<Self>, waiting: u64, now: Now, out: &mut Vec<Output>) -> Session {
        self.transport.succeed(*self.admitted, waiting, self.first, now, out)
    }

    /// A newer session of the device came in between. The client gets to know both, in order.
    pub(super) fn displaced(self: Box<Self>, end: &pb::End, now: Now, out: &mut Vec<Output>) -> Session {
        let opened = self.transport.succeed(*self.admitted, 0, None, now, out);
        opened.step(Input::RoutingEnd(*end), now, out)
    }
}
