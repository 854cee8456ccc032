//! What all players go through: sessions open, the load begins, and what happens falls into windows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::bail;

use super::opening::Opening;
use crate::engine::{Desk, Ended, Next, Wire};
use crate::measure::clock::MS;
use crate::measure::tally::Tally;
use crate::measure::window::Windows;
use crate::run::Gate;

/// How often a player that waits looks around.
pub(super) const LOOK: u64 = 5 * MS;

/// How far a player is.
pub(super) struct Course {
    gate: Arc<Gate>,
    opening: Opening,
    windows: Option<Windows>,
    tallies: Vec<Tally>,
    failed: Option<String>,
}

/// What a round is for.
pub(super) enum Round {
    /// There is nothing to do but this.
    Rest(Next),
    /// The load begins; ask again soon.
    Begin(Windows),
    /// The load goes on.
    Go(Windows),
}

impl Course {
    /// With so many sessions, all of which open before the load begins.
    pub(super) fn new(gate: Arc<Gate>, clients: usize) -> Self {
        Self { gate, opening: Opening::new(clients), windows: None, tallies: Vec::new(), failed: None }
    }

    /// With sessions that open as the player says.
    pub(super) fn without_opening(gate: Arc<Gate>) -> Self {
        Self::new(gate, 0)
    }

    /// The first part of every round.
    pub(super) fn round<W: Wire>(&mut self, desk: &mut Desk<W>) -> Round {
        if self.failed.is_some() || self.gate.failed.load(Ordering::Relaxed) {
            return Round::Rest(Next::Done);
        }
        if let Some(windows) = self.windows {
            return Round::Go(windows);
        }
        self.opening.round(desk);
        if !self.opening.is_done() {
            return Round::Rest(Next::At(desk.now + 20 * LOOK));
        }
        if self.opening.has_just_ended() {
            self.gate.ready();
        }
        self.windows = self.gate.windows();
        let Some(windows) = self.windows else { return Round::Rest(Next::At(desk.now + LOOK)) };
        self.tallies.resize_with(windows.count(), Tally::default);
        Round::Begin(windows)
    }

    /// A session is open.
    pub(super) fn opened(&mut self) {
        self.opening.opened();
        self.gate.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// All sessions have been open.
    pub(super) fn is_open(&self) -> bool {
        self.opening.is_done()
    }

    /// A session or an attempt has ended. True: it is for the player to judge.
    pub(super) fn closed(&mut self, who: usize, why: &Ended) -> bool {
        if self.is_open() {
            return true;
        }
        if let Err(failed) = self.opening.failed(who, why) {
            self.fail(failed);
        }
        false
    }

    /// The run has failed.
    pub(super) fn fail(&mut self, why: String) {
        self.failed.get_or_insert(why);
    }

    /// Something has happened, for the progress line.
    pub(super) fn happened(&self) {
        self.gate.happened.fetch_add(1, Ordering::Relaxed);
    }

    /// When it is measured, once the load has begun.
    pub(super) fn windows(&self) -> Option<Windows> {
        self.windows
    }

    /// The tally of the window that this time is in.
    pub(super) fn tally(&mut self, at: u64) -> Option<&mut Tally> {
        let index = self.windows?.index(at)?;
        self.tallies.get_mut(index)
    }

    /// The tally of the last window.
    pub(super) fn last(&mut self) -> Option<&mut Tally> {
        self.tallies.last_mut()
    }

    /// The windows, unless the run has failed.
    pub(super) fn finish(self) -> anyhow::Result<Vec<Tally>> {
        match self.failed {
            Some(failed) => bail!(failed),
            None => Ok(self.tallies),
        }
    }
}
