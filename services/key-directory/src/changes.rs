//! What followers of records are told, and when a change counts: the way in which a narrower setting reaches every
//! routing before it is confirmed.
//!
//! A change is committed to the store first, then told to those who follow this directory (`followers`), then confirmed:
//! nobody acts on the older record any more.
//!
//! A directory that has its store for itself numbers the changes as it tells of them. Several that share a store take
//! the numbers from the store's log and tell of changes as they come out of it, whoever made them; a change is confirmed
//! when all of them have confirmed it (`peers`). What waits for that is kept in `waiting`.

mod followers;
pub(crate) mod payload;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId, Domain};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
pub(crate) use followers::TRANSIT;
pub(crate) use followers::{Cut, Ear, Followers, Following, Moment, Next, Settled};
pub(crate) use waiting::Waiting;

use crate::store::{KeyCounts, Logged};

/// What of an account changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A device came or went.
    Devices,
    /// What the user allows.
    Consent,
    /// It is no more.
    Withdrawn,
    /// A device has few one-time keys left.
    PrekeysLow {
        /// Of the account.
        device: DeviceId,
        /// What it has.
        left: KeyCounts,
    },
    /// A device's push token.
    Push,
}

/// What followers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of an account.
    Record {
        /// Whom it is known by.
        address: Address,
        /// Whose it is.
        account: AccountId,
        /// What changed.
        what: What,
    },
    /// Of a provider: settings, status, or that it is there.
    Provider {
        /// Its domain.
        domain: Domain,
    },
    /// Other keys of a provider were fetched: of interest to other key-directories, not to followers of records.
    TokenKeys {
        /// Its domain.
        domain: Domain,
    },
}

/// Tells followers of changes, and callers when these count.
#[derive(Clone)]
pub(crate) struct Changes {
    followers: Followers,
    /// `None`: this directory has its store for itself.
    shared: Option<Arc<Waiting>>,
}

impl Changes {
    /// Of a directory that has its store for itself. `queue` is how many changes a follower may leave unacknowledged.
    pub(crate) fn alone(lease: Duration, queue: usize, closing: CancellationToken) -> Self {
        Self { followers: Followers::alone(lease, queue, closing), shared: None }
    }

    /// Of one of several directories: `peers` reads the log of changes and tells `followers` of them.
    pub(crate) const fn shared(followers: Followers, waiting: Arc<Waiting>) -> Self {
        Self { followers, shared: Some(waiting) }
    }

    /// Tells every follower of what the store has committed. Confirmed when all of it is, or, if it is nothing, when
    /// everything is that was committed before: what a caller repeats may have happened the first time.
    pub(crate) fn publish_all(&self, logged: &Logged) -> Published {
        let Some(waiting) = &self.shared else {
            for change in &logged.changes {
                self.followers.publish_next(change);
            }
            return Published(Confirmation::Alone(self.followers.clone(), self.followers.last_number()));
        };
        Published(Confirmation::Shared(waiting.wait_for(logged.number)))
    }

    /// A new follower, which has cached nothing yet.
    ///
    /// # Errors
    /// [`Cut::Anew`] while no follower could be told anything.
    pub(crate) fn follow(&self) -> Result<Following, Cut> {
        self.followers.follow()
    }
}

/// Changes that followers are being told of.
#[must_use = "a change counts once it is confirmed; drop it only if nobody relies on it"]
pub(crate) struct Published(Confirmation);

enum Confirmation {
    Alone(Followers, u64),
    Shared(waiting::Confirmed),
}

impl Published {
    /// Resolves when no follower can act on what was before; never, if this directory ends before it knows.
    pub(crate) async fn confirm(self) {
        match self.0 {
            Confirmation::Alone(followers, number) => followers.settle(number).await,
            Confirmation::Shared(confirmed) => confirmed.wait().await,
        }
    }
}
