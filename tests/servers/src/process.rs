//! Child processes that never outlive this one.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::ServerError;

/// A command that runs `program` such that the kernel kills it when the thread that starts it ends; start it with
/// [`spawn`]. `user`: run it as this user, which takes root.
pub fn command(program: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    // A Ctrl-C is for the tests; their servers end after them.
    command.process_group(0).stdin(Stdio::null());
    command
}

/// Starts a command from a thread that lives as long as this process, since the kernel ties a child to the life of
/// the thread that made it, not to that of the process.
///
/// # Errors
/// It cannot be started.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, std::sync::mpsc::SyncSender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                let _gone = answer.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    let (answer, child) = sync_channel(1);
    let gone = || io::Error::other("the thread that starts processes has ended");
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| gone())?;
    match child.recv().map_err(|_| gone())? {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::new(io::ErrorKind::NotFound, "`setpriv` is missing: install the Debian package util-linux"))
        }
        child => child,
    }
}

/// A running process and what it has started. Dropping it kills all of that.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a command that [`command`] made; its output is appended to `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Self, ServerError> {
        let failed = || ServerError::io(log.display().to_string());
        let output = File::options().create(true).append(true).open(log).map_err(failed())?;
        command.stdout(output.try_clone().map_err(failed())?).stderr(output);
        let what = format!("start {}", command.get_args().last().unwrap_or_default().to_string_lossy());
        let child = spawn(command).map_err(ServerError::io(what))?;
        Ok(Self { child })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal (`TERM`, `QUIT`, ...) to the process alone.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn signal(&self, signal: &str) -> Result<(), ServerError> {
        send(signal, &[self.id()])
    }

    /// SIGKILL to it and its children; returns when they are gone. No error if it has ended.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        let all = self.freeze()?;
        send("KILL", &all)?;
        let _status = self.child.wait();
        wait(|| !all.iter().any(|id| runs(*id)));
        Ok(())
    }

    /// SIGSTOP to it and its children.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn pause(&mut self) -> Result<(), ServerError> {
        let all = self.freeze()?;
        send("STOP", &all)
    }

    /// SIGCONT to it and its children.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn resume(&mut self) -> Result<(), ServerError> {
        let mut all = children(self.id());
        all.push(self.id());
        send("CONT", &all)
    }

    /// Waits until it has ended; false if it does not in `patience`.
    pub fn wait(&mut self, patience: Duration) -> bool {
        wait_for(patience, || self.ended().is_some())
    }

    /// Stops the process itself, so that its children are all that there are; gives these and it.
    fn freeze(&mut self) -> Result<Vec<u32>, ServerError> {
        if self.ended().is_some() {
            return Ok(Vec::new());
        }
        let id = self.id();
        send("STOP", &[id])?;
        // A signal is on its way until the process has left the processor.
        wait(|| matches!(state(id), None | Some('T' | 'Z')));
        let mut all = children(id);
        all.push(id);
        Ok(all)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _dead = self.kill();
    }
}

/// Asks again and again until it is so; false if it is not in 10 seconds.
pub(crate) fn wait(is_so: impl FnMut() -> bool) -> bool {
    wait_for(Duration::from_secs(10), is_so)
}

pub(crate) fn wait_for(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    // Counted in steps rather than by a clock: on a machine that is busy, they take longer.
    let steps = patience.as_millis() / STEP.as_millis();
    for _ in 0..steps {
        if is_so() {
            return true;
        }
        std::thread::sleep(STEP);
    }
    is_so()
}

fn send(signal: &str, ids: &[u32]) -> Result<(), ServerError> {
    if ids.is_empty() {
        return Ok(());
    }
    // Some of them may have ended by now: that is no failure.
    let sent = Command::new("kill")
        .arg(format!("-{signal}"))
        .args(ids.iter().map(u32::to_string))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match sent {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ServerError::Missing { program: "kill", package: "procps" })
        }
        Err(error) => Err(ServerError::io("kill")(error)),
    }
}

/// SIGKILL to all processes that work in this folder.
pub(crate) fn kill_in(folder: &Path) {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let there: Vec<u32> = processes
        .filter(|process| std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)))
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect();
    let _dead = send("KILL", &there);
    wait(|| !there.iter().any(|id| runs(*id)));
}

/// The letter that the kernel shows for what a process does: `T` stopped, `Z` ended; `None` if it is gone.
fn state(id: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn runs(id: u32) -> bool {
    !matches!(state(id), None | Some('Z'))
}

fn children(id: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

const STEP: Duration = Duration::from_millis(3);
