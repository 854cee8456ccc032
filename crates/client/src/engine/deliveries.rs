//! From the wire to the inbox: know repetitions, decrypt, keep, and only then acknowledge.

use causeway_stanza::{Delivery, EncType, MessageClass};

use super::Engine;
use crate::content::{self, Opened, unpad};
use crate::event::{IdentityChanged, Message, Origin, SentElsewhere, Undecryptable, UndecryptableReason as Reason};
use crate::signal::SignalError;
use crate::store::{InboxItem, Peer, SignalAddress};

/// Deliveries that wait for room in the inbox. The server's window is smaller.
const MAX_DEFERRED: usize = 1024;
/// Devices that are remembered as heard of; beyond it one may be reported as new twice.
const MAX_HEARD_OF: usize = 10_000;
/// Bytes of deliveries that wait.
const MAX_DEFERRED_BYTES: usize = 4 * 1024 * 1024;

impl Engine {
    /// A delivery. When the inbox is full it waits, unacknowledged; when too many wait, the server must keep them until
    /// the next session.
    pub(super) async fn delivery(&mut self, delivery: Delivery) -> Result<(), SignalError> {
        let full = self.inbox_len >= self.config.bounds.inbox || !self.deferred.is_empty();
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.stalled {
            return Ok(());
        }
        if !full {
            return self.receive(delivery).await;
        }
        let bytes: usize = self.deferred.iter().map(|delivery| delivery.ciphertext.as_bytes().len()).sum();
        if self.deferred.len() < MAX_DEFERRED && bytes < MAX_DEFERRED_BYTES {
            self.deferred.push_back(delivery);
        } else {
            session.stalled = true;
        }
        Ok(())
    }

    /// The inbox has room again.
    pub(super) async fn receive_deferred(&mut self) -> Result<(), SignalError> {
        while self.inbox_len < self.config.bounds.inbox {
            let Some(delivery) = self.deferred.pop_front() else { return Ok(()) };
            self.receive(delivery).await?;
        }
        Ok(())
    }

    async fn receive(&mut self, delivery: Delivery) -> Result<(), SignalError> {
        let tag = delivery.tag;
        let from = SignalAddress { account: delivery.from_account, device: delivery.from.device };
        let repeated = self.seen(from, delivery.id).await?.is_some();
        if !repeated && self.device.enlisted != Some(from) {
            self.know_account(&delivery).await?;
            self.read(from, delivery).await?;
        }
        self.turn.processed = Some(tag);
        Ok(())
    }

    /// Another account behind a known address is another person, as far as anybody can tell.
    async fn know_account(&mut self, delivery: &Delivery) -> Result<(), SignalError> {
        let (address, account) = (delivery.from.account.clone(), delivery.from_account);
        match self.peer(&address).await? {
            Some(peer) if peer.account == account => return self.know_device(delivery, &peer).await,
            Some(_) => {
                let change = IdentityChanged { address: address.clone(), device: None };
                self.put_inbox(InboxItem::IdentityChanged(change));
            }
            None => {}
        }
        self.heard_of(SignalAddress { account, device: delivery.from.device });
        self.put_peer(Peer { address, account, devices: None });
        Ok(())
    }

    /// A device that is heard of for the first time in a conversation that goes on is told of before what it says.
    async fn know_device(&mut self, delivery: &Delivery, peer: &Peer) -> Result<(), SignalError> {
        let device = delivery.from.device;
        let from = SignalAddress { account: peer.account, device };
        let listed = peer.devices.iter().flatten().any(|known| known.id == device);
        if !listed && self.store.identity(from).await?.is_none() && self.heard_of(from) {
            self.report_new_devices(&peer.address, &[], &[device]);
        }
        Ok(())
    }

    /// Whether this device is heard of for the first time in this run; its key is in the store from the first message on
    /// that could be read.
    fn heard_of(&mut self, device: SignalAddress) -> bool {
        if self.heard_of.len() >= MAX_HEARD_OF {
            self.heard_of.clear();
        }
        self.heard_of.insert(device)
    }

    async fn read(&mut self, from: SignalAddress, delivery: Delivery) -> Result<(), SignalError> {
        match delivery.kind {
            EncType::Plaintext => {
                self.put_seen(from, delivery.id, true);
                self.asked_again(from, &delivery).await
            }
            EncType::SenderKey => {
                self.unreadable(from, &delivery, Reason::Unsupported);
                Ok(())
            }
            EncType::Prekey | EncType::Whisper => self.decrypt(from, delivery).await,
        }
    }

    async fn decrypt(&mut self, from: SignalAddress, delivery: Delivery) -> Result<(), SignalError> {
        let mut keyring = self.take_keyring()?;
        let store = std::sync::Arc::clone(&self.store);
        let ciphertext = delivery.ciphertext.as_bytes();
        let padded = keyring.decrypt(&*store, from, delivery.kind, ciphertext, &mut self.random).await;
        self.put_keyring(keyring, &delivery.from.account);
        match padded {
            Ok(padded) => {
                let opened = unpad(&padded).map(|content| content::open(delivery.id, content));
                match opened {
                    Some(Ok(opened)) => self.take_content(from, delivery, opened).await?,
                    _ => self.unreadable(from, &delivery, Reason::Malformed),
                }
            }
            Err(SignalError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, account = %from.account, "a message could not be decrypted");
                self.unreadable(from, &delivery, Reason::Keys);
                if delivery.class == MessageClass::Chat {
                    self.ask_sender(&delivery);
                }
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, from: SignalAddress, delivery: &Delivery, reason: Reason) {
        self.put_seen(from, delivery.id, false);
        if delivery.class == MessageClass::Ephemeral {
            return; // Whoever was typing then is not now.
        }
        self.put_inbox(InboxItem::Undecryptable(Undecryptable {
            id: delivery.id,
            from: delivery.from.clone(),
            account: delivery.from_account,
            accepted_at_ms: delivery.ts_ms,
            reason,
        }));
    }

    async fn take_content(
        &mut self,
        from: SignalAddress,
        delivery: Delivery,
        opened: Opened,
    ) -> Result<(), SignalError> {
        let own = self.device.enlisted.is_some_and(|own| own.account == from.account);
        let (id, item) = match opened {
            Opened::Nothing => {
                self.put_seen(from, delivery.id, true);
                return Ok(());
            }
            // Only the user's own devices can say what the user has sent.
            Opened::Sync { .. } if !own => {
                self.unreadable(from, &delivery, Reason::Malformed);
                return Ok(());
            }
            Opened::Sync { stanza, id, to, sent_at_ms, content } => {
                let sent = SentElsewhere { id, device: from.device, to, sent_at_ms, content };
                (stanza, InboxItem::SentElsewhere(sent))
            }
            Opened::Content { id, sent_at_ms, content, instead_of } => {
                let origin = Origin {
                    provider: delivery.origin.provider.as_str().to_owned(),
                    kind: delivery.origin.kind,
                    protocol: delivery.origin.protocol.as_str().to_owned(),
                    inbox: delivery.origin.inbox,
                };
                let message = Message {
                    id,
                    from: delivery.from.clone(),
                    account: delivery.from_account,
                    origin,
                    class: delivery.class,
                    sent_at_ms,
                    accepted_at_ms: delivery.ts_ms,
                    content,
                    resolves: instead_of,
                };
                (id, InboxItem::Message(message))
            }
        };
        // A message that was sent again may have been read the first time.
        let known = id != delivery.id && self.seen(from, id).await? == Some(true);
        self.put_seen(from, delivery.id, true);
        if !known {
            self.put_seen(from, id, true);
            self.put_inbox(item);
        }
        Ok(())
    }
}
