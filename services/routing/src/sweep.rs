//! Erases what has expired, forgets senders that are idle, and measures what waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::mailbox::{Depth, StoreError};
use crate::recipient::actor::Shared;

/// Entries erased in one transaction, so that a sweep does not hold up messages.
const BATCH: u32 = 500;

/// What waited in the mailbox when it was looked at last; see [`Mailbox::depth`](crate::mailbox::Mailbox::depth).
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Option<Depth>>);

impl Seen {
    /// `None` before the first look, and after one that failed.
    pub(crate) fn get(&self) -> Option<Depth> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, depth: Option<Depth>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = depth;
    }
}

/// Runs until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, seen: Arc<Seen>, every: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        shared.limits.sent.tidy();
        shared.strangers.refused.tidy();
        shared.trails.tidy().await;
        loop {
            let erased = tokio::select! {
                erased = shared.mailbox.expire(shared.clock.now_ms(), BATCH) => erased,
                // However much is left: the next process goes on with it.
                () = stop.cancelled() => return,
            };
            match erased {
                Ok(erased) => {
                    shared.metrics.expired(erased);
                    if erased < u64::from(BATCH) {
                        break;
                    }
                }
                // Its thread is gone, and with it everything that could be promised.
                Err(StoreError::Closed) => {
                    tracing::error!("the mailbox has ended by itself");
                    return;
                }
                Err(error) => {
                    shared.metrics.store_failed(&error);
                    break;
                }
            }
        }
        tokio::select! {
            depth = shared.mailbox.depth() => seen.set(depth.ok()),
            () = stop.cancelled() => return,
        }
    }
}
