//! Erases what has expired, and forgets senders that are idle.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::mailbox::StoreError;
use crate::recipient::actor::Shared;

/// Entries erased in one transaction, so that a sweep does not hold up messages.
const BATCH: u32 = 500;

/// Runs until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, every: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        shared.limits.tidy();
        shared.strangers.tidy();
        loop {
            let erased = tokio::select! {
                erased = shared.mailbox.expire(shared.clock.now_ms(), BATCH) => erased,
                // However much is left: the next process goes on with it.
                () = stop.cancelled() => return,
            };
            match erased {
                Ok(erased) if erased >= u64::from(BATCH) => {}
                Ok(_) => break,
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
    }
}
