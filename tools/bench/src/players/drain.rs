//! Devices come back and take what waits for them.

use std::sync::Arc;

use super::bits::Bits;
use super::course::{Course, LOOK, Round};
use super::opening::Opening;
use crate::engine::{Desk, Ended, Next, Player, Seen, Wire};
use crate::measure::clock::SECOND;
use crate::run::Gate;

/// What has come.
#[derive(Default)]
pub(crate) struct Drained {
    /// Messages, each once.
    pub(crate) received: Bits,
    /// How many came, repeats too.
    pub(crate) arrived: u64,
    /// How many came that had come before.
    pub(crate) repeated: u64,
    /// How many the logins said that wait.
    pub(crate) waiting: u64,
    /// Some logins did not say it.
    pub(crate) unknown: bool,
}

/// Nothing comes for so long: that is all.
const SILENCE: u64 = 20 * SECOND;
/// The same where the server does not say how many wait.
const UNKNOWN_SILENCE: u64 = 3 * SECOND;

/// Plays it.
pub(crate) struct Drainer {
    course: Course,
    opening: Opening,
    /// How many there can be.
    most: u64,
    drained: Drained,
    moved: u64,
}

impl Drainer {
    /// So many devices. They connect when it begins, not before. Where the server does not say how many messages wait,
    /// `most` is when all are there.
    pub(crate) fn new(gate: Arc<Gate>, clients: usize, most: u64) -> Self {
        let (course, opening) = (Course::without_opening(gate), Opening::new(clients));
        Self { course, opening, most, drained: Drained::default(), moved: 0 }
    }

    fn has_all(&self) -> bool {
        let expected = if self.drained.unknown { self.most } else { self.drained.waiting };
        self.opening.is_done() && self.drained.arrived - self.drained.repeated >= expected
    }
}

impl<W: Wire> Player<W> for Drainer {
    type Done = anyhow::Result<Drained>;

    fn opened(&mut self, desk: &mut Desk<W>, _who: usize, waiting: Option<u64>) {
        self.opening.opened();
        self.drained.waiting += waiting.unwrap_or(0);
        self.drained.unknown |= waiting.is_none();
        self.moved = desk.now;
    }

    fn seen(&mut self, desk: &mut Desk<W>, _who: usize, seen: Seen<W::Other>) {
        if let Seen::Delivery(mark) = seen {
            self.moved = desk.now;
            self.drained.arrived += 1;
            self.drained.repeated += u64::from(!self.drained.received.insert(mark.sender, mark.number));
            self.course.happened();
        }
    }

    fn read(&mut self, desk: &mut Desk<W>, who: usize) {
        desk.acknowledge(who);
    }

    fn closed(&mut self, _desk: &mut Desk<W>, who: usize, why: Ended) {
        if self.opening.is_done() {
            self.course.fail(format!("a session ended: {why:?}"));
        } else if let Err(failed) = self.opening.failed(who, &why) {
            self.course.fail(failed);
        }
    }

    fn round(&mut self, desk: &mut Desk<W>) -> Next {
        match self.course.round(desk) {
            Round::Rest(next) => return next,
            Round::Begin(_) => self.moved = desk.now,
            Round::Go(_) => {}
        }
        self.opening.round(desk);
        let silence = if self.drained.unknown { UNKNOWN_SILENCE } else { SILENCE };
        if self.has_all() || desk.now > self.moved + silence {
            for who in 0..desk.len() {
                desk.leave(who);
            }
            return Next::Done;
        }
        Next::At(desk.now + LOOK)
    }

    fn finish(self) -> anyhow::Result<Drained> {
        self.course.finish()?;
        Ok(self.drained)
    }
}
