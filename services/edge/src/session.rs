//! What a connection's bytes mean, without I/O: a state machine that is consumed at each step. The rules that keep a
//! session safe are match arms here:
//!
//! ```text
//!            XX                          enlisted
//! Handshake ----> Checking ----------------------------> Attaching ----> Open ----> Ended
//!      \           ^    \                                                 ^
//!       \ IK       |     \ not enlisted yet                               |
//!        -----> Proving   \-----------------------------------------------+
//! ```
//!
//! - `Handshake`: Noise messages; nothing is known about the peer.
//! - `Proving`, after IK only: all so far may be a recording. Until one record of the client has been authenticated
//!   nothing is looked up, verified, spent, registered or answered.
//! - `Checking`: the token is being verified. No bytes are read; records that came along stay encrypted in their buffer.
//! - `Attaching`: routing is being told; its answer has the count for `success`, which is the first record.
//! - `Open`: stanzas, in [`open`].
//! - `Ended`: what is queued is written, then the connection closes.

mod open;
mod pace;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use causeway_identity::{NoiseKey, SessionId};
use causeway_noise::server::Accepted;
use causeway_noise::{Alert, Limits, Proved, Received, Receiver, Sender, server};
use causeway_proto::routing::v1 as routing;
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{
    ClientHello, Encoding, End, EndReason, Enlisted, FailureReason, FromServer, RequestBody, ResponseBody, Success,
    encode_server, hello,
};
use tokio::time::Instant;

use self::open::Open;
use crate::config::EdgeConfig;
use crate::keys::Keys;
use crate::login::{Admitted, Device, Token, User};
use crate::requests::Asker;

/// Most bytes that a client may send between handshake and `success`.
const MAX_EARLY_BYTES: usize = 64 * 1024;
/// Largest record to a client: a largest stanza, written in the longer of the two encodings by its recipient's choice.
const MAX_SENT_RECORD: usize = 512 * 1024;
/// More than this behind a write means that the session's own answers pile up.
const MAX_SENT_QUEUE: usize = 2 * 1024 * 1024;

/// The time of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// For time-outs.
    pub(crate) at: Instant,
    /// For tokens: Unix milliseconds.
    pub(crate) unix_ms: u64,
}

/// What happens to a session.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// Bytes from the client. Only when [`Session::wants_bytes`].
    Bytes(&'a [u8]),
    /// The answer to [`Output::Verify`].
    Verdict(Result<Box<Admitted>, FailureReason>),
    /// Routing has attached the session; so many messages wait.
    Attached(u64),
    /// Routing has a delivery, an outcome, a notification.
    Deliver(pb::Delivery),
    Outcome(pb::Outcome),
    Notify(pb::Notification),
    /// Routing says that the session is over.
    RoutingEnd(pb::End),
    /// There is no stream to routing, or it is lost, or the session's queue overflowed.
    RoutingLost,
    /// The answer to [`Output::Request`].
    Answer(NonZeroU64, Answer),
    /// The provider was suspended.
    Suspended,
    /// The edge is going away.
    Drain,
    /// Time has passed.
    Tick,
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(ResponseBody),
    /// The session is this device from now on.
    Enlisted(Device),
    /// The session lives by this token from now on.
    Refreshed(Token),
}

/// What a session wants done.
#[derive(Debug)]
pub(crate) enum Output {
    /// These bytes must go to the client as they are.
    Write(BytesMut),
    /// Is this client who it says? Answered by [`Input::Verdict`].
    Verify(Box<ClientHello>, NoiseKey, Proved),
    /// The login succeeded; the session is not half-open any more.
    LoggedIn,
    /// Answered by [`Input::Attached`].
    Attach(Box<routing::Attach>),
    Submit(Box<pb::Submit>),
    Processed(u64),
    /// Answered by [`Input::Answer`].
    Request(NonZeroU64, Asker, Box<RequestBody>),
    /// The session's token must open nothing any more.
    BurnToken(Arc<User>, Token),
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The handshake was refused with this alert.
    Refused(Alert),
    /// The login failed.
    Failed(FailureReason),
    /// It ended with an `end` of ours.
    Ended(EndReason),
    /// The client said `end`.
    Bye,
    /// A deadline passed before the client had shown anything.
    Silent,
    /// What arrived does not authenticate: nothing more is said.
    Broken,
}

/// Settings and keys that all sessions share.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) config: EdgeConfig,
    pub(crate) keys: Keys,
}

impl Rules {
    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// From one to two times the setting, spread by the session's random id.
    fn overload_retry_ms(&self, id: SessionId) -> u64 {
        let base = self.config.overload_retry_ms;
        base + spread(base, id)
    }

    /// Anywhere in the drain's window, spread by the session's random id.
    fn drain_retry_ms(&self, id: SessionId) -> u64 {
        spread(self.config.drain_window_ms, id)
    }

    fn limits(&self) -> Limits {
        Limits {
            receive_record: self.config.max_stanza_bytes as usize,
            send_record: MAX_SENT_RECORD,
            send_queue: MAX_SENT_QUEUE,
        }
    }
}

/// A session, from the first byte on.
pub(crate) enum Session {
    Handshake(Handshake),
    Proving(Box<Proving>),
    Checking(Box<Checking>),
    Attaching(Box<Attaching>),
    Open(Box<Open>),
    Ended(Box<Ended>),
}

/// Reads the client's Noise messages.
pub(crate) struct Handshake {
    rules: Arc<Rules>,
    id: SessionId,
    reading: server::Reading,
    deadline: Instant,
}

/// Both directions after the handshake, and how stanzas are written.
pub(crate) struct Transport {
    rules: Arc<Rules>,
    id: SessionId,
    sender: Sender,
    receiver: Receiver,
    encoding: Encoding,
}

/// What the client said in the handshake: who it is, or why its login must fail.
type Claim = Result<(Box<ClientHello>, NoiseKey), FailureReason>;

/// Waits for the first authenticated record after IK.
pub(crate) struct Proving {
    transport: Transport,
    claim: Claim,
    deadline: Instant,
    fed: usize,
}

/// Waits for the verdict about the token.
pub(crate) struct Checking {
    transport: Transport,
    /// A stanza that came as proof, to be acted on after `success`.
    first: Option<Bytes>,
    deadline: Instant,
}

/// Waits for routing.
pub(crate) struct Attaching {
    transport: Transport,
    first: Option<Bytes>,
    admitted: Box<Admitted>,
    deadline: Instant,
}

/// Over; what is queued may still be written.
pub(crate) struct Ended {
    pub(crate) why: Why,
    sender: Option<Sender>,
}

impl Session {
    /// A session at its first byte; `since` is when its connection was accepted.
    pub(crate) fn new(
        rules: Arc<Rules>,
        id: SessionId,
        rng: &mut (impl rand::CryptoRng + ?Sized),
        since: Instant,
    ) -> Self {
        let reading = server::Reading::new(&rules.keys.static_key, rules.limits(), rng);
        let deadline = since + rules.config.handshake_timeout();
        Self::Handshake(Handshake { rules, id, reading, deadline })
    }

    /// One step; what must be done is appended to `out`.
    pub(crate) fn step(self, input: Input<'_>, now: Now, out: &mut Vec<Output>) -> Self {
        match (self, input) {
            (over @ Self::Ended(_), _) => over,
            (Self::Open(open), input) => open.handle(input, now, out),

            (Self::Handshake(handshake), Input::Bytes(bytes)) => handshake.read(bytes, now, out),
            (Self::Handshake(handshake), Input::Tick) if now.at >= handshake.deadline => Self::over(Why::Silent),
            (Self::Handshake(handshake), Input::Drain) => {
                let wait_ms = handshake.rules.drain_retry_ms(handshake.id);
                Self::refused(overloaded(wait_ms), out)
            }

            (Self::Proving(proving), Input::Bytes(bytes)) => proving.read(bytes, now, out),
            (Self::Proving(proving), Input::Tick) if now.at >= proving.deadline => Self::over(Why::Silent),
            // Nothing is said to what may be a recording.
            (Self::Proving(_), Input::Drain) => Self::over(Why::Silent),

            (Self::Checking(checking), Input::Verdict(verdict)) => checking.decide(verdict, now, out),
            (Self::Checking(checking), Input::Tick) if now.at >= checking.deadline => {
                checking.transport.fail(FailureReason::Overloaded)
            }
            (Self::Checking(checking), Input::Drain) => checking.transport.fail(FailureReason::Overloaded),

            (Self::Attaching(attaching), Input::Attached(waiting)) => attaching.open(waiting, now, out),
            (Self::Attaching(attaching), Input::RoutingEnd(end)) => attaching.displaced(&end, now, out),
            (Self::Attaching(attaching), Input::Tick) if now.at >= attaching.deadline => {
                attaching.transport.fail(FailureReason::Overloaded)
            }
            (Self::Attaching(attaching), Input::RoutingLost | Input::Drain) => {
                attaching.transport.fail(FailureReason::Overloaded)
            }
            (Self::Attaching(attaching), Input::Suspended) => {
                attaching.transport.fail(FailureReason::ProviderSuspended)
            }

            // Nothing else is due in these states; what comes late or early is dropped.
            (waiting, _) => waiting,
        }
    }

    /// True if bytes should be read from the client now.
    pub(crate) fn wants_bytes(&self, now: Now) -> bool {
        match self {
            Self::Handshake(_) | Self::Proving(_) => true,
            Self::Checking(_) | Self::Attaching(_) | Self::Ended(_) => false,
            Self::Open(open) => open.wants_bytes(now),
        }
    }

    /// The connection reads nothing now, and this is not the client's doing: silence does not count against it.
    pub(crate) fn not_reading(&mut self, now: Now) {
        if let Self::Open(open) = self {
            open.not_reading(now);
        }
    }

    /// When the next [`Input::Tick`] is due at the latest.
    pub(crate) fn next_tick(&self, now: Now) -> Option<Instant> {
        match self {
            Self::Handshake(handshake) => Some(handshake.deadline),
            Self::Proving(proving) => Some(proving.deadline),
            Self::Checking(checking) => Some(checking.deadline),
            Self::Attaching(attaching) => Some(attaching.deadline),
            Self::Open(open) => Some(open.next_tick(now)),
            Self::Ended(_) => None,
        }
    }

    /// Bytes that are queued behind [`Session::seal_into`].
    pub(crate) fn queued(&self) -> usize {
        match self {
            Self::Handshake(_) => 0,
            Self::Proving(proving) => proving.transport.sender.queued(),
            Self::Checking(checking) => checking.transport.sender.queued(),
            Self::Attaching(attaching) => attaching.transport.sender.queued(),
            Self::Open(open) => open.queued(),
            Self::Ended(ended) => ended.sender.as_ref().map_or(0, Sender::queued),
        }
    }

    /// Encrypts everything that is queued, in few messages, and moves it to `wire`.
    pub(crate) fn seal_into(&mut self, wire: &mut BytesMut) {
        let sender = match self {
            Self::Handshake(_) => None,
            Self::Proving(proving) => Some(&mut proving.transport.sender),
            Self::Checking(checking) => Some(&mut checking.transport.sender),
            Self::Attaching(attaching) => Some(&mut attaching.transport.sender),
            Self::Open(open) => Some(open.sender()),
            Self::Ended(ended) => ended.sender.as_mut(),
        };
        let Some(sender) = sender else { return };
        // Exhausted nonces: nothing can be said any more, and the client's next record ends the session.
        let _exhausted = sender.seal();
        let sealed = sender.sealed();
        if wire.is_empty() {
            *wire = std::mem::take(sealed);
        } else {
            wire.extend_from_slice(&sealed.split());
        }
    }

    /// Why it is over, once it is.
    pub(crate) fn ended(&self) -> Option<Why> {
        match self {
            Self::Ended(ended) => Some(ended.why),
            _ => None,
        }
    }

    fn over(why: Why) -> Self {
        Self::Ended(Box::new(Ended { why, sender: None }))
    }

    fn refused(alert: Alert, out: &mut Vec<Output>) -> Self {
        out.push(Output::Write(BytesMut::from(&alert.encode()[..])));
        Self::over(Why::Refused(alert))
    }
}

/// A share of `window` that is different for each session.
fn spread(window: u64, id: SessionId) -> u64 {
    let [first, second, ..] = *id.as_bytes();
    window.saturating_mul(u64::from(u16::from_be_bytes([first, second]))) >> 16
}

fn overloaded(retry_ms: u64) -> Alert {
    Alert::Overloaded { retry_after_s: u16::try_from(retry_ms.div_ceil(1_000)).unwrap_or(u16::MAX) }
}

impl Handshake {
    fn read(self, bytes: &[u8], now: Now, out: &mut Vec<Output>) -> Session {
        let Self { rules, id, reading, deadline } = self;
        let mut state = reading.feed(bytes);
        loop {
            state = match state {
                server::Handshake::Reading(reading) => {
                    return Session::Handshake(Self { rules, id, reading, deadline });
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
    fn read(mut self: Box<Self>, bytes: &[u8], now: Now, out: &mut Vec<Output>) -> Session {
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

impl Checking {
    fn decide(
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
        self.transport.succeed(admitted, 0, self.first, now, out)
    }
}

fn attach(admitted: &Admitted, device: &Device) -> routing::Attach {
    routing::Attach {
        account_id: Bytes::copy_from_slice(device.account.as_bytes()),
        device_id: device.id.get(),
        registration_id: device.registration_id,
        address: admitted.user.address.as_str().to_owned(),
        provider_domain: admitted.user.provider.domain.as_str().to_owned(),
    }
}

impl Attaching {
    fn open(self: Box<Self>, waiting: u64, now: Now, out: &mut Vec<Output>) -> Session {
        self.transport.succeed(self.admitted, waiting, self.first, now, out)
    }

    /// A newer session of the device came in between. The client gets to know both, in order.
    fn displaced(self: Box<Self>, end: &pb::End, now: Now, out: &mut Vec<Output>) -> Session {
        let opened = self.transport.succeed(self.admitted, 0, None, now, out);
        opened.step(Input::RoutingEnd(*end), now, out)
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

    fn fail(mut self, reason: FailureReason) -> Session {
        let _fits = self.send(FromServer::Failure(reason));
        Session::Ended(Box::new(Ended { why: Why::Failed(reason), sender: Some(self.sender) }))
    }

    fn end(mut self, end: End) -> Session {
        let _fits = self.send(FromServer::End(end));
        Session::Ended(Box::new(Ended { why: Why::Ended(end.reason), sender: Some(self.sender) }))
    }

    fn leave(self) -> Session {
        Session::Ended(Box::new(Ended { why: Why::Bye, sender: Some(self.sender) }))
    }

    fn succeed(
        mut self,
        admitted: Box<Admitted>,
        waiting: u64,
        first: Option<Bytes>,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Session {
        let enlisted = admitted.device.map(|device| Enlisted { account: device.account, device: device.id });
        let success = Success {
            session: self.id,
            enlisted,
            device_count: admitted.device_count,
            prekeys_low: admitted.prekeys_low,
            waiting,
        };
        let _fits = self.send(FromServer::Success(success));
        out.push(Output::LoggedIn);
        Open::start(self, *admitted, first, now, out)
    }

    /// Queues a stanza; false if it does not fit, which ends a session.
    fn send(&mut self, stanza: FromServer) -> bool {
        self.sender.queue(&encode_server(self.encoding, stanza)).is_ok()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake(_) => "Handshake",
            Self::Proving(_) => "Proving",
            Self::Checking(_) => "Checking",
            Self::Attaching(_) => "Attaching",
            Self::Open(_) => "Open",
            Self::Ended(_) => "Ended",
        })
    }
}

#[cfg(test)]
mod tests;
