//! Sessions that stay open, break off all at once, or break off one after the other, and come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::course::{Course, LOOK, Round};
use crate::engine::{Desk, Ended, Next, Pattern, Player, Seen, Wire};
use crate::measure::clock::{MS, SECOND};
use crate::measure::schedule::{Schedule, Spacing};
use crate::measure::tally::{Count, Series, Tally};
use crate::measure::window::Windows;
use crate::run::Gate;

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
/// A client whose attempt fails without a word comes back after this at the latest.
const PAUSE: u64 = SECOND;

/// Plays it.
pub(crate) struct Storm {
    course: Course,
    wave: Wave,
    /// Since when a device is away; 0: it is there.
    away: Vec<u64>,
    missing: usize,
    again: BTreeMap<(u64, usize), ()>,
    schedule: Option<Schedule>,
    broken_off: bool,
    next: usize,
    rng: StdRng,
}

impl Storm {
    /// Of so many devices.
    pub(crate) fn new(gate: Arc<Gate>, wave: Wave, clients: usize, seed: u64) -> Self {
        Self {
            course: Course::new(gate, clients),
            wave,
            away: vec![0; clients],
            missing: 0,
            again: BTreeMap::new(),
            schedule: None,
            broken_off: false,
            next: 0,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// The connection of a device breaks off, and it comes back at once.
    fn break_off<W: Wire>(&mut self, desk: &mut Desk<W>, who: usize, due: u64) {
        if self.away[who] != 0 {
            if let Some(tally) = self.course.tally(due) {
                tally.count(Count::Shed);
            }
            return;
        }
        self.away[who] = due.max(1);
        self.missing += 1;
        desk.open(who, Pattern::Ik);
    }

    fn look<W: Wire>(&mut self, desk: &mut Desk<W>, windows: Windows) -> Option<u64> {
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

impl<W: Wire> Player<W> for Storm {
    type Done = anyhow::Result<Vec<Tally>>;

    fn opened(&mut self, desk: &mut Desk<W>, who: usize, _waiting: Option<u64>) {
        if !self.course.is_open() {
            return self.course.opened();
        }
        let since = std::mem::take(&mut self.away[who]);
        self.missing = self.missing.saturating_sub(1);
        self.course.happened();
        // A login belongs to the window in which its session broke off, however late it is.
        let now = desk.now;
        if let Some(tally) = self.course.tally(since) {
            tally.count(Count::Logins);
            tally.record(Series::Login, now - since);
        }
    }

    fn seen(&mut self, _desk: &mut Desk<W>, _who: usize, _seen: Seen<W::Other>) {}

    fn closed(&mut self, desk: &mut Desk<W>, who: usize, why: Ended) {
        if !self.course.closed(who, &why) {
            return;
        }
        if self.away[who] == 0 {
            self.course.fail(format!("an idle session ended: {why:?}"));
            return;
        }
        let since = self.away[who];
        if let Some(tally) = self.course.tally(since) {
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

    fn round(&mut self, desk: &mut Desk<W>) -> Next {
        let windows = match self.course.round(desk) {
            Round::Rest(next) => return next,
            Round::Begin(_) => {
                if let Wave::Rate(rate, spacing) = self.wave {
                    self.schedule = Some(Schedule::new(rate, desk.now, spacing, 1));
                }
                return Next::At(desk.now + LOOK);
            }
            Round::Go(windows) => windows,
        };
        let next = self.look(desk, windows);
        if desk.now >= windows.end() && (self.missing == 0 || desk.now > windows.end() + GRACE) {
            return Next::Done;
        }
        let end = if desk.now < windows.end() { windows.end() } else { desk.now + LOOK };
        Next::At(next.map_or(end, |next| next.min(end).max(desk.now)))
    }

    fn finish(mut self) -> anyhow::Result<Vec<Tally>> {
        if let Some(last) = self.course.last() {
            last.add(Count::Unfinished, self.missing as u64);
        }
        self.course.finish()
    }
}
