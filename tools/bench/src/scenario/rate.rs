//! The same pairs at a rate. Who is due sends, whoever waits, and latencies count from when a message was due.

use super::stage::Stage;
use super::talks::{Cast, Goals, jobs, report};
use crate::players::talk::Pace;
use crate::report::{Goal, Run};
use crate::subject::Subject;

/// The rate that there are goals for.
const USUAL: f64 = 2_000.0;

pub(super) fn run<S: Subject>(mut stage: Stage<'_, S>) -> anyhow::Result<Run> {
    let pairs = stage.pairs(true)?;
    let (rate, spacing) = (stage.options.rate, stage.options.spacing);
    stage.report.parameter("messages a second", &rate);
    let cast = Cast { pairs: &pairs, present: true, first: 0 };
    let jobs = jobs(&stage, &cast, Pace::Rate(rate, spacing), false, stage.options.threads)?;
    let shape = stage.shape();
    let ran = stage.play(jobs, shape)?;
    let goals = if stage.is_one() && (rate - USUAL).abs() < 1.0 {
        Goals { each: Some(Goal::AtMost(60.0)), per_s: None, p99: Some(Goal::AtMost(0.5)) }
    } else {
        Goals::default()
    };
    report(&mut stage.report, ran, &goals, true)?;
    stage.end()
}
