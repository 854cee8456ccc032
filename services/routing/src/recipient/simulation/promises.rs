//! What delivery promises, checked when something is given to a device, when a sender is answered, and in the end.

use std::collections::HashMap;

use causeway_identity::MessageId;

use super::world::{Reply, Simulated, policy};
use crate::message::{Class, Envelope, MessageKey, Outcome};
use crate::session::SessionKey;

impl Simulated {
    pub(super) fn check_end(&self) {
        for sender in &self.senders {
            for (index, sent) in sender.messages.iter().enumerate() {
                let outcome = sent.outcome.as_ref();
                assert!(outcome.is_some(), "message {index} never got an outcome");
                let promised = matches!(outcome, Some(Outcome::Delivered | Outcome::Stored));
                for (id, registration) in &sent.addressed {
                    let device = &self.devices[id];
                    let stayed = device.registration == Some(*registration);
                    let shown = device.shown.contains(&(*registration, sent.key));
                    assert!(!(promised && stayed) || shown, "acknowledged message {index} is lost for device {id}");
                }
            }
        }
        assert!(self.store.rows.is_empty(), "{} rows are left", self.store.rows.len());
        for replica in &self.replicas {
            assert!(replica.machine.is_quiet());
            assert!(replica.under_way.is_empty(), "accepted, and never settled: {:?}", replica.under_way);
            // What another one knows may be old; it counts for nothing.
            let owns = replica.owned.is_some_and(|id| self.store.may_write(id));
            assert!(!owns || replica.machine.holds_nothing(), "the machine believes that something is kept");
        }
    }

    /// A device is given a message: it must be its own, and in order.
    pub(super) fn given(&mut self, key: SessionKey, tag: u64, envelope: &Envelope) {
        let faults = self.faults;
        if self.left.contains(&key) {
            // Its edge has attached it elsewhere since.
            return;
        }
        let (&id, device) = self
            .devices
            .iter_mut()
            .find(|(_, device)| device.session.as_ref().is_some_and(|session| session.key == key))
            .expect("given to a session that is over");
        let registration = device.registration.expect("given to a device that was removed");
        let session = device.session.as_mut().expect("found by it");
        let message = envelope.header.key;
        assert!(session.attached);
        assert_eq!(envelope.enc.registration, registration, "meant for another device");
        assert_eq!(tag, session.given.len() as u64 + 1);
        assert!(session.given.len() - session.acknowledged < policy().session_messages, "more than the window");
        assert!(faults || !session.given.contains(&message), "given twice in one session");
        session.given.push(message);
        if device.shown.contains(&(registration, message)) {
            return;
        }
        device.shown.push((registration, message));
        let shown: Vec<MessageKey> = device
            .shown
            .iter()
            .filter(|(to, shown)| *to == registration && shown.account == message.account)
            .map(|(_, shown)| *shown)
            .collect();
        let sender = self.senders.iter().find(|sender| sender.from.account == message.account).expect("a sender");
        let by_key: HashMap<MessageKey, usize> =
            sender.messages.iter().enumerate().map(|(number, sent)| (sent.key, number)).collect();
        let number = by_key[&message];
        let this = &sender.messages[number];
        assert!(!matches!(this.outcome, Some(Outcome::Rejected(_))), "rejected, and given to a device");
        for before in &shown[..shown.len() - 1] {
            let earlier = by_key[before];
            let came_again = this.last_connection > sender.messages[earlier].first_connection;
            let late = came_again && this.may_come_late(id, registration);
            assert!(earlier < number || late, "message {number} after message {earlier}");
        }
    }

    pub(super) fn answered(&mut self, (sender, number, connection): Reply, id: MessageId, outcome: Outcome) {
        let sent = &mut self.senders[sender].messages[number];
        assert_eq!(sent.key.id, id);
        // Whoever was refused and does not hear it comes again, and what came behind it may have been let in.
        sent.refused |= matches!(outcome, Outcome::Rejected(_));
        let sent = &self.senders[sender].messages[number];
        if connection != self.senders[sender].connection {
            // What comes by a link that is lost is heard by nobody.
            return;
        }
        let acknowledged =
            |id: &u32, registration: &u32| self.devices[id].acknowledged.contains(&(*registration, sent.key));
        let kept = |id: &u32, registration: &u32| {
            self.store.rows.iter().any(|((device, _), row)| {
                device.get() == *id && row.enc.registration == *registration && row.header.key == sent.key
            })
        };
        let first = sent.outcome.is_none();
        match &outcome {
            Outcome::Delivered if first => {
                assert!(sent.addressed.iter().all(|(id, registration)| acknowledged(id, registration)));
            }
            Outcome::Stored if first => {
                for (id, registration) in &sent.addressed {
                    let here = self.devices[id].registration == Some(*registration);
                    let safe = !here || acknowledged(id, registration) || kept(id, registration);
                    assert!(safe, "told stored, and device {id} has it neither nor is it kept");
                }
            }
            Outcome::Dropped => assert_eq!(sent.class, Class::Ephemeral),
            Outcome::Rejected(_) if first => {
                let given = self.devices.values().any(|device| device.shown.iter().any(|(_, key)| *key == sent.key));
                assert!(!given || self.faults, "rejected after it was given to a device");
            }
            _ => {}
        }
        if first {
            self.senders[sender].messages[number].outcome = Some(outcome);
        }
    }
}
