//! The log of faults: what the environment did to the deployment, and when, for the checker and for the reader.
//!
//! Clients' own records are in [`crate::ledger`]. Times of both are microseconds on one monotonic clock since the run began,
//! and both are written by one process, so they compare. A fault has a line when it begins and one when it is healed;
//! one that the run's end cut short has only the first. *Healed* means: the process accepts connections again, the link
//! carries bytes again, the disk takes writes again. How long the deployment takes to recover from there is for the checker
//! to judge.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The file in a run's folder.
pub const FILE: &str = "faults.jsonl";

/// What is done to a target. Processes and links are named as in [`crate::cluster`]: `edge-1`, `routing-3`, `postgres`,
/// `edge-1>routing-3`, `clients>edge-2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// SIGKILL of a process of ours, and a start on the same data and ports up to 3 s later.
    Kill,
    /// SIGKILL, and again while it starts.
    KillStarting,
    /// SIGSTOP, up to 15 s later SIGCONT.
    Pause,
    /// SIGTERM, and a start when it has left.
    Drain,
    /// SIGTERM and start of each process of ours, one after the other.
    Rolling,
    /// A link carries nothing either way; nobody is told.
    Cut,
    /// A link carries nothing from the one who connects to the one who listens.
    CutThere,
    /// A link carries nothing from the one who listens to the one who connects.
    CutBack,
    /// A process is cut off from all others, clients and stores included.
    Isolate,
    /// All connections of a link are reset, once.
    Reset,
    /// Bytes on a link come late, by a time that varies.
    Delay,
    /// Bytes on a link come few at a time.
    Slow,
    /// Connections of a link end in one direction (FIN) and go on in the other.
    HalfClose,
    /// Connections are cut at some byte in the middle of what is sent.
    CutMidway,
    /// Connections to PostgreSQL break after the client's COMMIT has been passed on, before the answer is.
    CommitCut,
    /// Redis is killed and comes back empty.
    RedisKill,
    /// Redis stops and goes on.
    RedisPause,
    /// Redis forgets everything.
    RedisFlush,
    /// Redis serves nothing for some seconds (`DEBUG SLEEP`).
    RedisSleep,
    /// Sentinels make the replica the primary.
    RedisFailover,
    /// One of the Sentinels is killed and comes back.
    SentinelKill,
    /// PostgreSQL is killed, all processes of it, and recovers.
    PostgresKill,
    /// PostgreSQL stops without a checkpoint and recovers.
    PostgresRestart,
    /// PostgreSQL stops and goes on.
    PostgresPause,
    /// The primary is killed and its synchronous standby takes its place.
    PostgresPromote,
    /// The synchronous standby is killed and comes back; meanwhile the primary must confirm nothing.
    StandbyKill,
    /// The synchronous standby stands still and goes on.
    StandbyPause,
    /// The synchronous standby stands still, then the primary is killed and this standby takes its place: what the primary has
    /// confirmed without it would be lost.
    StandbyLost,
    /// Somebody holds an exclusive lock on a table.
    PostgresLock,
    /// All of PostgreSQL's connections are closed by an administrator.
    PostgresTerminate,
    /// The file system of a store is full.
    DiskFull,
    /// fsync and fdatasync fail.
    SyncFails,
    /// fsync and fdatasync take long.
    SyncSlow,
    /// fsync and fdatasync do nothing and say that all is well; then the process is killed.
    SyncLies,
    /// A process's real-time clock jumps, and later jumps back.
    Clock,
    /// All connections of an edge's clients are reset at once.
    Herd,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 36] = [
        Self::Kill,
        Self::KillStarting,
        Self::Pause,
        Self::Drain,
        Self::Rolling,
        Self::Cut,
        Self::CutThere,
        Self::CutBack,
        Self::Isolate,
        Self::Reset,
        Self::Delay,
        Self::Slow,
        Self::HalfClose,
        Self::CutMidway,
        Self::CommitCut,
        Self::RedisKill,
        Self::RedisPause,
        Self::RedisFlush,
        Self::RedisSleep,
        Self::RedisFailover,
        Self::SentinelKill,
        Self::PostgresKill,
        Self::PostgresRestart,
        Self::PostgresPause,
        Self::PostgresPromote,
        Self::StandbyKill,
        Self::StandbyPause,
        Self::StandbyLost,
        Self::PostgresLock,
        Self::PostgresTerminate,
        Self::DiskFull,
        Self::SyncFails,
        Self::SyncSlow,
        Self::SyncLies,
        Self::Clock,
        Self::Herd,
    ];

    /// Its name in logs, reports and on the command line.
    pub fn name(self) -> String {
        // A unit variant is written as its name.
        serde_json::to_string(&self).unwrap_or_default().trim_matches('"').to_owned()
    }
}

impl std::fmt::Display for FaultKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.name())
    }
}

impl std::str::FromStr for FaultKind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).with_context(|| format!("{name} is no kind of fault"))
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "kebab-case")]
enum Line {
    /// A fault begins.
    Begin {
        /// Its number in the run, from 0.
        n: u64,
        /// Just before anything was done.
        t: u64,
        kind: FaultKind,
        target: String,
        /// How long and how much, for the reader.
        how: String,
    },
    /// It is healed.
    End {
        n: u64,
        /// Just after.
        t: u64,
        /// What did not go as planned: the deployment did not come back, for instance.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
        /// What is only known afterwards: how many COMMITs were cut, for instance.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        seen: String,
        /// It met nothing that it could do anything to.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        idle: bool,
        /// How a process that was told to leave did not do so.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        stayed: String,
    },
    /// Something worth knowing: a process is ready, a process ended that nobody had killed.
    Note {
        t: u64,
        text: String,
        /// It must not happen.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        bad: bool,
    },
}

/// A fault of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Its number in the run, from 0.
    pub number: u64,
    /// What.
    pub kind: FaultKind,
    /// To whom.
    pub target: String,
    /// How long and how much, for the reader.
    pub how: String,
    /// Just before anything was done.
    pub begin: u64,
    /// Just after it was healed; `None`: the run ended before.
    pub end: Option<u64>,
    /// Why it could not be healed as planned.
    pub failed: Option<String>,
    /// What is only known afterwards: how many COMMITs were cut, for instance.
    pub seen: String,
    /// It met nothing that it could do anything to: no connection to reset, no COMMIT to cut.
    pub idle: bool,
    /// How a process that was told to leave did not do so: it failed, was too slow, or had to be killed.
    pub stayed: String,
}

impl Fault {
    /// Whether it was done as planned and met something. Others are counted apart.
    pub fn did_something(&self) -> bool {
        !self.idle && self.failed.is_none() && self.end.is_some()
    }
}

/// What carrying out a fault has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// For the reader.
    pub seen: String,
    /// It met nothing that it could do anything to.
    pub idle: bool,
    /// How a process that was told to leave did not do so.
    pub stayed: String,
}

impl Done {
    /// It did something, of which there is nothing to say.
    pub fn plain() -> Self {
        Self::default()
    }

    /// It met so many of these; none, and it was idle.
    pub fn met(count: u64, seen: impl Into<String>) -> Self {
        Self { seen: seen.into(), idle: count == 0, ..Self::default() }
    }
}

/// What the log of a run says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// In the order in which they began.
    pub faults: Vec<Fault>,
    /// What happened at which time and must not happen, such as a process that ended by itself.
    pub bad: Vec<(u64, String)>,
}

/// Where faults are written down. Clones write to the same file.
#[derive(Clone)]
pub struct FaultLog(Arc<Inner>);

struct Inner {
    began: Instant,
    file: Mutex<(File, u64)>,
    path: PathBuf,
}

impl FaultLog {
    /// Makes the file in `folder`; time begins at `began`, as for the ledger.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(folder: &Path, began: Instant) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        Ok(Self(Arc::new(Inner { began, file: Mutex::new((file, 0)), path })))
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A fault is about to begin; gives its number.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&self, kind: FaultKind, target: &str, how: &str) -> anyhow::Result<u64> {
        self.write(|n, t| Line::Begin { n, t, kind, target: target.to_owned(), how: how.to_owned() })
    }

    /// A fault is healed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn end(&self, number: u64, outcome: Result<Done, String>) -> anyhow::Result<()> {
        let (Done { seen, idle, stayed }, failed) = match outcome {
            Ok(done) => (done, None),
            Err(failed) => (Done::default(), Some(failed)),
        };
        self.write(|_, t| Line::End { n: number, t, failed, seen, idle, stayed }).map(drop)
    }

    /// Something worth knowing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&self, text: &str) -> anyhow::Result<()> {
        self.write(|_, t| Line::Note { t, text: text.to_owned(), bad: false }).map(drop)
    }

    /// Something that must not happen.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn bad(&self, text: &str) -> anyhow::Result<()> {
        self.write(|_, t| Line::Note { t, text: text.to_owned(), bad: true }).map(drop)
    }

    fn write(&self, line: impl FnOnce(u64, u64) -> Line) -> anyhow::Result<u64> {
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, next) = &mut *file;
        let line = line(*next, self.now());
        let number = *next;
        *next += u64::from(matches!(line, Line::Begin { .. }));
        let mut text = serde_json::to_vec(&line).context("a line of the log of faults")?;
        text.push(b'\n');
        file.write_all(&text).with_context(|| self.0.path.display().to_string())?;
        Ok(number)
    }
}

/// Reads the log of the run in `folder`. A run without faults has an empty one.
///
/// # Errors
/// There is none, or a line is not of it.
pub fn read(folder: &Path) -> anyhow::Result<Faults> {
    let path = folder.join(FILE);
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut faults = BTreeMap::new();
    let mut bad = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let place = || format!("{} line {}", path.display(), index + 1);
        match serde_json::from_str(&line.with_context(place)?).with_context(place)? {
            Line::Begin { n, t, kind, target, how } => {
                let (failed, seen, stayed) = (None, String::new(), String::new());
                let (number, begin, end, idle) = (n, t, None, false);
                faults.insert(n, Fault { number, kind, target, how, begin, end, failed, seen, idle, stayed });
            }
            Line::End { n, t, failed, seen, idle, stayed } => {
                let fault = faults.get_mut(&n).with_context(|| format!("{}: no fault {n}", place()))?;
                (fault.end, fault.failed, fault.seen, fault.idle) = (Some(t), failed, seen, idle);
                fault.stayed = stayed;
            }
            Line::Note { t, text, bad: true } => bad.push((t, text)),
            Line::Note { .. } => {}
        }
    }
    Ok(Faults { faults: faults.into_values().collect(), bad })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = FaultLog::create(folder.path(), Instant::now()).unwrap();
        let kill = log.begin(FaultKind::Kill, "edge-1", "back after 200 ms").unwrap();
        let cut = log.begin(FaultKind::CommitCut, "routing-1>postgres", "for 2 s").unwrap();
        log.note("edge-1 is ready").unwrap();
        log.bad("routing-2 ended by itself").unwrap();
        log.end(kill, Err("edge-1 does not start".to_owned())).unwrap();
        let idle = log.begin(FaultKind::Reset, "edge-1>redis", "").unwrap();
        log.end(idle, Ok(Done::met(0, "connections 0"))).unwrap();
        let herd = log.begin(FaultKind::Herd, "clients>edge-1", "").unwrap();
        log.end(herd, Ok(Done { stayed: "it was slow".to_owned(), ..Done::met(3, "connections 3") })).unwrap();
        let read = read(folder.path()).unwrap();
        assert_eq!((kill, cut, read.faults.len()), (0, 1, 4));
        let did: Vec<_> = read.faults.iter().map(Fault::did_something).collect();
        assert_eq!(did, [false, false, false, true]);
        assert_eq!(read.faults[0].failed.as_deref(), Some("edge-1 does not start"));
        assert!(read.faults[0].end >= Some(read.faults[0].begin));
        assert_eq!((read.faults[1].kind, read.faults[1].end), (FaultKind::CommitCut, None));
        assert_eq!((read.faults[2].stayed.as_str(), read.faults[3].stayed.as_str()), ("", "it was slow"));
        assert_eq!(read.bad[0].1, "routing-2 ended by itself");
    }

    #[test]
    fn names_are_read_back() {
        for kind in FaultKind::ALL {
            assert_eq!(kind.name().parse::<FaultKind>().unwrap(), kind);
        }
        assert_eq!(FaultKind::CutThere.to_string(), "cut-there");
        assert!("nothing".parse::<FaultKind>().is_err());
    }
}
