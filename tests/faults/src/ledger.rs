//! The ledger: what clients did and saw, one JSON record a line, in the order in which it happened.
//!
//! A record of something that a client is about to do is written before it does it, a record of something that it saw as
//! soon as it has seen it, so that whatever the servers can have got is in the ledger. The driver is never killed, so
//! the operating system's cache is safe enough. Everything that the checker needs is here and in the log of faults:
//! a run can be judged from its folder alone.
//!
//! Names are numbers. An *account* and a *device* count from 0; a device that is removed and enlisted again is another
//! device. A *message* is its sender's device and a count from 0 (see [`MessageNumber`]). An *epoch* is a session of
//! a device as the client sees it, from 1.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The file in a run's folder.
pub const FILE: &str = "ledger.jsonl";

/// The sender's device in the upper half, its count in the lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageNumber(pub u64);

impl MessageNumber {
    /// The `count`-th message of `device`.
    pub const fn new(device: u32, count: u32) -> Self {
        Self(((device as u64) << 32) | count as u64)
    }

    /// Who sent it.
    pub const fn device(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl std::fmt::Display for MessageNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.device(), self.0 & 0xffff_ffff)
    }
}

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Kept until it is delivered.
    Chat,
    /// Delivered now, or kept for a minute.
    Call,
    /// Delivered now, or dropped.
    Ephemeral,
}

/// What the server said of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// On every device.
    Delivered,
    /// On every device, or on disk for it.
    Stored,
    /// Ephemeral, and not on every device.
    Dropped,
    /// Nothing of it remains.
    Rejected,
}

impl Outcome {
    /// Whether it is a promise.
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Delivered | Self::Stored)
    }
}

/// The program behind a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Noise and stanzas with opaque bodies: cheap, and obedient.
    Light,
    /// The same, and does what the SDK never would.
    Wild,
    /// The SDK with Signal's encryption.
    Sdk,
}

/// Whom an account lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consent {
    /// Everybody.
    All,
    /// Everybody but users of this provider.
    NotProvider(u32),
    /// Nobody: reach is off.
    Nobody,
    /// Nobody in or out: interop is off.
    Off,
}

impl Consent {
    /// Whether users of this provider get through to an account of `own` provider.
    pub fn admits(self, provider: u32) -> bool {
        match self {
            Self::All => true,
            Self::NotProvider(denied) => denied != provider,
            Self::Nobody | Self::Off => false,
        }
    }
}

/// What came of fetching a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fetched {
    /// Byte for byte what was stored.
    Right,
    /// Other bytes, handed out as if they were it.
    Wrong,
    /// A server said that there is no such thing, or that it was asked wrongly.
    Refused,
    /// Nobody could be reached, or it broke off.
    Failed,
}

/// One line. Times are microseconds since the run began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k")]
pub enum Record {
    /// The run begins.
    Run {
        /// What the schedule and the workload are made of.
        seed: u64,
        /// `one` or `scaled`.
        variant: String,
        /// Planted bug, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        planted: Option<String>,
    },
    /// An account exists; everybody may write to it.
    Account {
        /// Its number.
        a: u32,
        /// Number of its provider.
        p: u32,
    },
    /// A device is enlisted.
    Device {
        /// When.
        t: u64,
        /// Its number.
        d: u32,
        /// Its account.
        a: u32,
        /// The id that the server gave it.
        id: u32,
        /// What it is.
        kind: Kind,
    },
    /// The device's removal is about to be asked for.
    Removing {
        /// When.
        t: u64,
        /// Which.
        d: u32,
    },
    /// The removal is confirmed.
    Removed {
        /// When.
        t: u64,
        /// Which.
        d: u32,
    },
    /// A login is about to be begun. Not seen of devices of the SDK, which begin one when they have done with the one before.
    Login {
        /// When.
        t: u64,
        /// Whose.
        d: u32,
    },
    /// The device's login was refused because there is no such device. Seen of those that are removed.
    Unknown {
        /// When.
        t: u64,
        /// Whose.
        d: u32,
    },
    /// A session is open.
    Up {
        /// When `success` was read.
        t: u64,
        /// Whose.
        d: u32,
        /// Its epoch.
        e: u32,
        /// Messages that wait.
        w: u64,
    },
    /// A session is over.
    Down {
        /// When the client noticed.
        t: u64,
        /// Whose.
        d: u32,
        /// Its epoch.
        e: u32,
        /// Why.
        why: String,
    },
    /// A message is about to be submitted for the first time.
    Submit {
        /// When.
        t: u64,
        /// Which.
        m: MessageNumber,
        /// In which epoch of the sender.
        e: u32,
        /// To which account.
        a: u32,
        /// Count from 0 for this sender and account.
        q: u32,
        /// How.
        c: Class,
        /// For which devices.
        to: Vec<u32>,
    },
    /// It is about to be submitted again.
    Again {
        /// When.
        t: u64,
        /// Which.
        m: MessageNumber,
        /// In which epoch.
        e: u32,
    },
    /// The server has said what became of it.
    Ack {
        /// When.
        t: u64,
        /// Which.
        m: MessageNumber,
        /// In which epoch.
        e: u32,
        /// What.
        o: Outcome,
        /// Why it was rejected.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        r: String,
    },
    /// An outcome of what this session never submitted.
    StrayAck {
        /// When.
        t: u64,
        /// To which device.
        d: u32,
        /// In which epoch.
        e: u32,
        /// The id and the address as they came.
        what: String,
    },
    /// A delivery came.
    Wire {
        /// When.
        t: u64,
        /// To which device.
        d: u32,
        /// In which epoch.
        e: u32,
        /// Under which tag.
        g: u64,
        /// Which message its id names.
        m: MessageNumber,
        /// It is not what the sender made for this device: why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bad: Option<String>,
    },
    /// A message is shown to the user, after dedup.
    App {
        /// When.
        t: u64,
        /// On which device.
        d: u32,
        /// Which.
        m: MessageNumber,
    },
    /// Everything up to this tag is about to be acknowledged.
    AckOut {
        /// When.
        t: u64,
        /// By which device.
        d: u32,
        /// In which epoch.
        e: u32,
        /// Up to which tag.
        g: u64,
    },
    /// A tag that was never sent is about to be acknowledged, and a ping to follow.
    WrongAck {
        /// When.
        t: u64,
        /// By which device.
        d: u32,
        /// In which epoch.
        e: u32,
        /// Which tag.
        g: u64,
    },
    /// The session has gone on after it.
    WrongAckTaken {
        /// When.
        t: u64,
        /// By which device.
        d: u32,
        /// In which epoch.
        e: u32,
    },
    /// A change of consent is about to be asked for.
    ConsentAsk {
        /// When.
        t: u64,
        /// Of which account.
        a: u32,
        /// The new rule.
        c: Consent,
    },
    /// The answer: `ok`, or it is unknown what became of it.
    ConsentAnswer {
        /// When.
        t: u64,
        /// Of which account.
        a: u32,
        /// The new rule.
        c: Consent,
        /// Confirmed.
        ok: bool,
    },
    /// Prekeys were handed out.
    Claim {
        /// When.
        t: u64,
        /// To which device.
        by: u32,
        /// Of which account.
        a: u32,
        /// Which device of it, by its id.
        id: u32,
        /// Its registration.
        reg: u32,
        /// The one-time EC key.
        ec: Option<u32>,
        /// The one-time Kyber key.
        kyber: Option<u32>,
    },
    /// A device of the SDK stopped by itself: its client failed. It is opened again.
    Stopped {
        /// When.
        t: u64,
        /// Which.
        d: u32,
        /// The SDK's error.
        why: String,
        /// It was told that a newer session of the device has come.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replaced: bool,
    },
    /// A medium is about to be uploaded.
    Upload {
        /// When.
        t: u64,
        /// Its number, from 0.
        x: u32,
        /// By whose user.
        a: u32,
        /// Bytes before encryption.
        size: u64,
    },
    /// The upload is over: stored, or nobody knows.
    Uploaded {
        /// When.
        t: u64,
        /// Which.
        x: u32,
        /// The host said that it has all of it.
        ok: bool,
        /// A server said that it was asked wrongly.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        refused: bool,
        /// Why it is not.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// A medium was fetched through the relays, or was not.
    Download {
        /// When it was begun.
        began: u64,
        /// When it was over.
        t: u64,
        /// Which.
        x: u32,
        /// For whose user.
        a: u32,
        /// What came.
        r: Fetched,
        /// After all faults were healed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        last: bool,
        /// Why it did not come.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// No faults from here on; every device connects and waits for what is left.
    Drain {
        /// When.
        t: u64,
    },
    /// A device has everything, and the server says that nothing waits.
    Drained {
        /// When.
        t: u64,
        /// Which.
        d: u32,
        /// What waits at its last login.
        w: u64,
        /// Messages without an outcome.
        open: u32,
    },
    /// What the stores hold after the drain.
    Stores {
        /// When.
        t: u64,
        /// Messages in mailboxes.
        mailbox: Option<u64>,
        /// Devices in presence that have no session.
        presence: Option<u64>,
        /// How long it took until they were empty, from the end of all sessions, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        took_ms: Option<u64>,
    },
    /// What a process uses.
    Usage {
        /// When.
        t: u64,
        /// Which.
        name: String,
        /// Memory, in bytes.
        bytes: u64,
        /// Descriptors.
        files: u64,
        /// After the drain; else before the load.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        last: bool,
    },
    /// The logs of all processes were read.
    Logs {
        /// When.
        t: u64,
        /// How many lines they have.
        lines: u64,
    },
    /// Something in a process's log that must not be there.
    Log {
        /// When it was found.
        t: u64,
        /// File name.
        file: String,
        /// The line.
        line: String,
    },
    /// The run has ended in order.
    End {
        /// When.
        t: u64,
    },
}

/// Where records go. Clones write to the same file.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    began: Instant,
    file: Mutex<BufWriter<File>>,
    path: PathBuf,
}

impl Ledger {
    /// Makes the file in `folder`; time begins at `began`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(folder: &Path, began: Instant) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        Ok(Self(Arc::new(Inner { began, file: Mutex::new(BufWriter::with_capacity(1 << 20, file)), path })))
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Writes a record that is made from the time; gives that time. Records are in the order of their times.
    ///
    /// # Panics
    /// The file cannot be written: a run without a ledger is worth nothing.
    pub fn write(&self, record: impl FnOnce(u64) -> Record) -> u64 {
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let t = self.now();
        let written = serde_json::to_writer(&mut *file, &record(t)).map_err(std::io::Error::from);
        written.and_then(|()| file.write_all(b"\n")).expect("the ledger can be written");
        t
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// The disk is full.
    pub fn flush(&self) -> anyhow::Result<()> {
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().with_context(|| self.0.path.display().to_string())
    }
}

/// Reads the records of the run in `folder`, one at a time.
///
/// # Errors
/// There is none, or a line is no record.
pub fn read(folder: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Record>>> {
    let path = folder.join(FILE);
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let lines = BufReader::with_capacity(1 << 20, file).lines().enumerate();
    Ok(lines.map(move |(number, line)| {
        let line = line.with_context(|| format!("{} line {}", path.display(), number + 1))?;
        serde_json::from_str(&line).with_context(|| format!("{} line {}: {line}", path.display(), number + 1))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::create(folder.path(), Instant::now()).unwrap();
        let m = MessageNumber::new(7, 9);
        let written = [
            Record::Run { seed: 1, variant: "one".to_owned(), planted: None },
            Record::Submit { t: 3, m, e: 1, a: 2, q: 0, c: Class::Chat, to: vec![4, 5] },
            Record::Ack { t: 4, m, e: 1, o: Outcome::Rejected, r: "devices".to_owned() },
        ];
        for record in &written {
            ledger.write(|_| record.clone());
        }
        ledger.flush().unwrap();
        let records: Vec<_> = read(folder.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(records, written);
        assert_eq!((m.device(), m.to_string()), (7, "7#9".to_owned()));
    }
}
