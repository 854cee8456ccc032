//! Payloads of the Noise handshake (docs/protocol.md, section 3).

use bytes::Bytes;
use causeway_identity::DeviceId;
use causeway_proto::wire::v1 as pb;
use prost::Message;

use crate::bounded::{Blob, Text};
use crate::error::{At, Problem, StanzaError, required};
use crate::iq::Token;
use crate::lists::{Encoding, FailureReason};
use crate::{binary, shapes};

/// Longest payload: what fits into one Noise message.
pub const MAX_HELLO_BYTES: usize = 65_535;

/// What a client says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The provider's JWT; not judged here.
    pub token: Token,
    /// The device that this is; `None`: not enlisted yet.
    pub device: Option<DeviceId>,
    /// How stanzas are written in this session.
    pub encoding: Encoding,
    /// Name and version of the client, for counts only.
    pub agent: Text<0, 64>,
    /// From a provider's proxy only.
    pub forwarded: Option<Forwarded>,
}

/// A provider's proxy vouches for the client behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The proxy's registered id.
    pub proxy_id: Text<0, 128>,
    /// IPv4 or IPv6 address of the client as text.
    pub client_ip: Text<0, 45>,
    /// The client's port.
    pub client_port: u32,
    /// Unix milliseconds.
    pub timestamp_ms: u64,
    /// Ed25519.
    pub signature: Blob<0, 64>,
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerHello {
    /// Binds the static key of this handshake to the deployment; to be verified before anything else is believed.
    pub certificate: pb::ServerCertificate,
    /// The server's clock, Unix milliseconds.
    pub server_time_ms: u64,
    /// What it holds a session to.
    pub limits: Limits,
}

/// What a server holds a session to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest record that it accepts.
    pub max_stanza_bytes: u32,
    /// A client that sent nothing for so long is pinged; after twice this long its session ends.
    pub ping_interval_ms: u32,
}

impl ClientHello {
    /// Reads a handshake payload.
    ///
    /// # Errors
    /// What is wrong; [`failure_reason`] has the answer for the client.
    pub fn decode(payload: &[u8]) -> Result<Self, StanzaError> {
        if payload.len() > MAX_HELLO_BYTES {
            return Err(Problem::TooLarge.into());
        }
        let hello: pb::ClientHello = binary::decode(payload, &shapes::CLIENT_HELLO)?;
        let device = match hello.device_id {
            0 => None,
            number => Some(DeviceId::new(number).at("device_id")?),
        };
        Ok(Self {
            token: Token::try_from(hello.token).at("token")?,
            device,
            encoding: Encoding::try_from(hello.encoding).at("encoding")?,
            agent: Text::try_from(hello.agent).at("agent")?,
            forwarded: hello.forwarded.map(Forwarded::try_from).transpose().at("forwarded")?,
        })
    }

    /// The handshake payload.
    pub fn encode(self) -> Vec<u8> {
        let hello = pb::ClientHello {
            token: self.token.into(),
            device_id: self.device.map_or(0, DeviceId::get),
            encoding: self.encoding.into(),
            agent: self.agent.into(),
            forwarded: self.forwarded.map(pb::Forwarded::from),
        };
        hello.encode_to_vec()
    }
}

/// The failure that a client hello of this kind is answered with: a token that cannot be one is `token-malformed`,
/// everything else is a hello of another `version` than this.
pub fn failure_reason(error: &StanzaError) -> FailureReason {
    if error.path() == "token" { FailureReason::TokenMalformed } else { FailureReason::Version }
}

impl ServerHello {
    /// Reads a handshake payload.
    ///
    /// # Errors
    /// What is wrong: the client must leave.
    pub fn decode(payload: &[u8]) -> Result<Self, StanzaError> {
        if payload.len() > MAX_HELLO_BYTES {
            return Err(Problem::TooLarge.into());
        }
        let hello: pb::ServerHello = binary::decode(payload, &shapes::SERVER_HELLO)?;
        let certificate = required("certificate", hello.certificate)?;
        let limits = required("limits", hello.limits)?;
        if limits.max_stanza_bytes == 0 || limits.ping_interval_ms == 0 {
            return Err(Problem::Range).at("limits");
        }
        Ok(Self {
            certificate: bounded(certificate).at("certificate")?,
            server_time_ms: hello.server_time_ms,
            limits: Limits { max_stanza_bytes: limits.max_stanza_bytes, ping_interval_ms: limits.ping_interval_ms },
        })
    }

    /// The handshake payload.
    pub fn encode(self) -> Vec<u8> {
        let hello = pb::ServerHello {
            certificate: Some(self.certificate),
            server_time_ms: self.server_time_ms,
            limits: Some(pb::Limits {
                max_stanza_bytes: self.limits.max_stanza_bytes,
                ping_interval_ms: self.limits.ping_interval_ms,
            }),
        };
        hello.encode_to_vec()
    }
}

/// Bounds only; `causeway_identity` verifies.
fn bounded(certificate: pb::ServerCertificate) -> Result<pb::ServerCertificate, StanzaError> {
    let within = |name: &str, bytes: &Bytes, most: usize| match bytes.len() {
        length if length <= most => Ok(()),
        _ => Err(Problem::Length).at(name),
    };
    within("body", &certificate.body, 1024)?;
    within("root_id", &certificate.root_id, 8)?;
    within("signature", &certificate.signature, 64)?;
    Ok(certificate)
}

impl TryFrom<pb::Forwarded> for Forwarded {
    type Error = StanzaError;

    fn try_from(forwarded: pb::Forwarded) -> Result<Self, StanzaError> {
        Ok(Self {
            proxy_id: Text::try_from(forwarded.proxy_id).at("proxy_id")?,
            client_ip: Text::try_from(forwarded.client_ip).at("client_ip")?,
            client_port: forwarded.client_port,
            timestamp_ms: forwarded.timestamp_ms,
            signature: Blob::try_from(forwarded.signature).at("signature")?,
        })
    }
}

impl From<Forwarded> for pb::Forwarded {
    fn from(forwarded: Forwarded) -> Self {
        Self {
            proxy_id: forwarded.proxy_id.into(),
            client_ip: forwarded.client_ip.into(),
            client_port: forwarded.client_port,
            timestamp_ms: forwarded.timestamp_ms,
            signature: forwarded.signature.into(),
        }
    }
}
