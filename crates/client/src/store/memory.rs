//! A store in memory, for tests and for devices that shall leave no trace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use causeway_identity::{Address, MessageId};

use super::{
    Change, DeviceRecord, InboxEntry, Outgoing, OutgoingHeader, Peer, Prekey, PrekeyFamily, Prune, SignalAddress,
    Store, StoreError, UsedBaseKey,
};

/// Keeps everything until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    device: Option<DeviceRecord>,
    prekeys: BTreeMap<(PrekeyFamily, u32), Prekey>,
    base_keys: BTreeSet<UsedBaseKey>,
    sessions: BTreeMap<SignalAddress, Vec<u8>>,
    identities: BTreeMap<SignalAddress, Vec<u8>>,
    peers: BTreeMap<Address, Peer>,
    outgoing: BTreeMap<u64, Outgoing>,
    resends: BTreeMap<(MessageId, SignalAddress), u32>,
    seen: BTreeMap<(SignalAddress, MessageId), (u64, bool)>,
    inbox: BTreeMap<u64, InboxEntry>,
    last_outgoing: u64,
    last_inbox: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut state = self.state();
        changes.into_iter().for_each(|change| state.apply(change));
        Ok(())
    }

    async fn device(&self) -> Result<Option<DeviceRecord>, StoreError> {
        Ok(self.state().device.clone())
    }

    async fn prekey(&self, family: PrekeyFamily, id: u32) -> Result<Option<Prekey>, StoreError> {
        Ok(self.state().prekeys.get(&(family, id)).cloned())
    }

    async fn unpublished_prekeys(&self) -> Result<Vec<Prekey>, StoreError> {
        let mut prekeys: Vec<_> = self.state().prekeys.values().filter(|prekey| !prekey.published).cloned().collect();
        prekeys.sort_by_key(|prekey| (prekey.family, prekey.made_ms, prekey.id));
        Ok(prekeys)
    }

    async fn signed_prekey_made_ms(&self) -> Result<Option<u64>, StoreError> {
        let state = self.state();
        Ok(state.prekeys.values().filter(|key| key.family == PrekeyFamily::Signed).map(|key| key.made_ms).max())
    }

    async fn base_key_used(&self, key: &UsedBaseKey) -> Result<bool, StoreError> {
        Ok(self.state().base_keys.contains(key))
    }

    async fn session(&self, with: SignalAddress) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().sessions.get(&with).cloned())
    }

    async fn identity(&self, of: SignalAddress) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().identities.get(&of).cloned())
    }

    async fn peer(&self, address: &Address) -> Result<Option<Peer>, StoreError> {
        Ok(self.state().peers.get(address).cloned())
    }

    async fn unfinished(&self, after: u64, limit: usize) -> Result<Vec<OutgoingHeader>, StoreError> {
        let state = self.state();
        let waiting = state.outgoing.range(after.saturating_add(1)..).map(|(_, outgoing)| outgoing);
        Ok(waiting.filter(|outgoing| outgoing.result.is_none()).take(limit).map(Outgoing::header).collect())
    }

    async fn outgoing(&self, id: MessageId) -> Result<Option<Outgoing>, StoreError> {
        Ok(self.state().outgoing.values().find(|outgoing| outgoing.id == id).cloned())
    }

    async fn sent_to(&self, to: &Address, id_prefix: [u8; 6]) -> Result<Option<Outgoing>, StoreError> {
        let state = self.state();
        let mut newest_first = state.outgoing.values().rev();
        Ok(newest_first.find(|sent| sent.to == *to && sent.id.as_bytes().starts_with(&id_prefix)).cloned())
    }

    async fn resends(&self, id: MessageId, device: SignalAddress) -> Result<u32, StoreError> {
        Ok(self.state().resends.get(&(id, device)).copied().unwrap_or(0))
    }

    async fn seen(&self, from: SignalAddress, id: MessageId) -> Result<Option<bool>, StoreError> {
        Ok(self.state().seen.get(&(from, id)).map(|(_, read)| *read))
    }

    async fn inbox(&self, after: u64, limit: usize) -> Result<Vec<InboxEntry>, StoreError> {
        let state = self.state();
        Ok(state.inbox.range(after.saturating_add(1)..).take(limit).map(|(_, entry)| entry.clone()).collect())
    }

    async fn inbox_len(&self) -> Result<usize, StoreError> {
        Ok(self.state().inbox.len())
    }

    async fn last_seqs(&self) -> Result<(u64, u64), StoreError> {
        let state = self.state();
        Ok((state.last_outgoing, state.last_inbox))
    }
}

impl State {
    fn apply(&mut self, change: Change) {
        match change {
            Change::PutDevice(device) => self.device = Some(*device),
            Change::PutPrekey(prekey) => {
                self.prekeys.insert((prekey.family, prekey.id), prekey);
            }
            Change::RemovePrekey(family, id) => self.remove_prekey(family, id),
            Change::PublishedPrekeys(ids) => {
                for key in ids {
                    if let Some(prekey) = self.prekeys.get_mut(&key) {
                        prekey.published = true;
                    }
                }
            }
            Change::ReplacedPrekeys { at_ms } => self.replaced(at_ms),
            Change::UseBaseKey(key) => {
                self.base_keys.insert(key);
            }
            Change::PutSession(with, record) => {
                self.sessions.insert(with, record);
            }
            Change::PutIdentity(of, key) => {
                self.identities.insert(of, key);
            }
            Change::PutPeer(peer) => {
                self.peers.insert(peer.address.clone(), peer);
            }
            Change::PutOutgoing(outgoing) => {
                self.last_outgoing = self.last_outgoing.max(outgoing.seq);
                self.outgoing.insert(outgoing.seq, *outgoing);
            }
            Change::CountResend(id, device) => *self.resends.entry((id, device)).or_insert(0) += 1,
            Change::Seen { from, id, at_ms, read } => {
                self.seen.entry((from, id)).or_insert((at_ms, read)).1 |= read;
            }
            Change::PutInbox(entry) => {
                self.last_inbox = self.last_inbox.max(entry.seq);
                self.inbox.insert(entry.seq, *entry);
            }
            Change::DoneInbox(seq) => {
                self.inbox.remove(&seq);
            }
            Change::Prune(prune) => self.prune(prune),
        }
    }

    fn remove_prekey(&mut self, family: PrekeyFamily, id: u32) {
        self.prekeys.remove(&(family, id));
        if family == PrekeyFamily::Kyber {
            self.base_keys.retain(|key| key.kyber != id);
        }
    }

    fn replaced(&mut self, at_ms: u64) {
        for (family, last_resort) in [(PrekeyFamily::Signed, false), (PrekeyFamily::Kyber, true)] {
            let of_kind = |key: &&mut Prekey| key.family == family && key.last_resort == last_resort;
            let newest = self.prekeys.values_mut().filter(of_kind).map(|key| key.made_ms).max();
            for key in self.prekeys.values_mut().filter(of_kind) {
                if Some(key.made_ms) != newest && key.replaced_ms.is_none() {
                    key.replaced_ms = Some(at_ms);
                }
            }
        }
    }

    fn prune(&mut self, prune: Prune) {
        let before =
            |age: std::time::Duration| prune.now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let old = self.prekeys.values().filter(|key| key.replaced_ms.is_some_and(|at| at < before(prune.prekeys)));
        for (family, id) in old.map(|key| (key.family, key.id)).collect::<Vec<_>>() {
            self.remove_prekey(family, id);
        }
        for family in [PrekeyFamily::Ec, PrekeyFamily::Kyber] {
            let given = |key: &&Prekey| key.family == family && !key.last_resort && key.published;
            let mut newest_first: Vec<_> =
                self.prekeys.values().filter(given).map(|key| (key.made_ms, key.id)).collect();
            newest_first.sort_by(|a, b| b.cmp(a));
            for (_, id) in newest_first.into_iter().skip(prune.one_time_count) {
                self.remove_prekey(family, id);
            }
        }
        let finished: Vec<_> =
            self.outgoing.values().rev().filter(|sent| sent.result.is_some()).map(|sent| sent.seq).collect();
        for (place, seq) in finished.into_iter().enumerate() {
            if place >= prune.sent_count || self.outgoing[&seq].finished_ms < before(prune.sent) {
                self.outgoing.remove(&seq);
            }
        }
        let kept: BTreeSet<_> = self.outgoing.values().map(|sent| sent.id).collect();
        self.resends.retain(|(id, _), _| kept.contains(id));
        let mut newest_first: Vec<_> = self.seen.iter().map(|(key, (at, _))| (*at, *key)).collect();
        newest_first.sort_by(|a, b| b.cmp(a));
        for (place, (at, key)) in newest_first.into_iter().enumerate() {
            if place >= prune.seen_count || at < before(prune.seen) {
                self.seen.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        super::super::suite::run(async || Box::new(MemoryStore::new()) as Box<dyn Store>).await;
    }
}
