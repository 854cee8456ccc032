//! Those who send.

use std::sync::Arc;

use bytes::Bytes;
use causeway_identity::MessageId;

use super::{Simulated, device_id};
use crate::message::{Class, Enc, EncType, MessageKey, Outcome, Sender, Submission};
use crate::recipient::simulation::replica::{Found, Waiting};

pub(crate) struct SimSender {
    pub(crate) from: Arc<Sender>,
    pub(super) record: Found,
    pub(crate) connection: u32,
    /// Where it submits.
    pub(super) at: usize,
    pub(crate) messages: Vec<Sent>,
}

pub(crate) struct Sent {
    pub(crate) key: MessageKey,
    pub(crate) class: Class,
    pub(super) bytes: usize,
    /// Devices that it was for whenever it was submitted, with their registrations.
    pub(crate) addressed: Vec<(u32, u32)>,
    pub(super) submitted: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) first_connection: u32,
    pub(crate) last_connection: u32,
    /// It was refused at least once, whether or not its sender heard so.
    pub(crate) refused: bool,
    /// It was repeated after it had its outcome.
    pub(super) repeated_late: bool,
}

impl Sent {
    /// When it comes again, it may come behind later ones: it was refused or, being ephemeral, dropped; it was not needed
    /// any more; or it had not been for this device when it was sent first.
    pub(crate) fn may_come_late(&self, device: u32, registration: u32) -> bool {
        let ephemeral = self.class == Class::Ephemeral;
        self.refused || ephemeral || self.repeated_late || !self.addressed.contains(&(device, registration))
    }
}

impl Simulated {
    pub(super) fn send(&mut self, sender: usize, kind: u8, bytes: usize) {
        let class = match kind {
            0 => Class::Ephemeral,
            1 => Class::Call,
            _ => Class::Chat,
        };
        let from = &mut self.senders[sender];
        let number = from.messages.len();
        let mut id = [0; 16];
        // Two senders use the same ids.
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let key = MessageKey { account: from.from.account, device: from.from.device, id: MessageId::from_bytes(id) };
        from.messages.push(Sent {
            key,
            class,
            bytes,
            addressed: Vec::new(),
            submitted: false,
            outcome: None,
            first_connection: from.connection,
            last_connection: from.connection,
            refused: false,
            repeated_late: false,
        });
        self.submit(sender, number);
    }

    pub(super) fn submit(&mut self, sender: usize, number: usize) {
        let from = &mut self.senders[sender];
        let (connection, at) = (from.connection, from.at);
        let sent = &mut from.messages[number];
        let devices: Vec<(u32, u32)> =
            self.record.devices.iter().map(|device| (device.id.get(), device.registration)).collect();
        if sent.outcome.is_none() {
            sent.last_connection = sent.last_connection.max(connection);
            if !std::mem::replace(&mut sent.submitted, true) {
                sent.addressed.clone_from(&devices);
            } else {
                sent.addressed.retain(|device| devices.contains(device));
            }
        }
        let enc = devices.iter().map(|&(device, registration)| Enc {
            device: device_id(device),
            registration,
            kind: EncType::Whisper,
            ciphertext: Bytes::from(vec![0; sent.bytes]),
        });
        let submission = Submission {
            id: sent.key.id,
            from: Arc::clone(&from.from),
            to: "bo@home.example".parse().unwrap(),
            class: sent.class,
            enc: enc.collect(),
            charge: None,
            trace: None,
        };
        self.replicas[at].waiting.push_back(Waiting::Message(submission, (sender, number, connection)));
        self.pump();
    }

    /// Submits everything without an outcome again, in the original order, by a new link to this replica.
    pub(super) fn break_sender(&mut self, sender: usize, to: usize) {
        self.senders[sender].connection += 1;
        self.senders[sender].at = to;
        for number in 0..self.senders[sender].messages.len() {
            if self.senders[sender].messages[number].outcome.is_none() {
                self.submit(sender, number);
            }
        }
    }
}
