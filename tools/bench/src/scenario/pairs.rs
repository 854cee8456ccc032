//! Pairs that talk as fast as the server lets them: each sender has so many messages without an outcome, and an outcome comes
//! only after the recipient's acknowledgement.

use super::stage::Stage;
use super::talks::{Cast, Goals, jobs, report};
use crate::people::{Device, Wanted};
use crate::players::talk::Pace;
use crate::report::{Goal, Run};

/// Senders and their recipients, who are at different providers.
pub(super) fn cast(stage: &mut Stage<'_>, devices: usize) -> anyhow::Result<(Vec<Device>, Vec<Device>)> {
    let accounts = stage.options.pairs;
    stage.parameter("pairs", &accounts);
    stage.parameter("bytes a body", &stage.options.body);
    let sender = Wanted { name: "sender", accounts, devices: 1, provider: 0, supplied: false };
    let senders = stage.enlist(sender)?;
    let recipients = stage.enlist(Wanted { name: "recipient", devices, provider: 1, ..sender })?;
    Ok((senders, recipients))
}

pub(super) fn run(mut stage: Stage<'_>) -> anyhow::Result<Run> {
    let (senders, recipients) = cast(&mut stage, 1)?;
    let in_flight = stage.options.in_flight;
    stage.parameter("in flight a sender", &in_flight);
    let cast = Cast { senders: &senders, recipients: &recipients, devices: 1, present: true, first: 0 };
    let jobs = jobs(&stage, &cast, Pace::Saturated(in_flight), false, stage.options.threads)?;
    let shape = stage.shape();
    let ran = stage.play(jobs, shape)?;
    let goals = if stage.is_one() {
        Goals { each: Some(Goal::AtMost(12.0)), per_s: Some(Goal::AtLeast(80_000.0)), p99: None }
    } else {
        Goals { each: Some(Goal::AtMost(25.0)), ..Goals::default() }
    };
    report(&mut stage, ran, &goals, false)?;
    stage.end()
}
