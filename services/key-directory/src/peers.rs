//! Several directories on one store: how each learns of the changes that any of them makes, and when a change has been
//! confirmed by all of them (docs/replicas.md).
//!
//! What is committed with a change is an entry in the store's log. Each directory reads the log, tells its followers,
//! and writes into its row of the register up to which number none of them acts on what was before. A change counts when
//! every row has reached its number.
//!
//! A row that is not renewed is ended, by whichever directory waits for it, and only then does nobody wait for it any
//! more. The rules that make this safe:
//!
//! - A directory counts its lease from before it asked for it, and grants its followers nothing beyond its end. It asks
//!   for further ones only while it can read the log.
//! - Another directory ends a row that it has seen unchanged for as long as the row says, by a monotonic clock of its
//!   own. The store's clock is not used: it may be set, and after a fail-over it is another one.
//! - To end a row is to delete it if it is still as it was seen, in one step with the check; a renewal finds no row then.
//!   So a lease has either been renewed or ended, never both, and one that has ended is never revived: the directory
//!   cuts off its followers and registers anew, under another id, at the end of the log.
//! - A row that was added later needs no waiting for: whatever its followers cache, they read it after that.
//!
//! Hints from Redis make a directory read at once; without them it reads each `poll`.

mod hints;
mod log;
mod reading;
mod registration;
mod reign;
#[cfg(test)]
mod simulation;
mod task;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use causeway_identity::Domain;
use causeway_redis::Redis;
use causeway_runtime::health::{Health, Part};
use rand::rngs::OsRng;
use rand::{Rng as _, TryRngCore as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use log::{Entry, Log, LogError, Peer, Place, Read, ReplicaId};
pub(crate) use task::Task;

use self::hints::Hints;
use self::reign::{Over, Reign};
use crate::changes::{Changes, Followers, Settled, Waiting};

/// While somebody waits for other directories, they are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// A directory that closes stays for at least this long, for calls that are about to commit a change.
const LINGER: Duration = Duration::from_millis(250);
/// In the health of the process.
const PART: &str = "directory.replicas";

/// How a directory takes part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// The log is read at least this often.
    pub(crate) poll: Duration,
    /// How long this directory's registration lasts without renewal.
    pub(crate) lease: Duration,
}

/// What else in this process wants to know of changes, whoever made them.
#[async_trait]
pub(crate) trait Observer: Send + Sync + 'static {
    /// Something of this provider, or its keys, changed.
    async fn provider_changed(&self, domain: &Domain) -> Result<(), LogError>;
    /// Anything may have changed.
    async fn anything_changed(&self) -> Result<(), LogError>;
}

/// This directory's part.
pub(crate) struct Peers {
    log: Arc<dyn Log>,
    followers: Followers,
    waiting: Arc<Waiting>,
    observer: Arc<dyn Observer>,
    redis: Option<Redis>,
    settings: Settings,
    #[cfg(test)]
    planted: Option<simulation::Planted>,
}

impl Peers {
    /// `followers` are those of [`Followers::shared`].
    pub(crate) fn new(
        log: Arc<dyn Log>,
        followers: Followers,
        observer: Arc<dyn Observer>,
        redis: Option<Redis>,
        settings: Settings,
    ) -> Self {
        let waiting = Arc::default();
        #[cfg(not(test))]
        return Self { log, followers, waiting, observer, redis, settings };
        #[cfg(test)]
        Self { log, followers, waiting, observer, redis, settings, planted: None }
    }

    /// What tells of changes, and waits for them.
    pub(crate) fn changes(&self) -> Changes {
        Changes::shared(self.followers.clone(), Arc::clone(&self.waiting))
    }

    /// Takes part until `closing`, and then until those who wait have been told, or a lease has passed.
    pub(crate) async fn run(self, health: Health, closing: CancellationToken) {
        let mut hints = Hints::listen(self.redis.as_ref());
        let trimming = Task::spawn(trim(Arc::clone(&self.log)));
        while let Some(mut reign) = self.register(&health, &closing).await {
            // Changes that were made before this directory registered have been read by nobody here.
            self.catch_up(&mut reign);
            let closed = self.reign(&mut reign, &mut hints, &health, &closing).await;
            if closed {
                drop(trimming);
                self.leave(&reign).await;
                return;
            }
            tracing::warn!("this directory has lost its place among the directories of its store, and begins anew");
            #[cfg(test)]
            if self.planted == Some(simulation::Planted::KeepsItsFollowers) {
                continue;
            }
            self.followers.end();
        }
        self.followers.end();
    }

    /// Until the registration is over (false), or this directory closes (true).
    async fn reign(&self, reign: &mut Reign, hints: &mut Hints, health: &Health, closing: &CancellationToken) -> bool {
        let mut read_at = Instant::now();
        let mut close_by: Option<Instant> = None;
        loop {
            let progress = self.followers.progress();
            tokio::pin!(progress);
            progress.as_mut().enable();

            let mut failed = false;
            let mut asked = false;
            if read_at <= Instant::now() {
                asked = true;
                match self.read(reign).await {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(Over)) => return false,
                    Err(error) => {
                        failed = true;
                        reign.failed("the log of changes", &error);
                    }
                }
                read_at = Instant::now() + self.settings.poll;
            }
            let settled = self.followers.settled();
            match self.renew(reign, settled.number, hints).await {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(Over)) => return false,
                Err(error) => {
                    failed = true;
                    reign.failed("the lease of this directory", &error);
                }
            }
            if let Err(error) = self.confirm(reign, settled.number).await {
                failed = true;
                reign.failed("the other directories", &error);
            }
            if failed && closing.is_cancelled() {
                return true;
            }
            if asked && !failed {
                reign.worked();
            }

            let holds = reign.renewed.at.elapsed() < self.settings.lease;
            health.report(PART, if holds { Part::Up } else { away() });

            if closing.is_cancelled() {
                let by = *close_by.get_or_insert_with(|| Instant::now() + self.settings.lease);
                let lingered = by <= Instant::now() + self.settings.lease - LINGER;
                if by <= Instant::now() || (lingered && !self.waiting.is_waited_for()) {
                    return true;
                }
            }
            let look_at = self.look_at(read_at, &settled);
            tokio::select! {
                biased;
                () = self.waiting.somebody_new() => {
                    read_at = Instant::now();
                    hints.tell();
                }
                () = hints.next() => read_at = Instant::now(),
                () = progress => {}
                () = tokio::time::sleep_until(look_at) => {}
                () = closing.cancelled(), if close_by.is_none() => {}
            }
        }
    }

    /// When there may be something to do without anybody's doing.
    fn look_at(&self, read_at: Instant, settled: &Settled) -> Instant {
        let mut look_at = read_at;
        if self.waiting.wanted(settled.number).is_some() {
            look_at = look_at.min(Instant::now() + LOOK_EVERY);
        }
        settled.look_again.map_or(look_at, |again| look_at.min(again))
    }
}

/// What is older is of no use to anybody who still has a lease.
const KEEP_FOR: Duration = Duration::from_secs(10 * 60);
const KEEP_MOST: u64 = 100_000;
const TRIM_EVERY: Duration = Duration::from_secs(60);

async fn trim(log: Arc<dyn Log>) {
    loop {
        // Not all directories at the same time.
        let pause = TRIM_EVERY.mul_f64(OsRng.unwrap_err().random_range(0.5..1.5));
        tokio::time::sleep(pause).await;
        if let Err(error) = log.trim(KEEP_FOR, KEEP_MOST).await {
            tracing::debug!(%error, "the log of changes was not trimmed");
        }
    }
}

fn away() -> Part {
    Part::Degraded("records cannot be followed here, and changes of them are not confirmed".to_owned())
}
