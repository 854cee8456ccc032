//! The process that holds sessions.

use std::io::{self, Write as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use super::lines::{self, Said};
use crate::measure::clock;
use crate::measure::window::{Shape, Windows};
use crate::players::storm::{Storm, Wave};
use crate::run::{self, Gate};
use crate::wire::causeway::Causeway;

/// How often it says how far it is.
const BEAT: Duration = Duration::from_millis(250);
/// How long it holds sessions at most.
const DAY: Duration = Duration::from_secs(86_400);

/// Opens the sessions that the standard input names, and holds them until it closes.
pub(crate) fn hold() -> anyhow::Result<()> {
    let gate = Arc::new(Gate::default());
    let done = hold_all(&gate);
    if let Err(error) = &done {
        let opened = gate.opened.load(Ordering::Relaxed);
        // Who started it may be gone.
        let _gone = say(&Said { opened, all: false, failed: Some(format!("{error:#}")) });
    }
    done
}

fn hold_all(gate: &Arc<Gate>) -> anyhow::Result<()> {
    let (net, logins) = lines::read(&mut io::stdin().lock())?;
    let clients = logins.len();
    let make = move |gate| Storm::new(gate, Wave::None, clients, 1);
    let job = run::job::<Causeway, _, _>(&net, logins, make, std::convert::identity);
    let own = Arc::clone(gate);
    let thread = std::thread::Builder::new().name("clients".to_owned()).spawn(move || job(own)?);
    let thread = thread.context("start a thread")?;
    let closed = when_closed()?;
    let mut all = false;
    // The threads that are left end with the process, and so do the sessions.
    while closed.recv_timeout(BEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
        if thread.is_finished() {
            thread.join().map_err(|_| anyhow!("the clients' thread has panicked"))??;
            bail!("the sessions were held for a day");
        }
        if !all && gate.are_ready(1) {
            all = true;
            // Nothing is to be measured here: players rest until their last window ends.
            let shape = Shape { warm_up: Duration::ZERO, length: DAY, count: 1 };
            gate.begin(Windows::from(shape, clock::now()))?;
        }
        say(&Said { opened: gate.opened.load(Ordering::Relaxed), all, failed: None })?;
    }
    Ok(())
}

/// Its other end is dropped when the standard input closes.
fn when_closed() -> anyhow::Result<mpsc::Receiver<()>> {
    let (end, closed) = mpsc::sync_channel(0);
    let watch = move || {
        let _end: mpsc::SyncSender<()> = end;
        let _broken = io::copy(&mut io::stdin().lock(), &mut io::sink());
    };
    std::thread::Builder::new().name("input".to_owned()).spawn(watch).context("start a thread")?;
    Ok(closed)
}

fn say(said: &Said) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(said)?)?;
    output.flush().context("the standard output")
}
