//! Recipients with four devices: a message has four ciphertexts, and its outcome waits for four acknowledgements.

use super::stage::Stage;
use super::talks::{Cast, Goals, jobs, report};
use crate::measure::tally::Count;
use crate::players::talk::Pace;
use crate::report::{Figure, Run, Unit};

const DEVICES: usize = 4;

pub(super) fn run(mut stage: Stage<'_>) -> anyhow::Result<Run> {
    let (accounts, body) = (stage.options.pairs, stage.options.body);
    stage.report.parameter("pairs", &accounts);
    stage.report.parameter("bytes a body", &body);
    let pairs = stage.subject.cast(["sender", "recipient"], accounts, DEVICES, body)?;
    let in_flight = stage.options.in_flight;
    stage.report.parameter("in flight a sender", &in_flight);
    stage.report.parameter("devices a recipient", &DEVICES);
    let cast = Cast { pairs: &pairs, present: true, first: 0 };
    let jobs = jobs(&stage, &cast, Pace::Saturated(in_flight), false, stage.options.threads)?;
    let shape = stage.shape();
    let ran = stage.play(jobs, shape)?;
    let seconds: Vec<_> = ran.uses.iter().map(crate::run::Use::seconds).collect();
    let tallies = report(&mut stage.report, ran, &Goals::default(), false)?;
    let per_s = tallies.iter().zip(seconds).map(|(tally, seconds)| tally.get(Count::Arrived) as f64 / seconds);
    stage.report.figure(Figure::new("deliveries", Unit::PerS, per_s));
    stage.end()
}
