//! One registration of this directory, from when the store has taken it until it is over.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{LogError, Place, ReplicaId, Task};
use crate::changes::Moment;

/// A directory that closes waits no longer for an answer of the store, and after a first one that fails for no other: whoever
/// waits for a confirmation then is not told of it, and the registration runs out by itself.
pub(super) const HURRY: Duration = Duration::from_secs(1);

/// One registration of this directory.
pub(super) struct Reign {
    pub(super) id: ReplicaId,
    /// What has been read.
    pub(super) place: Place,
    /// What has been written of what followers are done with.
    pub(super) confirmed: u64,
    /// When the last renewal that succeeded was asked for.
    pub(super) renewed: Moment,
    /// When the last reading that succeeded began.
    pub(super) read: Instant,
    /// When the others were looked at.
    pub(super) looked: Instant,
    /// Others, as they were seen first with these renewals.
    pub(super) seen: HashMap<ReplicaId, (u64, Instant)>,
    /// Tells the observer that anything may have changed.
    pub(super) catching_up: Option<Task>,
    pub(super) closing: CancellationToken,
    /// The store has failed, which the log says, and not worked since.
    pub(super) troubled: bool,
}

impl Reign {
    /// Has the store asked something: it has half of the lease for it, and less time when the directory closes.
    pub(super) async fn ask<T>(
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
    pub(super) fn failed(&mut self, what: &'static str, error: &LogError) {
        if std::mem::replace(&mut self.troubled, true) {
            tracing::debug!(what, %error, "the store still does not answer");
        } else {
            tracing::warn!(what, %error, "the store does not answer; it is asked again until it does");
        }
    }

    pub(super) fn worked(&mut self) {
        if std::mem::take(&mut self.troubled) {
            tracing::info!("the store answers again");
        }
    }

    pub(super) fn is_catching_up(&self) -> bool {
        self.catching_up.as_ref().is_some_and(|task| !task.is_finished())
    }
}

/// The registration is over.
pub(super) struct Over;

pub(super) fn too_slow() -> LogError {
    LogError("the store took too long".to_owned())
}
