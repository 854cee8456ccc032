//! The stores of a deployment.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use causeway_test_servers as servers;
use causeway_test_servers::{PostgresPair, RedisCluster, Reply, Sentinel, Session};

use crate::preload::Control;
use crate::proxy::Link;

/// How PostgreSQL is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresShape {
    /// One server.
    Single,
    /// A primary and a synchronous standby.
    Pair,
}

/// How Redis is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisShape {
    /// One server.
    Single,
    /// A primary, a replica and three Sentinels.
    Sentinel,
    /// A Cluster of three primaries with a replica each.
    Cluster,
}

/// A store, whose operations block.
#[derive(Debug)]
pub struct Store<T>(Arc<Mutex<T>>);

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + 'static> Store<T> {
    pub(super) fn new(store: T) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// Does something to it, one at a time.
    ///
    /// # Errors
    /// What `work` gives.
    pub async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> anyhow::Result<R> + Send + 'static,
    ) -> anyhow::Result<R> {
        let store = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner))).await?
    }
}

/// PostgreSQL.
#[derive(Debug)]
pub struct Postgres {
    pub(super) servers: PostgresServers,
    pub(super) control: Control,
    /// Links that lead to the first server, and to the second if there are two.
    pub(super) links: [Vec<Arc<Link>>; 2],
    /// Which of the two is the primary.
    pub(super) primary: usize,
    /// A fault wants it as it is: it is not started again before it is healed.
    pub(super) held: bool,
}

#[derive(Debug)]
pub(super) enum PostgresServers {
    Single(servers::Postgres),
    Pair(Box<PostgresPair>),
}

impl Postgres {
    /// The database of the deployment.
    pub const DATABASE: &'static str = "test_1";

    /// The server that takes writes.
    pub fn primary(&mut self) -> &mut servers::Postgres {
        match &mut self.servers {
            PostgresServers::Single(server) => server,
            PostgresServers::Pair(pair) => pair.primary(),
        }
    }

    /// The server that follows it, if there is one.
    pub fn standby(&mut self) -> Option<&mut servers::Postgres> {
        match &mut self.servers {
            PostgresServers::Single(_) => None,
            PostgresServers::Pair(pair) => pair.standby(),
        }
    }

    /// From now on nobody starts it again but [`heal`](Self::heal).
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Starts again what has ended by itself, as an orchestrator would: PostgreSQL gives up when its disk fails, sometimes
    /// only a while after. Gives what there is to say of it.
    pub(super) fn supervise(&mut self) -> Vec<String> {
        if self.held {
            return Vec::new();
        }
        let mut said = Vec::new();
        let mut again = |name: &str, server: &mut servers::Postgres| {
            if !server.runs() {
                let started = server.start_again();
                let became = started.map_or_else(|error| error.to_string(), |()| "was started again".to_owned());
                said.push(format!("{name} had ended by itself: {became}"));
            }
        };
        match &mut self.servers {
            PostgresServers::Single(server) => again("postgres", server),
            PostgresServers::Pair(pair) => {
                again("the primary of postgres", pair.primary());
                if let Some(standby) = pair.standby() {
                    again("the standby of postgres", standby);
                }
            }
        }
        said
    }

    /// Its disk and its clock (those of both servers, if there are two).
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The primary is killed and the standby takes its place; [`heal`](Self::heal) makes a new standby.
    ///
    /// # Errors
    /// There is no standby, or it does not take over.
    pub fn promote(&mut self) -> anyhow::Result<()> {
        let PostgresServers::Pair(pair) = &mut self.servers else { anyhow::bail!("there is no standby") };
        pair.promote()?;
        self.primary = 1 - self.primary;
        Ok(())
    }

    /// An exclusive lock on a table, as long as the session lives: that of the `pick`-th of all that there are, counted
    /// round.
    ///
    /// # Errors
    /// The server is gone, or others hold the table for 2 s.
    pub fn lock(&mut self, pick: usize) -> anyhow::Result<(String, Session)> {
        let server = self.primary();
        // Those of mailboxes, which messages wait for, in half of the cases.
        let only = if pick.is_multiple_of(2) { "mailbox%" } else { "%" };
        let names = format!(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE '{only}' ORDER BY tablename"
        );
        let tables = server.execute(Self::DATABASE, &names)?;
        let table = tables.get(pick / 2 % tables.len().max(1)).and_then(|row| row.first().cloned().flatten());
        let table = table.context("no table")?;
        let mut session = server.session(Self::DATABASE)?;
        session.execute("SET lock_timeout = '2s'")?;
        session.execute(&format!("BEGIN; LOCK TABLE \"{table}\" IN ACCESS EXCLUSIVE MODE"))?;
        Ok((table, session))
    }

    /// Closes all connections, as an administrator does; gives how many there were.
    ///
    /// # Errors
    /// The server is gone.
    pub fn terminate(&mut self) -> anyhow::Result<usize> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        Ok(self.primary().execute("postgres", sql)?.len())
    }

    /// Everything runs again, with a standby if there is to be one.
    ///
    /// # Errors
    /// It does not start.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.held = false;
        self.control.heal()?;
        let server = self.primary();
        server.resume()?;
        server.start_again()?;
        if let PostgresServers::Pair(pair) = &mut self.servers {
            if let Some(standby) = pair.standby() {
                standby.resume()?;
                standby.start_again()?;
            }
            pair.rejoin()?;
            let standby = pair.standby().map(|standby| standby.port()).context("it has just joined")?;
            for link in &self.links[1 - self.primary] {
                link.redirect(SocketAddr::from((Ipv4Addr::LOCALHOST, standby)));
            }
        }
        Ok(())
    }
}

/// Redis. Where there are several servers, `pick` chooses one, counted round.
#[derive(Debug)]
pub enum Redis {
    /// One server.
    Single(servers::Redis),
    /// Two and their Sentinels.
    Sentinel(Sentinel),
    /// Six.
    Cluster(RedisCluster),
}

impl Redis {
    /// The server itself; the primary behind Sentinels; one of a Cluster.
    ///
    /// # Errors
    /// The Sentinels are gone.
    pub fn server(&mut self, pick: usize) -> anyhow::Result<&mut servers::Redis> {
        match self {
            Self::Single(server) => Ok(server),
            Self::Sentinel(sentinel) => Ok(sentinel.primary()?),
            Self::Cluster(cluster) => {
                let nodes = cluster.nodes();
                let count = nodes.len();
                nodes.get_mut(pick % count.max(1)).context("a Cluster has nodes")
            }
        }
    }

    /// One of those that watch over the servers.
    ///
    /// # Errors
    /// There are none.
    pub fn sentinel(&mut self, pick: usize) -> anyhow::Result<&mut servers::Redis> {
        let Self::Sentinel(sentinel) = self else { anyhow::bail!("there are no Sentinels") };
        let sentinels = sentinel.sentinels();
        let count = sentinels.len();
        sentinels.get_mut(pick % count.max(1)).context("there are some")
    }

    /// Forgets everything, all of it.
    ///
    /// # Errors
    /// A server is gone.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        for server in self.all() {
            // Replicas refuse, and follow their primaries.
            let _replica = server.flush();
        }
        Ok(())
    }

    /// Whether a replica could take over.
    pub fn has_replicas(&self) -> bool {
        !matches!(self, Self::Single(_))
    }

    /// A replica takes over.
    ///
    /// # Errors
    /// There is none, or it does not happen.
    pub fn failover(&mut self, pick: usize) -> anyhow::Result<()> {
        match self {
            Self::Single(_) => anyhow::bail!("there is no replica"),
            Self::Sentinel(sentinel) => Ok(sentinel.failover()?),
            Self::Cluster(cluster) => {
                let pairs = (cluster.nodes().len() / 2).max(1);
                Ok(cluster.failover(pick % pairs)?)
            }
        }
    }

    /// Everything runs again.
    ///
    /// # Errors
    /// It does not start.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        for server in self.all() {
            server.resume()?;
            server.start_again()?;
        }
        Ok(())
    }

    /// Keys of all servers.
    ///
    /// # Errors
    /// A server is gone.
    pub fn keys(&mut self) -> anyhow::Result<Vec<String>> {
        let mut keys = Vec::new();
        for server in self.all() {
            if let Reply::List(list) = server.call(&["KEYS", "*"])? {
                keys.extend(list.iter().map(|key| key.text().to_owned()));
            }
        }
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    /// Servers and Sentinels.
    fn all(&mut self) -> Vec<&mut servers::Redis> {
        match self {
            Self::Single(server) => vec![server],
            Self::Sentinel(sentinel) => sentinel.all(),
            Self::Cluster(cluster) => cluster.nodes().iter_mut().collect(),
        }
    }
}
