//! What goes into a message and what must be in a delivery.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use causeway_stanza::{Ciphertext, Delivery, Enc, EncList, EncType};

use crate::client::canary::{Canary, Secret};
use crate::driver::world::{Enlisted, World};
use crate::ledger::MessageNumber;

/// Which message a delivery to device `d` of account `a` is, and what is wrong with it.
pub(super) fn inspect(world: &World, d: u32, a: u32, delivery: &Delivery) -> (MessageNumber, Option<String>) {
    let Some(m) = world.secret.number(&delivery.id) else {
        let mut number = [0; 8];
        number.copy_from_slice(&delivery.id.as_bytes()[..8]);
        return (MessageNumber(u64::from_be_bytes(number)), Some(format!("nobody made the id {}", delivery.id)));
    };
    let wrong = match world.secret.open(d, m, delivery.ciphertext.as_bytes()) {
        Err(error) => Some(error.to_string()),
        Ok(canary) if canary.account != a || canary.device != d => {
            Some(format!("made for account {} device {}", canary.account, canary.device))
        }
        Ok(_) => world.device(m.device()).and_then(|sender| {
            let account = world.account(sender.account).ok()?;
            let is_from = delivery.from.device == sender.id
                && delivery.from.account == account.address
                && account.id() == Some(delivery.from_account);
            (!is_from).then(|| format!("said to be from {} of {}", delivery.from, delivery.from_account))
        }),
    };
    (m, wrong)
}

/// A body for each of these devices.
pub(super) fn encode(
    secret: &Secret,
    message: MessageNumber,
    seq: u32,
    account: u32,
    devices: &[Arc<Enlisted>],
    padding: usize,
) -> anyhow::Result<EncList> {
    let mut enc = Vec::with_capacity(devices.len());
    for device in devices {
        let canary = Canary { message, account, device: device.number, seq };
        let ciphertext = Ciphertext::try_from(Bytes::from(secret.seal(canary, padding)?)).ok().context("a body")?;
        enc.push(Enc { device: device.id, registration: device.registration, kind: EncType::Whisper, ciphertext });
    }
    EncList::try_from(enc).map_err(|error| anyhow!("{error}"))
}
