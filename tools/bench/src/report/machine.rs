//! Where and when it was measured.

use std::fmt;
use std::path::Path;
use std::process::Command;

use causeway_runtime::clock::{Clock as _, SystemClock};
use serde::{Deserialize, Serialize};

/// A machine, what ran on it, and the date.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processors' name.
    pub(crate) processor: String,
    /// How many there are.
    pub(crate) processors: usize,
    /// GiB.
    pub(crate) memory_gib: u64,
    /// The kernel's version.
    pub(crate) kernel: String,
    /// What the server says of its version.
    pub(crate) server: String,
    /// The commit, and whether anything was changed besides.
    pub(crate) commit: String,
    /// Of the compiler.
    pub(crate) compiler: String,
    /// When, in UTC.
    pub(crate) date: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this(server: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.trim_end_matches("kB").trim().parse().unwrap_or(0);
        let changed =
            if said(Command::new("git").args(["status", "--porcelain", "-uno"])).is_empty() { "" } else { "+" };
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: (kib + 512 * 1024) / (1024 * 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            server: said(Command::new(server).arg("--version")),
            commit: said(Command::new("git").args(["rev-parse", "--short", "HEAD"])) + changed,
            compiler: said(Command::new("rustc").arg("--version")),
            date: httpdate::fmt_http_date(SystemClock.now()),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, processors, memory_gib, kernel, server, commit, compiler, date } = self;
        write!(f, "Measured {date} on {processors} processors ({processor}), {memory_gib} GiB, Linux {kernel}, with ")?;
        write!(f, "{server}, commit {commit}, {compiler}; servers and clients on the same machine.")
    }
}

/// What a program says, or nothing.
fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
