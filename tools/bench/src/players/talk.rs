//! Senders and their recipients.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::bits::Bits;
use super::course::{Course, LOOK, Round};
use crate::engine::{Desk, Ended, Fate, Next, Player, Seen, Wire};
use crate::measure::clock::SECOND;
use crate::measure::schedule::{Schedule, Spacing};
use crate::measure::tally::{Count, Series, Tally};
use crate::run::Gate;
use crate::wire::mark::Mark;

/// How messages come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each sender has so many without an outcome, always.
    Saturated(u32),
    /// So many a second of all senders of this thread, whoever waits.
    Rate(f64, Spacing),
    /// Each sender has so many without an outcome until it has sent so many.
    Fill(u32, u32),
}

/// A sender and who gets its messages.
pub(crate) struct Talk<W: Wire> {
    /// The sender's place among the clients.
    pub(crate) sender: usize,
    /// Its number in the run.
    pub(crate) number: u32,
    /// Its message.
    pub(crate) message: W::Message,
    next: u32,
    open: u32,
}

impl<W: Wire> Talk<W> {
    /// A sender that has sent nothing; `first` is its first message's number.
    pub(crate) fn new(sender: usize, number: u32, message: W::Message, first: u32) -> Self {
        Self { sender, number, message, next: first, open: 0 }
    }
}

/// How a thread's talks go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// How messages come.
    pub(crate) pace: Pace,
    /// It goes on until the servers are killed.
    pub(crate) until_killed: bool,
    /// What is drawn is made of it.
    pub(crate) seed: u64,
}

/// What is left of it.
pub(crate) struct Talked {
    /// Of each window.
    pub(crate) tallies: Vec<Tally>,
    /// Messages that were acknowledged to their senders as delivered or stored, over all windows and beside them.
    pub(crate) acknowledged: Bits,
}

/// A sender has at most so many without an outcome; what is due besides is shed.
const MAX_OPEN: u32 = 200;
/// So long is waited for outcomes in the end.
const GRACE: u64 = 5 * SECOND;

/// Plays talks.
pub(crate) struct Talker<W: Wire> {
    course: Course,
    manner: Manner,
    talks: Vec<Talk<W>>,
    /// Of each client, the talk that it sends in.
    sends_in: Vec<Option<usize>>,
    schedule: Option<Schedule>,
    rng: StdRng,
    acknowledged: Bits,
    open: u64,
    gone: usize,
}

impl<W: Wire> Talker<W> {
    /// With so many clients; those that send in no talk are recipients.
    pub(crate) fn new(gate: Arc<Gate>, manner: Manner, clients: usize, talks: Vec<Talk<W>>) -> Self {
        let mut sends_in = vec![None; clients];
        for (index, talk) in talks.iter().enumerate() {
            sends_in[talk.sender] = Some(index);
        }
        Self {
            course: Course::new(gate, clients),
            manner,
            talks,
            sends_in,
            schedule: None,
            rng: StdRng::seed_from_u64(manner.seed),
            acknowledged: Bits::default(),
            open: 0,
            gone: 0,
        }
    }

    /// The tally that counts what happens to a message that was due then.
    fn tally(&mut self, due: u64, now: u64) -> Option<&mut Tally> {
        // By a schedule, a message belongs to the window that it was due in, however late anything happens to it.
        let at = if matches!(self.manner.pace, Pace::Rate(..)) { due } else { now };
        self.course.tally(at)
    }

    fn submit(&mut self, desk: &mut Desk<W>, talk: usize, due: u64) -> bool {
        let one = &mut self.talks[talk];
        let mark = Mark { sender: one.number, number: one.next, due };
        if one.open >= MAX_OPEN || !desk.submit(one.sender, &mut one.message, mark) {
            return false;
        }
        one.next += 1;
        one.open += 1;
        self.open += 1;
        true
    }

    /// A sender without a schedule sends what it may.
    fn go_on(&mut self, desk: &mut Desk<W>, talk: usize) {
        let (most, last) = match self.manner.pace {
            Pace::Saturated(most) => (most, u32::MAX),
            Pace::Fill(most, last) => (most, last),
            Pace::Rate(..) => return,
        };
        let over = self.course.windows().is_none_or(|windows| windows.end() <= desk.now);
        if over && !self.manner.until_killed && !matches!(self.manner.pace, Pace::Fill(..)) {
            return;
        }
        while self.talks[talk].open < most && self.talks[talk].next < last {
            let now = desk.now;
            if !self.submit(desk, talk, now) {
                return;
            }
        }
    }

    fn begin(&mut self, desk: &mut Desk<W>) {
        if let Pace::Rate(rate, spacing) = self.manner.pace {
            self.schedule = Some(Schedule::new(rate, desk.now, spacing, self.manner.seed));
        }
        for talk in 0..self.talks.len() {
            self.go_on(desk, talk);
        }
    }

    /// Submits what is due by now.
    fn keep_to_schedule(&mut self, desk: &mut Desk<W>, end: u64) -> Option<u64> {
        let mut schedule = self.schedule.take()?;
        while let Some(due) = schedule.due(desk.now.min(end)) {
            let talk = self.rng.random_range(0..self.talks.len());
            let (now, taken) = (desk.now, self.submit(desk, talk, due));
            let Some(tally) = self.tally(due, now) else { continue };
            if taken {
                tally.record(Series::Late, now.saturating_sub(due));
            } else {
                tally.count(Count::Shed);
            }
        }
        let next = schedule.next();
        self.schedule = Some(schedule);
        (next < end).then_some(next)
    }

    fn is_filled(&self) -> bool {
        match self.manner.pace {
            Pace::Fill(_, last) => self.open == 0 && self.talks.iter().all(|talk| talk.next >= last),
            _ => true,
        }
    }
}

impl<W: Wire> Player<W> for Talker<W> {
    type Done = anyhow::Result<Talked>;

    fn opened(&mut self, _desk: &mut Desk<W>, _who: usize, _waiting: Option<u64>) {
        self.course.opened();
    }

    fn seen(&mut self, desk: &mut Desk<W>, who: usize, seen: Seen<W::Other>) {
        match seen {
            Seen::Delivery(mark) => {
                let now = desk.now;
                if let Some(tally) = self.tally(mark.due, now) {
                    tally.record(Series::Recipient, now.saturating_sub(mark.due));
                    tally.count(Count::Arrived);
                }
            }
            Seen::Outcome(mark, fate) => {
                let now = desk.now;
                let Some(talk) = self.sends_in[who] else { return };
                self.talks[talk].open = self.talks[talk].open.saturating_sub(1);
                self.open = self.open.saturating_sub(1);
                let count = match fate {
                    Fate::Delivered => Count::Delivered,
                    Fate::Stored => Count::Stored,
                    Fate::Refused => Count::Refused,
                };
                if count != Count::Refused && (self.manner.until_killed || matches!(self.manner.pace, Pace::Fill(..))) {
                    self.acknowledged.insert(mark.sender, mark.number);
                }
                if let Some(tally) = self.tally(mark.due, now) {
                    tally.count(count);
                    tally.record(Series::Outcome, now.saturating_sub(mark.due));
                }
                self.course.happened();
                self.go_on(desk, talk);
            }
            Seen::Opened { .. } | Seen::Other(_) => {}
        }
    }

    fn read(&mut self, desk: &mut Desk<W>, who: usize) {
        desk.acknowledge(who);
    }

    fn closed(&mut self, _desk: &mut Desk<W>, who: usize, why: Ended) {
        if !self.course.closed(who, &why) {
            return;
        }
        if self.manner.until_killed {
            self.gone += 1;
        } else {
            self.course.fail(format!("a session ended: {why:?}"));
        }
    }

    fn round(&mut self, desk: &mut Desk<W>) -> Next {
        let windows = match self.course.round(desk) {
            Round::Rest(next) => return next,
            Round::Begin(_) => {
                self.begin(desk);
                return Next::At(desk.now + LOOK);
            }
            Round::Go(windows) => windows,
        };
        let due = self.keep_to_schedule(desk, windows.end());
        if self.manner.until_killed {
            let over = self.gone == desk.len() || desk.now > windows.end() + 10 * GRACE;
            return if over { Next::Done } else { Next::At(desk.now + LOOK) };
        }
        let end = windows.end();
        if desk.now >= end && self.is_filled() && (self.open == 0 || desk.now > end + GRACE) {
            return Next::Done;
        }
        // Without a schedule the end is all that has to be noticed by the clock.
        Next::At(due.unwrap_or_else(|| if desk.now < end { end } else { desk.now + LOOK }))
    }

    fn finish(mut self) -> anyhow::Result<Talked> {
        if !self.manner.until_killed
            && let Some(last) = self.course.last()
        {
            last.add(Count::Unfinished, self.open);
        }
        Ok(Talked { tallies: self.course.finish()?, acknowledged: self.acknowledged })
    }
}
