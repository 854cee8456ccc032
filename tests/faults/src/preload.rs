//! Disks that fail and clocks that jump, for one process each: a small library in its `LD_PRELOAD`
//! (`tests/faults/preload/faults.c`), which does what a file says that this module writes, and counts there how often.
//!
//! An fsync that lies loses nothing as long as the kernel lives: a process that is killed leaves what it has written in the
//! page cache. What this shows and what not is in docs/faults.md.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// The library, built.
#[derive(Debug, Clone)]
pub struct Preload {
    library: PathBuf,
    folder: PathBuf,
}

/// What is the matter with one process's disk and clock. It and its descendants share it.
#[derive(Debug)]
pub struct Control {
    file: File,
    path: PathBuf,
    library: PathBuf,
}

/// How often a disk or a clock was wrong when the process used it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hits {
    /// fsyncs that failed, lied or took long.
    pub syncs: u64,
    /// Writes that found no space.
    pub writes: u64,
    /// Looks at the clock.
    pub clocks: u64,
}

impl Preload {
    /// Builds the library in `folder`, which every user that is to be under it can reach.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn build(folder: &Path) -> anyhow::Result<Self> {
        let library = folder.join("libcauseway_faults.so");
        let source = folder.join("faults.c");
        std::fs::write(&source, SOURCE).with_context(|| source.display().to_string())?;
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .stdin(Stdio::null())
            .output()
            .context("run cc: install the Debian package gcc")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        readable(&library, 0o755)?;
        Ok(Self { library, folder: folder.to_owned() })
    }

    /// For one more process, called `name`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn control(&self, name: &str) -> anyhow::Result<Control> {
        let path = self.folder.join(format!("{name}.faults"));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        file.set_len(4_096)?;
        // The process counts in it, as whatever user it runs.
        readable(&path, 0o666)?;
        Ok(Control { file, path, library: self.library.clone() })
    }
}

fn readable(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).with_context(|| path.display().to_string())
}

impl Control {
    /// What the process needs in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![("LD_PRELOAD".to_owned(), text(&self.library)), ("CAUSEWAY_FAULTS".to_owned(), text(&self.path))]
    }

    /// By how much its real-time clock is wrong, in milliseconds.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn clock(&self, shift_ms: i64) -> anyhow::Result<()> {
        self.write(0, shift_ms)
    }

    /// fsync and fdatasync fail with EIO from now on, or do no more.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sync_fails(&self, fails: bool) -> anyhow::Result<()> {
        self.write(1, i64::from(fails))
    }

    /// fsync and fdatasync take so much longer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sync_slow(&self, longer: Duration) -> anyhow::Result<()> {
        self.write(2, i64::try_from(longer.as_millis()).unwrap_or(i64::MAX))
    }

    /// Writes to regular files fail with ENOSPC from now on, or do no more.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn disk_full(&self, full: bool) -> anyhow::Result<()> {
        self.write(3, i64::from(full))
    }

    /// fsync and fdatasync do nothing and report success from now on, or do their work again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sync_lies(&self, lies: bool) -> anyhow::Result<()> {
        self.write(4, i64::from(lies))
    }

    /// How often any of this has been done to the process since it had its control.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn hits(&self) -> anyhow::Result<Hits> {
        let count = |field: u64| {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, field * 8).with_context(|| self.path.display().to_string())?;
            anyhow::Ok(u64::from_ne_bytes(bytes))
        };
        Ok(Hits { syncs: count(FIELDS)?, writes: count(FIELDS + 1)?, clocks: count(FIELDS + 2)? })
    }

    /// Everything is well again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn heal(&self) -> anyhow::Result<()> {
        (0..FIELDS).try_for_each(|field| self.write(field, 0))
    }

    fn write(&self, field: u64, value: i64) -> anyhow::Result<()> {
        // The process has the same page mapped: it sees this at once.
        self.file.write_all_at(&value.to_ne_bytes(), field * 8).with_context(|| self.path.display().to_string())
    }
}

const SOURCE: &str = include_str!("../preload/faults.c");
/// What can be the matter; counts stand behind.
const FIELDS: u64 = 5;

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};

    use super::*;

    /// Runs python in a process under the library, one line at a time, and gives what each prints.
    struct Python {
        child: std::process::Child,
        output: BufReader<std::process::ChildStdout>,
    }

    impl Python {
        fn start(control: &Control) -> Self {
            let loop_ = "import sys, os, time\nfor line in sys.stdin:\n    try: print(eval(line), flush=True)\n    \
                         except OSError as e: print(e.strerror, flush=True)";
            let mut child = Command::new("python3")
                .args(["-c", loop_])
                .envs(control.environment())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let output = BufReader::new(child.stdout.take().unwrap());
            Self { child, output }
        }

        fn eval(&mut self, expression: &str) -> String {
            writeln!(self.child.stdin.as_mut().unwrap(), "{expression}").unwrap();
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            line.trim().to_owned()
        }
    }

    impl Drop for Python {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    #[test]
    fn a_process_sees_what_is_the_matter_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let preload = Preload::build(folder.path()).unwrap();
        let control = preload.control("python").unwrap();
        let mut python = Python::start(&control);
        let file = folder.path().join("file");
        let open = format!("os.open({:?}, os.O_RDWR | os.O_CREAT)", file.display().to_string());
        let fd = python.eval(&open);
        let (write, sync) = (format!("os.write({fd}, b'abc')"), format!("os.fsync({fd})"));
        assert_eq!(python.eval(&write), "3");
        assert_eq!(python.eval(&sync), "None");

        assert_eq!(control.hits().unwrap(), Hits::default());

        control.sync_lies(true).unwrap();
        assert_eq!(python.eval(&sync), "None");
        assert_eq!(control.hits().unwrap().syncs, 1);
        control.sync_fails(true).unwrap();
        assert_eq!(python.eval(&sync), "Input/output error");
        control.disk_full(true).unwrap();
        assert_eq!(python.eval(&write), "No space left on device");
        assert_eq!(python.eval(&format!("os.pwrite({fd}, b'x', 0)")), "No space left on device");

        let clock = |python: &mut Python| python.eval("time.time()").parse::<f64>().unwrap();
        let monotonic = |python: &mut Python| python.eval("time.monotonic()").parse::<f64>().unwrap();
        let (before, steady) = (clock(&mut python), monotonic(&mut python));
        control.clock(-3_600_500).unwrap();
        let back = before - clock(&mut python);
        assert!((3_590.0..3_601.0).contains(&back), "{back}");
        assert!((0.0..10.0).contains(&(monotonic(&mut python) - steady)));
        let hits = control.hits().unwrap();
        assert!(hits.syncs == 2 && hits.writes == 2 && hits.clocks > 0, "{hits:?}");

        control.heal().unwrap();
        assert_eq!((python.eval(&write), python.eval(&sync)), ("3".to_owned(), "None".to_owned()));
        assert!(clock(&mut python) >= before);
    }

    #[test]
    fn postgresql_survives_an_fsync_that_fails() {
        let folder = causeway_test_servers::Folder::create().unwrap();
        let preload = Preload::build(folder.path()).unwrap();
        let control = preload.control("postgres").unwrap();
        let options = causeway_test_servers::Options {
            durable: true,
            environment: control.environment(),
            ..causeway_test_servers::Options::default()
        };
        let server = causeway_test_servers::Postgres::start_with(options).unwrap();
        server.execute("postgres", "CREATE TABLE t (x int)").unwrap();
        control.sync_fails(true).unwrap();
        // It cannot say what is on disk, so it says nothing and recovers.
        server.execute("postgres", "INSERT INTO t VALUES (1)").unwrap_err();
        control.sync_fails(false).unwrap();
    }
}
