//! Clients come back: all at once, all at once beside a load of messages, and 1,000 a second beside it. The brake on handshakes is
//! as it is by default, and clients do what they are told.

use super::stage::Stage;
use super::talks::{self, Cast};
use crate::measure::tally::{Count, Series, Tally, merged};
use crate::measure::window::Shape;
use crate::people::{Device, Wanted};
use crate::players::storm::{Storm, Wave};
use crate::players::talk::{Pace, Talked};
use crate::report::{Figure, Run, Unit};
use crate::run::{Job, Ran};
use crate::subject::logins;
use crate::wire::causeway::Causeway;

/// Logins a second beside messages.
const RATE: f64 = 1_000.0;

/// What a thread has left.
enum Left {
    Talked(anyhow::Result<Talked>),
    Stormed(anyhow::Result<Vec<Tally>>),
}

pub(super) fn run(mut stage: Stage<'_>) -> anyhow::Result<Run> {
    let pairs = stage.pairs(true)?;
    let (sessions, rate) = (stage.options.storm_sessions, stage.options.storm_rate);
    stage.report.parameter("sessions that break off", &sessions);
    stage.report.parameter("messages a second beside", &rate);
    let crowd =
        stage.subject.enlist(Wanted { name: "crowd", accounts: sessions, devices: 1, provider: 0, supplied: false })?;
    let load = Cast { pairs: &pairs, present: true, first: 0 };
    let quiet = stage.shape();
    let once = Shape { count: 1, ..quiet };

    let (_, messages) = play(&mut stage, &load, &crowd, Wave::None, rate, quiet)?;
    p99(&mut stage, &messages, "nobody comes");

    let (stormed, _) = play(&mut stage, &load, &crowd, Wave::AtOnce, 0.0, once)?;
    come_back(&mut stage, &stormed, "all at once");

    let load = Cast { first: 1_000_000_000, ..load };
    let (stormed, messages) = play(&mut stage, &load, &crowd, Wave::AtOnce, rate, once)?;
    come_back(&mut stage, &stormed, "all at once, beside messages");
    p99(&mut stage, &messages, "all come back at once");

    let load = Cast { first: 2_000_000_000, ..load };
    let spacing = stage.options.spacing;
    let (stormed, messages) = play(&mut stage, &load, &crowd, Wave::Rate(RATE, spacing), rate, quiet)?;
    let seconds = quiet.length.as_secs_f64();
    let per_s = stormed.iter().map(|tally| tally.get(Count::Logins) as f64 / seconds);
    stage.report.figure(Figure::new("logins beside messages", Unit::PerS, per_s));
    come_back(&mut stage, &stormed, "1,000 a second");
    p99(&mut stage, &messages, "1,000 logins a second");
    stage.end()
}

/// The windows of those who come back, and of the messages beside them.
fn play(
    stage: &mut Stage<'_>,
    load: &Cast<'_, Causeway>,
    crowd: &[Device],
    wave: Wave,
    rate: f64,
    shape: Shape,
) -> anyhow::Result<(Vec<Tally>, Vec<Tally>)> {
    let own = logins(crowd)?;
    let clients = own.len();
    let mut jobs: Vec<Job<Left>> = vec![stage.job(own, move |gate| Storm::new(gate, wave, clients, 1), Left::Stormed)];
    if rate > 0.0 {
        let pace = Pace::Rate(rate, stage.options.spacing);
        for job in talks::jobs(stage, load, pace, false, 1)? {
            jobs.push(Box::new(move |gate| Ok(Left::Talked(job(gate)?))));
        }
    }
    let Ran { done, .. } = stage.play(jobs, shape)?;
    let (mut stormed, mut talked) = (Vec::new(), Vec::new());
    for left in done {
        match left {
            Left::Stormed(tallies) => stormed.push(tallies?),
            Left::Talked(one) => talked.push(one?.tallies),
        }
    }
    Ok((merged(stormed), merged(talked)))
}

fn p99(stage: &mut Stage<'_>, tallies: &[Tally], when: &str) {
    for percent in [50.0, 99.0] {
        let values = tallies.iter().filter_map(|tally| tally.percentile(Series::Recipient, percent));
        stage.report.figure(Figure::new(&format!("messages while {when}, p{percent:.0}"), Unit::Ms, values));
    }
    let unfinished: u64 = tallies.iter().map(|tally| tally.get(Count::Unfinished) + tally.get(Count::Shed)).sum();
    if unfinished > 0 {
        stage.report.note(format!("Messages that were not sent or had no outcome while {when}: {unfinished}."));
    }
}

fn come_back(stage: &mut Stage<'_>, tallies: &[Tally], how: &str) {
    for (name, percent) in [("p50", 50.0), ("p99", 99.0), ("the last", 100.0)] {
        let values = tallies.iter().filter_map(|tally| tally.percentile(Series::Login, percent));
        stage.report.figure(Figure::new(&format!("back in a session, {how}, {name}"), Unit::Ms, values));
    }
    let (failed, missing): (u64, u64) = tallies.iter().fold((0, 0), |(failed, missing), tally| {
        (failed + tally.get(Count::Failed), missing + tally.get(Count::Unfinished))
    });
    stage.report.note(format!("{how}: told to come back later or failed {failed} times; never back: {missing}."));
}
