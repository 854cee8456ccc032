//! The recipient's devices: what they attach, show and acknowledge, and how they come and go.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Link, REPLICAS, Simulated, device_id};
use crate::mailbox::PutOutcome;
use crate::message::MessageKey;
use crate::recipient::machine::{Attaching, Output};
use crate::recipient::simulation::planted::Planted;
use crate::recipient::simulation::replica::Waiting;
use crate::records::{Record, fake};
use crate::session::SessionKey;

/// A device id under one registration after the other.
#[derive(Default)]
pub(crate) struct SimDevice {
    pub(crate) registration: Option<u32>,
    pub(crate) session: Option<SimSession>,
    /// What it has acknowledged, by registration.
    pub(crate) acknowledged: HashSet<(u32, MessageKey)>,
    /// What it shows, in order, by registration: each message once.
    pub(crate) shown: Vec<(u32, MessageKey)>,
}

impl SimDevice {
    /// The session is over. The device dies with it: what it has not acknowledged, it has not saved.
    pub(super) fn lose_session(&mut self) {
        let (Some(session), Some(registration)) = (self.session.take(), self.registration) else { return };
        let saved = &self.acknowledged;
        let unsaved: HashSet<MessageKey> = session.given[session.acknowledged..]
            .iter()
            .filter(|key| !saved.contains(&(registration, **key)))
            .copied()
            .collect();
        self.shown.retain(|(to, key)| *to != registration || !unsaved.contains(key));
    }
}

pub(crate) struct SimSession {
    pub(crate) key: SessionKey,
    /// Where it is attached.
    pub(super) at: usize,
    pub(crate) attached: bool,
    pub(crate) given: Vec<MessageKey>,
    pub(crate) acknowledged: usize,
}

impl Simulated {
    pub(super) fn attach(&mut self, device: u32, at: usize, silently: bool) {
        let Some(registration) = self.devices[&device].registration else { return };
        let elsewhere = self.devices[&device].session.as_ref().is_some_and(|session| session.at != at);
        if elsewhere {
            self.detach(device, silently);
        }
        self.sessions += 1;
        let key = SessionKey(self.sessions);
        let session = SimSession { key, at, attached: false, given: Vec::new(), acknowledged: 0 };
        let attaching = Attaching { session: key, device: device_id(device), registration, number: 0, login: None };
        let known = self.devices.get_mut(&device).unwrap();
        // A newer one on the same replica ends the older one.
        if let Some(older) = known.session.as_ref().map(|older| older.key) {
            self.left.insert(older);
        }
        known.lose_session();
        known.session = Some(session);
        let position =
            self.replicas[at].waiting.iter().take_while(|step| !matches!(step, Waiting::Message(..))).count();
        self.replicas[at].waiting.insert(position, Waiting::Attach(attaching));
    }

    /// A device leaves; `silently`: its replica does not hear of it.
    pub(super) fn detach(&mut self, device: u32, silently: bool) {
        let known = self.devices.get_mut(&device).unwrap();
        let Some((session, at)) = known.session.as_ref().map(|session| (session.key, session.at)) else { return };
        known.lose_session();
        self.left.insert(session);
        if silently {
            return;
        }
        let replica = &mut self.replicas[at];
        replica.waiting.retain(|step| !matches!(step, Waiting::Attach(attaching) if attaching.session == session));
        let before = self.out.len();
        replica.machine.detach(session, &mut self.out);
        if self.planted == Some(Planted::DetachDropsWindow) {
            for output in self.out.drain(before..).collect::<Vec<_>>() {
                let Output::Put { ticket, .. } = output else {
                    self.out.push(output);
                    continue;
                };
                let (now, mut world) = (self.now(at), Link(self.link_full));
                let stored = PutOutcome::Stored { repeats: Vec::new() };
                self.replicas[at].machine.put_done(ticket, &stored, now, &mut world, &mut self.out);
            }
        }
        self.carry_out(at);
    }

    pub(super) fn acknowledge(&mut self, device: u32, share: u8) {
        let Some(at) = self.devices[&device].session.as_ref().map(|session| session.at) else { return };
        let (now, mut world) = (self.now(at), Link(self.link_full));
        let device = self.devices.get_mut(&device).unwrap();
        let (Some(session), Some(registration)) = (&mut device.session, device.registration) else { return };
        let open = session.given.len() - session.acknowledged;
        let upto = session.acknowledged + open * usize::from(share) / 100;
        if upto == session.acknowledged {
            return;
        }
        let machine = &mut self.replicas[at].machine;
        if self.planted == Some(Planted::AcknowledgedTooMuch) {
            let all = session.given.len() as u64;
            session.acknowledged = upto;
            machine.processed(session.key, all, now, &mut world, &mut self.out);
        } else {
            for key in &session.given[session.acknowledged..upto] {
                device.acknowledged.insert((registration, *key));
            }
            session.acknowledged = upto;
            machine.processed(session.key, upto as u64, now, &mut world, &mut self.out);
        }
        self.carry_out(at);
    }

    pub(super) fn remove(&mut self, device: u32) {
        let known = self.devices.get_mut(&device).unwrap();
        if known.registration.take().is_some() {
            if let Some(session) = known.session.take() {
                self.left.insert(session.key);
            }
            self.new_record();
        }
    }

    pub(super) fn enlist(&mut self, device: u32) {
        self.registrations += 1;
        let known = self.devices.get_mut(&device).unwrap();
        known.registration = Some(self.registrations);
        if let Some(session) = known.session.take() {
            self.left.insert(session.key);
        }
        self.new_record();
    }

    /// All replicas hear of it before it is confirmed.
    fn new_record(&mut self) {
        let devices: Vec<(u32, u32)> =
            self.devices.iter().filter_map(|(id, device)| Some((*id, device.registration?))).collect();
        self.record = Arc::new(record(&devices));
        for at in 0..REPLICAS {
            if self.replicas[at].owns(self.instant, self.planted) {
                let record = Arc::clone(&self.record);
                self.replicas[at].machine.reconcile(&record, &mut self.out);
                self.carry_out(at);
            }
        }
    }

    pub(super) fn lose(&mut self, session: SessionKey) {
        for device in self.devices.values_mut() {
            if device.session.as_ref().is_some_and(|known| known.key == session) {
                device.lose_session();
            }
        }
        self.left.insert(session);
    }

    pub(super) fn session(&mut self, key: SessionKey) -> Option<&mut SimSession> {
        self.devices.values_mut().filter_map(|device| device.session.as_mut()).find(|session| session.key == key)
    }
}

pub(super) fn record(devices: &[(u32, u32)]) -> Record {
    let address = "bo@home.example";
    let ids: Vec<u32> = devices.iter().map(|(id, _)| *id).collect();
    let mut record = fake::record(address, 1, &ids);
    for (device, (_, registration)) in record.devices.iter_mut().zip(devices) {
        device.registration_id = *registration;
    }
    Record::parse(record, &address.parse().unwrap()).unwrap()
}
