//! PostgreSQL.

pub(crate) mod pair;
pub(crate) mod template;
pub(crate) mod wire;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::postgres::template::Installation;
use crate::postgres::wire::USER;
use crate::process::wait_for;
use crate::{Folder, Port, Process, Row, ServerError, Session};

/// How a server differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Writes reach the disk before they are confirmed (`fsync`), as in earnest; without it a server that is killed keeps
    /// its data, a machine that loses power does not.
    pub durable: bool,
    /// Further settings, by name.
    pub settings: Vec<(String, String)>,
    /// Environment variables of the server, such as `LD_PRELOAD`.
    pub environment: Vec<(String, String)>,
    /// An empty folder that is to hold the data, such as a small file system; the default is a new one.
    pub data: Option<PathBuf>,
}

/// A PostgreSQL server on 127.0.0.1 whose superuser `causeway` needs no password.
#[derive(Debug)]
pub struct Postgres {
    // Dropped in this order.
    process: Option<Process>,
    installation: Installation,
    options: Options,
    port: Port,
    databases: AtomicU32,
    folder: Folder,
}

impl Postgres {
    /// Starts one with the usual options.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(Options::default())
    }

    /// Starts one.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start_with(options: Options) -> Result<Self, ServerError> {
        let mut server = Self::prepare(options)?;
        server.start_again()?;
        Ok(server)
    }

    /// The files of a new one that does not run yet.
    pub(crate) fn prepare(options: Options) -> Result<Self, ServerError> {
        let installation = Installation::find()?;
        let folder = Folder::create()?;
        let port = Port::claim()?;
        let server = Self { process: None, installation, options, port, databases: AtomicU32::new(0), folder };
        server.installation.new_cluster(&server.data())?;
        Ok(server)
    }

    /// Starts it on its data and port after [`kill`](Self::kill) or [`stop_immediate`](Self::stop_immediate), and waits
    /// until it answers. No error if it runs.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> Result<(), ServerError> {
        if self.process.as_mut().is_some_and(|process| process.ended().is_none()) {
            return Ok(());
        }
        self.process = None;
        let mut command = crate::command(&self.installation.program("postgres"), self.installation.user());
        command.current_dir("/").arg("-D").arg(self.data()).args(["-p", &self.port.number().to_string()]);
        command.arg("-k").arg("");
        let durable = if self.options.durable { "on" } else { "off" };
        let usual = [
            ("listen_addresses", "127.0.0.1"),
            ("fsync", durable),
            ("full_page_writes", durable),
            ("max_connections", "100"),
            ("shared_buffers", "16MB"),
            ("max_wal_size", "64MB"),
            ("min_wal_size", "4MB"),
            // Inside the data folder, so that nothing of a server that is killed stays elsewhere.
            ("dynamic_shared_memory_type", "mmap"),
            ("jit", "off"),
        ];
        for (name, value) in usual {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in &self.options.environment {
            command.env(name, value);
        }
        let process = self.process.insert(Process::start(command, &self.folder.path().join("log"))?);
        let port = self.port.number();
        let mut ended = None;
        let answers = wait_for(PATIENCE, || {
            ended = process.ended();
            ended.is_some() || Session::open(port, "postgres", Some(ANSWER)).is_ok()
        });
        let log = self.folder.path().join("log");
        match ended {
            Some(status) => Err(ServerError::server(format!("PostgreSQL ended with {status}"), &log)),
            None if !answers => Err(ServerError::server("PostgreSQL does not answer", &log)),
            None => Ok(()),
        }
    }

    /// Makes an empty database and gives its URL.
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub fn create_database(&self) -> Result<String, ServerError> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        self.execute("postgres", &format!("CREATE DATABASE {name} STRATEGY file_copy"))?;
        Ok(self.url(&name))
    }

    /// `postgres://causeway@127.0.0.1:PORT/database`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@{}/{database}", self.port.address())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        match &self.options.data {
            Some(folder) => folder.join("data"),
            None => self.folder.path().join("data"),
        }
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs statements in a database (`postgres` is always there); gives the rows.
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub fn execute(&self, database: &str, sql: &str) -> Result<Vec<Row>, ServerError> {
        Session::open(self.port(), database, Some(PATIENCE))?.execute(sql)
    }

    /// All of a database as `pg_dump` writes it, while others go on using it.
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub fn dump(&self, database: &str) -> Result<Vec<u8>, ServerError> {
        self.client("pg_dump", &["--format=custom", database], &[])
    }

    /// Makes a database, in the place of one that may be there, and fills it with what [`dump`](Self::dump) has given, by
    /// `pg_restore`.
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub fn restore(&self, database: &str, dump: &[u8]) -> Result<(), ServerError> {
        self.execute("postgres", &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))?;
        self.execute("postgres", &format!("CREATE DATABASE {database} STRATEGY file_copy"))?;
        self.client("pg_restore", &["--exit-on-error", "--dbname", database], dump).map(drop)
    }

    /// What a program of PostgreSQL's says to `input`.
    fn client(&self, program: &'static str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, ServerError> {
        let failed = || ServerError::io(program);
        let mut command = std::process::Command::new(self.installation.program(program));
        command.args(["--host=127.0.0.1", "--username", USER, "--no-password", "--port"]);
        command.arg(self.port().to_string()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed())?;
        // `pg_restore` says nothing before it has read everything, and `pg_dump` reads nothing.
        let given = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
        let output = child.wait_with_output().map_err(failed())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(failed()(std::io::Error::other(said)));
        }
        given.map_err(failed())?;
        Ok(output.stdout)
    }

    /// Opens a connection to a database, for a transaction that is to stay open.
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub fn session(&self, database: &str) -> Result<Session, ServerError> {
        Session::open(self.port(), database, None)
    }

    /// SIGKILL to all processes of the server. No error if it does not run.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Ends at once, without a checkpoint, like `pg_ctl stop -m immediate`; the next start recovers.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_immediate(&mut self) -> Result<(), ServerError> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal("QUIT")?;
        if process.wait(PATIENCE) {
            return Ok(());
        }
        Err(ServerError::server("PostgreSQL does not stop", &self.folder.path().join("log")))
    }

    /// Whether it runs. One that has ended by itself does not; nor does one that was killed.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// SIGSTOP to all processes of the server.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn pause(&mut self) -> Result<(), ServerError> {
        self.process.as_mut().map_or(Ok(()), Process::pause)
    }

    /// SIGCONT to all processes of the server.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn resume(&mut self) -> Result<(), ServerError> {
        self.process.as_mut().map_or(Ok(()), Process::resume)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.process = None;
        remove_shared_memory(self.folder.path());
        if self.options.data.is_some() {
            let _gone = std::fs::remove_dir_all(self.data());
        }
    }
}

/// Removes the System V segment that a killed server has left: it is in no file system, and there are few of them.
pub(crate) fn remove_shared_memory(folder: &Path) {
    let Ok(pid_file) = std::fs::read_to_string(folder.join("data/postmaster.pid")) else { return };
    // "key id" is on the seventh line.
    let Some(segment) = pid_file.lines().nth(6) else { return };
    let [key, id] = segment.split_whitespace().collect::<Vec<_>>()[..] else { return };
    let Ok(segments) = std::fs::read_to_string("/proc/sysvipc/shm") else { return };
    let unused = segments.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // key, id, permissions, size, creator, last user, number of processes that have it
        fields.len() > 6 && fields[0] == key && fields[1] == id && fields[6] == "0"
    });
    if unused {
        let _gone = std::process::Command::new("ipcrm").args(["-m", id]).status();
    }
}

/// How long a server may take to start or stop. Far more than it needs, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
