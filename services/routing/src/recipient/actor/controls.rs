//! What an actor is told: sessions that attach, acknowledge and leave, changes, peers, the end.

use std::sync::Arc;

use super::{Actor, Senses, Step};
use crate::recipient::Control;
use crate::records::Change;
use crate::session::{Notice, SessionKey};

impl Actor {
    pub(super) fn told(&mut self, control: Control) {
        match control {
            Control::Attach(session) => {
                if self.takes_nothing {
                    session.moved();
                    return;
                }
                self.sessions.insert(session.key, Arc::clone(&session));
                self.shared.metrics.session_attached();
                // Behind the step that is under way, before messages.
                let position = usize::from(self.need.is_some()).min(self.waiting.len());
                let attaching = self.waiting.iter().skip(position);
                let position = position + attaching.take_while(|step| matches!(step, Step::Attach(_))).count();
                self.waiting.insert(position, Step::Attach(session));
            }
            Control::Signal(key) => self.signalled(key),
            Control::Changed(change) => self.changed(&change),
            Control::Release(account, done) => self.release_asked(account, done),
            Control::Renamed => self.renamed(),
            Control::Finish(quiet) => {
                self.takes_nothing = true;
                self.quiet = Some(quiet);
                self.need = None;
                self.claims_no_more();
                for step in std::mem::take(&mut self.waiting) {
                    if let Step::Attach(session) = step {
                        session.moved();
                        self.forget(&session);
                    }
                }
                self.machine.finish(&mut self.out);
            }
            Control::Leave => {
                self.leaving = true;
                self.machine.leave(&mut self.out);
            }
        }
    }

    fn signalled(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(&key).cloned() else { return };
        let (processed, detached) = session.take_signal();
        let now = self.now;
        let mut world = Senses { sessions: &self.sessions, shared: &self.shared, refused: None };
        if processed > 0 {
            self.machine.processed(key, processed, now, &mut world, &mut self.out);
        }
        if detached {
            self.machine.detach(key, &mut self.out);
            self.perform();
            self.forget(&session);
        }
    }

    fn changed(&mut self, change: &Change) {
        let notice = match change {
            Change::PrekeysLow { device, ec, kyber } => {
                let notice = Notice::PrekeysLow { ec: *ec, kyber: *kyber };
                for session in self.sessions.values() {
                    if device.is_none_or(|device| device == session.device.device) {
                        self.shared.metrics.told_prekeys_low();
                        session.notify(notice.clone());
                    }
                }
                return;
            }
            Change::Devices => Some(Notice::DevicesChanged { address: self.address.clone() }),
            Change::Consent => Some(Notice::ConsentChanged),
            Change::Withdrawn | Change::Push | Change::Other => None,
        };
        if let Some(notice) = notice {
            self.sessions.values().for_each(|session| session.notify(notice.clone()));
        }
        // One that has not begun yet will see this change too.
        let begun = usize::from(self.need.is_some());
        let will_look = self.waiting.iter().skip(begun).any(|step| matches!(step, Step::Look));
        if !matches!(change, Change::Consent) && !self.takes_nothing && !will_look {
            self.waiting.push_back(Step::Look);
        }
    }
}
