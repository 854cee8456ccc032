//! PostgreSQL with a synchronous standby: what is confirmed is on both.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use crate::postgres::template::run;
use crate::process::wait_for;
use crate::{Options, Postgres, ServerError, folder};

/// A primary and its synchronous standby.
#[derive(Debug)]
pub struct PostgresPair {
    /// Whoever is it at the moment, and the other; absent between [`promote`](Self::promote) and [`rejoin`](Self::rejoin).
    primary: Postgres,
    standby: Option<Postgres>,
    options: Options,
}

impl PostgresPair {
    /// Starts both and waits until the standby follows.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(&Options::default())
    }

    /// As [`start`](Self::start), both with these options but for `data`.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start_with(options: &Options) -> Result<Self, ServerError> {
        let mut options = Options { data: None, ..options.clone() };
        options.settings.push(("wal_level".to_owned(), "replica".to_owned()));
        options.settings.push(("wal_receiver_status_interval".to_owned(), "1".to_owned()));
        // A standby that was away while the primary restarted finds what it has missed, as it would with a replication slot.
        options.settings.push(("wal_keep_size".to_owned(), "1GB".to_owned()));
        // How soon a standby comes back to a primary that it has lost.
        options.settings.push(("wal_retrieve_retry_interval".to_owned(), "200".to_owned()));
        let primary = Postgres::start_with(options.clone())?;
        let mut pair = Self { primary, standby: None, options };
        pair.rejoin()?;
        Ok(pair)
    }

    /// The one that takes writes.
    pub fn primary(&mut self) -> &mut Postgres {
        &mut self.primary
    }

    /// The other, if there is one.
    pub fn standby(&mut self) -> Option<&mut Postgres> {
        self.standby.as_mut()
    }

    /// `postgres://causeway@127.0.0.1:PORT/database` of the primary; of the standby, if there is one.
    pub fn urls(&self, database: &str) -> (String, Option<String>) {
        (self.primary.url(database), self.standby.as_ref().map(|standby| standby.url(database)))
    }

    /// The primary is killed and the standby takes its place, as a failover manager would do it: never two primaries. The
    /// new one has no standby until [`rejoin`](Self::rejoin).
    ///
    /// # Errors
    /// There is no standby, or it does not take over.
    pub fn promote(&mut self) -> Result<(), ServerError> {
        let none = || ServerError::Answer("there is no standby".to_owned());
        let standby = self.standby.take().ok_or_else(none)?;
        self.primary.kill()?;
        standby.execute("postgres", "SELECT pg_promote(true, 60)")?;
        // Its predecessor's files go with it.
        self.primary = standby;
        Ok(())
    }

    /// Gives the primary a new synchronous standby, on another port. Writes do not wait while it is being made.
    ///
    /// # Errors
    /// It does not follow.
    pub fn rejoin(&mut self) -> Result<(), ServerError> {
        if self.standby.is_some() {
            return Ok(());
        }
        let mut standby = Postgres::prepare(self.options.clone())?;
        let data = standby.data();
        let failed = || ServerError::io(data.display().to_string());
        std::fs::remove_dir_all(&data).map_err(failed())?;
        std::fs::DirBuilder::new().mode(0o700).create(&data).map_err(failed())?;
        let installation = standby.installation.clone();
        folder::give(&data, installation.owner()).map_err(failed())?;
        let source = format!("host=127.0.0.1 port={} user=causeway application_name={STANDBY}", self.primary.port());
        let mut copy = crate::command(&installation.program("pg_basebackup"), installation.user());
        copy.args(["--checkpoint=fast", "--no-sync", "--wal-method=stream", "--pgdata"]).arg(&data);
        copy.arg("--dbname").arg(&source);
        run(copy, "pg_basebackup")?;
        // Its own servers' settings and, were it ever to be the primary, no standby that it would wait for.
        write(&data.join("postgresql.auto.conf"), &format!("primary_conninfo = '{source}'\n"))?;
        write(&data.join("standby.signal"), "")?;
        for file in ["postgresql.auto.conf", "standby.signal"] {
            folder::give(&data.join(file), installation.owner()).map_err(failed())?;
        }
        standby.start_again()?;
        self.standby = Some(standby);
        self.primary.execute("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"))?;
        self.primary.execute("postgres", "SELECT pg_reload_conf()")?;
        let follows = wait_for(PATIENCE, || {
            let rows = self.primary.execute("postgres", "SELECT sync_state FROM pg_stat_replication");
            rows.is_ok_and(|rows| rows == [vec![Some("sync".to_owned())]])
        });
        if follows { Ok(()) } else { Err(ServerError::Answer("the standby does not follow".to_owned())) }
    }
}

fn write(file: &Path, text: &str) -> Result<(), ServerError> {
    let written = std::fs::File::create(file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(ServerError::io(file.display().to_string()))
}

const STANDBY: &str = "standby";
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_confirmed_survives_promotion() {
        let mut pair = PostgresPair::start().unwrap();
        pair.primary().create_database().unwrap();
        pair.primary().execute("test_1", "CREATE TABLE t (x int)").unwrap();
        for round in 1..=2 {
            pair.primary().execute("test_1", "INSERT INTO t VALUES (1)").unwrap();
            pair.promote().unwrap();
            assert!(pair.standby().is_none());
            let count = pair.primary().execute("test_1", "SELECT count(*) FROM t").unwrap();
            assert_eq!(count, [vec![Some(round.to_string())]]);
            pair.rejoin().unwrap();
        }
    }

    #[test]
    fn without_its_standby_the_primary_confirms_nothing() {
        let mut pair = PostgresPair::start().unwrap();
        pair.primary().execute("postgres", "CREATE TABLE t (x int)").unwrap();
        pair.standby().unwrap().kill().unwrap();
        let port = pair.primary().port();
        let mut session = crate::Session::open(port, "postgres", Some(Duration::from_millis(300))).unwrap();
        assert!(session.execute("INSERT INTO t VALUES (1)").is_err());
        pair.standby().unwrap().start_again().unwrap();
        pair.primary().execute("postgres", "INSERT INTO t VALUES (2)").unwrap();
    }
}
