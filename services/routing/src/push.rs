//! Webhooks that wake devices.

use causeway_identity::{AccountId, DeviceId, Domain};
use causeway_runtime::clock::SharedClock;
use tokio_util::sync::CancellationToken;

use crate::config::RoutingConfig;
use crate::error::RoutingError;
use crate::metrics::Metrics;
use crate::records::Records;

#[derive(Clone)]
pub(crate) struct Pusher {}

impl Pusher {
    pub(crate) fn new(_: &RoutingConfig, _: Records, _: SharedClock, _: Metrics) -> Result<Self, RoutingError> {
        Ok(Self {})
    }
    pub(crate) fn wake(&self, _: AccountId, _: DeviceId, _: &Domain, _: &[u8]) {}
    pub(crate) fn forget_provider(&self, _: &Domain) {}
    pub(crate) async fn run(self, stop: CancellationToken) {
        stop.cancelled().await;
    }
}
