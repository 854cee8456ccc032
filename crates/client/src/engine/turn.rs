//! What one turn of the engine has worked out: nothing of it is true before the commit.

use std::collections::{BTreeMap, HashMap};

use causeway_identity::{Address, MessageId};
use causeway_stanza::FromClient;

use super::Engine;
use crate::event::EventKind;
use crate::signal::{Keyring, SignalError};
use crate::store::{Change, InboxEntry, InboxItem, Outgoing, Peer, SignalAddress, StoreError};

/// Changes to commit, and what to let out after.
#[derive(Default)]
pub(super) struct Turn {
    /// In their order.
    pub(super) changes: Vec<Change>,
    /// Outgoing messages as they will be.
    outgoing: BTreeMap<u64, Outgoing>,
    peers: HashMap<Address, Peer>,
    seen: HashMap<(SignalAddress, MessageId), bool>,
    keyring: Option<Keyring>,
    /// Stanzas to send, in their order.
    pub(super) sends: Vec<FromClient>,
    /// The highest tag that is safe now.
    pub(super) processed: Option<u64>,
    /// Events that are not kept.
    pub(super) passes: Vec<EventKind>,
    /// Answers to give.
    pub(super) replies: Vec<Box<dyn FnOnce() + Send + Sync>>,
}

impl Turn {
    /// Gives an answer after the commit.
    pub(super) fn reply(&mut self, reply: impl FnOnce() + Send + Sync + 'static) {
        self.replies.push(Box::new(reply));
    }
}

impl Engine {
    /// The keys in use in this turn. Give them back with [`Engine::put_keyring`].
    pub(super) fn take_keyring(&mut self) -> Result<Keyring, SignalError> {
        match self.turn.keyring.take() {
            Some(keyring) => Ok(keyring),
            None => Keyring::new(&self.device),
        }
    }

    /// Gives the keys back; identities that were replaced meanwhile are those of `address`, and the user hears of them.
    pub(super) fn put_keyring(&mut self, mut keyring: Keyring, address: &Address) {
        for event in keyring.take_identity_events() {
            let device = Some(event.device.device);
            let change = crate::event::IdentityChanged { address: address.clone(), device };
            self.put_inbox(InboxItem::IdentityChanged(change));
        }
        self.turn.keyring = Some(keyring);
    }

    pub(super) async fn peer(&self, address: &Address) -> Result<Option<Peer>, StoreError> {
        match self.turn.peers.get(address) {
            Some(peer) => Ok(Some(peer.clone())),
            None => self.store.peer(address).await,
        }
    }

    pub(super) fn put_peer(&mut self, peer: Peer) {
        self.turn.peers.insert(peer.address.clone(), peer.clone());
        self.turn.changes.push(Change::PutPeer(peer));
    }

    pub(super) async fn outgoing(&self, id: MessageId) -> Result<Option<Outgoing>, StoreError> {
        match self.turn.outgoing.values().find(|outgoing| outgoing.id == id) {
            Some(outgoing) => Ok(Some(outgoing.clone())),
            None => self.store.outgoing(id).await,
        }
    }

    pub(super) async fn sent_to(&self, to: &Address, prefix: [u8; 6]) -> Result<Option<Outgoing>, StoreError> {
        let named = |sent: &&Outgoing| sent.to == *to && sent.id.as_bytes().starts_with(&prefix);
        match self.turn.outgoing.values().rev().find(named) {
            Some(sent) => Ok(Some(sent.clone())),
            None => self.store.sent_to(to, prefix).await,
        }
    }

    pub(super) fn put_outgoing(&mut self, outgoing: Outgoing) {
        self.turn.outgoing.insert(outgoing.seq, outgoing);
    }

    pub(super) async fn seen(&self, from: SignalAddress, id: MessageId) -> Result<Option<bool>, StoreError> {
        match self.turn.seen.get(&(from, id)) {
            Some(read) => Ok(Some(*read)),
            None => self.store.seen(from, id).await,
        }
    }

    pub(super) fn put_seen(&mut self, from: SignalAddress, id: MessageId, read: bool) {
        *self.turn.seen.entry((from, id)).or_insert(read) |= read;
        let at_ms = self.now_ms();
        self.turn.changes.push(Change::Seen { from, id, at_ms, read });
    }

    pub(super) async fn resends(&self, id: MessageId, device: SignalAddress) -> Result<u32, StoreError> {
        let this = Change::CountResend(id, device);
        let in_this_turn = self.turn.changes.iter().filter(|change| **change == this).count();
        Ok(self.store.resends(id, device).await?.saturating_add(u32::try_from(in_this_turn).unwrap_or(u32::MAX)))
    }

    pub(super) fn put_inbox(&mut self, item: InboxItem) {
        self.last_inbox += 1;
        self.inbox_len += 1;
        self.turn.changes.push(Change::PutInbox(Box::new(InboxEntry { seq: self.last_inbox, item })));
    }

    /// Commits the turn, then lets out what waited for that.
    pub(super) async fn finish_turn(&mut self) -> Result<(), SignalError> {
        let mut turn = std::mem::take(&mut self.turn);
        if let Some(mut keyring) = turn.keyring.take() {
            turn.changes.extend(keyring.take_changes()?);
        }
        turn.changes.extend(turn.outgoing.into_values().map(|outgoing| Change::PutOutgoing(Box::new(outgoing))));
        if !turn.changes.is_empty() {
            self.store.commit(turn.changes).await?;
        }
        if self.session.is_some() {
            if let Some(tag) = turn.processed {
                // The highest tag says it all. It goes first: it lets the server forget, and send on.
                self.to_link.retain(|stanza| !matches!(stanza, FromClient::Ack(_)));
                self.to_link.push_front(FromClient::Ack(tag));
            }
            self.to_link.extend(turn.sends);
        }
        turn.replies.into_iter().for_each(|reply| reply());
        turn.passes.into_iter().for_each(|event| self.queue.pass(event));
        self.show().await
    }

    /// Hands kept entries to the application as far as there is room.
    async fn show(&mut self) -> Result<(), SignalError> {
        let room = self.queue.room();
        if room == 0 || self.shown == self.last_inbox {
            return Ok(());
        }
        for entry in self.store.inbox(self.shown, room).await? {
            self.shown = entry.seq;
            self.shown_open.insert(entry.seq);
            let kind = match entry.item {
                InboxItem::Message(message) => EventKind::Message(message),
                InboxItem::SentElsewhere(sent) => EventKind::SentElsewhere(sent),
                InboxItem::Undecryptable(message) => EventKind::Undecryptable(message),
                InboxItem::IdentityChanged(change) => EventKind::IdentityChanged(change),
            };
            self.queue.keep(entry.seq, kind);
        }
        Ok(())
    }
}
