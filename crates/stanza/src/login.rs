//! What the server says first: the login succeeded or failed.

use bytes::Bytes;
use causeway_identity::{AccountId, Address, DeviceId, SessionId};
use causeway_proto::wire::v1 as pb;

use crate::error::{At, Problem, StanzaError};

/// The login succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    /// New for each session.
    pub session: SessionId,
    /// The user whom the token names. A client that expects another one must not go on.
    pub address: Address,
    /// Who this device is; `None` for a session that has not enlisted yet.
    pub enlisted: Option<Enlisted>,
    /// Devices of the account.
    pub device_count: u32,
    /// One-time prekeys should be topped up.
    pub prekeys_low: bool,
    /// Messages that wait in this device's mailbox.
    pub waiting: u64,
}

/// The internal name of a device: its Signal address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enlisted {
    /// The account.
    pub account: AccountId,
    /// The device of it.
    pub device: DeviceId,
}

impl TryFrom<pb::Success> for Success {
    type Error = StanzaError;

    fn try_from(success: pb::Success) -> Result<Self, StanzaError> {
        let enlisted = match (success.account_id.is_empty(), success.device_id) {
            (true, 0) => None,
            (true, _) | (false, 0) => return Err(Problem::Contradiction).at("device_id"),
            (false, device) => Some(Enlisted {
                account: AccountId::try_from(&success.account_id[..]).at("account_id")?,
                device: DeviceId::new(device).at("device_id")?,
            }),
        };
        Ok(Self {
            session: SessionId::try_from(&success.session_id[..]).at("session_id")?,
            address: success.address.parse().at("address")?,
            enlisted,
            device_count: success.device_count,
            prekeys_low: success.prekeys_low,
            waiting: success.waiting,
        })
    }
}

impl From<Success> for pb::Success {
    fn from(success: Success) -> Self {
        Self {
            session_id: id_bytes(success.session.as_bytes()),
            account_id: success.enlisted.map(|enlisted| id_bytes(enlisted.account.as_bytes())).unwrap_or_default(),
            device_id: success.enlisted.map_or(0, |enlisted| enlisted.device.get()),
            device_count: success.device_count,
            prekeys_low: success.prekeys_low,
            waiting: success.waiting,
            address: success.address.as_str().to_owned(),
        }
    }
}

impl TryFrom<pb::Enlisted> for Enlisted {
    type Error = StanzaError;

    fn try_from(enlisted: pb::Enlisted) -> Result<Self, StanzaError> {
        Ok(Self {
            account: AccountId::try_from(&enlisted.account_id[..]).at("account_id")?,
            device: DeviceId::new(enlisted.device_id).at("device_id")?,
        })
    }
}

impl From<Enlisted> for pb::Enlisted {
    fn from(enlisted: Enlisted) -> Self {
        Self { account_id: id_bytes(enlisted.account.as_bytes()), device_id: enlisted.device.get() }
    }
}

/// An id as a generated field.
pub(crate) fn id_bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}
