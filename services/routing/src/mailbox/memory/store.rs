//! The shared part: entries, owners and leases.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use causeway_identity::{AccountId, DeviceId};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::MemoryFault;
use crate::mailbox::{
    Bounds, Claimed, Depth, DeviceUsage, Page, PageRequest, Put, PutOutcome, Replica, ReplicaId, StoreError, Usage,
};
use crate::message::{Class, Enc, Envelope, MessageKey, Seq, weight};

/// What all processes see.
pub(super) struct Store {
    bounds: Bounds,
    rows: BTreeMap<(AccountId, DeviceId, Seq), Envelope>,
    owners: HashMap<AccountId, ReplicaId>,
    /// All that ever were, and when their leases end.
    replicas: HashMap<ReplicaId, (Replica, u64)>,
    /// Much goes wrong.
    pub(super) faulty: bool,
    random: StdRng,
}

impl Store {
    pub(super) fn new(bounds: Bounds, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let (owners, replicas) = (HashMap::new(), HashMap::new());
        Self { bounds, rows: BTreeMap::new(), owners, replicas, faulty: false, random }
    }

    /// What goes wrong with the next operation.
    pub(super) fn fault(&mut self) -> Option<MemoryFault> {
        if !self.faulty {
            return None;
        }
        match self.random.random_range(0..6) {
            0 => Some(MemoryFault::Failed),
            1 => Some(MemoryFault::UnknownDone),
            2 => Some(MemoryFault::UnknownLost),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn depth(&self) -> Depth {
        let mut depth = Depth::default();
        for row in self.rows.values() {
            depth.waiting.add(Usage::one(row.weight()));
            if row.header.class == Class::Chat {
                let before = depth.oldest_ms.unwrap_or(u64::MAX);
                depth.oldest_ms = Some(before.min(row.header.ts_ms));
            }
        }
        depth
    }

    pub(super) fn renew(&mut self, replica: Replica, lasts_ms: u64, now_ms: u64) -> Result<(), StoreError> {
        if self.replicas.get(&replica.id).is_some_and(|(_, until)| *until <= now_ms) {
            return Err(StoreError::Fenced);
        }
        self.replicas.insert(replica.id, (replica, now_ms.saturating_add(lasts_ms)));
        Ok(())
    }

    pub(super) fn leave(&mut self, replica: ReplicaId) {
        if let Some((_, until)) = self.replicas.get_mut(&replica) {
            *until = 0;
        }
    }

    pub(super) fn replicas(&self, now_ms: u64) -> Vec<Replica> {
        self.replicas.values().filter(|(_, until)| *until > now_ms).map(|(replica, _)| replica.clone()).collect()
    }

    fn live(&self, replica: ReplicaId, now_ms: u64) -> Option<&Replica> {
        self.replicas.get(&replica).filter(|(_, until)| *until > now_ms).map(|(replica, _)| replica)
    }

    pub(super) fn claim(&mut self, replica: ReplicaId, account: AccountId, now_ms: u64) -> Result<Claimed, StoreError> {
        if self.live(replica, now_ms).is_none() {
            return Err(StoreError::Fenced);
        }
        let before = self.owners.get(&account).copied();
        if let Some(owner) = before.filter(|owner| *owner != replica).and_then(|owner| self.live(owner, now_ms)) {
            return Ok(Claimed::Held(owner.clone()));
        }
        self.owners.insert(account, replica);
        Ok(Claimed::Ours { usage: self.usage(account), before })
    }

    pub(super) fn release(&mut self, replica: ReplicaId, account: AccountId) {
        if self.owners.get(&account) == Some(&replica) {
            self.owners.remove(&account);
        }
    }

    /// May the replica write?
    pub(super) fn owned(&self, replica: ReplicaId, account: AccountId) -> Result<(), StoreError> {
        let owned = self.owners.get(&account) == Some(&replica) || crate::planted::is("owner-not-fenced");
        if owned { Ok(()) } else { Err(StoreError::Fenced) }
    }

    fn of(&self, account: AccountId) -> impl Iterator<Item = &Envelope> {
        self.rows.iter().filter(move |((of, _, _), _)| *of == account).map(|(_, row)| row)
    }

    pub(super) fn put(&mut self, replica: ReplicaId, put: &Put) -> Result<PutOutcome, StoreError> {
        self.owned(replica, put.account)?;
        let (mut repeats, mut fresh): (Vec<DeviceId>, Vec<&Enc>) = (Vec::new(), Vec::new());
        for part in &put.parts {
            let repeat = self.of(put.account).any(|row| {
                row.header.key == put.header.key
                    && (row.enc.device, row.enc.registration) == (part.device, part.registration)
            });
            if repeat {
                repeats.push(part.device);
            } else {
                fresh.push(part);
            }
        }
        for part in &fresh {
            let mut usage = self.device_usage(put.account, part.device);
            usage.add(Usage::one(weight(part)));
            if usage.messages > self.bounds.messages || usage.bytes > self.bounds.bytes {
                return Ok(PutOutcome::Full);
            }
        }
        for part in fresh {
            let row = Envelope { header: Arc::clone(&put.header), enc: part.clone() };
            self.rows.insert((put.account, part.device, put.header.seq), row);
        }
        Ok(PutOutcome::Stored { repeats })
    }

    /// Erases what `which` names.
    pub(super) fn erase(
        &mut self,
        account: AccountId,
        device: Option<DeviceId>,
        which: impl Fn(&Envelope) -> bool,
    ) -> Usage {
        let mut erased = Usage::default();
        self.rows.retain(|(of, to, _), row| {
            let goes = *of == account && device.is_none_or(|device| device == *to) && which(row);
            if goes {
                erased.add(Usage::one(row.weight()));
            }
            !goes
        });
        erased
    }

    pub(super) fn expire(&mut self, now_ms: u64, limit: u32) -> u64 {
        let mut erased = 0;
        self.rows.retain(|_, row| {
            let goes = erased < u64::from(limit) && row.header.expires_ms <= now_ms;
            erased += u64::from(goes);
            !goes
        });
        erased
    }

    fn device_usage(&self, account: AccountId, device: DeviceId) -> Usage {
        let mut usage = Usage::default();
        for row in self.of(account).filter(|row| row.enc.device == device) {
            usage.add(Usage::one(row.weight()));
        }
        usage
    }

    pub(super) fn usage(&self, account: AccountId) -> Vec<DeviceUsage> {
        let mut devices: BTreeMap<DeviceId, DeviceUsage> = BTreeMap::new();
        for row in self.of(account) {
            let empty = DeviceUsage { device: row.enc.device, usage: Usage::default(), last: Seq(0) };
            let known = devices.entry(row.enc.device).or_insert(empty);
            known.usage.add(Usage::one(row.weight()));
            known.last = known.last.max(row.header.seq);
        }
        devices.into_values().collect()
    }

    pub(super) fn holds(&self, account: AccountId, key: &MessageKey) -> bool {
        self.of(account).any(|row| row.header.key == *key)
    }

    pub(super) fn page(&self, request: &PageRequest) -> Page {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let (first, last) = (
            (request.account, request.device, Seq(request.after.0.saturating_add(1))),
            (request.account, request.device, Seq(u64::MAX)),
        );
        for row in self.rows.range(first..=last).map(|(_, row)| row) {
            if row.enc.registration != request.registration || row.header.expires_ms <= request.now_ms {
                continue;
            }
            if entries.len() >= request.messages || (bytes >= request.bytes && !entries.is_empty()) {
                return Page { entries, end: false };
            }
            bytes += row.weight();
            entries.push(row.clone());
        }
        Page { entries, end: true }
    }
}
