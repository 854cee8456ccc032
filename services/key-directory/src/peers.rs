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

mod log;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use causeway_identity::Domain;
use causeway_redis::{Redis, WakeUps};
use causeway_runtime::health::{Health, Part};
use rand::rngs::OsRng;
use rand::{Rng as _, RngCore as _, TryRngCore as _};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use log::{Entry, Log, LogError, Peer, Place, Read, ReplicaId};

use crate::changes::{Change, Changes, Followers, Moment, Settled, Waiting};

/// Entries in one reading of the log.
const BATCH: usize = 500;
/// While somebody waits for other directories, they are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Leases are taken for shorter by this part, so that clocks may run at different speeds.
const CAUTION: u32 = 20;
/// A lease is renewed so many times while it lasts.
const RENEWALS: u32 = 8;
/// What is older is of no use to anybody who still has a lease.
const KEEP_FOR: Duration = Duration::from_secs(10 * 60);
const KEEP_MOST: u64 = 100_000;
const TRIM_EVERY: Duration = Duration::from_secs(60);
/// A directory that closes stays for at least this long, for calls that are about to commit a change.
const LINGER: Duration = Duration::from_millis(250);
/// A directory that closes waits no longer for an answer of the store, and after a first one that fails for no other: whoever
/// waits for a confirmation then is not told of it, and the registration runs out by itself.
const HURRY: Duration = Duration::from_secs(1);
/// In the health of the process.
const PART: &str = "directory.replicas";
const CHANNEL: &str = "directory-changes";

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

/// One registration of this directory.
struct Reign {
    id: ReplicaId,
    /// What has been read.
    place: Place,
    /// What has been written of what followers are done with.
    confirmed: u64,
    /// When the last renewal that succeeded was asked for.
    renewed: Moment,
    /// When the last reading that succeeded began.
    read: Instant,
    /// When the others were looked at.
    looked: Instant,
    /// Others, as they were seen first with these renewals.
    seen: HashMap<ReplicaId, (u64, Instant)>,
    /// Tells the observer that anything may have changed.
    catching_up: Option<Task>,
    closing: CancellationToken,
    /// The store has failed, which the log says, and not worked since.
    troubled: bool,
}

impl Reign {
    /// Has the store asked something: it has half of the lease for it, and less time when the directory closes.
    async fn ask<T>(
        &self,
        lease: Duration,
        asked: impl Future<Output = Result<T, LogError>> + Send,
    ) -> Result<T, LogError> {
        let hurry = async {
            self.closing.cancelled().await;
            tokio::time::sleep(HURRY).await;
        };
        tokio::select! {
            biased;
            answer = timeout(lease / 2, asked) => answer.unwrap_or_else(|_| Err(too_slow())),
            () = hurry => Err(too_slow()),
        }
    }

    /// What fails each few milliseconds is logged once.
    fn failed(&mut self, what: &'static str, error: &LogError) {
        if std::mem::replace(&mut self.troubled, true) {
            tracing::debug!(what, %error, "the store still does not answer");
        } else {
            tracing::warn!(what, %error, "the store does not answer; it is asked again until it does");
        }
    }

    fn worked(&mut self) {
        if std::mem::take(&mut self.troubled) {
            tracing::info!("the store answers again");
        }
    }

    fn is_catching_up(&self) -> bool {
        self.catching_up.as_ref().is_some_and(|task| !task.0.is_finished())
    }
}

/// The registration is over.
struct Over;

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

    /// `None`: closing.
    async fn register(&self, health: &Health, closing: &CancellationToken) -> Option<Reign> {
        loop {
            let mut id = [0; 16];
            OsRng.unwrap_err().fill_bytes(&mut id);
            let (id, asked) = (ReplicaId(id), self.followers.now());
            let registering = timeout(self.settings.lease, self.log.register(id, self.settings.lease));
            let registered = tokio::select! {
                registered = registering => registered.unwrap_or_else(|_| Err(too_slow())),
                () = closing.cancelled() => return None,
            };
            match registered {
                Ok(place) => {
                    self.begin(place, asked);
                    tracing::info!(replica = ?id, number = place.number, "registered among the directories of the store");
                    return Some(Reign {
                        id,
                        place,
                        confirmed: place.number,
                        renewed: asked,
                        read: asked.at,
                        looked: asked.at,
                        seen: HashMap::new(),
                        catching_up: None,
                        closing: closing.clone(),
                        troubled: false,
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot register among the directories of the store");
                    health.report(PART, away());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.settings.poll) => {}
                () = closing.cancelled() => return None,
            }
        }
    }

    fn begin(&self, place: Place, asked: Moment) {
        #[cfg(test)]
        if self.planted == Some(simulation::Planted::KeepsItsFollowers) && self.followers.last_number() > 0 {
            self.followers.extend(self.good_until(asked));
            self.followers.pass(place.number);
            return;
        }
        self.followers.begin(place.number, self.good_until(asked));
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

    /// Reads the log to its end and tells of what is new.
    async fn read(&self, reign: &mut Reign) -> Result<ControlFlow<Over>, LogError> {
        let (came, began) = (self.waiting.came(), Instant::now());
        loop {
            let reading = reign.ask(self.settings.lease, self.log.read(reign.place, BATCH)).await;
            let Read::Entries(entries) = reading? else {
                tracing::warn!(number = reign.place.number, "the log of changes has a gap here");
                return Ok(ControlFlow::Break(Over));
            };
            let complete = entries.len() < BATCH;
            for entry in entries {
                self.tell(reign, entry).await;
            }
            if complete {
                break;
            }
        }
        reign.read = began;
        self.waiting.found(came, reign.place.number);
        Ok(ControlFlow::Continue(()))
    }

    async fn tell(&self, reign: &mut Reign, Entry { place, change }: Entry) {
        #[cfg(test)]
        if self.planted == Some(simulation::Planted::SkipsANumber) && place.number.is_multiple_of(7) {
            self.followers.pass(place.number);
            reign.place = place;
            return;
        }
        match &change {
            Some(Change::Record { .. }) => {}
            Some(Change::Provider { domain } | Change::TokenKeys { domain }) if !reign.is_catching_up() => {
                // Bounded, because this directory renews nothing meanwhile.
                let told = timeout(self.settings.lease / 4, self.observer.provider_changed(domain)).await;
                if !matches!(told, Ok(Ok(()))) {
                    self.catch_up(reign);
                }
            }
            // Of a version that knows more, or trimmed; or one that a reading which is under way may have missed.
            Some(Change::Provider { .. } | Change::TokenKeys { .. }) | None => self.catch_up(reign),
        }
        match change {
            Some(Change::TokenKeys { .. }) => self.followers.pass(place.number),
            Some(change) => self.followers.publish(place.number, &change),
            None => self.followers.begin(place.number, self.good_until(reign.renewed)),
        }
        reign.place = place;
    }

    /// Has everything read that the observer knows; one that is under way begins again.
    fn catch_up(&self, reign: &mut Reign) {
        let observer = Arc::clone(&self.observer);
        reign.catching_up = Some(Task::spawn(anything_changed(observer, self.settings.poll)));
    }

    /// Renews the registration when it is time, or when followers are done with more.
    async fn renew(&self, reign: &mut Reign, settled: u64, hints: &Hints) -> Result<ControlFlow<Over>, LogError> {
        let lease = self.settings.lease;
        let more = settled > reign.confirmed;
        // Who cannot read does not stay: others would wait for what this directory cannot tell its followers.
        let can_read = reign.read.elapsed() < lease / 2;
        if !can_read || (!more && reign.renewed.at.elapsed() < lease / RENEWALS) {
            return Ok(ControlFlow::Continue(()));
        }
        let asked = self.followers.now();
        if !reign.ask(lease, self.log.renew(reign.id, lease, settled)).await? {
            return Ok(ControlFlow::Break(Over));
        }
        reign.renewed = asked;
        reign.confirmed = reign.confirmed.max(settled);
        self.followers.extend(self.good_until(asked));
        if more {
            hints.tell();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Tells those who wait for what all directories have confirmed, and ends registrations that nobody renews.
    async fn confirm(&self, reign: &mut Reign, settled: u64) -> Result<(), LogError> {
        let wanted = self.waiting.wanted(settled);
        if wanted.is_none() && reign.looked.elapsed() < self.settings.lease / RENEWALS {
            return Ok(());
        }
        let peers = reign.ask(self.settings.lease, self.log.peers()).await?;
        let now = Instant::now();
        reign.looked = now;
        reign.seen.retain(|id, _| peers.iter().any(|peer| peer.id == *id));
        let mut confirmed = u64::MAX;
        for peer in peers.iter().filter(|peer| peer.id != reign.id) {
            let seen = reign.seen.entry(peer.id).or_insert((peer.renewals, now));
            if seen.0 != peer.renewals {
                *seen = (peer.renewals, now);
            }
            let unchanged_since = seen.1;
            let ended = unchanged_since + peer.lasts <= now;
            if ended && reign.ask(self.settings.lease, self.log.end(peer)).await? {
                tracing::warn!(replica = ?peer.id, "another directory's lease has ended");
                continue;
            }
            confirmed = confirmed.min(peer.confirmed);
        }
        #[cfg(test)]
        if self.planted == Some(simulation::Planted::WaitsForNobody) {
            confirmed = u64::MAX;
        }
        if let Some(wanted) = wanted {
            self.waiting.confirm(confirmed.min(wanted));
        }
        Ok(())
    }

    /// Others need not wait for this directory longer than its followers trust their caches.
    async fn leave(&self, reign: &Reign) {
        self.followers.end();
        let trusted = self.followers.trusted_until().map(|until| until.saturating_duration_since(Instant::now()));
        let left = self.log.leave(reign.id, trusted.unwrap_or_default());
        if !matches!(timeout(HURRY.min(self.settings.lease / 4), left).await, Ok(Ok(()))) {
            tracing::debug!("the registration was not ended; it runs out by itself");
        }
    }

    /// The end of a lease that was asked for then.
    fn good_until(&self, asked: Moment) -> Moment {
        #[cfg(test)]
        if self.planted == Some(simulation::Planted::GrantsBeyondItsLease) {
            return asked.after(3 * self.settings.lease);
        }
        asked.after(self.settings.lease - self.settings.lease / CAUTION)
    }
}

/// Hints between directories; without Redis there are none.
struct Hints {
    redis: Option<Redis>,
    wake_ups: Option<WakeUps>,
}

impl Hints {
    fn listen(redis: Option<&Redis>) -> Self {
        Self { redis: redis.cloned(), wake_ups: redis.map(|redis| redis.wake_ups(CHANNEL)) }
    }

    async fn next(&mut self) {
        match &mut self.wake_ups {
            Some(wake_ups) => wake_ups.next().await,
            None => std::future::pending().await,
        }
    }

    /// In the background: nobody waits for a hint.
    fn tell(&self) {
        if let Some(redis) = self.redis.clone().filter(Redis::is_up) {
            tokio::spawn(async move {
                // The log is read anyway.
                let _unheard = redis.wake(CHANNEL).await;
            });
        }
    }
}

async fn anything_changed(observer: Arc<dyn Observer>, pause: Duration) {
    let mut said = false;
    while let Err(error) = observer.anything_changed().await {
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(%error, "providers could not be read anew; it is tried again until they can");
        }
        tokio::time::sleep(pause).await;
    }
}

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

fn too_slow() -> LogError {
    LogError("the store took too long".to_owned())
}

/// A task that ends with what it is for.
pub(crate) struct Task(tokio::task::JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    /// Resolves when it has, by a panic too.
    pub(crate) async fn ended(&mut self) {
        let _panicked = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
