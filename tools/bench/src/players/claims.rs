//! Devices that ask for prekey bundles of others.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::bail;
use causeway_identity::Address;
use causeway_stanza::{FromClient, FromServer, KeysClaim, List, Request, RequestBody, ResponseBody, Success};

use super::opening::Opening;
use crate::engine::{Desk, Ended, Next, Player};
use crate::measure::clock::{MS, SECOND};
use crate::measure::schedule::{Schedule, Spacing};
use crate::measure::tally::{Count, Series, Tally};
use crate::measure::window::Windows;
use crate::run::Gate;
use crate::wire::glance::Seen;

/// How claims come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each device has so many open, always.
    Saturated(u32),
    /// So many a second of all.
    Rate(f64, Spacing),
}

/// Whose keys are claimed, each in turn.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    /// Their addresses.
    pub(crate) addresses: Arc<[Address]>,
    /// Claims that were made before.
    pub(crate) claimed: u64,
    /// Claims that there are keys for, over all.
    pub(crate) supply: u64,
}

/// What is left.
pub(crate) struct Claimed {
    /// Of each window.
    pub(crate) tallies: Vec<Tally>,
    /// Claims that were made, those before included.
    pub(crate) claimed: u64,
    /// The keys were used up before the end, so that windows are missing.
    pub(crate) used_up: bool,
}

/// A device has at most so many open; a server allows 64.
const MAX_OPEN: u32 = 60;
const GRACE: u64 = 5 * SECOND;
const LOOK: u64 = 5 * MS;

/// Plays it.
pub(crate) struct Claimer {
    gate: Arc<Gate>,
    pace: Pace,
    targets: Targets,
    opening: Opening,
    open: Vec<u32>,
    /// When the last one of a device was due: ids rise.
    last: Vec<u64>,
    turn: usize,
    windows: Option<Windows>,
    schedule: Option<Schedule>,
    tallies: Vec<Tally>,
    /// When there were no more keys.
    used_up: Option<u64>,
    failed: Option<String>,
}

impl Claimer {
    /// Of so many devices.
    pub(crate) fn new(gate: Arc<Gate>, pace: Pace, targets: Targets, clients: usize) -> Self {
        Self {
            gate,
            pace,
            targets,
            opening: Opening::new(clients),
            open: vec![0; clients],
            last: vec![0; clients],
            turn: 0,
            windows: None,
            schedule: None,
            tallies: Vec::new(),
            used_up: None,
            failed: None,
        }
    }

    fn tally(&mut self, due: u64, now: u64) -> Option<&mut Tally> {
        let at = if matches!(self.pace, Pace::Rate(..)) { due } else { now };
        let index = self.windows?.index(at)?;
        self.tallies.get_mut(index)
    }

    fn is_used_up(&self) -> bool {
        self.targets.claimed >= self.targets.supply
    }

    fn claim(&mut self, desk: &mut Desk, who: usize, due: u64) -> bool {
        if self.is_used_up() || self.open[who] >= MAX_OPEN {
            return false;
        }
        // The id says when it was due; those of one device differ.
        let id = due.max(self.last[who] + 1).max(1);
        self.last[who] = id;
        let count = self.targets.addresses.len() as u64;
        let address = self.targets.addresses[(self.targets.claimed % count) as usize].clone();
        let body = RequestBody::KeysClaim(KeysClaim { address, devices: List::new() });
        let Some(id) = NonZeroU64::new(id) else { return false };
        desk.stanza(who, FromClient::Iq(Request { id, body }));
        self.targets.claimed += 1;
        if self.is_used_up() {
            self.used_up = Some(desk.now);
        }
        self.open[who] += 1;
        true
    }

    fn go_on(&mut self, desk: &mut Desk, who: usize) {
        let Pace::Saturated(most) = self.pace else { return };
        let over = self.windows.is_none_or(|windows| windows.end() <= desk.now);
        while !over && self.open[who] < most {
            let now = desk.now;
            if !self.claim(desk, who, now) {
                return;
            }
        }
    }

    fn keep_to_schedule(&mut self, desk: &mut Desk, end: u64) -> Option<u64> {
        let mut schedule = self.schedule.take()?;
        while let Some(due) = schedule.due(desk.now.min(end)) {
            self.turn = (self.turn + 1) % self.open.len();
            let who = self.turn;
            let now = desk.now;
            if !self.claim(desk, who, due)
                && let Some(tally) = self.tally(due, now)
            {
                tally.count(Count::Shed);
            }
        }
        let next = schedule.next();
        self.schedule = Some(schedule);
        (next < end).then_some(next)
    }
}

impl Player for Claimer {
    type Done = anyhow::Result<Claimed>;

    fn opened(&mut self, _desk: &mut Desk, _who: usize, _success: &Success) {
        self.opening.opened();
    }

    fn seen(&mut self, desk: &mut Desk, who: usize, seen: Seen) {
        let Seen::Other(stanza) = seen else { return };
        let FromServer::Iq(response) = *stanza else { return };
        self.open[who] = self.open[who].saturating_sub(1);
        let (due, now) = (response.id.get(), desk.now);
        let full = match &response.body {
            ResponseBody::KeyBundles(bundles) => bundles.bundles.iter().all(|bundle| bundle.ec_prekey.is_some()),
            other => {
                self.failed = Some(format!("a claim was answered with {other:?}"));
                return;
            }
        };
        if let Some(tally) = self.tally(due, now) {
            tally.count(Count::Claims);
            tally.add(Count::OneTime, u64::from(full));
            tally.record(Series::Claim, now.saturating_sub(due));
        }
        self.gate.happened.fetch_add(1, Ordering::Relaxed);
        self.go_on(desk, who);
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
                if let Pace::Rate(rate, spacing) = self.pace {
                    self.schedule = Some(Schedule::new(rate, desk.now, spacing, 2));
                }
                for who in 0..desk.len() {
                    self.go_on(desk, who);
                }
            }
            return Next::At(desk.now + LOOK);
        };
        let due = self.keep_to_schedule(desk, windows.end());
        let end = windows.end();
        if desk.now >= end && (self.open.iter().all(|open| *open == 0) || desk.now > end + GRACE) {
            return Next::Done;
        }
        Next::At(due.unwrap_or_else(|| if desk.now < end { end } else { desk.now + LOOK }))
    }

    fn finish(mut self) -> anyhow::Result<Claimed> {
        if let Some(failed) = self.failed {
            bail!(failed);
        }
        let open: u32 = self.open.iter().sum();
        if let Some(last) = self.tallies.last_mut() {
            last.add(Count::Unfinished, u64::from(open));
        }
        // A window without enough keys says nothing.
        let whole = match (self.used_up, self.windows) {
            (Some(at), Some(windows)) if at < windows.end() => windows.index(at).unwrap_or(0),
            _ => self.tallies.len(),
        };
        let used_up = whole < self.tallies.len();
        self.tallies.truncate(whole);
        Ok(Claimed { tallies: self.tallies, claimed: self.targets.claimed, used_up })
    }
}
