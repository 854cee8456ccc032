//! Devices come back and take what waits for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::bail;
use causeway_stanza::{FromClient, Success};

use super::bits::Bits;
use super::opening::Opening;
use crate::engine::{Desk, Ended, Next, Player};
use crate::measure::clock::{MS, SECOND};
use crate::run::Gate;
use crate::wire::glance::Seen;
use crate::wire::mark::Mark;

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
}

/// Nothing comes for so long: that is all.
const SILENCE: u64 = 20 * SECOND;
const LOOK: u64 = 5 * MS;

/// Plays it.
pub(crate) struct Drainer {
    gate: Arc<Gate>,
    opening: Opening,
    due: Vec<u64>,
    drained: Drained,
    moved: u64,
    failed: Option<String>,
}

impl Drainer {
    /// So many devices.
    pub(crate) fn new(gate: Arc<Gate>, clients: usize) -> Self {
        // They connect when it begins, not before.
        gate.ready();
        let (opening, due) = (Opening::new(clients), vec![0; clients]);
        Self { gate, opening, due, drained: Drained::default(), moved: 0, failed: None }
    }
}

impl Player for Drainer {
    type Done = anyhow::Result<Drained>;

    fn opened(&mut self, desk: &mut Desk, _who: usize, success: &Success) {
        self.opening.opened();
        self.drained.waiting += success.waiting;
        self.moved = desk.now;
    }

    fn seen(&mut self, desk: &mut Desk, who: usize, seen: Seen) {
        if let Seen::Delivery { id, tag } = seen {
            let mark = Mark::from_bytes(id);
            self.due[who] = tag;
            self.moved = desk.now;
            self.drained.arrived += 1;
            self.drained.repeated += u64::from(!self.drained.received.insert(mark.sender, mark.number));
            self.gate.happened.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&mut self, desk: &mut Desk, who: usize) {
        let tag = std::mem::take(&mut self.due[who]);
        if tag > 0 {
            desk.stanza(who, FromClient::Ack(tag));
        }
    }

    fn closed(&mut self, _desk: &mut Desk, who: usize, why: Ended) {
        if self.opening.is_done() {
            self.failed = Some(format!("a session ended: {why:?}"));
        } else {
            self.failed = self.opening.failed(who, &why).err();
        }
    }

    fn round(&mut self, desk: &mut Desk) -> Next {
        if self.failed.is_some() || self.gate.failed.load(Ordering::Relaxed) {
            return Next::Done;
        }
        if self.gate.windows().is_none() {
            self.moved = desk.now;
            return Next::At(desk.now + LOOK);
        }
        self.opening.round(desk);
        let all = self.opening.is_done() && self.drained.arrived - self.drained.repeated >= self.drained.waiting;
        if all || desk.now > self.moved + SILENCE {
            for who in 0..desk.len() {
                desk.leave(who);
            }
            return Next::Done;
        }
        Next::At(desk.now + LOOK)
    }

    fn finish(self) -> anyhow::Result<Drained> {
        match self.failed {
            Some(failed) => bail!(failed),
            None => Ok(self.drained),
        }
    }
}
