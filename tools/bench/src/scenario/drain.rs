//! Devices come back to full mailboxes and take all that waits, with the window of unacknowledged deliveries as it is.

use super::pairs::cast;
use super::stage::{Stage, logins};
use super::talks::{Cast, jobs};
use crate::people::Device;
use crate::players::drain::{Drained, Drainer};
use crate::players::talk::Pace;
use crate::report::{Figure, Goal, Run, Unit};
use crate::run::{Use, job};

/// All recipients attach, and take what waits; what it took, logins included.
pub(super) fn drain(stage: &mut Stage<'_>, recipients: &[Device]) -> anyhow::Result<(Drained, Use)> {
    let threads = stage.options.threads.clamp(1, recipients.len());
    let mut jobs = Vec::new();
    for thread in 0..threads {
        let own = logins(recipients.iter().skip(thread).step_by(threads))?;
        let clients = own.len();
        jobs.push(job(&stage.net, own, move |gate| Drainer::new(gate, clients), std::convert::identity));
    }
    let ran = stage.play(jobs, Stage::UNTIL_DONE)?;
    let mut all = Drained::default();
    for drained in ran.done {
        let drained = drained?;
        all.received.merge(drained.received);
        all.arrived += drained.arrived;
        all.repeated += drained.repeated;
        all.waiting += drained.waiting;
    }
    Ok((all, ran.whole))
}

pub(super) fn run(mut stage: Stage<'_>) -> anyhow::Result<Run> {
    let (senders, recipients) = cast(&mut stage, 1)?;
    let each = stage.options.messages;
    stage.parameter("messages a mailbox", &each);
    let (mut costs, mut rates, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    let (mut uses, mut numbers) = (Vec::new(), Vec::new());
    for repetition in 0..u32::from(stage.options.repeat) {
        let first = repetition * each;
        let cast = Cast { senders: &senders, recipients: &recipients, devices: 1, present: false, first };
        let pace = Pace::Fill(stage.options.store_in_flight, first + each);
        let jobs = jobs(&stage, &cast, pace, false, stage.options.threads)?;
        let filled = stage.play(jobs, Stage::UNTIL_DONE)?;
        let mut acknowledged = crate::players::bits::Bits::default();
        for talked in filled.done {
            acknowledged.merge(talked?.acknowledged);
        }
        let (drained, used) = drain(&mut stage, &recipients)?;
        costs.extend(used.each(drained.arrived));
        rates.push(drained.arrived as f64 / used.seconds());
        lost.push(acknowledged.without(&drained.received) as f64);
        numbers.push(drained.arrived);
        uses.push(used);
    }
    stage.figure(Figure::new("server CPU a message", Unit::Us, costs));
    stage.processors(&uses, &numbers, "a message");
    stage.figure(Figure::new("messages drained", Unit::PerS, rates).goal(Goal::AtLeast(60_000.0)));
    stage.figure(Figure::new("acknowledged and not drained", Unit::Count, lost).goal(Goal::AtMost(0.0)));
    stage.end()
}
