//! What edges are told, as generated types.

use std::fmt::Write as _;

use bytes::Bytes;
use causeway_identity::DeviceId;
use causeway_proto::routing::v1 as pb;
use causeway_proto::routing::v1::routing_event::Event as Wire;
use causeway_proto::wire::v1 as wire;

use crate::message::{Class, EncType, Ending, Envelope, Inbox, Kind, Outcome, Rejection};
use crate::outbox::Event;
use crate::session::Notice;

/// An event for a session.
pub(crate) fn event(event: Event) -> Wire {
    match event {
        Event::Attached { waiting, number } => Wire::Attached(pb::Attached { waiting, number }),
        Event::Deliver { tag, envelope, trace: _ } => Wire::Deliver(delivery(tag, envelope)),
        Event::Outcome { outcome, id, to } => {
            Wire::Outcome(wire::Outcome { id: Bytes::copy_from_slice(id.as_bytes()), to: to.0, ..answer(outcome) })
        }
        Event::Notify(notice) => Wire::Notify(notification(notice)),
        Event::End { reason, retry_after_ms } => Wire::End(wire::End { reason: ending(reason).into(), retry_after_ms }),
        Event::Moved => Wire::Moved(pb::Moved {}),
    }
}

fn delivery(tag: u64, envelope: Envelope) -> wire::Delivery {
    let Envelope { header, enc } = envelope;
    let class = match header.class {
        Class::Chat => wire::MessageClass::Chat,
        Class::Ephemeral => wire::MessageClass::Ephemeral,
        Class::Call => wire::MessageClass::Call,
    };
    let kind = match enc.kind {
        EncType::Prekey => wire::EncType::Prekey,
        EncType::Whisper => wire::EncType::Whisper,
        EncType::SenderKey => wire::EncType::SenderKey,
        EncType::Plaintext => wire::EncType::Plaintext,
    };
    let origin = wire::Origin {
        provider: header.origin.provider.as_str().to_owned(),
        kind: match header.origin.kind {
            Kind::Home => wire::ProviderKind::Home.into(),
            Kind::ThirdParty => wire::ProviderKind::ThirdParty.into(),
        },
        protocol: "signal".to_owned(),
        inbox: match header.origin.inbox {
            Inbox::Main => wire::Inbox::Main.into(),
            Inbox::ThirdParty => wire::Inbox::ThirdParty.into(),
        },
    };
    wire::Delivery {
        id: Bytes::copy_from_slice(header.key.id.as_bytes()),
        from: device_address(header.from.as_str(), header.key.device),
        from_account: Bytes::copy_from_slice(header.key.account.as_bytes()),
        class: class.into(),
        ts: header.ts_ms,
        tag,
        origin: Some(origin),
        r#type: kind.into(),
        ciphertext: enc.ciphertext,
    }
}

fn device_address(address: &str, device: DeviceId) -> String {
    // In one piece of memory: there is one for each delivery.
    let mut text = String::with_capacity(address.len() + "/127".len());
    text.push_str(address);
    let _always = write!(text, "/{device}");
    text
}

/// An outcome without the message that it is about.
fn answer(outcome: Outcome) -> wire::Outcome {
    let status = |status: wire::Status| wire::Outcome { status: status.into(), ..wire::Outcome::default() };
    let rejection = match outcome {
        Outcome::Delivered => return status(wire::Status::Delivered),
        Outcome::Stored => return status(wire::Status::Stored),
        Outcome::Dropped => return status(wire::Status::Dropped),
        Outcome::Rejected(rejection) => rejection,
    };
    let rejected = |reason: wire::Rejection| wire::Outcome { reason: reason.into(), ..status(wire::Status::Rejected) };
    match rejection {
        Rejection::NotAvailable => rejected(wire::Rejection::NotAvailable),
        Rejection::TooLarge => rejected(wire::Rejection::TooLarge),
        Rejection::RateLimited { retry_after_ms } | Rejection::Full { retry_after_ms } => {
            wire::Outcome { retry_after_ms, ..rejected(wire::Rejection::RateLimited) }
        }
        Rejection::Devices(mismatch) => {
            let numbers = |devices: Vec<DeviceId>| devices.into_iter().map(DeviceId::get).collect();
            let devices = wire::DeviceMismatch {
                missing: numbers(mismatch.missing),
                extra: numbers(mismatch.extra),
                stale: numbers(mismatch.stale),
            };
            wire::Outcome { devices: Some(devices), ..rejected(wire::Rejection::Devices) }
        }
    }
}

fn notification(notice: Notice) -> wire::Notification {
    use wire::notification::Kind;
    let kind = match notice {
        Notice::PrekeysLow { ec, kyber } => Kind::PrekeysLow(wire::PrekeysLow { ec, kyber }),
        Notice::DevicesChanged { address } => {
            Kind::DevicesChanged(wire::DevicesChanged { address: address.as_str().to_owned() })
        }
        Notice::ConsentChanged => Kind::ConsentChanged(wire::ConsentChanged {}),
    };
    wire::Notification { kind: Some(kind) }
}

const fn ending(reason: Ending) -> wire::EndReason {
    match reason {
        Ending::Replaced => wire::EndReason::Replaced,
        Ending::DeviceRemoved => wire::EndReason::DeviceRemoved,
        Ending::Withdrawn => wire::EndReason::Withdrawn,
        Ending::BadStanza => wire::EndReason::BadStanza,
        Ending::BadAck => wire::EndReason::BadAck,
        Ending::Overloaded => wire::EndReason::Overloaded,
    }
}
