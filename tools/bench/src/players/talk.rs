//! Senders and their recipients.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::bail;
use causeway_stanza::{FromClient, Status, Success};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::bits::Bits;
use super::opening::Opening;
use crate::engine::{Desk, Ended, Next, Player};
use crate::measure::clock::{MS, SECOND};
use crate::measure::schedule::{Schedule, Spacing};
use crate::measure::tally::{Count, Series, Tally};
use crate::measure::window::Windows;
use crate::run::Gate;
use crate::wire::glance::Seen;
use crate::wire::mark::Mark;
use crate::wire::template::Template;

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
pub(crate) struct Talk {
    /// The sender's place among the clients.
    pub(crate) sender: usize,
    /// Its number in the run.
    pub(crate) number: u32,
    /// Its message.
    pub(crate) template: Template,
    next: u32,
    open: u32,
}

impl Talk {
    /// A sender that has sent nothing; `first` is its first message's number.
    pub(crate) fn new(sender: usize, number: u32, template: Template, first: u32) -> Self {
        Self { sender, number, template, next: first, open: 0 }
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
const LOOK: u64 = 5 * MS;

/// Plays talks.
pub(crate) struct Talker {
    gate: Arc<Gate>,
    manner: Manner,
    talks: Vec<Talk>,
    /// Of each client, the talk that it sends in.
    sends_in: Vec<Option<usize>>,
    /// Of each client, what is to be acknowledged.
    due: Vec<u64>,
    opening: Opening,
    windows: Option<Windows>,
    schedule: Option<Schedule>,
    rng: StdRng,
    tallies: Vec<Tally>,
    acknowledged: Bits,
    open: u64,
    gone: usize,
    failed: Option<String>,
}

impl Talker {
    /// With so many clients; those that send in no talk are recipients.
    pub(crate) fn new(gate: Arc<Gate>, manner: Manner, clients: usize, talks: Vec<Talk>) -> Self {
        let mut sends_in = vec![None; clients];
        for (index, talk) in talks.iter().enumerate() {
            sends_in[talk.sender] = Some(index);
        }
        Self {
            gate,
            manner,
            talks,
            sends_in,
            due: vec![0; clients],
            opening: Opening::new(clients),
            windows: None,
            schedule: None,
            rng: StdRng::seed_from_u64(manner.seed),
            tallies: Vec::new(),
            acknowledged: Bits::default(),
            open: 0,
            gone: 0,
            failed: None,
        }
    }

    /// The tally that counts what happens to a message that was due then.
    fn tally(&mut self, due: u64, now: u64) -> Option<&mut Tally> {
        // By a schedule, a message belongs to the window that it was due in, however late anything happens to it.
        let at = if matches!(self.manner.pace, Pace::Rate(..)) { due } else { now };
        let index = self.windows?.index(at)?;
        self.tallies.get_mut(index)
    }

    fn submit(&mut self, desk: &mut Desk, talk: usize, due: u64) -> bool {
        let one = &mut self.talks[talk];
        let mark = Mark { sender: one.number, number: one.next, due };
        if one.open >= MAX_OPEN || !desk.send(one.sender, one.template.with(mark.to_bytes())) {
            return false;
        }
        one.next += 1;
        one.open += 1;
        self.open += 1;
        true
    }

    /// A sender without a schedule sends what it may.
    fn go_on(&mut self, desk: &mut Desk, talk: usize) {
        let (most, last) = match self.manner.pace {
            Pace::Saturated(most) => (most, u32::MAX),
            Pace::Fill(most, last) => (most, last),
            Pace::Rate(..) => return,
        };
        let over = self.windows.is_none_or(|windows| windows.end() <= desk.now);
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

    fn begin(&mut self, desk: &mut Desk, windows: Windows) {
        self.windows = Some(windows);
        self.tallies.resize_with(windows.count(), Tally::default);
        if let Pace::Rate(rate, spacing) = self.manner.pace {
            self.schedule = Some(Schedule::new(rate, desk.now, spacing, self.manner.seed));
        }
        for talk in 0..self.talks.len() {
            self.go_on(desk, talk);
        }
    }

    /// Submits what is due by now.
    fn keep_to_schedule(&mut self, desk: &mut Desk, end: u64) -> Option<u64> {
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

impl Player for Talker {
    type Done = anyhow::Result<Talked>;

    fn opened(&mut self, _desk: &mut Desk, _who: usize, _success: &Success) {
        self.opening.opened();
    }

    fn seen(&mut self, desk: &mut Desk, who: usize, seen: Seen) {
        match seen {
            Seen::Delivery { id, tag } => {
                let (mark, now) = (Mark::from_bytes(id), desk.now);
                self.due[who] = tag;
                if let Some(tally) = self.tally(mark.due, now) {
                    tally.record(Series::Recipient, now.saturating_sub(mark.due));
                    tally.count(Count::Arrived);
                }
            }
            Seen::Outcome { id, status } => {
                let (mark, now) = (Mark::from_bytes(id), desk.now);
                let Some(talk) = self.sends_in[who] else { return };
                self.talks[talk].open = self.talks[talk].open.saturating_sub(1);
                self.open = self.open.saturating_sub(1);
                let count = match status {
                    Status::Delivered => Count::Delivered,
                    Status::Stored => Count::Stored,
                    _ => Count::Refused,
                };
                if count != Count::Refused && (self.manner.until_killed || matches!(self.manner.pace, Pace::Fill(..))) {
                    self.acknowledged.insert(mark.sender, mark.number);
                }
                if let Some(tally) = self.tally(mark.due, now) {
                    tally.count(count);
                    tally.record(Series::Outcome, now.saturating_sub(mark.due));
                }
                self.gate.happened.fetch_add(1, Ordering::Relaxed);
                self.go_on(desk, talk);
            }
            Seen::Other(_) => {}
        }
    }

    fn read(&mut self, desk: &mut Desk, who: usize) {
        let tag = std::mem::take(&mut self.due[who]);
        if tag > 0 {
            desk.stanza(who, FromClient::Ack(tag));
        }
    }

    fn closed(&mut self, _desk: &mut Desk, who: usize, why: Ended) {
        if !self.opening.is_done() {
            self.failed = self.opening.failed(who, &why).err();
        } else if self.manner.until_killed {
            self.gone += 1;
        } else {
            self.failed = Some(format!("a session ended: {why:?}"));
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
            if let Some(windows) = self.gate.windows() {
                self.begin(desk, windows);
            }
            return Next::At(desk.now + LOOK);
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
        if let Some(failed) = self.failed {
            bail!(failed);
        }
        if !self.manner.until_killed
            && let Some(last) = self.tallies.last_mut()
        {
            last.add(Count::Unfinished, self.open);
        }
        Ok(Talked { tallies: self.tallies, acknowledged: self.acknowledged })
    }
}
