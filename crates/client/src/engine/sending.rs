//! From `send` to the wire: keys where there are none, a ciphertext for each device, then the stanza.

use std::sync::Arc;

use causeway_identity::{AccountId, Address, MessageId};
use causeway_stanza::{
    Ciphertext, Enc, EncList, EncType, Encoding, FromClient, MessageClass, RegistrationId, Rejection, Submit,
    encode_client,
};
use tokio::time::Instant;

use super::lanes::{Claim, Waiting};
use super::{Engine, Reply};
use crate::content::{self, Content, pad};
use crate::error::ClientError;
use crate::event::{RejectReason, SendResult};
use crate::random;
use crate::signal::{Keyring, SignalError};
use crate::store::{Outgoing, Peer, PeerDevice, Purpose, SealedFor, SignalAddress, StoreError};

/// Messages that one turn encrypts at most, so that what comes in is not kept waiting.
const A_TURN: usize = 64;
/// Messages read at once when the outbox is loaded.
const PAGE: usize = 1000;

/// What came of the attempt to encrypt a message.
enum Sealed {
    /// Ready to go.
    Ready(Box<Submit>),
    /// Keys are missing first.
    NeedsClaim(Claim),
    /// It will never go.
    Finished(SendResult),
}

impl Engine {
    /// After a start: what was not finished goes on.
    pub(super) async fn load_outbox(&mut self) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let page = self.store.unfinished(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            page.into_iter().for_each(|header| self.outbox.push(header, None));
        }
    }

    /// The application sends a message.
    pub(super) fn send(&mut self, to: Address, content: &Content, reply: Reply<MessageId>) {
        let id = random::message_id(&mut self.random);
        let refusal = if self.device.enlisted.is_none() {
            Some(ClientError::NotEnlisted)
        } else if self.outbox.len() >= self.config.bounds.queue {
            Some(ClientError::QueueFull)
        } else {
            match content::seal(id, self.now_ms(), content) {
                Ok(sealed) => {
                    self.enqueue(id, to, content.class(), Purpose::Message, sealed);
                    None
                }
                Err(error) => Some(error.into()),
            }
        };
        self.turn.reply(move || drop(reply.send(refusal.map_or(Ok(id), Err))));
    }

    /// Puts a message into the outbox.
    pub(super) fn enqueue(
        &mut self,
        id: MessageId,
        to: Address,
        class: MessageClass,
        purpose: Purpose,
        content: Vec<u8>,
    ) {
        self.last_outgoing += 1;
        let outgoing = Outgoing {
            seq: self.last_outgoing,
            id,
            to,
            class,
            purpose,
            content,
            sealed: Vec::new(),
            repairs: 0,
            created_ms: self.now_ms(),
            result: None,
            finished_ms: 0,
        };
        self.outbox.push(outgoing.header(), Some(Instant::now()));
        self.put_outgoing(outgoing);
    }

    /// Sends what can be sent now.
    pub(super) async fn pump(&mut self) -> Result<(), SignalError> {
        let now = Instant::now();
        self.outbox.wake(now);
        if self.session.is_none() || self.device.enlisted.is_none() {
            return Ok(());
        }
        let mut budget = A_TURN;
        for address in self.outbox.waiting() {
            self.pump_lane(&address, now, &mut budget).await?;
            if budget == 0 {
                break;
            }
        }
        Ok(())
    }

    async fn pump_lane(&mut self, address: &Address, now: Instant, budget: &mut usize) -> Result<(), SignalError> {
        let window = self.session.as_ref().map_or(0, |session| session.window.min(self.config.bounds.window));
        loop {
            if *budget == 0 || self.outbox.in_flight() >= window {
                return Ok(());
            }
            let Some(lane) = self.outbox.lane(address) else { return Ok(()) };
            if lane.wants_claim(now) {
                self.claim(address);
                return Ok(());
            }
            let Some(waiting) = lane.first().filter(|_| lane.is_open(now)).cloned() else { return Ok(()) };
            let Some(mut outgoing) = self.outgoing(waiting.header.id).await? else {
                self.outbox.finish(&waiting.header); // It cannot be gone, but if it is, it is.
                continue;
            };
            *budget -= 1;
            match self.seal(&mut outgoing).await? {
                Sealed::Ready(submit) => {
                    self.put_outgoing(outgoing.clone());
                    self.turn.sends.push(FromClient::Message(*submit));
                    self.outbox.launch(address, outgoing, now + self.config.timing.ack_timeout);
                }
                Sealed::NeedsClaim(claim) => {
                    if let Some(lane) = self.outbox.lane(address) {
                        lane.claim = claim;
                    }
                }
                Sealed::Finished(result) => self.finish(&waiting, outgoing, result).await?,
            }
        }
    }

    /// A ciphertext for every device that has none for its present registration.
    async fn seal(&mut self, outgoing: &mut Outgoing) -> Result<Sealed, SignalError> {
        let Some(Peer { account, devices: Some(devices), .. }) = self.peer(&outgoing.to).await? else {
            return Ok(Sealed::NeedsClaim(Claim::All));
        };
        let own = self.device.enlisted;
        let devices: Vec<_> =
            devices.into_iter().filter(|device| own != Some(SignalAddress { account, device: device.id })).collect();
        if devices.is_empty() {
            // A user with one device has told all the others; somebody without a device is not there.
            let nobody = RejectReason::Server(Rejection::NotAvailable);
            let alone = own.is_some_and(|own| own.account == account);
            return Ok(Sealed::Finished(if alone { SendResult::Delivered } else { SendResult::Rejected(nobody) }));
        }
        let current = |sealed: &SealedFor| {
            devices.iter().any(|device| device.id == sealed.device && device.registration_id == sealed.registration_id)
        };
        outgoing.sealed.retain(|sealed| current(sealed) && !sealed.ciphertext.is_empty());
        let lacking: Vec<_> = devices
            .iter()
            .filter(|device| !outgoing.sealed.iter().any(|sealed| sealed.device == device.id))
            .copied()
            .collect();

        let mut keyring = self.take_keyring()?;
        let sealed = self.seal_for(&mut keyring, outgoing, account, &lacking).await;
        self.put_keyring(keyring, &outgoing.to);
        match sealed {
            Ok(None) => {}
            Ok(Some(other)) => return Ok(other),
            Err(SignalError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "a message could not be encrypted");
                return Ok(Sealed::Finished(SendResult::Rejected(RejectReason::BadKeys)));
            }
        }
        Ok(self.submit(outgoing))
    }

    async fn seal_for(
        &mut self,
        keyring: &mut Keyring,
        outgoing: &mut Outgoing,
        account: AccountId,
        lacking: &[PeerDevice],
    ) -> Result<Option<Sealed>, SignalError> {
        let now = self.clock.now();
        let store = Arc::clone(&self.store);
        if outgoing.purpose != Purpose::RetryRequest {
            let mut claim = Claim::Nobody;
            for device in lacking {
                let to = SignalAddress { account, device: device.id };
                if !keyring.can_encrypt(&*store, to, now).await? {
                    claim.add(device.id);
                }
            }
            if claim != Claim::Nobody {
                return Ok(Some(Sealed::NeedsClaim(claim)));
            }
        }
        if let Purpose::Resend { device, identity, .. } = &outgoing.purpose
            && keyring.identity(&*store, *device).await?.as_ref() != Some(identity)
        {
            return Ok(Some(Sealed::Finished(SendResult::Rejected(RejectReason::IdentityChanged))));
        }
        for device in lacking {
            let to = SignalAddress { account, device: device.id };
            let (kind, ciphertext) = match &outgoing.purpose {
                Purpose::RetryRequest => (EncType::Plaintext, outgoing.content.clone().into()),
                Purpose::Resend { device, .. } if *device != to => {
                    let nothing = pad(content::seal_nothing(outgoing.id, outgoing.created_ms));
                    keyring.encrypt(&*store, to, &nothing, now, &mut self.random).await?
                }
                Purpose::Resend { instead_of, .. } => {
                    let again = content::seal_resent(outgoing.id, outgoing.created_ms, &outgoing.content, instead_of);
                    keyring.encrypt(&*store, to, &pad(again), now, &mut self.random).await?
                }
                Purpose::Message | Purpose::Sync => {
                    let padded = pad(outgoing.content.clone());
                    keyring.encrypt(&*store, to, &padded, now, &mut self.random).await?
                }
            };
            let identity = match kind {
                EncType::Plaintext => Vec::new(),
                _ => keyring.identity(&*store, to).await?.unwrap_or_default(),
            };
            outgoing.sealed.push(SealedFor {
                device: device.id,
                registration_id: device.registration_id,
                identity,
                kind,
                ciphertext,
            });
        }
        Ok(None)
    }

    fn submit(&self, outgoing: &Outgoing) -> Sealed {
        let too_large = Sealed::Finished(SendResult::Rejected(RejectReason::Server(Rejection::TooLarge)));
        let mut enc = Vec::with_capacity(outgoing.sealed.len());
        for sealed in &outgoing.sealed {
            let Ok(registration) = RegistrationId::new(sealed.registration_id) else {
                return Sealed::Finished(SendResult::Rejected(RejectReason::BadKeys));
            };
            let Ok(ciphertext) = Ciphertext::try_from(sealed.ciphertext.clone()) else { return too_large };
            enc.push(Enc { device: sealed.device, registration, kind: sealed.kind, ciphertext });
        }
        let Ok(enc) = EncList::try_from(enc) else {
            return Sealed::Finished(SendResult::Rejected(RejectReason::BadKeys));
        };
        let submit = Submit { id: outgoing.id, to: outgoing.to.clone(), class: outgoing.class, enc };
        if self.fits(&submit) { Sealed::Ready(Box::new(submit)) } else { too_large }
    }

    /// Whether the server takes a record of this size. Only near the limit is it worth encoding it to know.
    fn fits(&self, submit: &Submit) -> bool {
        let limit = self.session.as_ref().map_or(usize::MAX, |session| session.max_record);
        let bytes: usize = submit.enc.iter().map(|enc| enc.ciphertext.as_bytes().len() + 128).sum();
        let at_most = match self.config.encoding {
            Encoding::Binary => bytes + 1024,
            Encoding::Xml => bytes * 4 / 3 + 2048,
        };
        at_most <= limit || encode_client(self.config.encoding, FromClient::Message(submit.clone())).len() <= limit
    }

    /// Ends all that waits for one address.
    pub(super) async fn finish_lane(&mut self, address: &Address, reason: RejectReason) -> Result<(), SignalError> {
        for waiting in self.outbox.queued_for(address) {
            self.give_up(&waiting, SendResult::Rejected(reason)).await?;
        }
        Ok(())
    }

    /// Ends what waits.
    pub(super) async fn give_up(&mut self, waiting: &Waiting, result: SendResult) -> Result<(), SignalError> {
        match self.outgoing(waiting.header.id).await? {
            Some(outgoing) => self.finish(waiting, outgoing, result).await,
            None => {
                self.outbox.finish(&waiting.header);
                Ok(())
            }
        }
    }
}
