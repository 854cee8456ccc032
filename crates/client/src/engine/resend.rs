//! Messages that cannot be read: asking for them, and sending them again.

use causeway_stanza::{Delivery, MessageClass};

use super::Engine;
use crate::random;
use crate::signal::{self, RetryRequest, SignalError};
use crate::store::{Purpose, SignalAddress};

/// A message is sent again to a device at most this often.
const MAX_RESENDS: u32 = 3;
/// Messages that wait for one sender; beyond it nobody is asked, and the user sees that a message cannot be read.
const MAX_WAITING: usize = 64;

impl Engine {
    /// Asks the sender of a delivery that could not be decrypted to send it again.
    pub(super) fn ask_sender(&mut self, delivery: &Delivery) {
        let to = delivery.from.account.clone();
        if self.outbox.lane(&to).is_some_and(|lane| lane.len() >= MAX_WAITING) {
            return;
        }
        let ciphertext = delivery.ciphertext.as_bytes();
        let request = signal::ask_again(delivery.id, delivery.from.device, delivery.kind, ciphertext);
        if let Ok(request) = request {
            let id = random::message_id(&mut self.random);
            self.enqueue(id, to, MessageClass::Chat, Purpose::RetryRequest, request);
        }
    }

    /// A device asks this one to send a message again. The request is not encrypted, so it may be anybody's: only a device
    /// that was addressed gets the message, only under the identity that it was meant for, and only a few times.
    pub(super) async fn asked_again(&mut self, from: SignalAddress, delivery: &Delivery) -> Result<(), SignalError> {
        let Some(request) = RetryRequest::read(delivery.ciphertext.as_bytes()) else { return Ok(()) };
        let Some(own) = self.device.enlisted else { return Ok(()) };
        if request.device != own.device {
            return Ok(()); // Another device of this user sent it.
        }
        let to = &delivery.from.account;
        let Some(sent) = self.sent_to(to, request.id_prefix).await? else { return Ok(()) };
        let Some(addressed) = sent.sealed.iter().find(|sealed| sealed.device == from.device) else { return Ok(()) };
        let identity = addressed.identity.clone();
        let same_account = self.peer(to).await?.is_some_and(|peer| peer.account == from.account);
        if !same_account {
            return Ok(());
        }
        let (original, instead_of) = match &sent.purpose {
            Purpose::Message | Purpose::Sync => (sent.id, vec![sent.id]),
            Purpose::Resend { device, original, instead_of, .. } if *device == from => {
                (*original, instead_of.iter().copied().chain([sent.id]).collect())
            }
            Purpose::Resend { .. } | Purpose::RetryRequest => return Ok(()),
        };
        if self.resends(original, from).await? >= MAX_RESENDS {
            return Ok(());
        }
        let mut keyring = self.take_keyring()?;
        let store = std::sync::Arc::clone(&self.store);
        let closed = keyring.close_session(&*store, from, request.ratchet_key.as_ref()).await;
        self.put_keyring(keyring, to);
        closed?;
        self.turn.changes.push(crate::store::Change::CountResend(original, from));
        let id = random::message_id(&mut self.random);
        let purpose = Purpose::Resend { device: from, identity, original, instead_of };
        self.enqueue(id, to.clone(), MessageClass::Chat, purpose, sent.content);
        Ok(())
    }
}
