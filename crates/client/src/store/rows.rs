//! How bulky records are written in a row: as protobuf messages of this module's own, so that fields can be added
//! without a change of the schema.

use bytes::Bytes;
use causeway_identity::{AccountId, DeviceAddress, DeviceId, MessageId};
use causeway_stanza::{EncType, Inbox, MessageClass, ProviderKind, Rejection};
use prost::Message as _;

use super::{InboxItem, Outgoing, Peer, PeerDevice, Purpose, SealedFor, SignalAddress, StoreError};
use crate::content::{self, Opened};
use crate::event::{
    IdentityChanged, Message, Origin, RejectReason, SendResult, SentElsewhere, Undecryptable, UndecryptableReason,
};

#[derive(Clone, PartialEq, prost::Message)]
struct OutgoingRow {
    #[prost(bytes = "vec", tag = "1")]
    content: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    sealed: Vec<SealedRow>,
    #[prost(uint32, tag = "3")]
    repairs: u32,
    #[prost(message, optional, tag = "4")]
    resend: Option<ResendRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SealedRow {
    #[prost(uint32, tag = "1")]
    device: u32,
    #[prost(uint32, tag = "2")]
    registration_id: u32,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(bytes = "bytes", tag = "4")]
    ciphertext: Bytes,
    #[prost(bytes = "vec", tag = "5")]
    identity: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResendRow {
    #[prost(bytes = "vec", tag = "1")]
    account: Vec<u8>,
    #[prost(uint32, tag = "2")]
    device: u32,
    #[prost(bytes = "vec", tag = "3")]
    identity: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    original: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    instead_of: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InboxRow {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(bytes = "vec", tag = "3")]
    account: Vec<u8>,
    #[prost(uint32, tag = "4")]
    device: u32,
    #[prost(uint64, tag = "5")]
    sent_at_ms: u64,
    #[prost(uint64, tag = "6")]
    accepted_at_ms: u64,
    #[prost(bytes = "vec", tag = "7")]
    content: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    resolves: Vec<Vec<u8>>,
    #[prost(string, tag = "9")]
    provider: String,
    #[prost(int32, tag = "10")]
    provider_kind: i32,
    #[prost(string, tag = "11")]
    protocol: String,
    #[prost(int32, tag = "12")]
    inbox: i32,
    #[prost(int32, tag = "13")]
    class: i32,
    #[prost(int32, tag = "14")]
    reason: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DevicesRow {
    #[prost(bool, tag = "1")]
    known: bool,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<DeviceRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeviceRow {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(uint32, tag = "2")]
    registration_id: u32,
}

/// The bulk of an outgoing message.
pub(super) fn write_outgoing(outgoing: &Outgoing) -> Vec<u8> {
    let sealed = outgoing.sealed.iter().map(|sealed| SealedRow {
        device: sealed.device.get(),
        registration_id: sealed.registration_id,
        kind: sealed.kind.into(),
        ciphertext: sealed.ciphertext.clone(),
        identity: sealed.identity.clone(),
    });
    let resend = match &outgoing.purpose {
        Purpose::Resend { device, identity, original, instead_of } => Some(ResendRow {
            account: device.account.as_bytes().to_vec(),
            device: device.device.get(),
            identity: identity.clone(),
            original: original.as_bytes().to_vec(),
            instead_of: instead_of.iter().map(|id| id.as_bytes().to_vec()).collect(),
        }),
        _ => None,
    };
    let row =
        OutgoingRow { content: outgoing.content.clone(), sealed: sealed.collect(), repairs: outgoing.repairs, resend };
    row.encode_to_vec()
}

/// Numbers for what an outgoing message is for.
pub(super) fn purpose_number(purpose: &Purpose) -> i64 {
    match purpose {
        Purpose::Message => 0,
        Purpose::Sync => 1,
        Purpose::RetryRequest => 2,
        Purpose::Resend { .. } => 3,
    }
}

/// Fills in what [`write_outgoing`] wrote.
pub(super) fn read_outgoing(bytes: &[u8], purpose: i64, into: &mut Outgoing) -> Result<(), StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt("outgoing message");
    let row = OutgoingRow::decode(bytes).map_err(|_| CORRUPT)?;
    into.purpose = match (purpose, row.resend) {
        (0, None) => Purpose::Message,
        (1, None) => Purpose::Sync,
        (2, None) => Purpose::RetryRequest,
        (3, Some(resend)) => Purpose::Resend {
            device: signal_address(&resend.account, resend.device).ok_or(CORRUPT)?,
            identity: resend.identity,
            original: message_id(&resend.original).ok_or(CORRUPT)?,
            instead_of: message_ids(&resend.instead_of).ok_or(CORRUPT)?,
        },
        _ => return Err(CORRUPT),
    };
    into.content = row.content;
    into.repairs = row.repairs;
    for sealed in row.sealed {
        into.sealed.push(SealedFor {
            device: DeviceId::new(sealed.device).map_err(|_| CORRUPT)?,
            registration_id: sealed.registration_id,
            kind: EncType::try_from(sealed.kind).map_err(|_| CORRUPT)?,
            ciphertext: sealed.ciphertext,
            identity: sealed.identity,
        });
    }
    Ok(())
}

/// Numbers for outcomes.
pub(super) fn result_number(result: SendResult) -> i64 {
    match result {
        SendResult::Delivered => 1,
        SendResult::Stored => 2,
        SendResult::Dropped => 3,
        SendResult::Rejected(RejectReason::Expired) => 10,
        SendResult::Rejected(RejectReason::BadKeys) => 11,
        SendResult::Rejected(RejectReason::IdentityChanged) => 12,
        SendResult::Rejected(RejectReason::Server(reason)) => 100 + i64::from(i32::from(reason)),
    }
}

/// Reads [`result_number`].
pub(super) fn result_from(number: i64) -> Result<SendResult, StoreError> {
    Ok(match number {
        1 => SendResult::Delivered,
        2 => SendResult::Stored,
        3 => SendResult::Dropped,
        10 => SendResult::Rejected(RejectReason::Expired),
        11 => SendResult::Rejected(RejectReason::BadKeys),
        12 => SendResult::Rejected(RejectReason::IdentityChanged),
        _ => {
            let reason = i32::try_from(number - 100).ok().and_then(|number| Rejection::try_from(number).ok());
            SendResult::Rejected(RejectReason::Server(reason.ok_or(StoreError::Corrupt("outcome"))?))
        }
    })
}

/// An entry for the application: a number for its kind, and its bytes.
pub(super) fn write_inbox(item: &InboxItem) -> Result<(i64, Vec<u8>), StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt("received content");
    let (kind, row) = match item {
        InboxItem::Message(message) => (
            0,
            InboxRow {
                id: message.id.as_bytes().to_vec(),
                address: message.from.account.as_str().to_owned(),
                account: message.account.as_bytes().to_vec(),
                device: message.from.device.get(),
                sent_at_ms: message.sent_at_ms,
                accepted_at_ms: message.accepted_at_ms,
                content: content::keep(message.id, message.sent_at_ms, &message.content).map_err(|_| CORRUPT)?,
                resolves: message.resolves.iter().map(|id| id.as_bytes().to_vec()).collect(),
                provider: message.origin.provider.clone(),
                provider_kind: message.origin.kind.into(),
                protocol: message.origin.protocol.clone(),
                inbox: message.origin.inbox.into(),
                class: message.class.into(),
                reason: 0,
            },
        ),
        InboxItem::SentElsewhere(sent) => (
            1,
            InboxRow {
                id: sent.id.as_bytes().to_vec(),
                address: sent.to.as_str().to_owned(),
                device: sent.device.get(),
                sent_at_ms: sent.sent_at_ms,
                content: content::keep(sent.id, sent.sent_at_ms, &sent.content).map_err(|_| CORRUPT)?,
                ..Default::default()
            },
        ),
        InboxItem::Undecryptable(message) => (
            2,
            InboxRow {
                id: message.id.as_bytes().to_vec(),
                address: message.from.account.as_str().to_owned(),
                account: message.account.as_bytes().to_vec(),
                device: message.from.device.get(),
                accepted_at_ms: message.accepted_at_ms,
                reason: match message.reason {
                    UndecryptableReason::Keys => 0,
                    UndecryptableReason::Malformed => 1,
                    UndecryptableReason::Unsupported => 2,
                },
                ..Default::default()
            },
        ),
        InboxItem::IdentityChanged(change) => (
            3,
            InboxRow {
                address: change.address.as_str().to_owned(),
                device: change.device.map_or(0, DeviceId::get),
                ..Default::default()
            },
        ),
    };
    Ok((kind, row.encode_to_vec()))
}

/// Reads [`write_inbox`].
pub(super) fn read_inbox(kind: i64, bytes: &[u8]) -> Result<InboxItem, StoreError> {
    let row = InboxRow::decode(bytes).ok();
    row.and_then(|row| inbox_item(kind, &row)).ok_or(StoreError::Corrupt("inbox entry"))
}

fn inbox_item(kind: i64, row: &InboxRow) -> Option<InboxItem> {
    let address = row.address.parse().ok()?;
    let opened = |id| match content::open(id, &row.content) {
        Ok(Opened::Content { content, .. }) => Some(content),
        _ => None,
    };
    Some(match kind {
        0 => {
            let id = message_id(&row.id)?;
            InboxItem::Message(Message {
                id,
                from: DeviceAddress { account: address, device: DeviceId::new(row.device).ok()? },
                account: AccountId::try_from(&row.account[..]).ok()?,
                origin: Origin {
                    provider: row.provider.clone(),
                    kind: ProviderKind::try_from(row.provider_kind).ok()?,
                    protocol: row.protocol.clone(),
                    inbox: Inbox::try_from(row.inbox).ok()?,
                },
                class: MessageClass::try_from(row.class).ok()?,
                sent_at_ms: row.sent_at_ms,
                accepted_at_ms: row.accepted_at_ms,
                content: opened(id)?,
                resolves: message_ids(&row.resolves)?,
            })
        }
        1 => {
            let id = message_id(&row.id)?;
            InboxItem::SentElsewhere(SentElsewhere {
                id,
                device: DeviceId::new(row.device).ok()?,
                to: address,
                sent_at_ms: row.sent_at_ms,
                content: opened(id)?,
            })
        }
        2 => InboxItem::Undecryptable(Undecryptable {
            id: message_id(&row.id)?,
            from: DeviceAddress { account: address, device: DeviceId::new(row.device).ok()? },
            account: AccountId::try_from(&row.account[..]).ok()?,
            accepted_at_ms: row.accepted_at_ms,
            reason: match row.reason {
                0 => UndecryptableReason::Keys,
                1 => UndecryptableReason::Malformed,
                2 => UndecryptableReason::Unsupported,
                _ => return None,
            },
        }),
        3 => InboxItem::IdentityChanged(IdentityChanged { address, device: DeviceId::new(row.device).ok() }),
        _ => return None,
    })
}

/// The devices of a peer.
pub(super) fn write_devices(peer: &Peer) -> Vec<u8> {
    let devices = peer.devices.iter().flatten();
    let devices = devices.map(|device| DeviceRow { id: device.id.get(), registration_id: device.registration_id });
    DevicesRow { known: peer.devices.is_some(), devices: devices.collect() }.encode_to_vec()
}

/// Reads [`write_devices`].
pub(super) fn read_devices(bytes: &[u8]) -> Result<Option<Vec<PeerDevice>>, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt("device list");
    let row = DevicesRow::decode(bytes).map_err(|_| CORRUPT)?;
    let devices = row.devices.iter().map(|device| {
        let id = DeviceId::new(device.id).map_err(|_| CORRUPT)?;
        Ok(PeerDevice { id, registration_id: device.registration_id })
    });
    let devices = devices.collect::<Result<Vec<_>, StoreError>>()?;
    Ok(row.known.then_some(devices))
}

fn message_id(bytes: &[u8]) -> Option<MessageId> {
    MessageId::try_from(bytes).ok()
}

fn message_ids(ids: &[Vec<u8>]) -> Option<Vec<MessageId>> {
    ids.iter().map(|id| message_id(id)).collect()
}

pub(super) fn signal_address(account: &[u8], device: u32) -> Option<SignalAddress> {
    Some(SignalAddress { account: AccountId::try_from(account).ok()?, device: DeviceId::new(device).ok()? })
}
