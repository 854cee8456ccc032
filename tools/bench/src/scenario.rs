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

use clap::ValueEnum;

use crate::report::Run;

pub(crate) use self::stage::Stage;

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

    /// Runs it.
    pub(crate) fn run(self, stage: Stage<'_>) -> anyhow::Result<Run> {
        match self {
            Self::Pairs => pairs::run(stage),
            Self::Rate => rate::run(stage),
            Self::Fanout => fanout::run(stage),
            Self::Idle => idle::run(stage),
            Self::LoginXx | Self::LoginIk => login::run(stage, self == Self::LoginIk),
            Self::Store => store::run(stage),
            Self::Drain => drain::run(stage),
            Self::Claim => claim::run(stage),
            Self::Storm => storm::run(stage),
            Self::Growth => growth::run(stage),
            Self::Mixed => mixed::run(stage),
        }
    }
}
