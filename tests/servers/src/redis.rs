//! Redis.

pub(crate) mod cluster;
pub(crate) mod sentinel;
pub(crate) mod wire;

use std::path::PathBuf;
use std::time::Duration;

use crate::process::wait_for;
use crate::{Folder, Port, Process, Reply, ServerError};

/// How a server differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Further settings, by name, as in redis.conf.
    pub settings: Vec<(String, String)>,
}

/// A Redis server on 127.0.0.1 without a password that keeps nothing on disk: killed, it comes back empty.
#[derive(Debug)]
pub struct Redis {
    // Dropped in this order.
    process: Option<Process>,
    kind: Kind,
    options: RedisOptions,
    port: Port,
    folder: Folder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Server,
    Sentinel,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(RedisOptions::default())
    }

    /// Starts one with further settings.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub fn start_with(options: RedisOptions) -> Result<Self, ServerError> {
        let mut server = Self::prepare(Kind::Server, options)?;
        server.start_again()?;
        Ok(server)
    }

    pub(crate) fn prepare(kind: Kind, options: RedisOptions) -> Result<Self, ServerError> {
        Self::prepare_on(kind, options, Port::claim()?)
    }

    pub(crate) fn prepare_on(kind: Kind, options: RedisOptions, port: Port) -> Result<Self, ServerError> {
        let server = Self { process: None, kind, options, port, folder: Folder::create()? };
        server.write_configuration()?;
        Ok(server)
    }

    /// Starts it on its port after [`kill`](Self::kill), and waits until it answers. No error if it runs.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> Result<(), ServerError> {
        if self.process.as_mut().is_some_and(|process| process.ended().is_none()) {
            return Ok(());
        }
        self.process = None;
        let mut command = crate::command(&program()?, None);
        command.arg(self.configuration());
        if self.kind == Kind::Sentinel {
            command.arg("--sentinel");
        }
        let process = self.process.insert(Process::start(command, &self.folder.path().join("log"))?);
        let port = self.port.number();
        let mut ended = None;
        let answers = wait_for(PATIENCE, || {
            ended = process.ended();
            ended.is_some() || wire::call(port, &["PING"], ANSWER).is_ok()
        });
        let log = self.folder.path().join("log");
        match ended {
            Some(status) => Err(ServerError::server(format!("Redis ended with {status}"), &log)),
            None if !answers => Err(ServerError::server("Redis does not answer", &log)),
            None => Ok(()),
        }
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends one command.
    ///
    /// # Errors
    /// The server refuses, is gone, or takes longer than 20 seconds.
    pub fn call(&self, words: &[&str]) -> Result<Reply, ServerError> {
        wire::call(self.port(), words, Duration::from_secs(20))
    }

    /// Forgets everything (`FLUSHALL`).
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub fn flush(&self) -> Result<(), ServerError> {
        self.call(&["FLUSHALL"]).map(drop)
    }

    /// SIGKILL. No error if it does not run.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn pause(&mut self) -> Result<(), ServerError> {
        self.process.as_mut().map_or(Ok(()), Process::pause)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn resume(&mut self) -> Result<(), ServerError> {
        self.process.as_mut().map_or(Ok(()), Process::resume)
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("redis.conf")
    }

    /// Sentinels and clusters write to it, so it is made once.
    fn write_configuration(&self) -> Result<(), ServerError> {
        let mut text = format!("port {}\nbind 127.0.0.1\ndir {}\n", self.port.number(), self.folder.path().display());
        if self.kind == Kind::Server {
            text.push_str("save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\nenable-debug-command yes\n");
        }
        for (name, value) in &self.options.settings {
            text.push_str(&format!("{name} {value}\n"));
        }
        let file = self.configuration();
        std::fs::write(&file, text).map_err(ServerError::io(file.display().to_string()))
    }
}

pub(crate) fn program() -> Result<PathBuf, ServerError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("redis-server"))
        .find(|file| file.is_file())
        .ok_or(ServerError::Missing { program: "redis-server", package: "redis-server" })
}

const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_forgets_when_it_is_flushed_or_killed() {
        let mut server = Redis::start().unwrap();
        assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
        for forget in [(|server| server.flush()) as fn(&mut Redis) -> Result<(), ServerError>, |server| {
            server.kill().and_then(|()| server.start_again())
        }] {
            server.call(&["SET", "a", "1"]).unwrap();
            assert_eq!(server.call(&["GET", "a"]).unwrap(), Reply::Text("1".to_owned()));
            forget(&mut server).unwrap();
            assert_eq!(server.call(&["GET", "a"]).unwrap(), Reply::Nil);
        }
        assert!(matches!(server.call(&["NONSENSE"]), Err(ServerError::Refused(_))));
    }

    #[test]
    fn a_paused_server_does_not_answer_and_goes_on_afterwards() {
        let mut server = Redis::start().unwrap();
        server.pause().unwrap();
        assert!(wire::call(server.port(), &["PING"], Duration::from_millis(100)).is_err());
        server.resume().unwrap();
        server.call(&["PING"]).unwrap();
    }
}
