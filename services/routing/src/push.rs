//! Webhooks that wake devices: when a message waits for a device that is not here and has left a push token, its own
//! provider is told so. The call (Standard Webhooks, signed with the provider's secret) says which token and whether it
//! is urgent; neither what waits nor from whom, and no address.
//!
//! One call per device and interval; what fails is tried again under the same id, ever more rarely. A provider that
//! cannot be reached is left alone for a while as a whole, and takes nothing from the others. What is queued lives in
//! memory: after a restart the next message for a device wakes it.

mod queue;
mod send;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_fetch::Fetcher;
use causeway_identity::{AccountId, DeviceId, Domain};
use causeway_runtime::clock::SharedClock;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::RoutingConfig;
use crate::error::RoutingError;
use crate::metrics::Metrics;
use crate::records::Records;
use crate::trails::Trails;

pub(crate) use queue::Wake;
use queue::{Key, Queue, QueueBounds};
use send::{Sender, Sent};

/// Wakes devices; cheap to clone.
#[derive(Clone)]
pub(crate) struct Pusher(Arc<Inner>);

struct Inner {
    queue: Mutex<Queue>,
    /// There may be something to do.
    stirred: Notify,
    sender: Sender,
    metrics: Metrics,
    trails: Arc<Trails>,
}

impl Pusher {
    pub(crate) fn new(
        config: &RoutingConfig,
        records: Records,
        clock: SharedClock,
        metrics: Metrics,
        trails: Arc<Trails>,
    ) -> Result<Self, RoutingError> {
        let fetcher = Fetcher::new(config.fetch.clone()).map_err(|error| RoutingError::Fetch(error.to_string()))?;
        let bounds = QueueBounds {
            devices: config.push_queue,
            at_a_time: config.push_concurrency,
            per_provider: config.push_concurrency_per_provider,
            interval: Duration::from_millis(config.push_interval_ms),
            give_up: Duration::from_millis(config.push_give_up_ms),
        };
        let sender = Sender::new(fetcher, records, clock);
        let inner = Inner { queue: Mutex::new(Queue::new(bounds)), stirred: Notify::new(), sender, metrics, trails };
        Ok(Self(Arc::new(inner)))
    }

    /// A message waits for this device.
    pub(crate) fn wake(&self, provider: &Domain, account: AccountId, device: DeviceId, wake: Wake) {
        if self.queue().wake(provider, Key { account, device }, wake, Instant::now()) {
            self.0.stirred.notify_one();
        } else {
            self.0.metrics.webhook_sent("no-room", None);
        }
    }

    /// The device is here: it needs no waking.
    pub(crate) fn is_here(&self, provider: &Domain, account: AccountId, device: DeviceId) {
        self.queue().forget(provider, Key { account, device });
    }

    /// Devices that wait to be woken, or have just been.
    pub(crate) fn queued(&self) -> usize {
        self.queue().len()
    }

    /// Something of the provider changed: its webhook is looked up again, and it is tried at once.
    pub(crate) fn forget_provider(&self, provider: &Domain) {
        self.0.sender.forget(provider);
        self.queue().unblock(provider);
        self.0.stirred.notify_one();
    }

    /// Sends what is due until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        loop {
            let (due, next) = self.queue().take_due(Instant::now());
            for (provider, key, job) in due {
                let this = self.clone();
                let stop = stop.clone();
                tasks.spawn(async move {
                    let since = Instant::now();
                    this.0.trails.push_sent(key.account, key.device);
                    let sent = tokio::select! {
                        sent = this.0.sender.send(&provider, &job) => sent,
                        () = stop.cancelled() => return,
                    };
                    this.0.metrics.webhook_sent(sent.name(), Some(since.elapsed()));
                    this.0.trails.push_answered(key.account, key.device, sent.name());
                    this.queue().done(&provider, key, sent, Instant::now());
                    this.0.stirred.notify_one();
                });
            }
            let wait = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.stirred.notified() => {}
                () = wait => {}
                () = stop.cancelled() => break,
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names the outcome of a call for the queue.
impl Sent {
    const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Nowhere => "nowhere",
            Self::Failed { .. } => "failed",
        }
    }
}
