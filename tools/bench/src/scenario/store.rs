//! Recipients who are away: each message is on disk before its sender has the outcome. Then all processes are killed in the
//! middle of it, started again, and what was acknowledged must be there.

use super::drain::drain;
use super::pairs::cast;
use super::stage::Stage;
use super::talks::{Cast, jobs};
use crate::measure::tally::{Count, Series, Tally, merged};
use crate::players::bits::Bits;
use crate::players::talk::Pace;
use crate::report::{Figure, Goal, Run, Unit};

pub(super) fn run(mut stage: Stage<'_>) -> anyhow::Result<Run> {
    let (senders, recipients) = cast(&mut stage, 1)?;
    let in_flight = stage.options.store_in_flight;
    stage.parameter("in flight a sender", &in_flight);
    let cast = Cast { senders: &senders, recipients: &recipients, devices: 1, present: false, first: 0 };
    let jobs = jobs(&stage, &cast, Pace::Saturated(in_flight), true, stage.options.threads)?;
    let ran = stage.play_and_kill(jobs)?;
    let (mut tallies, mut acknowledged) = (Vec::new(), Bits::default());
    for talked in ran.done {
        let talked = talked?;
        tallies.push(talked.tallies);
        acknowledged.merge(talked.acknowledged);
    }
    let tallies = merged(tallies);
    stage.deployment.start_again()?;

    let numbers: Vec<_> = tallies.iter().map(Tally::accepted).collect();
    let cost = ran.uses.iter().zip(&numbers).filter_map(|(one, number)| one.each(*number));
    let (each, per_s) = if stage.is_on_postgres() {
        (None, Goal::AtLeast(20_000.0))
    } else {
        (stage.is_one().then_some(Goal::AtMost(30.0)), Goal::AtLeast(30_000.0))
    };
    stage.goal(Figure::new("server CPU a message", Unit::Us, cost), each);
    stage.processors(&ran.uses, &numbers, "a message");
    let rates = ran.uses.iter().zip(&numbers).map(|(one, number)| *number as f64 / one.seconds());
    stage.figure(Figure::new("messages stored", Unit::PerS, rates).goal(per_s));
    for (name, percent) in [("to the outcome, p50", 50.0), ("to the outcome, p99", 99.0)] {
        let values = tallies.iter().filter_map(|tally| tally.percentile(Series::Outcome, percent));
        stage.figure(Figure::new(name, Unit::Ms, values));
    }
    let refused: u64 = tallies.iter().map(|tally| tally.get(Count::Refused)).sum();
    if refused > 0 {
        stage.note(format!("Refused by the server: {refused}."));
    }

    let (drained, _) = drain(&mut stage, &recipients)?;
    stage.figure(Figure::new("acknowledged before SIGKILL", Unit::Count, [acknowledged.len() as f64]));
    let lost = acknowledged.without(&drained.received) as f64;
    stage.figure(Figure::new("of these lost", Unit::Count, [lost]).goal(Goal::AtMost(0.0)));
    let repeated = drained.repeated as f64;
    stage.figure(Figure::new("came more than once", Unit::Count, [repeated]));
    stage.end()
}
