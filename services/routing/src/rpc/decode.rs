//! What edges send, as own types. An edge has checked it all; what does not parse here ends the session that sent it.

use std::sync::Arc;

use causeway_identity::{AccountId, Address, DeviceId, MessageId};
use causeway_proto::routing::v1 as pb;
use causeway_proto::wire::v1 as wire;

use crate::limits::Charge;
use crate::message::{AsWritten, Class, Enc, EncType, Sender, Submission};

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
        enc.push(Enc { device, registration: part.reg, kind, ciphertext: part.ciphertext });
    }
    Ok((Submission { id, from, to, class, enc, charge: Some(charge) }, AsWritten(submit.to)))
}

/// Bytes that a submission keeps in memory.
pub(crate) fn weight(submit: &wire::Submit) -> usize {
    let copies: usize = submit.enc.iter().map(|enc| enc.ciphertext.len() + 64).sum();
    copies + 512
}
