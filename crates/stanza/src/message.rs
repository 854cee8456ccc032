//! Messages: what a sender submits, what a device is delivered, and what the sender is told of it.

use std::ops::Deref;

use causeway_identity::{AccountId, Address, DeviceAddress, DeviceId, Domain, MessageId};
use causeway_proto::wire::v1 as pb;

use crate::bounded::{Blob, List, Text};
use crate::error::{At, Problem, StanzaError, required};
use crate::keys::RegistrationId;
use crate::lists::{EncType, Inbox, MessageClass, ProviderKind, Rejection, Status};
use crate::login::id_bytes;

/// One device's ciphertext: not empty, and bounded by the largest record.
pub type Ciphertext = Blob<1, { crate::MAX_RECORD_BYTES }>;

/// A message on its way to the server. The sender's address is not part of it: the server knows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submit {
    /// Made by the sender; the same id to the same recipient is a retry.
    pub id: MessageId,
    /// The recipient's account.
    pub to: Address,
    /// How to handle it.
    pub class: MessageClass,
    /// One ciphertext for each of the recipient's devices.
    pub enc: EncList,
}

/// One device's share of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enc {
    /// The recipient device.
    pub device: DeviceId,
    /// The registration id that the sender knows for that device.
    pub registration: RegistrationId,
    /// What the ciphertext is.
    pub kind: EncType,
    /// The ciphertext.
    pub ciphertext: Ciphertext,
}

/// 1 to 16 ciphertexts, each for another device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncList(List<Enc, { DeviceId::MAX_PER_ACCOUNT }>);

impl EncList {
    /// The ciphertexts.
    pub fn into_vec(self) -> Vec<Enc> {
        self.0.into_vec()
    }
}

impl TryFrom<Vec<Enc>> for EncList {
    type Error = StanzaError;

    /// # Errors
    /// [`Problem::Missing`] for none, [`Problem::TooMany`] above 16, [`Problem::Duplicate`] for one device twice.
    fn try_from(enc: Vec<Enc>) -> Result<Self, StanzaError> {
        if enc.is_empty() {
            return Err(Problem::Missing).at("enc");
        }
        Ok(Self(List::try_from(enc).at("enc")?.distinct("enc", |one| one.device)?))
    }
}

impl Deref for EncList {
    type Target = [Enc];

    fn deref(&self) -> &[Enc] {
        &self.0
    }
}

/// A message on its way to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The sender's id for it.
    pub id: MessageId,
    /// The sender's device.
    pub from: DeviceAddress,
    /// The sender's account: the name in its Signal address.
    pub from_account: AccountId,
    /// How to handle it.
    pub class: MessageClass,
    /// When the server accepted it, Unix milliseconds.
    pub ts_ms: u64,
    /// Rises by one per session, from 1.
    pub tag: u64,
    /// Where it comes from and which promises hold for it.
    pub origin: Origin,
    /// What the ciphertext is.
    pub kind: EncType,
    /// The ciphertext for this device.
    pub ciphertext: Ciphertext,
}

/// Where a message comes from; always set by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The sender's provider.
    pub provider: Domain,
    /// Whose provider that is.
    pub kind: ProviderKind,
    /// The end-to-end protocol: `signal`, or the registered name of another approved one.
    pub protocol: Text<1, 32>,
    /// Where to show it.
    pub inbox: Inbox,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The message.
    pub id: MessageId,
    /// The account it was sent to.
    pub to: Address,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Every addressed device has acknowledged.
    Delivered,
    /// Durable in at least one mailbox, delivered for the rest.
    Stored,
    /// Ephemeral, and not everybody was there.
    Dropped,
    /// Nothing was delivered or stored.
    Rejected(Rejected),
}

/// Why a message was rejected, with what the sender needs to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    /// The device list differs from the directory's.
    Devices(DeviceMismatch),
    /// Unknown, not enlisted, not opted in, blocked, or a closed route.
    NotAvailable,
    /// Too many.
    RateLimited {
        /// Milliseconds to wait; 0: not said.
        retry_after_ms: u64,
    },
    /// Larger than the recipient takes.
    TooLarge,
    /// The allowance of a message request is used up.
    RequestPending,
}

impl Fate {
    /// The list value, for logs and metrics.
    pub const fn status(&self) -> Status {
        match self {
            Self::Delivered => Status::Delivered,
            Self::Stored => Status::Stored,
            Self::Dropped => Status::Dropped,
            Self::Rejected(_) => Status::Rejected,
        }
    }
}

impl Rejected {
    /// The list value, for logs and metrics.
    pub const fn reason(&self) -> Rejection {
        match self {
            Self::Devices(_) => Rejection::Devices,
            Self::NotAvailable => Rejection::NotAvailable,
            Self::RateLimited { .. } => Rejection::RateLimited,
            Self::TooLarge => Rejection::TooLarge,
            Self::RequestPending => Rejection::RequestPending,
        }
    }
}

/// How a sender's device list differs from the directory's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceMismatch {
    /// Devices of the account that the message left out.
    pub missing: DeviceIds,
    /// Devices that the message named and the account does not have.
    pub extra: DeviceIds,
    /// Devices whose registration id is another one now.
    pub stale: DeviceIds,
}

/// At most 16 different devices.
pub type DeviceIds = List<DeviceId, { DeviceId::MAX_PER_ACCOUNT }>;

pub(crate) fn read_devices(name: &str, numbers: Vec<u32>) -> Result<DeviceIds, StanzaError> {
    DeviceIds::read(name, numbers, DeviceId::new)?.distinct(name, |device| *device)
}

pub(crate) fn write_devices(devices: DeviceIds) -> Vec<u32> {
    devices.write(DeviceId::get)
}

impl TryFrom<pb::Submit> for Submit {
    type Error = StanzaError;

    fn try_from(submit: pb::Submit) -> Result<Self, StanzaError> {
        let enc: List<Enc, { DeviceId::MAX_PER_ACCOUNT }> = List::read("enc", submit.enc, Enc::try_from)?;
        Ok(Self {
            id: MessageId::try_from(&submit.id[..]).at("id")?,
            to: Address::try_from(submit.to).at("to")?,
            class: MessageClass::try_from(submit.class).at("class")?,
            enc: EncList::try_from(enc.into_vec())?,
        })
    }
}

impl From<Submit> for pb::Submit {
    fn from(submit: Submit) -> Self {
        Self {
            id: id_bytes(submit.id.as_bytes()),
            to: submit.to.into_string(),
            class: submit.class.into(),
            enc: submit.enc.0.write(pb::Enc::from),
        }
    }
}

impl TryFrom<pb::Enc> for Enc {
    type Error = StanzaError;

    fn try_from(enc: pb::Enc) -> Result<Self, StanzaError> {
        Ok(Self {
            device: DeviceId::new(enc.device).at("device")?,
            registration: RegistrationId::new(enc.reg).at("reg")?,
            kind: EncType::try_from(enc.r#type).at("type")?,
            ciphertext: Ciphertext::try_from(enc.ciphertext).at("ciphertext")?,
        })
    }
}

impl From<Enc> for pb::Enc {
    fn from(enc: Enc) -> Self {
        Self {
            device: enc.device.get(),
            reg: enc.registration.get(),
            r#type: enc.kind.into(),
            ciphertext: enc.ciphertext.into(),
        }
    }
}

impl TryFrom<pb::Delivery> for Delivery {
    type Error = StanzaError;

    fn try_from(delivery: pb::Delivery) -> Result<Self, StanzaError> {
        if delivery.tag == 0 {
            return Err(Problem::Range).at("tag");
        }
        Ok(Self {
            id: MessageId::try_from(&delivery.id[..]).at("id")?,
            from: delivery.from.parse::<DeviceAddress>().at("from")?,
            from_account: AccountId::try_from(&delivery.from_account[..]).at("from_account")?,
            class: MessageClass::try_from(delivery.class).at("class")?,
            ts_ms: delivery.ts,
            tag: delivery.tag,
            origin: required("origin", delivery.origin)?.try_into().at("origin")?,
            kind: EncType::try_from(delivery.r#type).at("type")?,
            ciphertext: Ciphertext::try_from(delivery.ciphertext).at("ciphertext")?,
        })
    }
}

impl From<Delivery> for pb::Delivery {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: id_bytes(delivery.id.as_bytes()),
            from: delivery.from.to_string(),
            from_account: id_bytes(delivery.from_account.as_bytes()),
            class: delivery.class.into(),
            ts: delivery.ts_ms,
            tag: delivery.tag,
            origin: Some(delivery.origin.into()),
            r#type: delivery.kind.into(),
            ciphertext: delivery.ciphertext.into(),
        }
    }
}

impl TryFrom<pb::Origin> for Origin {
    type Error = StanzaError;

    fn try_from(origin: pb::Origin) -> Result<Self, StanzaError> {
        Ok(Self {
            provider: origin.provider.parse::<Domain>().at("provider")?,
            kind: ProviderKind::try_from(origin.kind).at("kind")?,
            protocol: Text::try_from(origin.protocol).at("protocol")?,
            inbox: Inbox::try_from(origin.inbox).at("inbox")?,
        })
    }
}

impl From<Origin> for pb::Origin {
    fn from(origin: Origin) -> Self {
        Self {
            provider: origin.provider.to_string(),
            kind: origin.kind.into(),
            protocol: origin.protocol.into(),
            inbox: origin.inbox.into(),
        }
    }
}

impl TryFrom<pb::Outcome> for Outcome {
    type Error = StanzaError;

    fn try_from(outcome: pb::Outcome) -> Result<Self, StanzaError> {
        let status = Status::try_from(outcome.status).at("status")?;
        let reason = match status {
            Status::Rejected => Some(Rejection::try_from(outcome.reason).at("reason")?),
            _ if outcome.reason != 0 => return Err(Problem::Contradiction).at("reason"),
            _ => None,
        };
        if reason != Some(Rejection::Devices) && outcome.devices.is_some() {
            return Err(Problem::Contradiction).at("devices");
        }
        if reason != Some(Rejection::RateLimited) && outcome.retry_after_ms != 0 {
            return Err(Problem::Contradiction).at("retry_after_ms");
        }
        let rejected = match reason {
            None => None,
            Some(Rejection::Devices) => {
                Some(Rejected::Devices(required("devices", outcome.devices)?.try_into().at("devices")?))
            }
            Some(Rejection::NotAvailable) => Some(Rejected::NotAvailable),
            Some(Rejection::RateLimited) => Some(Rejected::RateLimited { retry_after_ms: outcome.retry_after_ms }),
            Some(Rejection::TooLarge) => Some(Rejected::TooLarge),
            Some(Rejection::RequestPending) => Some(Rejected::RequestPending),
        };
        let fate = match (status, rejected) {
            (_, Some(rejected)) => Fate::Rejected(rejected),
            (Status::Delivered, None) => Fate::Delivered,
            (Status::Stored, None) => Fate::Stored,
            (Status::Dropped, None) => Fate::Dropped,
            (Status::Rejected, None) => return Err(Problem::Missing).at("reason"),
        };
        Ok(Self {
            id: MessageId::try_from(&outcome.id[..]).at("id")?,
            to: Address::try_from(outcome.to).at("to")?,
            fate,
        })
    }
}

impl From<Outcome> for pb::Outcome {
    fn from(outcome: Outcome) -> Self {
        let status = outcome.fate.status();
        let mut wire = Self {
            id: id_bytes(outcome.id.as_bytes()),
            to: outcome.to.into_string(),
            status: status.into(),
            ..Self::default()
        };
        if let Fate::Rejected(rejected) = outcome.fate {
            wire.reason = rejected.reason().into();
            match rejected {
                Rejected::Devices(mismatch) => wire.devices = Some(mismatch.into()),
                Rejected::RateLimited { retry_after_ms } => wire.retry_after_ms = retry_after_ms,
                Rejected::NotAvailable | Rejected::TooLarge | Rejected::RequestPending => {}
            }
        }
        wire
    }
}

impl TryFrom<pb::DeviceMismatch> for DeviceMismatch {
    type Error = StanzaError;

    fn try_from(mismatch: pb::DeviceMismatch) -> Result<Self, StanzaError> {
        Ok(Self {
            missing: read_devices("missing", mismatch.missing)?,
            extra: read_devices("extra", mismatch.extra)?,
            stale: read_devices("stale", mismatch.stale)?,
        })
    }
}

impl From<DeviceMismatch> for pb::DeviceMismatch {
    fn from(mismatch: DeviceMismatch) -> Self {
        Self {
            missing: write_devices(mismatch.missing),
            extra: write_devices(mismatch.extra),
            stale: write_devices(mismatch.stale),
        }
    }
}
