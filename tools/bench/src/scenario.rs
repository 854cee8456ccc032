//! The works, by name.

mod claim;
mod drain;
mod fanout;
mod growth;
mod idle;
mod login;
mod mixed;
mod pairs;
mod rate;
mod stage;
mod store;
mod storm;
mod talks;

use anyhow::ensure;
use clap::ValueEnum;
use tokio::runtime::Runtime;

use self::stage::Stage;
use crate::arguments::Options;
use crate::deployment::{self, Plan, settings};
use crate::people::Keys;
use crate::report::{Run, progress};
use crate::subject::{Deployed, Kind, Subject, ejabberd, mosquitto};

/// A work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Pairs that talk as fast as the server lets them.
    Pairs,
    /// The same pairs at a rate, with arrivals that wait for nobody.
    Rate,
    /// Recipients with four devices.
    Fanout,
    /// Sessions that do nothing: memory.
    Idle,
    /// Logins with XX.
    LoginXx,
    /// Logins with IK.
    LoginIk,
    /// Recipients who are away; then SIGKILL, and what is lost.
    Store,
    /// Devices come back to full mailboxes.
    Drain,
    /// Prekey claims, saturated and at half of that.
    Claim,
    /// All clients reconnect at once, and 1,000 a second beside messages.
    Storm,
    /// The same load over few sessions and over many; and how long a start takes.
    Growth,
    /// A day in small: messages to those here and away, logins, claims.
    Mixed,
}

impl Scenario {
    /// Its name.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Runs it on a server that is started for it.
    pub(crate) fn run(self, options: &Options, keys: &Keys, runtime: &Runtime) -> anyhow::Result<Run> {
        progress::line(&format!("{}: starting a server", self.name()));
        let kind = match options.deployment {
            Kind::All => deployment::Kind::All,
            Kind::Split => deployment::Kind::Split,
            Kind::Ejabberd => return self.on_peer(options, |users| ejabberd::start(users, options.store)),
            Kind::Mosquitto => return self.on_peer(options, mosquitto::start),
        };
        let further = if self == Self::Storm { settings::storm() } else { settings::Settings::new() };
        let plan = Plan { server: options.server.clone(), kind, store: options.store, edges: options.edges, further };
        let stage = Stage::new(self, options, Deployed::start(&plan, keys, runtime)?);
        match self {
            Self::Pairs | Self::Rate | Self::Idle | Self::LoginXx | Self::LoginIk | Self::Store => self.common(stage),
            Self::Fanout => fanout::run(stage),
            Self::Drain => drain::run(stage),
            Self::Claim => claim::run(stage),
            Self::Storm => storm::run(stage),
            Self::Growth => growth::run(stage),
            Self::Mixed => mixed::run(stage),
        }
    }

    fn on_peer<S: Subject>(
        self,
        options: &Options,
        start: impl FnOnce(usize) -> anyhow::Result<S>,
    ) -> anyhow::Result<Run> {
        let all = [Self::Pairs, Self::Rate, Self::Idle, Self::LoginXx, Self::Store];
        ensure!(all.contains(&self), "{} is a work for Causeway alone: --deployment all or split", self.name());
        let users = if self == Self::Idle { options.sessions } else { 2 * options.pairs };
        self.common(Stage::new(self, options, start(users)?))
    }

    /// The works that can be compared.
    fn common<S: Subject>(self, stage: Stage<'_, S>) -> anyhow::Result<Run> {
        match self {
            Self::Rate => rate::run(stage),
            Self::Idle => idle::run(stage),
            Self::LoginXx | Self::LoginIk => login::run(stage, self == Self::LoginIk),
            Self::Store => store::run(stage),
            _ => pairs::run(stage),
        }
    }
}
