//! Bodies that only one device can open, and that say for whom they are.

use anyhow::{Context as _, ensure};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use causeway_identity::MessageId;

use crate::ledger::MessageNumber;

/// A word in every user's name and, inside encryption, in every body: it must be in no log.
pub const WORD: &str = "kanarienvogel";

/// What all keys and ids of a run are made of.
#[derive(Debug, Clone, Copy)]
pub struct Secret([u8; 32]);

/// What a body says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// Which message.
    pub message: MessageNumber,
    /// Whose it is.
    pub account: u32,
    /// For which device.
    pub device: u32,
    /// Count for this sender and account.
    pub seq: u32,
}

impl Secret {
    /// The secret of a run.
    pub fn new(seed: u64) -> Self {
        let mut secret = [0; 32];
        secret.copy_from_slice(digest(&SHA256, &[&b"ledger test "[..], &seed.to_be_bytes()].concat()).as_ref());
        Self(secret)
    }

    /// The id of a message on the wire.
    pub fn id(&self, message: MessageNumber) -> MessageId {
        let number = message.0.to_be_bytes();
        let proof = digest(&SHA256, &[&self.0[..], b" id ", &number].concat());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number);
        id[8..].copy_from_slice(&proof.as_ref()[..8]);
        MessageId::from_bytes(id)
    }

    /// The message that an id names; `None`: this run has made no such id.
    pub fn number(&self, id: &MessageId) -> Option<MessageNumber> {
        let mut number = [0; 8];
        number.copy_from_slice(&id.as_bytes()[..8]);
        let number = MessageNumber(u64::from_be_bytes(number));
        (self.id(number) == *id).then_some(number)
    }

    /// The key that only `device` has.
    fn key(&self, device: u32) -> anyhow::Result<LessSafeKey> {
        let bytes = digest(&SHA256, &[&self.0[..], b" device ", &device.to_be_bytes()].concat());
        let key = UnboundKey::new(&AES_128_GCM, &bytes.as_ref()[..16]).ok().context("an AES key")?;
        Ok(LessSafeKey::new(key))
    }

    /// The body for its device, some `padding` bytes longer than it need be.
    ///
    /// # Errors
    /// None in practice.
    pub fn seal(&self, canary: Canary, padding: usize) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::with_capacity(64 + padding);
        body.extend_from_slice(&canary.message.0.to_be_bytes());
        for number in [canary.account, canary.device, canary.seq] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(WORD.as_bytes());
        body.resize(body.len() + padding, b'.');
        // A message goes to a device once under one key, so its number is a nonce.
        let sealed = self.key(canary.device)?.seal_in_place_append_tag(nonce(canary.message), Aad::empty(), &mut body);
        sealed.ok().context("seal a canary")?;
        Ok(body)
    }

    /// Opens what `device` was given under the id of `message`.
    ///
    /// # Errors
    /// It was made for another device, or as another message.
    pub fn open(&self, device: u32, message: MessageNumber, body: &[u8]) -> anyhow::Result<Canary> {
        let mut body = body.to_vec();
        let open = self.key(device)?;
        let plain = open.open_in_place(nonce(message), Aad::empty(), &mut body);
        let plain: &[u8] = plain.ok().context("the body does not open with this device's key and this message's id")?;
        ensure!(plain.len() >= 20 + WORD.len() && plain[20..].starts_with(WORD.as_bytes()), "the body is no canary");
        let number = |at: usize| u32::from_be_bytes([plain[at], plain[at + 1], plain[at + 2], plain[at + 3]]);
        let named = MessageNumber((u64::from(number(0)) << 32) | u64::from(number(4)));
        ensure!(named == message, "the body is of {named}");
        Ok(Canary { message, account: number(8), device: number(12), seq: number(16) })
    }
}

fn nonce(message: MessageNumber) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&message.0.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_opens_on_its_device_under_its_id_only() {
        let secret = Secret::new(5);
        let message = MessageNumber::new(3, 8);
        let canary = Canary { message, account: 2, device: 11, seq: 4 };
        let body = secret.seal(canary, 40).unwrap();
        assert_eq!(secret.open(11, message, &body).unwrap(), canary);
        assert!(secret.open(12, message, &body).is_err());
        assert!(secret.open(11, MessageNumber::new(3, 9), &body).is_err());
        assert!(Secret::new(6).open(11, message, &body).is_err());
    }

    #[test]
    fn ids_are_read_back() {
        let secret = Secret::new(5);
        let message = MessageNumber::new(70_000, 123_456);
        assert_eq!(secret.number(&secret.id(message)), Some(message));
        assert_eq!(Secret::new(6).number(&secret.id(message)), None);
    }
}
