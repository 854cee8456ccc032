//! The store that the replicas share: entries, the account's owner, leases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::DeviceId;
use tokio::time::Instant;

use super::planted::Planted;
use super::world::{DEVICE_BYTES, DEVICE_MESSAGES};
use crate::mailbox::{DeviceUsage, Page, PageRequest, Put, PutOutcome, StoreError, Usage};
use crate::message::{Envelope, MessageKey, Seq};

/// How long a lease lasts.
const LEASE: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Store {
    pub(super) rows: BTreeMap<(DeviceId, Seq), Envelope>,
    /// Who owns the account, by the id of a lease.
    owner: Option<u64>,
    leases: BTreeMap<u64, Instant>,
    planted: Option<Planted>,
    puts: usize,
}

/// What became of a claim.
pub(super) enum Claimed {
    Ours { usage: Vec<DeviceUsage>, before: Option<u64> },
    Held(u64),
    Fenced,
}

impl Store {
    pub(super) fn new(planted: Option<Planted>) -> Self {
        Self { planted, ..Self::default() }
    }

    /// Until when the lease holds; `None`: it has ended.
    pub(super) fn renew(&mut self, id: u64, now: Instant) -> Option<Instant> {
        if self.leases.get(&id).is_some_and(|until| *until <= now) {
            return None;
        }
        self.leases.insert(id, now + LEASE);
        Some(now + LEASE)
    }

    pub(super) fn claim(&mut self, id: u64, now: Instant) -> Claimed {
        let live = |id: u64| self.leases.get(&id).is_some_and(|until| *until > now);
        if !live(id) {
            return Claimed::Fenced;
        }
        match self.owner {
            Some(owner) if owner != id && live(owner) => Claimed::Held(owner),
            before => {
                self.owner = Some(id);
                Claimed::Ours { usage: self.usage(), before }
            }
        }
    }

    pub(super) fn release(&mut self, id: u64) {
        if self.owner == Some(id) {
            self.owner = None;
        }
    }

    pub(super) fn may_write(&self, id: u64) -> bool {
        self.owner == Some(id) || self.planted == Some(Planted::NotFenced)
    }

    pub(super) fn holds(&self, key: &MessageKey) -> bool {
        self.rows.values().any(|row| row.header.key == *key)
    }

    pub(super) fn put(&mut self, put: &Put) -> Result<PutOutcome, StoreError> {
        let mut repeats = Vec::new();
        self.puts += 1;
        if self.planted == Some(Planted::LostWrite) && self.puts.is_multiple_of(7) {
            return Ok(PutOutcome::Stored { repeats });
        }
        for enc in &put.parts {
            let same = |row: &Envelope| {
                row.header.key == put.header.key
                    && row.enc.device == enc.device
                    && row.enc.registration == enc.registration
            };
            if self.rows.values().any(same) {
                repeats.push(enc.device);
            } else {
                let mut usage = self.of(enc.device);
                usage.add(Usage::one(crate::message::weight(enc)));
                assert!(
                    usage.messages <= DEVICE_MESSAGES && usage.bytes <= DEVICE_BYTES,
                    "more than there is room for"
                );
                let envelope = Envelope { header: Arc::clone(&put.header), enc: enc.clone() };
                assert!(self.rows.insert((enc.device, put.header.seq), envelope).is_none());
            }
        }
        Ok(PutOutcome::Stored { repeats })
    }

    pub(super) fn forget(&mut self, device: DeviceId, upto: Seq) -> Usage {
        if self.planted == Some(Planted::ForgetsTooMuch) {
            let next = self.rows.keys().find(|(of, seq)| *of == device && *seq > upto).map(|(_, seq)| *seq);
            return self.erase(device, |seq, _| seq <= next.unwrap_or(upto));
        }
        self.erase(device, |seq, _| seq <= upto)
    }

    pub(super) fn erase(&mut self, device: DeviceId, which: impl Fn(Seq, &Envelope) -> bool) -> Usage {
        let mut erased = Usage::default();
        self.rows.retain(|(of, seq), row| {
            let erase = *of == device && which(*seq, row);
            if erase {
                erased.add(Usage::one(row.weight()));
            }
            !erase
        });
        erased
    }

    fn of(&self, device: DeviceId) -> Usage {
        let mut usage = Usage::default();
        for row in self.rows.iter().filter(|((of, _), _)| *of == device).map(|(_, row)| row) {
            usage.add(Usage::one(row.weight()));
        }
        usage
    }

    pub(super) fn usage(&self) -> Vec<DeviceUsage> {
        let devices: BTreeSet<DeviceId> = self.rows.keys().map(|(device, _)| *device).collect();
        let usage = |device: DeviceId| {
            let last = self.rows.keys().filter(|(of, _)| *of == device).map(|(_, seq)| *seq).max();
            DeviceUsage { device, usage: self.of(device), last: last.unwrap_or_default() }
        };
        devices.into_iter().map(usage).collect()
    }

    pub(super) fn page(&self, request: &PageRequest) -> Page {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for ((device, seq), row) in &self.rows {
            let shown = (*device == request.device || self.planted == Some(Planted::WrongDevice))
                && *seq > request.after
                && (row.enc.registration == request.registration || self.planted == Some(Planted::WrongDevice))
                && row.header.expires_ms > request.now_ms;
            if !shown {
                continue;
            }
            if entries.len() >= request.messages || (bytes >= request.bytes && !entries.is_empty()) {
                return Page { entries, end: false };
            }
            bytes += row.weight();
            entries.push(row.clone());
        }
        if self.planted == Some(Planted::PageSkipsEntry) && entries.len() > 1 {
            entries.remove(0);
        }
        Page { entries, end: true }
    }
}
