//! A day in small, all by the clock: messages to recipients who are there and to some who are not, sessions that break off and come
//! back, and claims by those who meet for the first time.

use super::stage::Stage;
use super::talks::{self, Cast, latencies};
use crate::measure::tally::{Count, Series, Tally, merged};
use crate::people::{Device, Keys, Wanted};
use crate::players::claims::{self, Claimed, Claimer, Targets};
use crate::players::storm::{Storm, Wave};
use crate::players::talk::{Pace, Talked};
use crate::report::{Figure, Run, Unit};
use crate::run::Job;
use crate::subject::logins;

/// Of all messages, so many go to somebody who is away.
const AWAY: f64 = 0.15;
/// For each message so many logins.
const LOGINS: f64 = 0.02;
/// And so many claims.
const CLAIMS: f64 = 0.005;
const CLAIMERS: usize = 20;
const TARGETS: usize = 40;

/// What a thread has left.
enum Left {
    Talked(anyhow::Result<Talked>),
    Came(anyhow::Result<Vec<Tally>>),
    Claimed(anyhow::Result<Claimed>),
}

pub(super) fn run(mut stage: Stage<'_>) -> anyhow::Result<Run> {
    let pairs = stage.pairs(true)?;
    let (rate, spacing, crowd) = (stage.options.rate, stage.options.spacing, stage.options.storm_sessions);
    for (name, value) in [
        ("messages a second to those who are there", rate * (1.0 - AWAY)),
        ("to those who are away", rate * AWAY),
        ("logins a second", rate * LOGINS),
        ("claims a second", rate * CLAIMS),
    ] {
        stage.report.parameter(name, &format!("{value:.0}"));
    }
    stage.report.parameter("sessions besides", &crowd);
    let plain = Wanted { name: "crowd", accounts: crowd, devices: 1, provider: 0, supplied: false };
    let crowd = stage.subject.enlist(plain)?;
    let away = stage.subject.cast(["writer", "away"], 50, 1, stage.options.body)?;
    let claimers = stage.subject.enlist(Wanted { name: "claimer", accounts: CLAIMERS * 2, ..plain })?;
    let claimers: Vec<Device> = claimers.into_iter().step_by(2).collect();
    let targets = stage.subject.enlist(Wanted { name: "target", accounts: TARGETS, supplied: true, ..plain })?;
    let targets = Targets {
        addresses: targets.iter().map(|device| device.address.clone()).collect(),
        claimed: 0,
        supply: (TARGETS * Keys::SUPPLY) as u64,
    };

    let here = Cast { pairs: &pairs, present: true, first: 0 };
    let gone = Cast { pairs: &away, present: false, first: 0 };
    let mut jobs: Vec<Job<Left>> = Vec::new();
    for (cast, share) in [(&here, 1.0 - AWAY), (&gone, AWAY)] {
        for job in talks::jobs(&stage, cast, Pace::Rate(rate * share, spacing), false, 1)? {
            jobs.push(Box::new(move |gate| Ok(Left::Talked(job(gate)?))));
        }
    }
    let own = logins(&crowd)?;
    let (clients, wave) = (own.len(), Wave::Rate(rate * LOGINS, spacing));
    jobs.push(stage.job(own, move |gate| Storm::new(gate, wave, clients, 3), Left::Came));
    let own = logins(&claimers)?;
    let (clients, pace) = (own.len(), claims::Pace::Rate(rate * CLAIMS, spacing));
    jobs.push(stage.job(own, move |gate| Claimer::new(gate, pace, targets, clients), Left::Claimed));

    let shape = stage.shape();
    let ran = stage.play(jobs, shape)?;
    let mut all = Vec::new();
    for left in ran.done {
        all.push(match left {
            Left::Talked(one) => one?.tallies,
            Left::Came(tallies) => tallies?,
            Left::Claimed(one) => one?.tallies,
        });
    }
    let tallies = merged(all);
    let numbers: Vec<_> = tallies.iter().map(Tally::accepted).collect();
    let cost = ran.uses.iter().zip(&numbers).filter_map(|(one, number)| one.each(*number));
    stage.report.figure(Figure::new("server CPU a message, all of the rest included", Unit::Us, cost));
    stage.report.processors(&ran.uses, &numbers, "a message");
    for (name, what) in [
        ("messages delivered", Count::Delivered),
        ("messages stored", Count::Stored),
        ("logins", Count::Logins),
        ("claims", Count::Claims),
    ] {
        let per_s = tallies.iter().zip(&ran.uses).map(|(tally, one)| tally.get(what) as f64 / one.seconds());
        stage.report.figure(Figure::new(name, Unit::PerS, per_s));
    }
    latencies(&mut stage.report, &tallies, None, true);
    for (name, series) in [("back in a session, p99", Series::Login), ("a claim, p99", Series::Claim)] {
        let values = tallies.iter().filter_map(|tally| tally.percentile(series, 99.0));
        stage.report.figure(Figure::new(name, Unit::Ms, values));
    }
    stage.end()
}
