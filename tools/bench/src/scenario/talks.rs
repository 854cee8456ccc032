//! Senders and recipients on threads, and the figures of messages.

use crate::engine::Wire;
use crate::measure::tally::{Count, Series, Tally, merged};
use crate::players::talk::{Manner, Pace, Talk, Talked, Talker};
use crate::report::{Figure, Goal, Run, Unit};
use crate::run::{Job, Ran};
use crate::subject::{Pair, Subject};

use super::stage::Stage;

/// Who talks.
pub(super) struct Cast<'p, W: Wire> {
    /// Senders and their recipients.
    pub(super) pairs: &'p [Pair<W>],
    /// The recipients have sessions.
    pub(super) present: bool,
    /// Number of the first message of each.
    pub(super) first: u32,
}

/// A job for each thread, each with a share of the pairs and of the rate.
pub(super) fn jobs<S: Subject>(
    stage: &Stage<'_, S>,
    cast: &Cast<'_, S::Wire>,
    pace: Pace,
    until_killed: bool,
    threads: usize,
) -> anyhow::Result<Vec<Job<anyhow::Result<Talked>>>> {
    let threads = threads.clamp(1, cast.pairs.len().max(1));
    let mut jobs = Vec::new();
    for thread in 0..threads {
        let (mut logins, mut talks) = (Vec::new(), Vec::new());
        for (index, pair) in cast.pairs.iter().enumerate().filter(|(index, _)| index % threads == thread) {
            talks.push(Talk::new(logins.len(), u32::try_from(index)?, pair.message.clone(), cast.first));
            logins.push(pair.sender.clone());
            if cast.present {
                logins.extend(pair.recipients.iter().cloned());
            }
        }
        let pace = match pace {
            Pace::Rate(rate, spacing) => Pace::Rate(rate / threads as f64, spacing),
            other => other,
        };
        let manner = Manner { pace, until_killed, seed: thread as u64 + 1 };
        let clients = logins.len();
        jobs.push(stage.job(
            logins,
            move |gate| Talker::<S::Wire>::new(gate, manner, clients, talks),
            std::convert::identity,
        ));
    }
    Ok(jobs)
}

/// The windows of all threads.
pub(super) fn windows(done: Vec<anyhow::Result<Talked>>) -> anyhow::Result<Vec<Tally>> {
    let done = done.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    Ok(merged(done.into_iter().map(|talked| talked.tallies)))
}

/// What messages should cost.
#[derive(Default)]
pub(super) struct Goals {
    pub(super) each: Option<Goal>,
    pub(super) per_s: Option<Goal>,
    pub(super) p99: Option<Goal>,
}

/// The figures of messages.
pub(super) fn report(
    report: &mut Run,
    ran: Ran<anyhow::Result<Talked>>,
    goals: &Goals,
    late: bool,
) -> anyhow::Result<Vec<Tally>> {
    let uses = ran.uses;
    let tallies = windows(ran.done)?;
    let numbers: Vec<_> = tallies.iter().map(Tally::accepted).collect();
    let cost = uses.iter().zip(&numbers).filter_map(|(one, number)| one.each(*number));
    report.goal(Figure::new("server CPU a message", Unit::Us, cost), goals.each);
    report.processors(&uses, &numbers, "a message");
    let per_s = uses.iter().zip(&numbers).map(|(one, number)| *number as f64 / one.seconds());
    report.goal(Figure::new("messages", Unit::PerS, per_s), goals.per_s);
    latencies(report, &tallies, goals.p99, late);
    let sum = |what| tallies.iter().map(|tally| tally.get(what)).sum::<u64>();
    let (refused, shed, unfinished) = (sum(Count::Refused), sum(Count::Shed), sum(Count::Unfinished));
    if refused + shed + unfinished > 0 {
        report.note(format!(
            "Refused by the server: {refused}; not sent since their sender had too many open: {shed}; without an outcome: {unfinished}."
        ));
    }
    Ok(tallies)
}

/// Latencies to recipients and to outcomes.
pub(super) fn latencies(report: &mut Run, tallies: &[Tally], p99: Option<Goal>, late: bool) {
    let series =
        |series, percent| tallies.iter().filter_map(|tally| tally.percentile(series, percent)).collect::<Vec<_>>();
    for (name, one, percent, goal) in [
        ("to the recipient, p50", Series::Recipient, 50.0, None),
        ("to the recipient, p99", Series::Recipient, 99.0, p99),
        ("to the recipient, longest", Series::Recipient, 100.0, None),
        ("to the outcome, p50", Series::Outcome, 50.0, None),
        ("to the outcome, p99", Series::Outcome, 99.0, None),
    ] {
        let values = series(one, percent);
        if !values.is_empty() {
            report.goal(Figure::new(name, Unit::Ms, values), goal);
        }
    }
    if late {
        report.figure(Figure::new("of which the load generator was late, p99", Unit::Ms, series(Series::Late, 99.0)));
    }
}
