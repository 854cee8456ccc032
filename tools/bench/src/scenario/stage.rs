//! What every scenario begins with: a server that has just been started, and people on it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;

use super::Scenario;
use crate::arguments::Options;
use crate::deployment::{Store, Watched};
use crate::engine::{Player, Wire};
use crate::measure::window::Shape;
use crate::report::{Run, progress};
use crate::run::{self, Gate, Job, Ran};
use crate::subject::{Deployed, Pair, Subject};

/// A server, and what is made of it.
pub(crate) struct Stage<'s, S = Deployed<'s>> {
    pub(super) subject: S,
    pub(super) options: &'s Options,
    pub(super) report: Run,
    label: String,
}

/// What clients of a subject log in with.
pub(super) type LoginOf<S> = <<S as Subject>::Wire as Wire>::Login;

impl<'s, S: Subject> Stage<'s, S> {
    /// For a scenario on a server that runs.
    pub(super) fn new(scenario: Scenario, options: &'s Options, subject: S) -> Self {
        let label = format!("{} ({})", scenario.name(), subject.name());
        progress::step(&format!("{label}: starts"));
        let report = Run {
            scenario: scenario.name(),
            deployment: subject.name().to_owned(),
            parameters: BTreeMap::new(),
            figures: Vec::new(),
            notes: Vec::new(),
        };
        Self { subject, options, report, label }
    }

    /// Whether it is Causeway.
    pub(super) fn is_ours(&self) -> bool {
        self.subject.ours().is_some()
    }

    /// Whether it is all of Causeway in one process.
    pub(super) fn is_one(&self) -> bool {
        self.subject.ours().is_some_and(|(one, _)| one)
    }

    /// Whether it is Causeway, and PostgreSQL keeps things.
    pub(super) fn is_on_postgres(&self) -> bool {
        self.subject.ours().is_some_and(|(_, store)| store == Store::Postgres)
    }

    /// Senders and their recipients, who are there or away.
    pub(super) fn pairs(&mut self, present: bool) -> anyhow::Result<Vec<Pair<S::Wire>>> {
        let Options { pairs, body, .. } = *self.options;
        self.report.parameter("pairs", &pairs);
        self.report.parameter("bytes a body", &body);
        self.subject.pairs(pairs, body, present)
    }

    /// A thread for a player with these clients.
    pub(super) fn job<P, D>(
        &self,
        logins: Vec<LoginOf<S>>,
        make: impl FnOnce(std::sync::Arc<Gate>) -> P + Send + 'static,
        wrap: impl FnOnce(P::Done) -> D + Send + 'static,
    ) -> Job<D>
    where
        P: Player<S::Wire>,
    {
        run::job::<S::Wire, P, D>(self.subject.net(), logins, make, wrap)
    }

    /// These clients on the threads that are to be used, as evenly as it goes.
    pub(super) fn shares(&self, logins: &[LoginOf<S>]) -> Vec<Vec<LoginOf<S>>> {
        let threads = self.options.threads.clamp(1, logins.len().max(1));
        (0..threads).map(|thread| logins.iter().skip(thread).step_by(threads).cloned().collect()).collect()
    }

    /// Its processes.
    pub(super) fn watched(&self) -> Vec<Watched> {
        self.subject.watched()
    }

    /// The windows of this call.
    pub(super) fn shape(&self) -> Shape {
        let Options { warm_up, seconds, repeat, .. } = self.options;
        Shape {
            warm_up: Duration::from_secs_f64(*warm_up),
            length: Duration::from_secs_f64(*seconds),
            count: usize::from(*repeat),
        }
    }

    /// No windows: players end when they have done what they were to do.
    pub(super) const UNTIL_DONE: Shape = Shape { warm_up: Duration::ZERO, length: Duration::ZERO, count: 0 };

    /// Runs players.
    pub(super) fn play<D: Send + 'static>(&mut self, jobs: Vec<Job<D>>, shape: Shape) -> anyhow::Result<Ran<D>> {
        let ran = run::run(&self.watched(), jobs, shape, &self.label, || Ok(()));
        // A process that has ended explains more than clients that have lost it.
        self.subject.check()?;
        ran
    }

    /// Runs players, and looks at something when the last window ends, while they go on.
    pub(super) fn play_and_look<D: Send + 'static, L>(
        &mut self,
        jobs: Vec<Job<D>>,
        shape: Shape,
        look: impl FnOnce() -> anyhow::Result<L>,
    ) -> anyhow::Result<(Ran<D>, L)> {
        let mut looked = None;
        let ran = run::run(&self.watched(), jobs, shape, &self.label, || {
            looked = Some(look()?);
            Ok(())
        });
        self.subject.check()?;
        Ok((ran?, looked.context("it was looked at")?))
    }

    /// Runs players, and kills all processes when the last window ends.
    pub(super) fn play_and_kill<D: Send + 'static>(&mut self, jobs: Vec<Job<D>>) -> anyhow::Result<Ran<D>> {
        let (watched, shape) = (self.watched(), self.shape());
        let subject = &mut self.subject;
        run::run(&watched, jobs, shape, &self.label, || subject.kill())
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> anyhow::Result<Run> {
        self.subject.check()?;
        progress::clear();
        Ok(self.report)
    }
}
