//! What every scenario begins with: a fresh deployment, and people on it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;

use super::Scenario;
use crate::arguments::Options;
use crate::deployment::{Deployment, Kind, Plan, Store, Watched, settings};
use crate::engine::{Login, Net};
use crate::measure::window::Shape;
use crate::people::{self, Device, Keys, Wanted};
use crate::report::progress;
use crate::report::{Figure, Goal, Run, Unit};
use crate::run::{self, Job, Ran, Use};

/// A deployment, and what is made of it.
pub(crate) struct Stage<'s> {
    pub(super) deployment: Deployment,
    pub(super) net: Net,
    pub(super) options: &'s Options,
    plan: Plan,
    label: String,
    keys: &'s Keys,
    runtime: &'s Runtime,
    report: Run,
}

impl<'s> Stage<'s> {
    /// Starts a deployment for a scenario.
    pub(crate) fn start(
        scenario: Scenario,
        options: &'s Options,
        keys: &'s Keys,
        runtime: &'s Runtime,
    ) -> anyhow::Result<Self> {
        let further = if scenario == Scenario::Storm { settings::storm() } else { settings::Settings::new() };
        let plan = Plan {
            server: options.server.clone(),
            kind: options.deployment,
            store: options.store,
            edges: options.edges,
            further,
        };
        let store = if plan.store == Store::Sqlite { "SQLite" } else { "PostgreSQL" };
        let kind = match plan.kind {
            Kind::All => "causeway all".to_owned(),
            Kind::Split => "separate processes with mutual TLS".to_owned(),
        };
        let deployed = format!("{kind}, {store}");
        let label = format!("{} ({deployed})", scenario.name());
        progress::step(&format!("{label}: starting"));
        let deployment = Deployment::start(&plan, runtime)?;
        let report = Run {
            scenario: scenario.name(),
            deployment: deployed,
            parameters: BTreeMap::new(),
            figures: Vec::new(),
            notes: Vec::new(),
        };
        let net = deployment.net();
        Ok(Self { deployment, net, options, plan, label, keys, runtime, report })
    }

    /// Whether all is one process.
    pub(super) fn is_one(&self) -> bool {
        self.plan.kind == Kind::All
    }

    /// Whether PostgreSQL keeps things.
    pub(super) fn is_on_postgres(&self) -> bool {
        self.plan.store == Store::Postgres
    }

    /// Makes and enlists people.
    pub(super) fn enlist(&mut self, wanted: Wanted<'_>) -> anyhow::Result<Vec<Device>> {
        progress::line(&format!("{}: enlisting {}", self.label, wanted.accounts * wanted.devices));
        let (providers, edges) = (self.deployment.providers(), self.deployment.edges());
        let mut devices = people::make(wanted, providers, edges, self.keys, self.runtime)?;
        people::enlist(&mut self.net, &mut devices, self.keys)?;
        Ok(devices)
    }

    /// Its processes.
    pub(super) fn watched(&self) -> Vec<Watched> {
        self.deployment.watched()
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
        self.deployment.check()?;
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
        self.deployment.check()?;
        Ok((ran?, looked.context("it was looked at")?))
    }

    /// Runs players, and kills all processes when the last window ends.
    pub(super) fn play_and_kill<D: Send + 'static>(&mut self, jobs: Vec<Job<D>>) -> anyhow::Result<Ran<D>> {
        let (watched, shape) = (self.watched(), self.shape());
        let deployment = &mut self.deployment;
        run::run(&watched, jobs, shape, &self.label, || deployment.kill())
    }

    /// How it was set up.
    pub(super) fn parameter(&mut self, name: &str, value: &dyn std::fmt::Display) {
        self.report.parameters.insert(name.to_owned(), value.to_string());
    }

    /// A figure.
    pub(super) fn figure(&mut self, figure: Figure) {
        self.report.figures.push(figure);
    }

    /// One with a goal, if there is one for this deployment.
    pub(super) fn goal(&mut self, figure: Figure, goal: Option<Goal>) {
        self.figure(match goal {
            Some(goal) => figure.goal(goal),
            None => figure,
        });
    }

    /// What a reader has to know besides.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.report.notes.push(note.into());
    }

    /// What each role used for each of so many, and what this generator did.
    pub(super) fn processors(&mut self, uses: &[Use], numbers: &[u64], of: &str) {
        let each = |nanoseconds: u64, number: u64| (number > 0).then(|| nanoseconds as f64 / 1e3 / number as f64);
        let roles = uses.first().map(|one| one.processor.keys().copied().collect::<Vec<_>>()).unwrap_or_default();
        if roles.len() > 1 {
            for role in roles {
                let values =
                    uses.iter().zip(numbers).filter_map(|(one, number)| each(*one.processor.get(role)?, *number));
                self.figure(Figure::new(&format!("of which {role}"), Unit::Us, values));
            }
        }
        let values = uses.iter().zip(numbers).filter_map(|(one, number)| each(one.generator, *number));
        self.figure(Figure::new(&format!("CPU of the load generator {of}"), Unit::Us, values));
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> anyhow::Result<Run> {
        self.deployment.check()?;
        progress::clear();
        Ok(self.report)
    }
}

/// What devices log in with.
pub(super) fn logins<'d>(devices: impl IntoIterator<Item = &'d Device>) -> anyhow::Result<Vec<Login>> {
    devices.into_iter().map(Device::login).collect()
}
