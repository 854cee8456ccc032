//! Logins: handshake, token, presence, attach. A device that is in says goodbye and makes room for the next one, so leaving is
//! in the cost too.

use super::stage::Stage;
use crate::engine::Pattern;
use crate::measure::tally::{Count, Series, merged};
use crate::players::logins::Logins;
use crate::report::{Figure, Goal, Run, Unit};
use crate::subject::Subject;

pub(super) fn run<S: Subject>(mut stage: Stage<'_, S>, ik: bool) -> anyhow::Result<Run> {
    let accounts = stage.options.pairs * 2;
    let at_a_time = stage.options.at_a_time;
    stage.report.parameter("devices in turn", &accounts);
    stage.report.parameter("logins at a time", &at_a_time);
    let users = stage.subject.users(accounts)?;
    let pattern = if ik { Pattern::Ik } else { Pattern::Xx };
    let shares = stage.shares(&users);
    let share = at_a_time.div_ceil(shares.len()).max(1);
    let mut jobs = Vec::new();
    for own in shares {
        let clients = own.len();
        let make = move |gate| Logins::new(gate, pattern, share, clients);
        jobs.push(stage.job(own, make, std::convert::identity));
    }
    let shape = stage.shape();
    let ran = stage.play(jobs, shape)?;
    let tallies = merged(ran.done.into_iter().collect::<anyhow::Result<Vec<_>>>()?);
    let numbers: Vec<_> = tallies.iter().map(|tally| tally.get(Count::Logins)).collect();
    let costs: Vec<_> = ran.uses.iter().zip(&numbers).filter_map(|(one, number)| one.each(*number)).collect();
    let goal = if ik { 0.55 } else { 0.45 };
    let in_ms = costs.iter().map(|us| us / 1e3);
    stage.report.goal(Figure::new("server CPU a login", Unit::Ms, in_ms), stage.is_one().then_some(Goal::AtMost(goal)));
    stage.report.processors(&ran.uses, &numbers, "a login");
    let per_s = ran.uses.iter().zip(&numbers).map(|(one, number)| *number as f64 / one.seconds());
    stage.report.goal(Figure::new("logins, clients on the same machine", Unit::PerS, per_s), None);
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let without = costs.iter().map(|us| processors * 1e6 / us);
    let goal = stage.is_one().then_some(Goal::AtLeast(3_000.0));
    stage
        .report
        .goal(Figure::new("logins that all processors would carry, clients elsewhere", Unit::PerS, without), goal);
    for (name, percent) in [("a login, p50", 50.0), ("a login, p99", 99.0)] {
        let values = tallies.iter().filter_map(|tally| tally.percentile(Series::Login, percent));
        stage.report.figure(Figure::new(name, Unit::Ms, values));
    }
    let failed: u64 = tallies.iter().map(|tally| tally.get(Count::Failed)).sum();
    if failed > 0 {
        stage.report.note(format!("Failed, or told to come back: {failed}."));
    }
    stage.end()
}
