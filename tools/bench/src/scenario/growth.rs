//! The same load over a few sessions and over many: what a message costs must not grow with those who are online. And how long
//! the deployment takes from its start until it serves, with all these accounts in its database.

use super::stage::Stage;
use super::talks::{Cast, jobs, windows};
use crate::measure::clock;
use crate::measure::tally::Tally;
use crate::players::talk::Pace;
use crate::report::{Figure, Goal, Run, Unit};
use crate::subject::Subject as _;

/// Pairs of the small half.
const FEW: usize = 200;
/// Messages a second: enough that a message's own cost counts, and far from what the server can do.
const RATE: f64 = 8_000.0;

pub(super) fn run(mut stage: Stage<'_>) -> anyhow::Result<Run> {
    let pairs = stage.pairs(true)?;
    stage.report.parameter("messages a second", &RATE);
    let few = FEW.min(pairs.len());
    let mut costs = Vec::new();
    for (count, first) in [(few, 0), (pairs.len(), 1_000_000_000)] {
        let cast = Cast { pairs: &pairs[..count], present: true, first };
        let pace = Pace::Rate(RATE, stage.options.spacing);
        let jobs = jobs(&stage, &cast, pace, false, stage.options.threads)?;
        let shape = stage.shape();
        let ran = stage.play(jobs, shape)?;
        let tallies = windows(ran.done)?;
        let numbers = tallies.iter().map(Tally::accepted);
        let cost: Vec<_> = ran.uses.iter().zip(numbers).filter_map(|(one, number)| one.each(number)).collect();
        stage.report.figure(Figure::new(
            &format!("server CPU a message, {} sessions online", 2 * count),
            Unit::Us,
            cost.iter().copied(),
        ));
        costs.push(cost);
    }
    let ratios = costs[1].iter().zip(&costs[0]).map(|(many, few)| many * 100.0 / few);
    stage.report.figure(Figure::new("the second, of the first", Unit::Percent, ratios).goal(Goal::AtMost(130.0)));

    let mut starts = Vec::new();
    for _ in 0..stage.options.repeat {
        stage.subject.stop()?;
        let before = clock::now();
        stage.subject.start_again()?;
        starts.push((clock::now() - before) as f64 / clock::MS as f64);
    }
    let goal = stage.is_one().then_some(Goal::AtMost(300.0));
    stage.report.goal(Figure::new("from start to ready", Unit::Ms, starts), goal);
    stage.end()
}
