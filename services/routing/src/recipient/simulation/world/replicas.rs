//! What happens between a replica and the store, and to a replica.

use std::sync::Arc;

use super::{Link, RECIPIENT, REPLICAS, Simulated};
use crate::mailbox::{PutOutcome, StoreError};
use crate::recipient::simulation::planted::Planted;
use crate::recipient::simulation::replica::{Done, Goes, Op, Waiting};
use crate::recipient::simulation::store::Claimed;

impl Simulated {
    pub(super) fn crash(&mut self, at: usize, committed: usize) {
        self.faults = true;
        self.lease_ids += 1;
        self.replicas[at].die(&mut self.store, committed, self.lease_ids, self.instant);
        self.replicas[at].renew(&mut self.store, self.instant, &mut self.lease_ids);
        for device in self.devices.values_mut() {
            if device.session.as_ref().is_some_and(|session| session.at == at) {
                device.lose_session();
            }
        }
        for sender in 0..self.senders.len() {
            if self.senders[sender].at == at {
                self.break_sender(sender, at);
            }
        }
    }

    pub(super) fn commit(&mut self, at: usize, count: usize, goes: Goes) {
        if self.replicas[at].cut {
            return;
        }
        let mut done = Vec::new();
        for _ in 0..count {
            let Some(result) = self.replicas[at].commit(&mut self.store, goes, self.instant) else {
                break;
            };
            done.push(result);
            self.faults |= goes != Goes::Well;
        }
        for (epoch, result) in done {
            let result = match result {
                Done::Put(ticket, Err(StoreError::Failed(_))) if self.planted == Some(Planted::CommitErrorIgnored) => {
                    Done::Put(ticket, Ok(PutOutcome::Stored { repeats: Vec::new() }))
                }
                result => result,
            };
            self.tell(at, epoch, result);
        }
    }

    pub(super) fn tell(&mut self, at: usize, epoch: u32, result: Done) {
        let (now, mut world) = (self.now(at), Link(self.link_full));
        if let Done::Claimed(id, claimed) = result {
            self.claimed(at, id, claimed);
            return;
        }
        let replica = &mut self.replicas[at];
        if epoch != replica.epoch {
            return;
        }
        let uncertain = match &result {
            Done::Put(_, Err(_)) => true,
            Done::Forgotten(_, _, Err(error)) | Done::Dropped(_, Err(error)) => !error.is_certain(),
            _ => false,
        };
        let (machine, out) = (&mut replica.machine, &mut self.out);
        match result {
            _ if uncertain => {
                self.faults = true;
                replica.reset(out);
            }
            Done::Put(ticket, Ok(outcome)) => machine.put_done(ticket, &outcome, now, &mut world, out),
            Done::Put(_, Err(_)) => {}
            Done::Forgotten(device, upto, erased) => {
                machine.forgotten(device, upto, erased.ok(), now, &mut world, out);
            }
            Done::Dropped(device, erased) => machine.dropped(device, erased.ok(), now),
            Done::Recounted(usage) => machine.recounted(RECIPIENT, usage.as_deref()),
            Done::Claimed(..) | Done::Released => {}
        }
        self.carry_out(at);
    }

    fn claimed(&mut self, at: usize, id: u64, claimed: Option<Claimed>) {
        let replica = &mut self.replicas[at];
        replica.claiming = false;
        match claimed {
            Some(Claimed::Ours { usage, before }) => {
                let goes_on = replica.owned.is_some() && replica.owned == before;
                if !goes_on {
                    self.faults |= before.is_some();
                    if replica.owned.is_some() {
                        replica.reset(&mut self.out);
                    }
                    replica.machine.load(RECIPIENT, &usage, &mut self.out);
                }
                replica.owned = Some(id);
                let held_back = replica.held_back();
                self.out.splice(0..0, held_back);
                let record = Arc::clone(&self.record);
                self.replicas[at].machine.reconcile(&record, &mut self.out);
                self.carry_out(at);
            }
            Some(Claimed::Held(owner)) => {
                let needed = replica.waiting.iter().any(|waiting| !matches!(waiting, Waiting::Own));
                if replica.owned.is_some() {
                    replica.waiting.retain(|waiting| !matches!(waiting, Waiting::Own));
                }
                if replica.owned.is_some() {
                    replica.reset(&mut self.out);
                }
                self.carry_out(at);
                if needed {
                    self.ask_for_release(at, owner);
                }
            }
            // It is tried again, under another id if need be.
            Some(Claimed::Fenced) | None => {
                let held_back = replica.held_back();
                self.out.splice(0..0, held_back);
                self.carry_out(at);
            }
        }
    }

    /// The owner settles what it has under way, if it lives and is reached.
    fn ask_for_release(&mut self, by: usize, owner: u64) {
        for at in (0..REPLICAS).filter(|at| *at != by) {
            let replica = &mut self.replicas[at];
            if replica.owned == Some(owner) {
                if !replica.releasing && !replica.claiming {
                    self.faults = true;
                    replica.releasing = true;
                    replica.machine.finish(&mut self.out);
                    self.carry_out(at);
                }
            } else if replica.id == owner && !replica.claiming {
                replica.push(Op::Release);
            }
        }
    }

    pub(super) fn read_page(&mut self, at: usize, nth: usize) {
        let replica = &mut self.replicas[at];
        if nth < replica.to_read.len() && !replica.cut {
            let (epoch, session, request) = replica.to_read.remove(nth);
            let page = self.store.page(&request);
            replica.read.push((epoch, session, page));
        }
    }

    pub(super) fn deliver_page(&mut self, at: usize, nth: usize, fails: bool) {
        let (now, mut world) = (self.now(at), Link(self.link_full));
        let replica = &mut self.replicas[at];
        if nth < replica.read.len() {
            let (epoch, session, page) = replica.read.remove(nth);
            if epoch == replica.epoch {
                let result = if fails { Err(StoreError::Failed("for the test".to_owned())) } else { Ok(page) };
                replica.machine.page_read(session, result, now, &mut world, &mut self.out);
                self.carry_out(at);
            }
        }
    }
}
