//! The process that lets others hold sessions.

use std::io::{BufReader, BufWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::lines::{self, Said};
use crate::measure::clock::{self, SECOND};
use crate::run::{Gate, Job};

/// This program, also when its file was built anew since it was started.
const PROGRAM: &str = "/proc/self/exe";
/// How long it may take to leave.
const LEAVING: u64 = 10 * SECOND;
const STEP: Duration = Duration::from_millis(5);

/// Another process for the clients of [`lines::orders`], which holds their sessions until `enough` is set.
pub(crate) fn job(orders: Vec<String>, enough: Arc<AtomicBool>) -> Job<()> {
    Box::new(move |gate| {
        let mut holder = Holder::start(orders)?;
        attend(&mut holder, &gate, &enough)
    })
}

fn attend(holder: &mut Holder, gate: &Gate, enough: &AtomicBool) -> anyhow::Result<()> {
    let mut output = BufReader::new(holder.child.stdout.take().context("a standard output")?);
    let mut last = Said::default();
    // It says something several times a second, so both flags are seen soon.
    while let Some(said) = lines::line::<Said>(&mut output)? {
        if let Some(failed) = said.failed {
            bail!("a generator: {failed}");
        }
        gate.opened.fetch_add(said.opened.saturating_sub(last.opened), Ordering::Relaxed);
        if said.all && !last.all {
            gate.ready();
        }
        last = said;
        if enough.load(Ordering::SeqCst) || gate.failed.load(Ordering::SeqCst) {
            return Ok(());
        }
    }
    bail!("a generator has ended by itself")
}

/// A process that runs. It ends when this is dropped.
struct Holder {
    child: Child,
    /// It leaves when this closes.
    input: Option<ChildStdin>,
}

impl Holder {
    fn start(orders: Vec<String>) -> anyhow::Result<Self> {
        let mut command = Command::new(PROGRAM);
        command.arg0("causeway-bench").arg("hold").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start a generator")?;
        let input = child.stdin.take();
        let mut holder = Self { child, input };
        let mut input = BufWriter::new(holder.input.as_mut().context("a standard input")?);
        for order in orders {
            writeln!(input, "{order}").context("a generator does not listen")?;
        }
        input.flush().context("a generator does not listen")?;
        drop(input);
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.input.take());
        let deadline = clock::now() + LEAVING;
        while matches!(self.child.try_wait(), Ok(None)) {
            if clock::now() > deadline {
                let _ended = self.child.kill().and_then(|()| self.child.wait());
                return;
            }
            std::thread::sleep(STEP);
        }
    }
}
