//! Devices that log in, leave, and come again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::bail;
use causeway_stanza::Success;

use crate::engine::{Desk, Ended, Next, Pattern, Player};
use crate::measure::clock::{MS, SECOND};
use crate::measure::tally::{Count, Series, Tally};
use crate::measure::window::Windows;
use crate::run::Gate;
use crate::wire::glance::Seen;

/// So many may fail before it is given up.
const FAILURES: u64 = 1_000;
const GRACE: u64 = 2 * SECOND;
const LOOK: u64 = 5 * MS;

/// Plays it: always so many logins at a time, each of the next device in turn.
pub(crate) struct Logins {
    gate: Arc<Gate>,
    pattern: Pattern,
    at_a_time: usize,
    next: usize,
    under_way: usize,
    /// Of each device: it is open or being opened.
    busy: Vec<bool>,
    windows: Option<Windows>,
    tallies: Vec<Tally>,
    failures: u64,
    failed: Option<String>,
}

impl Logins {
    /// Of so many devices.
    pub(crate) fn new(gate: Arc<Gate>, pattern: Pattern, at_a_time: usize, clients: usize) -> Self {
        gate.ready();
        let busy = vec![false; clients];
        let (windows, tallies) = (None, Vec::new());
        Self { gate, pattern, at_a_time, next: 0, under_way: 0, busy, windows, tallies, failures: 0, failed: None }
    }

    fn tally(&mut self, at: u64) -> Option<&mut Tally> {
        let index = self.windows?.index(at)?;
        self.tallies.get_mut(index)
    }
}

impl Player for Logins {
    type Done = anyhow::Result<Vec<Tally>>;

    fn opened(&mut self, desk: &mut Desk, who: usize, _success: &Success) {
        let (now, began) = (desk.now, desk.began(who));
        if let Some(tally) = self.tally(now) {
            tally.count(Count::Logins);
            tally.record(Series::Login, now - began);
        }
        self.gate.happened.fetch_add(1, Ordering::Relaxed);
        self.under_way -= 1;
        desk.leave(who);
    }

    fn seen(&mut self, _desk: &mut Desk, _who: usize, _seen: Seen) {}

    fn closed(&mut self, desk: &mut Desk, who: usize, why: Ended) {
        self.busy[who] = false;
        if why == Ended::Closed {
            return;
        }
        self.under_way = self.under_way.saturating_sub(1);
        self.failures += 1;
        if let Some(tally) = self.tally(desk.now) {
            tally.count(Count::Failed);
        }
        if self.failures > FAILURES {
            self.failed = Some(format!("logins fail: {why:?}"));
        }
    }

    fn round(&mut self, desk: &mut Desk) -> Next {
        if self.failed.is_some() || self.gate.failed.load(Ordering::Relaxed) {
            return Next::Done;
        }
        let Some(windows) = self.windows else {
            self.windows = self.gate.windows();
            self.tallies.resize_with(self.windows.map_or(0, |windows| windows.count()), Tally::default);
            return Next::At(desk.now + if self.windows.is_some() { 0 } else { LOOK });
        };
        if desk.now >= windows.end() {
            let over = !self.busy.contains(&true) || desk.now > windows.end() + GRACE;
            return if over { Next::Done } else { Next::At(desk.now + LOOK) };
        }
        let mut looked = 0;
        while self.under_way < self.at_a_time && looked < self.busy.len() {
            looked += 1;
            let who = self.next;
            self.next = (self.next + 1) % self.busy.len();
            if !self.busy[who] {
                self.busy[who] = true;
                self.under_way += 1;
                desk.open(who, self.pattern);
            }
        }
        Next::At(windows.end())
    }

    fn finish(self) -> anyhow::Result<Vec<Tally>> {
        match self.failed {
            Some(failed) => bail!(failed),
            None => Ok(self.tallies),
        }
    }
}
