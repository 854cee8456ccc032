//! Devices come back to full mailboxes and take all that waits, with the window of unacknowledged deliveries as it is.

use super::stage::Stage;
use super::talks::{Cast, jobs};
use crate::players::drain::{Drained, Drainer};
use crate::players::talk::Pace;
use crate::report::{Figure, Goal, Run, Unit};
use crate::run::Use;
use crate::subject::{Deployed, Pair, Subject};

/// All recipients attach, and take what waits; what it took, logins included. At most so many messages wait.
pub(super) fn drain<S: Subject>(
    stage: &mut Stage<'_, S>,
    pairs: &[Pair<S::Wire>],
    most: u64,
) -> anyhow::Result<(Drained, Use)> {
    let recipients: Vec<_> = pairs.iter().flat_map(|pair| pair.recipients.iter().cloned()).collect();
    let mut jobs = Vec::new();
    for own in stage.shares(&recipients) {
        let clients = own.len();
        jobs.push(stage.job(own, move |gate| Drainer::new(gate, clients, most), std::convert::identity));
    }
    let ran = stage.play(jobs, Stage::<S>::UNTIL_DONE)?;
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
    let pairs = stage.pairs(false)?;
    let each = stage.options.messages;
    stage.report.parameter("messages a mailbox", &each);
    let (mut costs, mut rates, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    let (mut uses, mut numbers) = (Vec::new(), Vec::new());
    for repetition in 0..u32::from(stage.options.repeat) {
        let first = repetition * each;
        let cast = Cast { pairs: &pairs, present: false, first };
        let pace = Pace::Fill(stage.options.store_in_flight, first + each);
        let jobs = jobs(&stage, &cast, pace, false, stage.options.threads)?;
        let filled = stage.play(jobs, Stage::<Deployed<'_>>::UNTIL_DONE)?;
        let mut acknowledged = crate::players::bits::Bits::default();
        for talked in filled.done {
            acknowledged.merge(talked?.acknowledged);
        }
        let (drained, used) = drain(&mut stage, &pairs, acknowledged.len())?;
        costs.extend(used.each(drained.arrived));
        rates.push(drained.arrived as f64 / used.seconds());
        lost.push(acknowledged.without(&drained.received) as f64);
        numbers.push(drained.arrived);
        uses.push(used);
    }
    stage.report.figure(Figure::new("server CPU a message", Unit::Us, costs));
    stage.report.processors(&uses, &numbers, "a message");
    stage.report.figure(Figure::new("messages drained", Unit::PerS, rates).goal(Goal::AtLeast(60_000.0)));
    stage.report.figure(Figure::new("acknowledged and not drained", Unit::Count, lost).goal(Goal::AtMost(0.0)));
    stage.end()
}
