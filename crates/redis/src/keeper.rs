//! Makes the connection, watches over it and makes it anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use causeway_runtime::sentence;
use rand::TryRngCore as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::connect::{Connection, Connector};
use crate::handle::Holds;
use crate::health::Health;
use crate::policy;

/// A connection that commands may use.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    /// Something came back that shows that it is of no more use.
    broken: AtomicBool,
    /// Wakes the keeper.
    doubts: Arc<Notify>,
}

impl Link {
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// No more commands on it; the keeper makes another.
    pub(crate) fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
        self.doubts.notify_one();
    }

    /// Something took too long: the keeper has a look.
    pub(crate) fn doubt(&self) {
        self.doubts.notify_one();
    }
}

/// The task behind all handles of one Redis.
pub(crate) struct Keeper {
    pub(crate) connector: Arc<Connector>,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) probe_key: String,
    pub(crate) part: &'static str,
    pub(crate) holds: Holds,
    pub(crate) link: watch::Sender<Option<Arc<Link>>>,
    pub(crate) health: watch::Sender<Health>,
}

impl Keeper {
    /// Never ends: whoever starts it aborts it.
    pub(crate) async fn run(self) {
        let (mut attempt, mut failures, mut advice) = (0_usize, 0_u32, policy::Advice::default());
        loop {
            match self.connect(attempt).await {
                Ok(link) => {
                    failures = 0;
                    self.link.send_replace(Some(Arc::clone(&link)));
                    self.up();
                    advice.look(&link.connection, self.part, self.holds, self.command_timeout).await;
                    let why = self.watch(&link).await;
                    self.link.send_replace(None);
                    self.degraded(why);
                }
                Err(why) => {
                    failures = failures.saturating_add(1);
                    self.degraded(why);
                    sleep(pause(failures)).await;
                }
            }
            attempt = attempt.wrapping_add(1);
        }
    }

    async fn connect(&self, attempt: usize) -> Result<Arc<Link>, String> {
        let connected = timeout(self.connect_timeout, self.connector.connect(attempt)).await;
        let connection = connected.map_err(|_| "no connection in time".to_owned())?.map_err(|e| text(&e))?;
        self.probe(&connection).await?;
        Ok(Arc::new(Link { connection, broken: AtomicBool::new(false), doubts: Arc::new(Notify::new()) }))
    }

    /// Returns when the link is of no more use, with the reason.
    async fn watch(&self, link: &Link) -> String {
        loop {
            tokio::select! {
                () = link.doubts.notified() => {}
                () = sleep(PROBE_EACH) => {}
            }
            if link.is_broken() {
                return "the connection was lost, or leads to a server that takes no writes".to_owned();
            }
            if let Err(why) = self.probe(&link.connection).await {
                return why;
            }
        }
    }

    async fn probe(&self, connection: &Connection) -> Result<(), String> {
        let probed = timeout(self.command_timeout, connection.probe(&self.probe_key)).await;
        probed.map_err(|_| "no answer in time".to_owned())?.map_err(|error| text(&error))
    }

    fn up(&self) {
        let now = Instant::now();
        let before = self.health.send_replace(Health::Up { since: now });
        if let Health::Degraded { since, .. } = before {
            let ms = u64::try_from(now.duration_since(since).as_millis()).unwrap_or(u64::MAX);
            tracing::info!(part = self.part, after_ms = ms, "redis answers");
        }
    }

    fn degraded(&self, why: String) {
        let was_up_or_new = |health: &Health| match health {
            Health::Up { .. } => true,
            Health::Degraded { why, .. } => why == NOT_YET,
        };
        if !was_up_or_new(&self.health.borrow()) {
            return;
        }
        tracing::warn!(part = self.part, why, "redis does not answer; docs/redis.md says what goes on without it");
        self.health.send_replace(Health::Degraded { since: Instant::now(), why });
    }
}

/// Why it is not up before the first attempt has ended.
pub(crate) const NOT_YET: &str = "not connected yet";
const PROBE_EACH: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Longer after each failure, and from half to all of it, so that many processes do not come as one.
pub(crate) fn pause(failures: u32) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << failures.min(8).saturating_sub(1)).min(LONGEST_PAUSE);
    let random = rand::rngs::OsRng.try_next_u32().unwrap_or(u32::MAX);
    whole.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

fn text(error: &redis::RedisError) -> String {
    let mut text = sentence::of(error);
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

const MAX_TEXT: usize = 200;
