//! Keys of others: asking the directory for them, and opening sessions with what it hands out.

use std::sync::Arc;

use causeway_identity::{Address, DeviceId};
use causeway_stanza::{DeviceIds, ErrorCode, KeyBundles, KeysClaim, Rejection, RequestBody, ResponseBody};
use tokio::time::Instant;

use super::Engine;
use super::lanes::{Claim, pause};
use super::requests::Then;
use crate::error::ClientError;
use crate::event::{IdentityChanged, RejectReason};
use crate::signal::{Bundle, SignalError};
use crate::store::{InboxItem, Peer, PeerDevice, SignalAddress};

/// Claims that may fail in a row before what waits for them is given up.
const MAX_FAILED_CLAIMS: u32 = 8;

impl Engine {
    /// Asks for the keys that a lane needs.
    pub(super) fn claim(&mut self, address: &Address) {
        let Some(lane) = self.outbox.lane(address) else { return };
        let devices: Vec<_> = match std::mem::take(&mut lane.claim) {
            Claim::Nobody => return,
            Claim::All => Vec::new(),
            Claim::Devices(devices) => devices.into_iter().collect(),
        };
        let Ok(named) = DeviceIds::try_from(devices.clone()) else { return };
        lane.claiming = true;
        let claim = KeysClaim { address: address.clone(), devices: named };
        self.ask(RequestBody::KeysClaim(claim), Then::Claim(address.clone(), devices));
    }

    /// The directory's answer; `asked` is empty when all devices were.
    pub(super) async fn claimed(
        &mut self,
        address: &Address,
        asked: &[DeviceId],
        answer: Result<ResponseBody, ClientError>,
    ) -> Result<(), SignalError> {
        if let Some(lane) = self.outbox.lane(address) {
            lane.claiming = false;
        }
        match answer {
            Ok(ResponseBody::KeyBundles(bundles)) => {
                if let Some(lane) = self.outbox.lane(address) {
                    lane.failures = 0;
                }
                self.take_bundles(address, asked, bundles).await
            }
            Err(ClientError::Refused { code: ErrorCode::NotAvailable, .. }) => {
                self.finish_lane(address, RejectReason::Server(Rejection::NotAvailable)).await
            }
            Err(ClientError::Refused { retry_after, .. }) => {
                let wait = retry_after.map_or(30_000, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                self.claim_failed(address, asked, wait.max(1000)).await
            }
            Ok(_) | Err(_) => self.claim_failed(address, asked, 1000).await,
        }
    }

    async fn claim_failed(&mut self, address: &Address, asked: &[DeviceId], wait_ms: u64) -> Result<(), SignalError> {
        let Some(lane) = self.outbox.lane(address) else { return Ok(()) };
        lane.failures += 1;
        if lane.failures > MAX_FAILED_CLAIMS {
            return self.finish_lane(address, RejectReason::Server(Rejection::RateLimited)).await;
        }
        lane.not_before = Some(Instant::now() + pause(wait_ms));
        if asked.is_empty() {
            lane.claim = Claim::All;
        }
        asked.iter().for_each(|device| lane.claim.add(*device));
        Ok(())
    }

    async fn take_bundles(
        &mut self,
        address: &Address,
        asked: &[DeviceId],
        claimed: KeyBundles,
    ) -> Result<(), SignalError> {
        let account = claimed.account;
        let known = self.peer(address).await?;
        let moved = known.as_ref().is_some_and(|peer| peer.account != account);
        if moved {
            let change = IdentityChanged { address: address.clone(), device: None };
            self.put_inbox(InboxItem::IdentityChanged(change));
        }
        let known = known.filter(|_| !moved).and_then(|peer| peer.devices);
        let before: Option<Vec<_>> = known.as_ref().map(|devices| devices.iter().map(|device| device.id).collect());
        let mut devices = known.filter(|_| !asked.is_empty()).unwrap_or_default();
        // Whoever was asked for and has no keys is no device any more.
        devices.retain(|device| !asked.contains(&device.id));
        let mut keyring = self.take_keyring()?;
        let (now, store) = (self.clock.now(), Arc::clone(&self.store));
        let mut bad = None;
        for bundle in claimed.bundles.into_vec().into_iter().map(Bundle::from) {
            let with = SignalAddress { account, device: bundle.device() };
            if self.device.enlisted == Some(with) {
                continue;
            }
            match keyring.open_session(&*store, with, &bundle, now, &mut self.random).await {
                Ok(()) => {}
                Err(SignalError::Store(error)) => return Err(error.into()),
                Err(error) => bad = Some(error),
            }
            devices.retain(|device| device.id != bundle.device());
            devices.push(PeerDevice { id: bundle.device(), registration_id: bundle.registration_id() });
        }
        devices.sort_by_key(|device| device.id);
        self.put_keyring(keyring, address);
        if let Some(before) = before.filter(|_| asked.is_empty())
            && !before.iter().eq(devices.iter().map(|device| &device.id))
        {
            self.devices_changed(address, &before, devices.iter().map(|device| device.id));
        }
        if let Some(error) = bad {
            tracing::warn!(%error, "the directory handed out keys that are not acceptable");
            return self.finish_lane(address, RejectReason::BadKeys).await;
        }
        self.put_peer(Peer { address: address.clone(), account, devices: Some(devices) });
        Ok(())
    }
}
