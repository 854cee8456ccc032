//! The log, read and told to followers and to the observer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::reign::{Over, Reign};
#[cfg(test)]
use super::simulation;
use super::{Entry, LogError, Observer, Peers, Read, Task};
use crate::changes::Change;

/// Entries in one reading of the log.
const BATCH: usize = 500;

impl Peers {
    /// Reads the log to its end and tells of what is new.
    pub(super) async fn read(&self, reign: &mut Reign) -> Result<ControlFlow<Over>, LogError> {
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
    pub(super) fn catch_up(&self, reign: &mut Reign) {
        let observer = Arc::clone(&self.observer);
        reign.catching_up = Some(Task::spawn(anything_changed(observer, self.settings.poll)));
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
