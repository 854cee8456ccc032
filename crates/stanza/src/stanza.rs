//! The stanzas, a type a direction: a client cannot state what only the server may, such as who it is.

use causeway_identity::Address;
use causeway_proto::wire::v1 as pb;
use causeway_proto::wire::v1::client_stanza::Kind as ClientKind;
use causeway_proto::wire::v1::notification::Kind as NotificationKind;
use causeway_proto::wire::v1::server_stanza::Kind as ServerKind;

use crate::error::{At, Problem, StanzaError, required};
use crate::iq::{Request, Response};
use crate::keys::KeyCounts;
use crate::lists::{EndReason, FailureReason};
use crate::login::Success;
use crate::message::{Delivery, Outcome, Submit};

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient {
    /// A message for an account's devices.
    Message(Submit),
    /// Every delivery up to and including this tag is processed and safe on the device; not 0.
    Ack(u64),
    /// A request.
    Iq(Request),
    /// A response to a request that nobody made: to be dropped. Exists in XML only.
    UnsolicitedIq,
    /// Are you there? To be answered with the same number.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// The client leaves.
    End(End),
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer {
    /// The login succeeded.
    Success(Success),
    /// The login failed; the server closes.
    Failure(FailureReason),
    /// A message for this device.
    Message(Delivery),
    /// What became of a submitted message.
    Ack(Outcome),
    /// The answer to a request.
    Iq(Response),
    /// Something changed.
    Notification(Notification),
    /// Are you there? To be answered with the same number.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// The session is over; the server closes.
    End(End),
}

/// The end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// From a draining or overloaded server: milliseconds to wait before the next attempt; 0: not said.
    pub retry_after_ms: u64,
}

/// Something that a client should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// One-time keys should be topped up; how many are left.
    PrekeysLow(KeyCounts),
    /// The device list of this account, one's own or a partner's, is not what it was.
    DevicesChanged(Address),
    /// The account's consent settings changed.
    ConsentChanged,
    /// A stranger asks to be let in.
    ContactRequest(Address),
}

impl End {
    /// An end without a time to wait.
    pub const fn new(reason: EndReason) -> Self {
        Self { reason, retry_after_ms: 0 }
    }
}

impl FromClient {
    /// The stanza's element name: metric label and log field.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Ack(_) => "ack",
            Self::Iq(_) | Self::UnsolicitedIq => "iq",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::End(_) => "end",
        }
    }
}

impl FromServer {
    /// The stanza's element name: metric label and log field.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Success(_) => "success",
            Self::Failure(_) => "failure",
            Self::Message(_) => "message",
            Self::Ack(_) => "ack",
            Self::Iq(_) => "iq",
            Self::Notification(_) => "notification",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::End(_) => "end",
        }
    }
}

impl TryFrom<pb::ClientStanza> for FromClient {
    type Error = StanzaError;

    fn try_from(stanza: pb::ClientStanza) -> Result<Self, StanzaError> {
        Ok(match required("kind", stanza.kind)? {
            ClientKind::Message(submit) => Self::Message(submit.try_into().at("message")?),
            ClientKind::Ack(pb::Processed { tag: 0 }) => return Err(Problem::Range).at("tag").at("ack"),
            ClientKind::Ack(pb::Processed { tag }) => Self::Ack(tag),
            ClientKind::Iq(request) => Self::Iq(request.try_into().at("iq")?),
            ClientKind::Ping(ping) => Self::Ping(ping.n),
            ClientKind::Pong(pong) => Self::Pong(pong.n),
            ClientKind::End(end) => Self::End(end.try_into().at("end")?),
        })
    }
}

/// [`FromClient::UnsolicitedIq`] has no form of its own here and becomes a stanza without a kind.
impl From<FromClient> for pb::ClientStanza {
    fn from(stanza: FromClient) -> Self {
        let kind = match stanza {
            FromClient::Message(submit) => Some(ClientKind::Message(submit.into())),
            FromClient::Ack(tag) => Some(ClientKind::Ack(pb::Processed { tag })),
            FromClient::Iq(request) => Some(ClientKind::Iq(request.into())),
            FromClient::UnsolicitedIq => None,
            FromClient::Ping(n) => Some(ClientKind::Ping(pb::Ping { n })),
            FromClient::Pong(n) => Some(ClientKind::Pong(pb::Pong { n })),
            FromClient::End(end) => Some(ClientKind::End(end.into())),
        };
        Self { kind }
    }
}

impl TryFrom<pb::ServerStanza> for FromServer {
    type Error = StanzaError;

    fn try_from(stanza: pb::ServerStanza) -> Result<Self, StanzaError> {
        Ok(match required("kind", stanza.kind)? {
            ServerKind::Success(success) => Self::Success(success.try_into().at("success")?),
            ServerKind::Failure(failure) => {
                Self::Failure(FailureReason::try_from(failure.reason).at("reason").at("failure")?)
            }
            ServerKind::Message(delivery) => Self::Message(delivery.try_into().at("message")?),
            ServerKind::Ack(outcome) => Self::Ack(outcome.try_into().at("ack")?),
            ServerKind::Iq(response) => Self::Iq(response.try_into().at("iq")?),
            ServerKind::Notification(notification) => Self::Notification(notification.try_into().at("notification")?),
            ServerKind::Ping(ping) => Self::Ping(ping.n),
            ServerKind::Pong(pong) => Self::Pong(pong.n),
            ServerKind::End(end) => Self::End(end.try_into().at("end")?),
        })
    }
}

impl From<FromServer> for pb::ServerStanza {
    fn from(stanza: FromServer) -> Self {
        let kind = match stanza {
            FromServer::Success(success) => ServerKind::Success(success.into()),
            FromServer::Failure(reason) => ServerKind::Failure(pb::Failure { reason: reason.into() }),
            FromServer::Message(delivery) => ServerKind::Message(delivery.into()),
            FromServer::Ack(outcome) => ServerKind::Ack(outcome.into()),
            FromServer::Iq(response) => ServerKind::Iq(response.into()),
            FromServer::Notification(notification) => ServerKind::Notification(notification.into()),
            FromServer::Ping(n) => ServerKind::Ping(pb::Ping { n }),
            FromServer::Pong(n) => ServerKind::Pong(pb::Pong { n }),
            FromServer::End(end) => ServerKind::End(end.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::End> for End {
    type Error = StanzaError;

    fn try_from(end: pb::End) -> Result<Self, StanzaError> {
        Ok(Self { reason: EndReason::try_from(end.reason).at("reason")?, retry_after_ms: end.retry_after_ms })
    }
}

impl From<End> for pb::End {
    fn from(end: End) -> Self {
        Self { reason: end.reason.into(), retry_after_ms: end.retry_after_ms }
    }
}

impl TryFrom<pb::Notification> for Notification {
    type Error = StanzaError;

    fn try_from(notification: pb::Notification) -> Result<Self, StanzaError> {
        Ok(match required("kind", notification.kind)? {
            NotificationKind::PrekeysLow(pb::PrekeysLow { ec, kyber }) => Self::PrekeysLow(KeyCounts { ec, kyber }),
            NotificationKind::DevicesChanged(changed) => {
                Self::DevicesChanged(changed.address.parse::<Address>().at("address").at("devices_changed")?)
            }
            NotificationKind::ConsentChanged(pb::ConsentChanged {}) => Self::ConsentChanged,
            NotificationKind::ContactRequest(request) => {
                Self::ContactRequest(request.from.parse::<Address>().at("from").at("contact_request")?)
            }
        })
    }
}

impl From<Notification> for pb::Notification {
    fn from(notification: Notification) -> Self {
        let kind = match notification {
            Notification::PrekeysLow(KeyCounts { ec, kyber }) => {
                NotificationKind::PrekeysLow(pb::PrekeysLow { ec, kyber })
            }
            Notification::DevicesChanged(address) => {
                NotificationKind::DevicesChanged(pb::DevicesChanged { address: address.to_string() })
            }
            Notification::ConsentChanged => NotificationKind::ConsentChanged(pb::ConsentChanged {}),
            Notification::ContactRequest(from) => {
                NotificationKind::ContactRequest(pb::ContactRequest { from: from.to_string() })
            }
        };
        Self { kind: Some(kind) }
    }
}
