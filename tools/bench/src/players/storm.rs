//! Sessions that stay open, break off all at once, or break off one after the other, and come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::bail;
use causeway_stanza::Success;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::opening::Opening;
use crate::engine::{Desk, Ended, Next, Pattern, Player};
use crate::measure::clock::{MS, SECOND};
use crate::measure::schedule::{Schedule, Spacing};
use crate::measure::tally::{Count, Series, Tally};
use crate::measure::window::Windows;
use crate::run::Gate;
use crate::wire::glance::Seen;

/// What breaks off.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wave {
    /// Nothing.
    None,
    /// All, when the first window begins.
    AtOnce,
    /// So many a second, from the start of the load on.
    Rate(f64, Spacing),
}

/// So long is waited for the last to be back.
const GRACE: u64 = 60 * SECOND;
const LOOK: u64 = 5 * MS;
/// A client whose attempt fails without a word comes back after this at the latest.
const PAUSE: u64 = SECOND;

/// Plays it.
pub(crate) struct Storm {
    gate: Arc<Gate>,
    wave: Wave,
    opening: Opening,
    /// Since when a device is away; 0: it is there.
    away: Vec<u64>,
    missing: usize,
    again: BTreeMap<(u64, usize), ()>,
    windows: Option<Windows>,
    schedule: Option<Schedule>,
    broken_off: bool,
    next: usize,
    rng: StdRng,
    tallies: Vec<Tally>,
    failed: Option<String>,
}

impl Storm {
    /// Of so many devices.
    pub(crate) fn new(gate: Arc<Gate>, wave: Wave, clients: usize, seed: u64) -> Self {
        Self {
            gate,
            wave,
            opening: Opening::new(clients),
            away: vec![0; clients],
            missing: 0,
            again: BTreeMap::new(),
            windows: None,
            schedule: None,
            broken_off: false,
            next: 0,
            rng: StdRng::seed_from_u64(seed),
            tallies: Vec::new(),
            failed: None,
        }
    }

    fn tally(&mut self, at: u64) -> Option<&mut Tally> {
        let index = self.windows?.index(at)?;
        self.tallies.get_mut(index)
    }

    /// The connection of a device breaks off, and it comes back at once.
    fn break_off(&mut self, desk: &mut Desk, who: usize, due: u64) {
        if self.away[who] != 0 {
            if let Some(tally) = self.tally(due) {
                tally.count(Count::Shed);
            }
            return;
        }
        self.away[who] = due.max(1);
        self.missing += 1;
        desk.open(who, Pattern::Ik);
    }

    fn look(&mut self, desk: &mut Desk, windows: Windows) -> Option<u64> {
        while let Some((&(at, who), ())) = self.again.first_key_value() {
            if at > desk.now {
                break;
            }
            self.again.pop_first();
            desk.open(who, Pattern::Ik);
        }
        let mut next = self.again.first_key_value().map(|((at, _), ())| *at);
        if matches!(self.wave, Wave::AtOnce) && !self.broken_off {
            if desk.now < windows.edge(0) {
                return Some(windows.edge(0));
            }
            self.broken_off = true;
            for who in 0..desk.len() {
                let now = desk.now;
                self.break_off(desk, who, now);
            }
        }
        if let Some(mut schedule) = self.schedule.take() {
            while let Some(due) = schedule.due(desk.now.min(windows.end())) {
                self.next = (self.next + 1) % desk.len();
                let who = self.next;
                self.break_off(desk, who, due);
            }
            let due = schedule.next();
            next = Some(next.map_or(due, |next| next.min(due)));
            self.schedule = Some(schedule);
        }
        next
    }
}

impl Player for Storm {
    type Done = anyhow::Result<Vec<Tally>>;

    fn opened(&mut self, desk: &mut Desk, who: usize, _success: &Success) {
        if !self.opening.is_done() {
            return self.opening.opened();
        }
        let since = std::mem::take(&mut self.away[who]);
        self.missing = self.missing.saturating_sub(1);
        self.gate.happened.fetch_add(1, Ordering::Relaxed);
        // A login belongs to the window in which its session broke off, however late it is.
        let now = desk.now;
        if let Some(tally) = self.tally(since) {
            tally.count(Count::Logins);
            tally.record(Series::Login, now - since);
        }
    }

    fn seen(&mut self, _desk: &mut Desk, _who: usize, _seen: Seen) {}

    fn closed(&mut self, desk: &mut Desk, who: usize, why: Ended) {
        if !self.opening.is_done() {
            self.failed = self.opening.failed(who, &why).err();
            return;
        }
        if self.away[who] == 0 {
            self.failed = Some(format!("an idle session ended: {why:?}"));
            return;
        }
        let since = self.away[who];
        if let Some(tally) = self.tally(since) {
            tally.count(Count::Failed);
        }
        // What a server asks for is a least pause, in whole seconds: clients spread over a part of the next one.
        let pause = match why {
            Ended::Busy { retry_after_s } => u64::from(retry_after_s) * SECOND,
            Ended::Told(end) => end.retry_after_ms * MS,
            _ => 0,
        };
        let at = desk.now + pause + self.rng.random_range(0..PAUSE);
        self.again.insert((at, who), ());
    }

    fn round(&mut self, desk: &mut Desk) -> Next {
        if self.failed.is_some() || self.gate.failed.load(Ordering::Relaxed) {
            return Next::Done;
        }
        self.opening.round(desk);
        if !self.opening.is_done() {
            return Next::At(desk.now + 20 * LOOK);
        }
        if self.opening.has_just_ended() {
            self.gate.ready();
        }
        let Some(windows) = self.windows else {
            self.windows = self.gate.windows();
            if let Some(windows) = self.windows {
                self.tallies.resize_with(windows.count(), Tally::default);
                if let Wave::Rate(rate, spacing) = self.wave {
                    self.schedule = Some(Schedule::new(rate, desk.now, spacing, 1));
                }
            }
            return Next::At(desk.now + LOOK);
        };
        let next = self.look(desk, windows);
        if desk.now >= windows.end() && (self.missing == 0 || desk.now > windows.end() + GRACE) {
            return Next::Done;
        }
        let end = if desk.now < windows.end() { windows.end() } else { desk.now + LOOK };
        Next::At(next.map_or(end, |next| next.min(end).max(desk.now)))
    }

    fn finish(mut self) -> anyhow::Result<Vec<Tally>> {
        if let Some(failed) = self.failed {
            bail!(failed);
        }
        if let Some(last) = self.tallies.last_mut() {
            last.add(Count::Unfinished, self.missing as u64);
        }
        Ok(self.tallies)
    }
}
