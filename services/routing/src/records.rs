//! Records of accounts: key-directory's, cached only as long as key-directory vouches that none of them has changed.
//!
//! The rule: once a change has been acknowledged on the `Follow` stream, no decision is made on what was before.
//! Decisions are therefore made while [`Records::vouched`] is held, a gate that the follower closes before it
//! acknowledges. Without a valid lease nothing cached is used: each use fetches anew, by a request that starts after the
//! message to be decided has come in.

mod cache;
mod follow;
mod record;

#[cfg(test)]
pub(crate) mod fake;

use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId, Domain};
use causeway_proto::directory::v1::records_client::RecordsClient;
use causeway_proto::directory::v1::{GetRecord, GetWebhook};
use causeway_runtime::grpc;
use causeway_runtime::grpc::Channel;
use tokio::time::Instant;

use crate::metrics::Metrics;

pub(crate) use cache::{Cache, Filed, Memo, Vouched};
pub(crate) use follow::follow;
pub(crate) use record::Record;

/// A record, or `None`: nobody has the address.
pub(crate) type Found = Option<Arc<Record>>;

/// What the directory says has changed.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Devices,
    Consent,
    Withdrawn,
    PrekeysLow {
        device: Option<DeviceId>,
        ec: u32,
        kyber: u32,
    },
    Push,
    /// Something that this version does not know.
    Other,
}

/// Told of changes, after the cache has dropped the record and before the directory is told so.
pub(crate) trait Changes: Send + Sync + 'static {
    /// The record of this address changed.
    fn changed(&self, address: Address, account: Option<AccountId>, change: Change);
    /// Something of this provider changed.
    fn provider_changed(&self, provider: &Domain);
}

/// Why a record cannot be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    #[error("the directory did not answer in time")]
    Away,
    #[error("the directory sent a record that is none")]
    Broken,
}

/// Records of two accounts that have been fetched.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// They are in the cache now.
    Cached,
    /// The cache may not be used; these are good for the one decision that they were fetched for.
    Once(Found, Found),
}

/// Access to records; cheap to clone.
#[derive(Clone)]
pub(crate) struct Records {
    directory: RecordsClient<Channel>,
    cache: Arc<Cache>,
    timeout: Duration,
    metrics: Metrics,
}

impl Records {
    pub(crate) fn new(directory: Channel, cached: u64, timeout: Duration, metrics: Metrics) -> Self {
        let directory = RecordsClient::new(directory).max_decoding_message_size(grpc::MAX_MESSAGE_BYTES);
        Self { directory, cache: Arc::new(Cache::new(cached)), timeout, metrics }
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    pub(crate) fn client(&self) -> RecordsClient<Channel> {
        self.directory.clone()
    }

    /// What is known and vouched for now. To be held during one decision, which must be short and must not wait.
    pub(crate) fn vouched(&self) -> Option<Vouched<'_>> {
        self.cache.vouched()
    }

    /// Gets both records, into the cache if that may be used. While the directory does not answer it is asked again,
    /// until the configured time after `since` has passed.
    pub(crate) async fn fetch(
        &self,
        recipient: &Address,
        sender: &Address,
        since: Instant,
    ) -> Result<Fetched, Unavailable> {
        let deadline = (since + self.timeout).max(Instant::now() + LAST_CHANCE);
        let both = async {
            if recipient == sender {
                let (found, filed) = self.fetch_one(recipient).await?;
                return Ok(((found.clone(), filed), (found, filed)));
            }
            tokio::try_join!(self.fetch_one(recipient), self.fetch_one(sender))
        };
        let ((recipient, first), (sender, second)) =
            tokio::time::timeout_at(deadline, both).await.map_err(|_| Unavailable::Away)??;
        let cached = first == Filed::Cached && second == Filed::Cached;
        Ok(if cached { Fetched::Cached } else { Fetched::Once(recipient, sender) })
    }

    async fn fetch_one(&self, address: &Address) -> Result<(Found, Filed), Unavailable> {
        loop {
            let ticket = self.cache.start(address);
            let Some(found) = self.ask(address).await? else {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            };
            match self.cache.finish(address, &ticket, &found) {
                Filed::Changed => {}
                filed => return Ok((found, filed)),
            }
        }
    }

    /// Asks once; `None` when there was no answer.
    async fn ask(&self, address: &Address) -> Result<Option<Found>, Unavailable> {
        let asked = GetRecord { address: address.as_str().to_owned() };
        let record = match self.directory.clone().get(grpc::call(asked)).await {
            Ok(answer) => answer.into_inner().record,
            Err(status) => {
                tracing::debug!(code = ?status.code(), "a record could not be fetched");
                self.metrics.record_fetched("failed");
                return Ok(None);
            }
        };
        let Some(record) = record else {
            self.metrics.record_fetched("absent");
            return Ok(Some(None));
        };
        match Record::parse(record, address) {
            Ok(record) => {
                self.metrics.record_fetched("found");
                Ok(Some(Some(Arc::new(record))))
            }
            Err(field) => {
                self.metrics.record_fetched("broken");
                tracing::error!(field, "the directory sent a record that is none");
                Err(Unavailable::Broken)
            }
        }
    }

    /// Where webhooks for the devices of a provider go; `None`: nowhere.
    pub(crate) async fn webhook(
        &self,
        provider: &Domain,
    ) -> Result<Option<causeway_proto::directory::v1::Webhook>, Unavailable> {
        let asked = GetWebhook { provider_domain: provider.as_str().to_owned() };
        let answer = self.directory.clone().webhook(grpc::call(asked)).await.map_err(|_| Unavailable::Away)?;
        Ok(answer.into_inner().webhook)
    }
}

/// Between two attempts to reach the directory.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// What has waited in a queue for longer than the configured time gets this much.
const LAST_CHANCE: Duration = Duration::from_millis(100);
