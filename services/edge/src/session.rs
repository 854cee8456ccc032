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

mod entry;
mod open;
mod pace;
mod rules;
mod transport;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::BytesMut;
use causeway_identity::{NoiseKey, SessionId};
use causeway_noise::{Alert, Proved, Sender, server};
use causeway_proto::routing::v1 as routing;
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{ClientHello, EndReason, FailureReason, RequestBody, ResponseBody};
use tokio::time::Instant;

use self::entry::{Attaching, Checking, Handshake, Proving};
use self::open::Open;
pub(crate) use self::pace::Pace;
pub(crate) use self::rules::Rules;
use crate::login::{Admitted, Device, Token, User};
use crate::report::Fault;
use crate::requests::Asker;

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
    /// The client is to answer this, so that it is known what it has heard.
    Ping(u64),
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
    /// The login succeeded.
    LoggedIn,
    /// The session is a device's.
    Enlisted,
    /// Answered by [`Input::Attached`].
    Attach(Box<routing::Attach>),
    Submit(Box<pb::Submit>),
    Processed(u64),
    /// The client has answered a ping.
    Ponged(u64),
    /// Answered by [`Input::Answer`].
    Request(NonZeroU64, Asker, Box<RequestBody>),
    /// The session's token must open nothing any more.
    BurnToken(Arc<User>, Token),
    /// Why the session ends, for the log.
    Fault(Fault),
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

/// A session, from the first byte on.
pub(crate) enum Session {
    Handshake(Box<Handshake>),
    Proving(Box<Proving>),
    Checking(Box<Checking>),
    Attaching(Box<Attaching>),
    Open(Box<Open>),
    Ended(Box<Ended>),
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
        Self::Handshake(Box::new(Handshake { rules, id, reading, deadline }))
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
                Self::refused(rules::overloaded(wait_ms), out)
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

            // To leave a delivery out would be to have it acknowledged with the next one.
            (Self::Attaching(attaching), Input::Deliver(_)) => attaching.transport.fail(FailureReason::Overloaded),

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

    /// True if bytes of the client may mean a key agreement.
    pub(crate) const fn is_costly(&self) -> bool {
        matches!(self, Self::Handshake(_))
    }

    /// After bytes that might have meant a key agreement, and what they have led to: true if they have. A part of a message
    /// costs nothing.
    pub(crate) const fn was_costly(&self, did: &[Output]) -> bool {
        !self.is_costly() || !did.is_empty()
    }

    /// The connection reads nothing now. This need not be the client's doing, so it may be silent for longer, but not for
    /// ever: by the time that a write may take. `took` is when it was last seen to take something that was written.
    pub(crate) fn not_reading(&mut self, took: Option<Instant>) {
        if let Self::Open(open) = self {
            open.not_reading(took);
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

    /// Gives memory back that an idle session does not need.
    pub(crate) fn rest(&mut self) {
        if let Self::Open(open) = self {
            open.rest();
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
