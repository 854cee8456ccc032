//! This directory's row in the register: how it comes to be, is renewed, and is ended; and when those of others are.

use std::collections::HashMap;
use std::ops::ControlFlow;

use causeway_runtime::health::Health;
use rand::rngs::OsRng;
use rand::{RngCore as _, TryRngCore as _};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::hints::Hints;
use super::reign::{HURRY, Over, Reign, too_slow};
#[cfg(test)]
use super::simulation;
use super::{LogError, PART, Peers, Place, ReplicaId, away};
use crate::changes::Moment;

/// Leases are taken for shorter by this part, so that clocks may run at different speeds.
const CAUTION: u32 = 20;
/// A lease is renewed so many times while it lasts.
const RENEWALS: u32 = 8;

impl Peers {
    /// `None`: closing.
    pub(super) async fn register(&self, health: &Health, closing: &CancellationToken) -> Option<Reign> {
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

    /// Renews the registration when it is time, or when followers are done with more.
    pub(super) async fn renew(
        &self,
        reign: &mut Reign,
        settled: u64,
        hints: &Hints,
    ) -> Result<ControlFlow<Over>, LogError> {
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
    pub(super) async fn confirm(&self, reign: &mut Reign, settled: u64) -> Result<(), LogError> {
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
    pub(super) async fn leave(&self, reign: &Reign) {
        self.followers.end();
        let trusted = self.followers.trusted_until().map(|until| until.saturating_duration_since(Instant::now()));
        let left = self.log.leave(reign.id, trusted.unwrap_or_default());
        if !matches!(timeout(HURRY.min(self.settings.lease / 4), left).await, Ok(Ok(()))) {
            tracing::debug!("the registration was not ended; it runs out by itself");
        }
    }

    /// The end of a lease that was asked for then.
    pub(super) fn good_until(&self, asked: Moment) -> Moment {
        #[cfg(test)]
        if self.planted == Some(simulation::Planted::GrantsBeyondItsLease) {
            return asked.after(3 * self.settings.lease);
        }
        asked.after(self.settings.lease - self.settings.lease / CAUTION)
    }
}
