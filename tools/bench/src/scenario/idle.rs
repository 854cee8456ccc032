//! Sessions that do nothing: what each holds in memory, and what it costs to hold them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;

use super::stage::Stage;
use crate::holders;
use crate::measure::window::Shape;
use crate::players::storm::{Storm, Wave};
use crate::report::{Figure, Goal, Run, Unit};
use crate::run::{Job, resident};
use crate::subject::{Kind, Subject};

/// From the last login until memory is read: what logins needed for a moment is given back.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) fn run<S: Subject>(mut stage: Stage<'_, S>) -> anyhow::Result<Run> {
    let sessions = stage.options.sessions;
    stage.report.parameter("sessions", &sessions);
    let generators = generators(&stage)?;
    stage.report.parameter("processes of clients", &generators);
    let users = stage.subject.users(sessions)?;
    // What enlisting needed is not to be taken for room that sessions have.
    stage.subject.stop()?;
    stage.subject.start_again()?;
    std::thread::sleep(SETTLE);
    let before = resident(&stage.watched())?;
    let enough = Arc::new(AtomicBool::new(false));
    let mut jobs: Vec<Job<anyhow::Result<()>>> = Vec::new();
    if generators > 1 {
        for own in users.chunks(sessions.div_ceil(generators)) {
            let job = holders::job(stage.subject.orders(own)?, Arc::clone(&enough));
            jobs.push(Box::new(move |gate| job(gate).map(Ok)));
        }
    } else {
        for own in stage.shares(&users) {
            let clients = own.len();
            let make = move |gate| Storm::new(gate, Wave::None, clients, 1);
            jobs.push(stage.job(own, make, |done| done.map(drop)));
        }
    }
    drop(users);
    let shape = Shape { warm_up: SETTLE, count: 1, ..stage.shape() };
    let watched = stage.watched();
    let (ran, after) = stage.play_and_look(jobs, shape, || {
        let bytes = resident(&watched);
        enough.store(true, Ordering::SeqCst);
        bytes
    })?;
    for done in ran.done {
        done?;
    }
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    let (all_before, all_after): (u64, u64) = (before.values().sum(), after.values().sum());
    let each = kib(all_after.saturating_sub(all_before)) / sessions as f64;
    let goal = stage.is_one().then_some(Goal::AtMost(6.0));
    stage.report.goal(Figure::new("resident memory a session", Unit::Kib, [each]), goal);
    if after.len() > 1 {
        for (role, bytes) in &after {
            let each = kib(bytes.saturating_sub(*before.get(role).unwrap_or(&0))) / sessions as f64;
            stage.report.figure(Figure::new(&format!("of which {role}"), Unit::Kib, [each]));
        }
    }
    stage.report.figure(Figure::new("resident memory before", Unit::Kib, [kib(all_before)]));
    stage.report.figure(Figure::new("resident memory with all sessions", Unit::Kib, [kib(all_after)]));
    let percent = ran.uses.iter().map(|one| {
        let used: u64 = one.processor.values().sum();
        used as f64 * 100.0 / one.elapsed.max(1) as f64
    });
    stage.report.figure(Figure::new("processor while idle, of one", Unit::Percent, percent));
    stage.end()
}

/// How many processes are to hold the sessions. What cannot be is told before minutes have gone by.
fn generators<S: Subject>(stage: &Stage<'_, S>) -> anyhow::Result<usize> {
    let (options, room) = (stage.options, holders::room());
    let edges = if options.deployment == Kind::Split { options.edges } else { 1 };
    let least = options.sessions.div_ceil(room);
    ensure!(
        !stage.is_ours() || edges >= least,
        "{} sessions need --deployment split --edges {least}: a process has descriptors for {room}",
        options.sessions
    );
    let generators = holders::number(options.sessions, room, options.generators)?;
    ensure!(generators == 1 || stage.is_ours(), "sessions on {} are held by one process", stage.subject.name());
    Ok(generators)
}
