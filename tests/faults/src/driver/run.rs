//! A run from begin to end: start, load and faults, heal, drain, judge.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::providers::{Operator, Provider};
use super::world::{Counts, Phase, World};
use crate::checker::{self, Verdict};
use crate::client::canary::WORD;
use crate::client::dial::Deployment;
use crate::events::FaultLog;
use crate::ledger::{Ledger, Record};
use crate::workload::{self, Shape};
use crate::{report, scan};

/// Before the first fault, and after the last one while load goes on.
const CALM: Duration = Duration::from_secs(5);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// After the last device has finished and before the stores are looked at: presence is renewed and erased in bulk.
const SETTLE: Duration = Duration::from_secs(3);

/// The stores are looked at for so long until they are empty: a lease of presence (60 s) and some more.
const PRESENCE: Duration = Duration::from_secs(75);

/// What an edge says when it ends a session because a routing contradicts itself.
const NONSENSE: &str = "routing sent what is no stanza";

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// For the report.
    pub variant: String,
    /// Of workload and schedule.
    pub seed: u64,
    /// How long load and faults go on.
    pub time: Duration,
    /// The drain takes at most this long.
    pub drain: Duration,
    /// The load.
    pub shape: Shape,
    /// Where everything of the run is kept.
    pub folder: PathBuf,
    /// Planted bug of the servers.
    pub planted: Option<String>,
    /// What a busy machine may miss is asserted, too.
    pub strict: bool,
    /// Lines of progress are printed.
    pub progress: bool,
}

/// Tells how many faults have begun, and how many of them have not been healed.
pub type FaultCounts = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

/// The deployment under test and what is done to it.
#[async_trait::async_trait]
pub trait Environment: Send {
    /// As clients know it.
    fn deployment(&self) -> Deployment;
    /// Its operator's API.
    fn operator(&self) -> Operator;
    /// Does faults until `stop`, then heals all of them and waits until everything serves.
    async fn disturb(&mut self, stop: Arc<AtomicBool>) -> anyhow::Result<()>;
    /// Tells how many faults have begun, and how many of them have not been healed.
    fn fault_counts(&self) -> FaultCounts;
    /// What the stores hold now: messages in mailboxes, devices in presence; `None`: there is no such store.
    async fn stores(&mut self) -> anyhow::Result<(Option<u64>, Option<u64>)>;
    /// Name, memory in bytes and descriptors of each process.
    fn usage(&self) -> Vec<(String, u64, u64)> {
        Vec::new()
    }
    /// Files with what the processes have logged.
    fn logs(&self) -> Vec<PathBuf>;
    /// Stops everything.
    async fn stop(&mut self) -> anyhow::Result<()>;
    /// Messages in mailboxes that only the stopped processes' files tell; `None`: [`stores`](Self::stores) has told.
    async fn left_behind(&mut self) -> anyhow::Result<Option<u64>> {
        Ok(None)
    }
}

/// Makes the run's folder. What an earlier run of this seed left there goes: its logs say where that one's servers were.
fn begin_anew(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::create_dir_all(folder)
}

/// Runs the plan. The environment is started by `start`, with the log of faults.
///
/// # Errors
/// The run could not be made, which says nothing about the deployment. What it did wrong is in the verdict.
pub async fn run<E, F, T>(plan: &Plan, start: F) -> anyhow::Result<Verdict>
where
    E: Environment,
    F: FnOnce(FaultLog) -> T,
    T: Future<Output = anyhow::Result<E>>,
{
    begin_anew(&plan.folder).with_context(|| plan.folder.display().to_string())?;
    let began = Instant::now();
    let ledger = Ledger::create(&plan.folder, began)?;
    let faults = FaultLog::create(&plan.folder, began)?;
    let (seed, variant, planted) = (plan.seed, plan.variant.clone(), plan.planted.clone());
    ledger.write(|_| Record::Run { seed, variant, planted });
    let mut environment = start(faults).await.context("start the deployment")?;
    let done = load(plan, &mut environment, &ledger, began).await;
    ledger.flush()?;
    let stopped = environment.stop().await;
    done?;
    // A process with a bug on purpose may not even leave in order.
    if plan.planted.is_none() {
        stopped.context("stop the deployment")?;
    }
    if let Some(mailbox) = environment.left_behind().await.context("look into the files that are left")? {
        ledger.write(|t| Record::Stores { t, mailbox: Some(mailbox), presence: None, took_ms: None });
        ledger.flush()?;
    }
    let (folder, strict) = (plan.folder.clone(), plan.strict);
    let (verdict, faults) = tokio::task::spawn_blocking(move || checker::check_folder(&folder, strict)).await??;
    report::write(&plan.folder, &verdict, &faults)?;
    Ok(verdict)
}

async fn load(plan: &Plan, environment: &mut impl Environment, ledger: &Ledger, began: Instant) -> anyhow::Result<()> {
    let (net, operator) = (environment.deployment(), environment.operator());
    let mut providers = Vec::new();
    for (domain, home) in [("home.example", true), ("birdy.example", false), ("crow.example", false)] {
        let folder = plan.folder.join("providers");
        providers.push(Provider::start(&folder, domain, home, &net.name, &operator).await?);
    }
    let accounts = workload::accounts(&plan.shape, &providers)?;
    let world = World::new(net, plan.seed, ledger.clone(), providers, accounts);
    let flushing = tokio::spawn(flush(ledger.clone()));
    workload::set_up(&world).await.context("set up accounts")?;
    say(plan, &format!("{:>5.0} s  {} accounts are set up", began.elapsed().as_secs_f64(), world.accounts.len()));

    usage(environment, &world, false);
    let stop_load = Arc::new(AtomicBool::new(false));
    let (shape, stop, talkers) = (plan.shape.clone(), Arc::clone(&stop_load), Arc::clone(&world));
    let talking = tokio::spawn(async move { workload::run(&talkers, &shape, &stop).await });
    let until = Instant::now() + plan.time;
    tokio::time::sleep(CALM.min(plan.time / 4)).await;
    let stop_faults = Arc::new(AtomicBool::new(false));
    {
        let (stop, faults) = (Arc::clone(&stop_faults), environment.fault_counts());
        let disturbing = environment.disturb(stop);
        tokio::pin!(disturbing);
        let mut printed = Instant::now();
        let mut before = world.counts.acknowledged();
        loop {
            let ended = tokio::time::timeout(Duration::from_millis(250), &mut disturbing).await;
            if let Ok(done) = ended {
                done.context("faults")?;
                break;
            }
            if Instant::now() + CALM.min(plan.time / 4) > until {
                stop_faults.store(true, Ordering::Relaxed);
            }
            if printed.elapsed() >= PROGRESS {
                before = progress(plan, &world.counts, began, (before, faults()), printed.elapsed());
                printed = Instant::now();
            }
        }
    }
    say(plan, &format!("{:>5.0} s  all faults are healed", began.elapsed().as_secs_f64()));
    tokio::time::sleep(CALM.min(plan.time / 4)).await;
    stop_load.store(true, Ordering::Relaxed);
    talking.await?.context("the load")?;
    drain(plan, &world, began).await;
    usage(environment, &world, true);
    tokio::time::sleep(SETTLE).await;
    look(plan, environment, &world).await?;
    flushing.abort();
    Ok(())
}

/// Lets every device finish, and waits for it.
async fn drain(plan: &Plan, world: &Arc<World>, began: Instant) {
    ledger_line(world, |t| Record::Drain { t });
    world.phase.send_replace(Phase::Drain);
    let deadline = Instant::now() + plan.drain;
    let all = || world.accounts.iter().map(|account| account.devices().len() as u64).sum::<u64>();
    let (mut printed, mut before) = (Instant::now(), world.counts.acknowledged());
    let fetcher = Arc::clone(world);
    let mut fetching = tokio::spawn(async move { workload::media::fetch_all(&fetcher, deadline).await });
    while world.counts.drained.load(Ordering::Relaxed) < all() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if printed.elapsed() >= PROGRESS {
            before = progress(plan, &world.counts, began, (before, (0, 0)), printed.elapsed());
            printed = Instant::now();
        }
    }
    // Sessions are needed until then.
    if tokio::time::timeout_at(deadline, &mut fetching).await.is_err() {
        fetching.abort();
    }
    let finished = world.counts.drained.load(Ordering::Relaxed);
    say(plan, &format!("{:>5.0} s  {finished} of {} devices have finished", began.elapsed().as_secs_f64(), all()));
}

/// What is left in stores and logs.
async fn look(plan: &Plan, environment: &mut impl Environment, world: &Arc<World>) -> anyhow::Result<()> {
    world.phase.send_replace(Phase::Stop);
    // Sessions end and presence follows; what a replica that has died has told of sessions ends with its lease.
    let stopped = Instant::now();
    let (mailbox, presence, took_ms) = loop {
        let (mailbox, presence) = environment.stores().await.context("look into the stores")?;
        let empty = mailbox.unwrap_or(0) == 0 && presence.unwrap_or(0) == 0;
        if empty || stopped.elapsed() > PRESENCE {
            let took = empty.then(|| stopped.elapsed().as_millis());
            break (mailbox, presence, took.and_then(|took| u64::try_from(took).ok()));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    ledger_line(world, |t| Record::Stores { t, mailbox, presence, took_ms });
    let (lines, found) = scan::logs(&environment.logs(), &[WORD, NONSENSE])?;
    ledger_line(world, |t| Record::Logs { t, lines });
    for (file, line) in found {
        ledger_line(world, |t| Record::Log { t, file, line });
    }
    ledger_line(world, |t| Record::End { t });
    say(plan, &format!("        mailboxes hold {mailbox:?}, presence {presence:?}"));
    Ok(())
}

/// What the processes use now.
fn usage(environment: &impl Environment, world: &World, last: bool) {
    for (name, bytes, files) in environment.usage() {
        ledger_line(world, |t| Record::Usage { t, name, bytes, files, last });
    }
}

fn ledger_line(world: &World, record: impl FnOnce(u64) -> Record) {
    world.ledger.write(record);
}

async fn flush(ledger: Ledger) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        if let Err(error) = ledger.flush() {
            tracing::error!(error = format!("{error:#}"), "the ledger cannot be written");
        }
    }
}

/// Prints how it goes; gives the acknowledged messages so far.
fn progress(
    plan: &Plan,
    counts: &Counts,
    began: Instant,
    (before, (faults, ill)): (u64, (u64, u64)),
    since: Duration,
) -> u64 {
    let get = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let acknowledged = counts.acknowledged();
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    let rate = (acknowledged - before) as f64 / since.as_secs_f64();
    let submitted = get(&counts.submitted);
    let decided = acknowledged + get(&counts.dropped) + get(&counts.rejected);
    say(
        plan,
        &format!(
            "{:>5.0} s  {faults} faults ({ill} now); {acknowledged} acknowledged ({rate:.0}/s), {} open, {} rejected, {} dropped, {} again, {} shed; {} sessions, {} logins; {} files up, {} down",
            began.elapsed().as_secs_f64(),
            submitted.saturating_sub(decided),
            get(&counts.rejected),
            get(&counts.dropped),
            get(&counts.again),
            get(&counts.shed),
            get(&counts.sessions),
            get(&counts.logins),
            get(&counts.uploads),
            get(&counts.downloads),
        ),
    );
    acknowledged
}

#[expect(clippy::print_stdout, reason = "what the person who started it reads")]
fn say(plan: &Plan, line: &str) {
    if plan.progress {
        println!("{line}");
    }
}

/// A folder for a run, named by variant and seed, below `parent`.
pub fn folder(parent: &Path, variant: &str, seed: u64) -> PathBuf {
    parent.join(format!("{variant}-{seed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_earlier_run_is_left() {
        let out = tempfile::TempDir::new().unwrap();
        let folder = folder(out.path(), "one", 1);
        begin_anew(&folder).unwrap();
        std::fs::create_dir(folder.join("logs")).unwrap();
        std::fs::write(folder.join("logs/edge.log"), "ready").unwrap();
        begin_anew(&folder).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }
}
