//! Devices that ask for prekey bundles of others.

use std::num::NonZeroU64;
use std::sync::Arc;

use causeway_identity::Address;
use causeway_stanza::{FromClient, FromServer, KeysClaim, List, Request, RequestBody, ResponseBody};

use super::course::{Course, LOOK, Round};
use crate::engine::{Desk, Ended, Next, Player, Seen};
use crate::measure::clock::SECOND;
use crate::measure::schedule::{Schedule, Spacing};
use crate::measure::tally::{Count, Series, Tally};
use crate::run::Gate;
use crate::wire::causeway::Causeway;

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

/// Plays it.
pub(crate) struct Claimer {
    course: Course,
    pace: Pace,
    targets: Targets,
    open: Vec<u32>,
    /// When the last one of a device was due: ids rise.
    last: Vec<u64>,
    turn: usize,
    schedule: Option<Schedule>,
    /// When there were no more keys.
    used_up: Option<u64>,
}

impl Claimer {
    /// Of so many devices.
    pub(crate) fn new(gate: Arc<Gate>, pace: Pace, targets: Targets, clients: usize) -> Self {
        Self {
            course: Course::new(gate, clients),
            pace,
            targets,
            open: vec![0; clients],
            last: vec![0; clients],
            turn: 0,
            schedule: None,
            used_up: None,
        }
    }

    fn tally(&mut self, due: u64, now: u64) -> Option<&mut Tally> {
        let at = if matches!(self.pace, Pace::Rate(..)) { due } else { now };
        self.course.tally(at)
    }

    fn is_used_up(&self) -> bool {
        self.targets.claimed >= self.targets.supply
    }

    fn claim(&mut self, desk: &mut Desk<Causeway>, who: usize, due: u64) -> bool {
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

    fn go_on(&mut self, desk: &mut Desk<Causeway>, who: usize) {
        let Pace::Saturated(most) = self.pace else { return };
        let over = self.course.windows().is_none_or(|windows| windows.end() <= desk.now);
        while !over && self.open[who] < most {
            let now = desk.now;
            if !self.claim(desk, who, now) {
                return;
            }
        }
    }

    fn keep_to_schedule(&mut self, desk: &mut Desk<Causeway>, end: u64) -> Option<u64> {
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

impl Player<Causeway> for Claimer {
    type Done = anyhow::Result<Claimed>;

    fn opened(&mut self, _desk: &mut Desk<Causeway>, _who: usize, _waiting: Option<u64>) {
        self.course.opened();
    }

    fn seen(&mut self, desk: &mut Desk<Causeway>, who: usize, seen: Seen<Box<FromServer>>) {
        let Seen::Other(stanza) = seen else { return };
        let FromServer::Iq(response) = *stanza else { return };
        self.open[who] = self.open[who].saturating_sub(1);
        let (due, now) = (response.id.get(), desk.now);
        let full = match &response.body {
            ResponseBody::KeyBundles(bundles) => bundles.bundles.iter().all(|bundle| bundle.ec_prekey.is_some()),
            other => {
                self.course.fail(format!("a claim was answered with {other:?}"));
                return;
            }
        };
        if let Some(tally) = self.tally(due, now) {
            tally.count(Count::Claims);
            tally.add(Count::OneTime, u64::from(full));
            tally.record(Series::Claim, now.saturating_sub(due));
        }
        self.course.happened();
        self.go_on(desk, who);
    }

    fn closed(&mut self, _desk: &mut Desk<Causeway>, who: usize, why: Ended) {
        if self.course.closed(who, &why) {
            self.course.fail(format!("a session ended: {why:?}"));
        }
    }

    fn round(&mut self, desk: &mut Desk<Causeway>) -> Next {
        let windows = match self.course.round(desk) {
            Round::Rest(next) => return next,
            Round::Begin(_) => {
                if let Pace::Rate(rate, spacing) = self.pace {
                    self.schedule = Some(Schedule::new(rate, desk.now, spacing, 2));
                }
                for who in 0..desk.len() {
                    self.go_on(desk, who);
                }
                return Next::At(desk.now + LOOK);
            }
            Round::Go(windows) => windows,
        };
        let due = self.keep_to_schedule(desk, windows.end());
        let end = windows.end();
        if desk.now >= end && (self.open.iter().all(|open| *open == 0) || desk.now > end + GRACE) {
            return Next::Done;
        }
        Next::At(due.unwrap_or_else(|| if desk.now < end { end } else { desk.now + LOOK }))
    }

    fn finish(mut self) -> anyhow::Result<Claimed> {
        let open: u32 = self.open.iter().sum();
        if let Some(last) = self.course.last() {
            last.add(Count::Unfinished, u64::from(open));
        }
        let windows = self.course.windows();
        let mut tallies = self.course.finish()?;
        // A window without enough keys says nothing.
        let whole = match (self.used_up, windows) {
            (Some(at), Some(windows)) if at < windows.end() => windows.index(at).unwrap_or(0),
            _ => tallies.len(),
        };
        let used_up = whole < tallies.len();
        tallies.truncate(whole);
        Ok(Claimed { tallies, claimed: self.targets.claimed, used_up })
    }
}
