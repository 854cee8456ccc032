//! Prekey claims, each of which takes a signed key and one one-time key of both kinds for good: first as many as there can be, then
//! half of what there should be at least, with arrivals that wait for nobody.

use super::stage::Stage;
use crate::measure::tally::{Count, Series, Tally};
use crate::measure::window::Shape;
use crate::people::{Device, Keys, Wanted};
use crate::players::claims::{Claimed, Claimer, Pace, Targets};
use crate::report::{Figure, Goal, Run, Unit};
use crate::run::Ran;
use crate::subject::logins;

/// Devices that claim.
const CLAIMERS: usize = 32;
/// Claims that each has open when it is saturated.
const OPEN: u32 = 16;
/// Claims a second that there should be at least, in `causeway all` on SQLite.
const GOAL_PER_S: f64 = 5_000.0;

pub(super) fn run(mut stage: Stage<'_>) -> anyhow::Result<Run> {
    let accounts = stage.options.targets;
    stage.report.parameter("accounts with keys", &accounts);
    stage.report.parameter("devices that claim", &CLAIMERS);
    let claimer = Wanted { name: "claimer", accounts: 2 * CLAIMERS, devices: 1, provider: 0, supplied: false };
    let claimers = stage.subject.enlist(claimer)?;
    let wanted = Wanted { name: "target", accounts, devices: 1, provider: 0, supplied: true };
    let targets = stage.subject.enlist(wanted)?;
    // Those of home may ask for everybody.
    let claimers: Vec<Device> = claimers.into_iter().step_by(2).collect();
    let mut targets = Targets {
        addresses: targets.iter().map(|device| device.address.clone()).collect(),
        claimed: 0,
        supply: (accounts * Keys::SUPPLY) as u64,
    };

    let shape = stage.shape();
    let saturated = play(&mut stage, &claimers, &mut targets, Pace::Saturated(OPEN), shape)?;
    let (ran, tallies) = saturated;
    let numbers: Vec<_> = tallies.iter().map(|tally| tally.get(Count::Claims)).collect();
    let per_s = ran.uses.iter().zip(&numbers).map(|(one, number)| *number as f64 / one.seconds());
    let per_s = Figure::new("claims, saturated", Unit::PerS, per_s);
    let half = per_s.median().unwrap_or(0.0).min(GOAL_PER_S) / 2.0;
    stage.report.goal(per_s, (!stage.is_on_postgres()).then_some(Goal::AtLeast(GOAL_PER_S)));
    let cost = ran.uses.iter().zip(&numbers).filter_map(|(one, number)| one.each(*number));
    stage.report.figure(Figure::new("server CPU a claim", Unit::Us, cost));
    stage.report.processors(&ran.uses, &numbers, "a claim");
    percentiles(&mut stage, &tallies, "saturated", None);
    let mut without: u64 = tallies.iter().map(|tally| tally.get(Count::Claims) - tally.get(Count::OneTime)).sum();

    let left = targets.supply.saturating_sub(targets.claimed) as f64;
    let enough = half * (shape.warm_up + shape.length * u32::try_from(shape.count)?).as_secs_f64();
    if half < 1.0 || left < enough {
        stage
            .report
            .note(format!("Not enough keys are left for the second part ({left:.0} of {enough:.0}): raise --targets."));
    } else {
        let pace = Pace::Rate(half, stage.options.spacing);
        let (_, tallies) = play(&mut stage, &claimers, &mut targets, pace, shape)?;
        percentiles(&mut stage, &tallies, &format!("at {half:.0}/s"), Some(Goal::AtMost(20.0)));
        without += tallies.iter().map(|tally| tally.get(Count::Claims) - tally.get(Count::OneTime)).sum::<u64>();
    }
    stage
        .report
        .figure(Figure::new("bundles without a one-time key", Unit::Count, [without as f64]).goal(Goal::AtMost(0.0)));
    stage.end()
}

type Played = (Ran<()>, Vec<Tally>);

fn play(
    stage: &mut Stage<'_>,
    claimers: &[Device],
    targets: &mut Targets,
    pace: Pace,
    shape: Shape,
) -> anyhow::Result<Played> {
    let (own, before) = (logins(claimers)?, targets.clone());
    let clients = own.len();
    let make = move |gate| Claimer::new(gate, pace, before, clients);
    let Ran { done, uses, whole } = stage.play(vec![stage.job(own, make, std::convert::identity)], shape)?;
    let mut tallies = Vec::new();
    for claimed in done {
        let Claimed { tallies: own, claimed, used_up } = claimed?;
        targets.claimed = claimed;
        tallies = own;
        if used_up {
            stage.report.note("The keys were used up before the end: raise --targets.");
        }
    }
    Ok((Ran { done: Vec::new(), uses, whole }, tallies))
}

fn percentiles(stage: &mut Stage<'_>, tallies: &[Tally], how: &str, p99: Option<Goal>) {
    for (percent, goal) in [(50.0, None), (99.0, p99)] {
        let values = tallies.iter().filter_map(|tally| tally.percentile(Series::Claim, percent));
        stage.report.goal(Figure::new(&format!("a claim {how}, p{percent:.0}"), Unit::Ms, values), goal);
    }
}
