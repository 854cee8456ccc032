//! A server to compare with.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::ensure;
use causeway_test_servers::{Folder, Port, Postgres};
use rustls::ClientConfig;

use super::program::Program;
use super::{Pair, Subject, user};
use crate::deployment::{self, Store, Watched, certificates};
use crate::wire::tls::{self, Codec, Login, Part, Tls};

/// A server that runs, with users that are there from the start.
pub(crate) struct Peer<C> {
    // Dropped in this order: the process, then what it uses.
    program: Program,
    postgres: Option<(Postgres, String)>,
    kind: Kind,
    users: usize,
    config: Arc<ClientConfig>,
    port: Port,
    folder: Folder,
    codec: PhantomData<fn() -> C>,
}

/// What a server is started with.
pub(super) struct Place<'p> {
    /// Its folder, in which `tls.pem` holds its certificate and its key.
    pub(super) folder: &'p Path,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// The PostgreSQL that it is to use, if any, and the name of its database there.
    pub(super) postgres: Option<(&'p Postgres, &'p str)>,
    /// Users that are to be there.
    pub(super) users: usize,
    /// Its folder is new.
    pub(super) first: bool,
}

/// What is told of a server to compare with.
pub(super) struct Kind {
    /// Its name and version.
    pub(super) name: String,
    /// Its program's name.
    pub(super) role: &'static str,
    /// What it says when it serves.
    pub(super) ready: &'static str,
    /// With a PostgreSQL of its own.
    pub(super) store: Store,
    /// How it is started; the first time it also makes the users.
    pub(super) command: Start,
}

/// Gives the command that starts a server in this place.
pub(super) type Start = Box<dyn Fn(&Place<'_>) -> anyhow::Result<Command>>;

impl<C: Codec> Peer<C> {
    /// Starts one.
    pub(super) fn start(kind: Kind, users: usize) -> anyhow::Result<Self> {
        let (folder, port) = (Folder::create()?, Port::claim()?);
        let certificate = certificates::make_alone(&folder.path().join("tls.pem"), tls::SERVER)?;
        let postgres = if kind.store == Store::Postgres { Some(deployment::start_postgres()?) } else { None };
        let mut peer = Self {
            program: Program::new(kind.role, kind.ready, &folder.path().join("log")),
            postgres,
            kind,
            users,
            config: tls::config(certificate)?,
            port,
            folder,
            codec: PhantomData,
        };
        peer.run(true)?;
        Ok(peer)
    }

    fn run(&mut self, first: bool) -> anyhow::Result<()> {
        let place = Place {
            folder: self.folder.path(),
            address: self.port.address(),
            postgres: self.postgres.as_ref().map(|(server, url)| (server, url.rsplit('/').next().unwrap_or_default())),
            users: self.users,
            first,
        };
        let command = (self.kind.command)(&place)?;
        self.program.start(command)
    }

    fn login(&self, number: usize, part: Part) -> Login {
        Login { server: self.port.address(), user: user(number).into(), part }
    }
}

impl<C: Codec> Subject for Peer<C> {
    type Wire = Tls<C>;

    fn name(&self) -> &str {
        &self.kind.name
    }

    fn ours(&self) -> Option<(bool, Store)> {
        None
    }

    fn net(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    fn watched(&self) -> Vec<Watched> {
        let own = self.program.id().map(|id| Watched { role: self.kind.role, id, children: false });
        own.into_iter()
            .chain(self.postgres.as_ref().and_then(|(server, _)| deployment::watched_postgres(server)))
            .collect()
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.program.check()
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.program.kill()?;
        self.postgres.as_mut().map_or(Ok(()), |(server, _)| Ok(server.kill()?))
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.program.stop()
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        if let Some((server, _)) = &mut self.postgres {
            server.start_again()?;
        }
        if self.program.id().is_some() { Ok(()) } else { self.run(false) }
    }

    fn users(&mut self, count: usize) -> anyhow::Result<Vec<Login>> {
        ensure!(count <= self.users, "{} users are more than were made", count);
        Ok((0..count).map(|number| self.login(number, Part::Talks)).collect())
    }

    fn pairs(&mut self, count: usize, body: usize, present: bool) -> anyhow::Result<Vec<Pair<Self::Wire>>> {
        ensure!(2 * count <= self.users, "{count} pairs are more than were made");
        let [sends, takes] = if present { [Part::Talks; 2] } else { [Part::Leaves, Part::Takes] };
        let pairs = (0..count).map(|number| {
            let recipients = vec![self.login(count + number, takes)];
            let message = C::message(&user(count + number), body)?;
            Ok(Pair { sender: self.login(number, sends), recipients, message })
        });
        pairs.collect()
    }
}
