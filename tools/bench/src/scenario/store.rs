//! Recipients who are away: each message is kept before its sender has the outcome. Then all processes are killed, in the middle
//! of it or after so many messages, started again, and what was acknowledged must be there.

use super::drain::drain;
use super::stage::Stage;
use super::talks::{Cast, jobs};
use crate::measure::tally::{Count, Series, Tally, merged};
use crate::players::bits::Bits;
use crate::players::talk::{Pace, Talked};
use crate::report::{Figure, Goal, Run, Unit};
use crate::run::Use;
use crate::subject::{Pair, Subject};

/// What was stored, and what became of it.
#[derive(Default)]
struct Stored {
    /// Of each window, or of each repetition.
    uses: Vec<Use>,
    numbers: Vec<u64>,
    tallies: Vec<Tally>,
    /// Of each time that all processes were killed.
    acknowledged: Vec<f64>,
    lost: Vec<f64>,
    repeated: Vec<f64>,
}

pub(super) fn run<S: Subject>(mut stage: Stage<'_, S>) -> anyhow::Result<Run> {
    let pairs = stage.pairs(false)?;
    let in_flight = stage.options.store_in_flight;
    stage.report.parameter("in flight a sender", &in_flight);
    // A server may keep nothing for people who were never there.
    drain(&mut stage, &pairs, 0)?;
    let mut stored = Stored::default();
    match stage.options.store_messages {
        0 => in_the_middle(&mut stage, &pairs, &mut stored)?,
        count => {
            stage.report.parameter("messages", &count);
            for repetition in 0..u32::from(stage.options.repeat) {
                after(&mut stage, &pairs, &mut stored, count, repetition)?;
            }
        }
    }

    let cost = stored.uses.iter().zip(&stored.numbers).filter_map(|(one, number)| one.each(*number));
    let rates = stored.uses.iter().zip(&stored.numbers).map(|(one, number)| *number as f64 / one.seconds());
    let per_s = if stage.is_on_postgres() { 20_000.0 } else { 30_000.0 };
    let each = (stage.is_one() && !stage.is_on_postgres()).then_some(Goal::AtMost(30.0));
    let ours = stage.is_ours();
    stage.report.goal(Figure::new("server CPU a message", Unit::Us, cost), each);
    stage.report.processors(&stored.uses, &stored.numbers, "a message");
    stage.report.goal(Figure::new("messages stored", Unit::PerS, rates), ours.then_some(Goal::AtLeast(per_s)));
    for (name, percent) in [("to the outcome, p50", 50.0), ("to the outcome, p99", 99.0)] {
        let values: Vec<_> =
            stored.tallies.iter().filter_map(|tally| tally.percentile(Series::Outcome, percent)).collect();
        if !values.is_empty() {
            stage.report.figure(Figure::new(name, Unit::Ms, values));
        }
    }
    let refused: u64 = stored.tallies.iter().map(|tally| tally.get(Count::Refused)).sum();
    if refused > 0 {
        stage.report.note(format!("Refused by the server: {refused}."));
    }
    stage.report.figure(Figure::new("acknowledged before SIGKILL", Unit::Count, stored.acknowledged));
    stage.report.goal(Figure::new("of these lost", Unit::Count, stored.lost), ours.then_some(Goal::AtMost(0.0)));
    stage.report.figure(Figure::new("came more than once", Unit::Count, stored.repeated));
    stage.end()
}

/// Kills while messages come.
fn in_the_middle<S: Subject>(
    stage: &mut Stage<'_, S>,
    pairs: &[Pair<S::Wire>],
    stored: &mut Stored,
) -> anyhow::Result<()> {
    let cast = Cast { pairs, present: false, first: 0 };
    let jobs = jobs(stage, &cast, Pace::Saturated(stage.options.store_in_flight), true, stage.options.threads)?;
    let ran = stage.play_and_kill(jobs)?;
    let (tallies, acknowledged) = joined(ran.done)?;
    stored.tallies = tallies;
    stored.numbers = stored.tallies.iter().map(Tally::accepted).collect();
    stored.uses = ran.uses;
    count(stage, pairs, &acknowledged, stored)
}

/// Kills as soon as so many messages are acknowledged.
fn after<S: Subject>(
    stage: &mut Stage<'_, S>,
    pairs: &[Pair<S::Wire>],
    stored: &mut Stored,
    messages: u32,
    repetition: u32,
) -> anyhow::Result<()> {
    let each = messages.div_ceil(u32::try_from(pairs.len())?.max(1));
    let first = repetition * each;
    let cast = Cast { pairs, present: false, first };
    let pace = Pace::Fill(stage.options.store_in_flight, first + each);
    let jobs = jobs(stage, &cast, pace, false, stage.options.threads)?;
    let ran = stage.play(jobs, Stage::<S>::UNTIL_DONE)?;
    stage.subject.kill()?;
    let (_, acknowledged) = joined(ran.done)?;
    stored.numbers.push(acknowledged.len());
    stored.uses.push(ran.whole);
    count(stage, pairs, &acknowledged, stored)
}

/// Starts again what was killed, and counts what is missing.
fn count<S: Subject>(
    stage: &mut Stage<'_, S>,
    pairs: &[Pair<S::Wire>],
    acknowledged: &Bits,
    stored: &mut Stored,
) -> anyhow::Result<()> {
    stage.subject.start_again()?;
    let (drained, _) = drain(stage, pairs, acknowledged.len())?;
    stored.acknowledged.push(acknowledged.len() as f64);
    stored.lost.push(acknowledged.without(&drained.received) as f64);
    stored.repeated.push(drained.repeated as f64);
    Ok(())
}

fn joined(done: Vec<anyhow::Result<Talked>>) -> anyhow::Result<(Vec<Tally>, Bits)> {
    let (mut tallies, mut acknowledged) = (Vec::new(), Bits::default());
    for talked in done {
        let talked = talked?;
        tallies.push(talked.tallies);
        acknowledged.merge(talked.acknowledged);
    }
    Ok((merged(tallies), acknowledged))
}
