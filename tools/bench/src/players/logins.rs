//! Devices that log in, leave, and come again.

use std::sync::Arc;

use super::course::{Course, LOOK, Round};
use crate::engine::{Desk, Ended, Next, Pattern, Player, Seen, Wire};
use crate::measure::clock::SECOND;
use crate::measure::tally::{Count, Series, Tally};
use crate::run::Gate;

/// So many may fail before it is given up.
const FAILURES: u64 = 1_000;
const GRACE: u64 = 2 * SECOND;

/// Plays it: always so many logins at a time, each of the next device in turn.
pub(crate) struct Logins {
    course: Course,
    pattern: Pattern,
    at_a_time: usize,
    next: usize,
    under_way: usize,
    /// Of each device.
    devices: Vec<Device>,
    failures: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Device {
    Away,
    Comes,
    Leaves,
}

impl Logins {
    /// Of so many devices.
    pub(crate) fn new(gate: Arc<Gate>, pattern: Pattern, at_a_time: usize, clients: usize) -> Self {
        let (course, devices) = (Course::without_opening(gate), vec![Device::Away; clients]);
        Self { course, pattern, at_a_time, next: 0, under_way: 0, devices, failures: 0 }
    }
}

impl<W: Wire> Player<W> for Logins {
    type Done = anyhow::Result<Vec<Tally>>;

    fn opened(&mut self, desk: &mut Desk<W>, who: usize, _waiting: Option<u64>) {
        let (now, began) = (desk.now, desk.began(who));
        if let Some(tally) = self.course.tally(now) {
            tally.count(Count::Logins);
            tally.record(Series::Login, now - began);
        }
        self.course.happened();
        self.under_way -= 1;
        self.devices[who] = Device::Leaves;
        desk.leave(who);
    }

    fn seen(&mut self, _desk: &mut Desk<W>, _who: usize, _seen: Seen<W::Other>) {}

    fn closed(&mut self, desk: &mut Desk<W>, who: usize, why: Ended) {
        let came = std::mem::replace(&mut self.devices[who], Device::Away) == Device::Comes;
        if !came && why == Ended::Closed {
            return;
        }
        self.under_way -= usize::from(came);
        self.failures += 1;
        if let Some(tally) = self.course.tally(desk.now) {
            tally.count(Count::Failed);
        }
        if self.failures > FAILURES {
            self.course.fail(format!("logins fail: {why:?}"));
        }
    }

    fn round(&mut self, desk: &mut Desk<W>) -> Next {
        let windows = match self.course.round(desk) {
            Round::Rest(next) => return next,
            Round::Begin(windows) | Round::Go(windows) => windows,
        };
        if desk.now >= windows.end() {
            let over = self.devices.iter().all(|device| *device == Device::Away);
            return if over || desk.now > windows.end() + GRACE { Next::Done } else { Next::At(desk.now + LOOK) };
        }
        let mut looked = 0;
        while self.under_way < self.at_a_time && looked < self.devices.len() {
            looked += 1;
            let who = self.next;
            self.next = (self.next + 1) % self.devices.len();
            if self.devices[who] == Device::Away {
                self.devices[who] = Device::Comes;
                self.under_way += 1;
                desk.open(who, self.pattern);
            }
        }
        Next::At(windows.end())
    }

    fn finish(self) -> anyhow::Result<Vec<Tally>> {
        self.course.finish()
    }
}
