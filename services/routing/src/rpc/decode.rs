//! What edges send, as own types. An edge has checked it all; what does not parse here ends the session that sent it.

use std::sync::Arc;

use bytes::Bytes;
use causeway_identity::{AccountId, Address, DeviceId, MessageId};
use causeway_proto::routing::v1 as pb;
use causeway_proto::wire::v1 as wire;

use crate::limits::Charge;
use crate::message::{AsWritten, Class, Enc, EncType, Sender, Submission};
use crate::session::LoginOrder;

/// A field that does not hold what it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("field {0} is not acceptable")]
pub(crate) struct BadField(pub(crate) &'static str);

/// Copies that a message may have: far more than an account has devices, so that a wrong list gets its answer.
const MAX_ENC: usize = 256;

/// Who attaches.
pub(crate) fn attach(attach: &pb::Attach) -> Result<Sender, BadField> {
    let address: Address = attach.address.parse().map_err(|_| BadField("address"))?;
    let sender = Sender {
        account: AccountId::try_from(&attach.account_id[..]).map_err(|_| BadField("account_id"))?,
        device: DeviceId::new(attach.device_id).map_err(|_| BadField("device_id"))?,
        provider: attach.provider_domain.parse().map_err(|_| BadField("provider_domain"))?,
        address,
    };
    if sender.address.provider() != sender.provider.as_str() {
        return Err(BadField("provider_domain"));
    }
    Ok(sender)
}

/// Which of its device's logins it is.
pub(crate) fn login(attach: &pb::Attach) -> Option<LoginOrder> {
    attach.login.map(|pb::LoginOrder { source, number, attachment }| LoginOrder { source, number, attachment })
}

/// A submitted message, and the recipient's address as it was written.
pub(crate) fn submission(
    submit: wire::Submit,
    from: Arc<Sender>,
    charge: Charge,
) -> Result<(Submission, AsWritten), BadField> {
    let id = MessageId::try_from(&submit.id[..]).map_err(|_| BadField("id"))?;
    let to: Address = submit.to.parse().map_err(|_| BadField("to"))?;
    let class = match wire::MessageClass::try_from(submit.class) {
        Ok(wire::MessageClass::Chat) => Class::Chat,
        Ok(wire::MessageClass::Ephemeral) => Class::Ephemeral,
        Ok(wire::MessageClass::Call) => Class::Call,
        Ok(wire::MessageClass::Unspecified) | Err(_) => return Err(BadField("class")),
    };
    if submit.enc.len() > MAX_ENC {
        return Err(BadField("enc"));
    }
    let mut enc = Vec::with_capacity(submit.enc.len());
    for part in submit.enc {
        let kind = match wire::EncType::try_from(part.r#type) {
            Ok(wire::EncType::Prekey) => EncType::Prekey,
            Ok(wire::EncType::Whisper) => EncType::Whisper,
            Ok(wire::EncType::SenderKey) => EncType::SenderKey,
            Ok(wire::EncType::Plaintext) => EncType::Plaintext,
            Ok(wire::EncType::Unspecified) | Err(_) => return Err(BadField("enc.type")),
        };
        let device = DeviceId::new(part.device).map_err(|_| BadField("enc.device"))?;
        // The bytes of a message that was received are slices of the whole batch, and would keep all of it in memory.
        let ciphertext = Bytes::copy_from_slice(&part.ciphertext);
        enc.push(Enc { device, registration: part.reg, kind, ciphertext });
    }
    if let ([one, other, ..], true) = (&mut enc[..], crate::planted::is("wrong-device")) {
        std::mem::swap(&mut one.ciphertext, &mut other.ciphertext);
    }
    Ok((Submission { id, from, to, class, enc, charge: Some(charge), trace: None }, AsWritten(submit.to)))
}

/// Bytes that a submission keeps in memory.
pub(crate) fn weight(submit: &wire::Submit) -> usize {
    let copies: usize = submit.enc.iter().map(|enc| enc.ciphertext.len() + 64).sum();
    copies + 512
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::limits::Budget;

    #[test]
    fn a_submission_keeps_nothing_of_the_batch_that_it_came_in() {
        let submit = |size: usize| wire::Submit {
            id: Bytes::from_static(&[7; 16]),
            to: "bo@home.example".to_owned(),
            class: wire::MessageClass::Chat.into(),
            enc: vec![wire::Enc {
                device: 1,
                reg: 101,
                r#type: wire::EncType::Whisper.into(),
                ciphertext: vec![1; size].into(),
            }],
        };
        let event = |size| pb::EdgeEvent {
            session_id: Bytes::from_static(&[1; 16]),
            event: Some(pb::edge_event::Event::Submit(pb::Submitted {
                message: Some(submit(size)),
                ..pb::Submitted::default()
            })),
        };
        let batch = pb::FromEdge { events: vec![event(10), event(200_000)] };
        let received = Bytes::from(batch.encode_to_vec());
        let batch = pb::FromEdge::decode(received.clone()).unwrap();
        assert!(!received.is_unique());
        let from = Arc::new(
            attach(&pb::Attach {
                account_id: Bytes::from_static(&[2; 16]),
                device_id: 1,
                address: "ada@home.example".to_owned(),
                provider_domain: "home.example".to_owned(),
                ..pb::Attach::default()
            })
            .unwrap(),
        );
        let small = batch.events.into_iter().find_map(|event| match event.event? {
            pb::edge_event::Event::Submit(submitted) => submitted.message,
            _ => None,
        });
        let charge = Budget::new(1_000).charge(10).unwrap();
        let (kept, _) = submission(small.unwrap(), from, charge).unwrap();
        assert!(received.is_unique(), "200 kB are held by 10 bytes");
        assert_eq!(kept.enc[0].ciphertext.len(), 10);
    }
}
