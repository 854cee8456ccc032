//! Opens the sessions of all clients, not too many at a time.

use crate::engine::{Desk, Ended, Pattern, Wire};
use crate::measure::clock::SECOND;

/// Attempts at a time.
const AT_A_TIME: usize = 64;
/// Attempts that may fail over all, beside those that are told to come back.
const FAILURES: u32 = 50;

/// Sessions that are being opened.
pub(super) struct Opening {
    total: usize,
    next: usize,
    under_way: usize,
    open: usize,
    failures: u32,
    told: bool,
    /// To be tried again.
    again: Vec<usize>,
    /// Seconds for which the server wants nobody to come.
    busy_s: u16,
    /// When that is over.
    rests_until: u64,
}

impl Opening {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            next: 0,
            under_way: 0,
            open: 0,
            failures: 0,
            told: false,
            again: Vec::new(),
            busy_s: 0,
            rests_until: 0,
        }
    }

    pub(super) fn opened(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        self.open += 1;
    }

    /// One has failed. An error when it is enough.
    pub(super) fn failed(&mut self, who: usize, why: &Ended) -> Result<(), String> {
        self.under_way = self.under_way.saturating_sub(1);
        self.again.push(who);
        if let Ended::Busy { retry_after_s } = why {
            self.busy_s = self.busy_s.max(*retry_after_s);
            return Ok(());
        }
        self.failures += 1;
        if self.failures > FAILURES { Err(format!("sessions do not open: {why:?}")) } else { Ok(()) }
    }

    /// Begins further ones.
    pub(super) fn round<W: Wire>(&mut self, desk: &mut Desk<W>) {
        let busy_s = std::mem::take(&mut self.busy_s);
        self.rests_until = self.rests_until.max(if busy_s > 0 { desk.now + u64::from(busy_s) * SECOND } else { 0 });
        if desk.now < self.rests_until {
            return;
        }
        while self.under_way < AT_A_TIME {
            let who = match self.again.pop() {
                Some(who) => who,
                None if self.next < self.total => {
                    self.next += 1;
                    self.next - 1
                }
                None => return,
            };
            self.under_way += 1;
            desk.open(who, Pattern::Xx);
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.open >= self.total
    }

    /// True once, when all are open.
    pub(super) fn has_just_ended(&mut self) -> bool {
        let now = self.is_done() && !self.told;
        self.told |= now;
        now
    }
}
