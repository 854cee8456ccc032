//! Pairs that talk as fast as the server lets them: each sender has so many messages without an outcome, and an outcome comes
//! only after the recipient's acknowledgement.

use super::stage::Stage;
use super::talks::{Cast, Goals, jobs, report};
use crate::players::talk::Pace;
use crate::report::{Goal, Run};
use crate::subject::Subject;

pub(super) fn run<S: Subject>(mut stage: Stage<'_, S>) -> anyhow::Result<Run> {
    let pairs = stage.pairs(true)?;
    let in_flight = stage.options.in_flight;
    stage.report.parameter("in flight a sender", &in_flight);
    let cast = Cast { pairs: &pairs, present: true, first: 0 };
    let jobs = jobs(&stage, &cast, Pace::Saturated(in_flight), false, stage.options.threads)?;
    let shape = stage.shape();
    let ran = stage.play(jobs, shape)?;
    let goals = if stage.is_one() {
        Goals { each: Some(Goal::AtMost(12.0)), per_s: Some(Goal::AtLeast(80_000.0)), p99: None }
    } else {
        Goals { each: stage.is_ours().then_some(Goal::AtMost(25.0)), ..Goals::default() }
    };
    report(&mut stage.report, ran, &goals, false)?;
    stage.end()
}
