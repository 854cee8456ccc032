//! What the machine may ask while it decides.

use std::sync::Arc;

use super::Shared;
use crate::message::{Rejection, Sender};
use crate::recipient::few::Few;
use crate::recipient::machine::World;
use crate::session::{Session, SessionKey};

/// What the machine may ask while it decides.
pub(super) struct Senses<'a> {
    pub(super) sessions: &'a Few<SessionKey, Arc<Session>>,
    pub(super) shared: &'a Shared,
    /// The message that is being decided came behind one that was refused for a while.
    pub(super) refused: Option<Rejection>,
}

impl World for Senses<'_> {
    fn has_room(&mut self, session: SessionKey) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.has_room())
    }

    fn reserve(&mut self, session: SessionKey, weight: usize) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.reserve(weight))
    }

    fn count(&mut self, sender: &Sender) -> Result<(), Rejection> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        let counted = self.shared.limits.count(sender);
        counted.map_err(|wait| Rejection::RateLimited { retry_after_ms: wait.max(self.shared.retry_ms) })
    }
}
