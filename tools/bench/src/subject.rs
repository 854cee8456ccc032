//! What is measured: a server that runs, and the people on it. Causeway in one of its deployments, or a server to compare
//! with, started from its Debian package in a folder and on a port of its own.

mod deployed;
pub(crate) mod ejabberd;
pub(crate) mod mosquitto;
mod peer;
mod program;

use clap::ValueEnum;

use crate::deployment::{Store, Watched};
use crate::engine::Wire;

pub(crate) use self::deployed::{Deployed, logins};

/// What is to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// `causeway all`.
    All,
    /// Key-directory, routing, media-relay and edges, each a process of its own, over gRPC with mutual TLS.
    Split,
    /// ejabberd, an XMPP server.
    Ejabberd,
    /// mosquitto, an MQTT server.
    Mosquitto,
}

/// A sender and the devices of its recipient.
pub(crate) struct Pair<W: Wire> {
    /// What the sender logs in with.
    pub(crate) sender: W::Login,
    /// And each device of the recipient.
    pub(crate) recipients: Vec<W::Login>,
    /// What it says.
    pub(crate) message: W::Message,
}

/// A server, and the people on it.
pub(crate) trait Subject {
    /// How its clients speak with it.
    type Wire: Wire;

    /// Its name, for tables.
    fn name(&self) -> &str;

    /// Its store, if it is Causeway, and whether it is one process: what goals are for.
    fn ours(&self) -> Option<(bool, Store)>;

    /// What clients know of it.
    fn net(&self) -> &<Self::Wire as Wire>::Net;

    /// Its processes.
    fn watched(&self) -> Vec<Watched>;

    /// Fails if a process has ended.
    fn check(&mut self) -> anyhow::Result<()>;

    /// SIGKILL to all processes.
    fn kill(&mut self) -> anyhow::Result<()>;

    /// SIGTERM to all processes, and waits until they have ended.
    fn stop(&mut self) -> anyhow::Result<()>;

    /// Starts what does not run, and waits until all of it serves.
    fn start_again(&mut self) -> anyhow::Result<()>;

    /// People who log in and do nothing.
    fn users(&mut self, count: usize) -> anyhow::Result<Vec<<Self::Wire as Wire>::Login>>;

    /// The lines for another process that is to hold the sessions of these.
    fn orders(&self, _logins: &[<Self::Wire as Wire>::Login]) -> anyhow::Result<Vec<String>> {
        anyhow::bail!("sessions on {} are held by one process: --generators 1", self.name())
    }

    /// People who talk, in messages of so many bytes; `present`: their recipients are there.
    fn pairs(&mut self, count: usize, body: usize, present: bool) -> anyhow::Result<Vec<Pair<Self::Wire>>>;
}

/// The name of a user of a server to compare with. Senders are numbered from 0.
pub(crate) fn user(number: usize) -> String {
    format!("u{number}")
}
