//! This device's own keys and devices: enlistment, prekeys on the server, the list of the user's devices.

use std::time::Duration;

use causeway_identity::DeviceId;
use causeway_stanza::{Device, ErrorCode, KeyCounts, RequestBody, ResponseBody, Success};
use tokio::time::Instant;

use super::requests::Then;
use super::{Engine, Reply};
use crate::error::ClientError;
use crate::signal::{self, BATCH, Published, SignalError};
use crate::store::{Change, Peer, PeerDevice, SignalAddress};

/// Pause after the server refused to take prekeys.
const REFUSED_PAUSE: Duration = Duration::from_secs(3600);

/// Pause after it did not answer, or not in kind.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// What is to be done about prekeys.
#[derive(Debug, Default)]
pub(super) struct KeyWork {
    /// Prekeys were made that the server does not have.
    publish: bool,
    /// Not before this.
    not_before: Option<Instant>,
}

impl Engine {
    /// The application wants this device to be enlisted.
    pub(super) async fn enlist(&mut self, reply: Reply<DeviceId>) -> Result<(), SignalError> {
        if let Some(own) = self.device.enlisted {
            self.turn.reply(move || drop(reply.send(Ok(own.device))));
            return Ok(());
        }
        let Err(reply) = self.join_enlistment(reply) else { return Ok(()) };
        let prekeys = self.store.unpublished_prekeys().await?;
        let (enlist, published) = signal::enlistment(&self.device, &prekeys)?;
        self.ask(RequestBody::Enlist(enlist), Then::Enlist(vec![reply], published));
        Ok(())
    }

    pub(super) fn enlisted(
        &mut self,
        replies: Vec<Reply<DeviceId>>,
        published: Published,
        answer: Result<ResponseBody, ClientError>,
    ) {
        let outcome = match answer {
            Ok(ResponseBody::Enlisted(enlisted)) => {
                self.device.enlisted = Some(SignalAddress { account: enlisted.account, device: enlisted.device });
                self.turn.changes.push(Change::PutDevice(Box::new(self.device.clone())));
                self.turn.changes.push(Change::PublishedPrekeys(published));
                self.refresh_own_devices();
                Ok(enlisted.device)
            }
            Ok(_) => Err(ClientError::Protocol),
            Err(error) => Err(error),
        };
        let status = self.status.clone();
        self.turn.reply(move || {
            if let Ok(device) = outcome {
                status.send_modify(|status| status.device = Some(device));
            }
            let mut outcome = Some(outcome);
            for reply in replies {
                // The first caller gets the error itself, the others are few and get a general one.
                let answer = match &outcome {
                    Some(Ok(device)) => Ok(*device),
                    Some(Err(_)) => outcome.take().unwrap_or(Err(ClientError::Protocol)),
                    None => Err(ClientError::Timeout),
                };
                drop(reply.send(answer));
            }
        });
    }

    /// A session is open: are there enough keys on the server, young enough, and which devices has the user?
    pub(super) async fn check_keys(&mut self, success: &Success) -> Result<(), SignalError> {
        let Some(own) = self.device.enlisted else { return Ok(()) };
        if success.prekeys_low {
            self.count_keys();
        }
        self.key_work.publish = !self.store.unpublished_prekeys().await?.is_empty();
        self.key_work.not_before = None;
        self.rotate_keys().await?;
        let known = self.peer(&self.config.address.clone()).await?.filter(|peer| peer.account == own.account);
        let known = known.and_then(|peer| peer.devices).map(|devices| devices.len());
        let others = usize::try_from(success.device_count).unwrap_or(usize::MAX).saturating_sub(1);
        if others == 0 {
            self.put_own_devices(Vec::new());
        } else if known != Some(others) {
            self.refresh_own_devices();
        }
        Ok(())
    }

    /// Asks how many keys the server has.
    pub(super) fn count_keys(&mut self) {
        if self.device.enlisted.is_some() && !self.requests.has(|then| matches!(then, Then::Count)) {
            self.ask(RequestBody::KeysCount, Then::Count);
        }
    }

    /// Makes as many one-time keys as the server lacks.
    pub(super) fn top_up(&mut self, counts: KeyCounts) -> Result<(), SignalError> {
        if self.key_work.publish {
            return Ok(()); // What waits to be published comes first; the server will say if that is not enough.
        }
        let missing = |count: u32| BATCH.saturating_sub(usize::try_from(count).unwrap_or(BATCH));
        let (ec, kyber) = (missing(counts.ec), missing(counts.kyber));
        if ec + kyber > 0 {
            let keys = signal::one_time_keys(&mut self.device, ec, kyber, self.clock.now(), &mut self.random)?;
            self.put_prekeys(keys);
        }
        Ok(())
    }

    /// Replaces signed prekeys that have served long enough.
    pub(super) async fn rotate_keys(&mut self) -> Result<(), SignalError> {
        let Some(made_ms) = self.store.signed_prekey_made_ms().await? else { return Ok(()) };
        let age = Duration::from_millis(self.now_ms().saturating_sub(made_ms));
        if self.device.enlisted.is_some() && age >= self.config.timing.prekey_rotation && !self.key_work.publish {
            let keys = signal::signed_keys(&mut self.device, self.clock.now(), &mut self.random)?;
            self.put_prekeys(keys);
        }
        Ok(())
    }

    fn put_prekeys(&mut self, keys: Vec<crate::store::Prekey>) {
        self.turn.changes.push(Change::PutDevice(Box::new(self.device.clone())));
        self.turn.changes.extend(keys.into_iter().map(Change::PutPrekey));
        self.key_work.publish = true;
    }

    /// Publishes what the server does not have. Called between turns: the keys must be on disk first.
    pub(super) async fn publish_keys(&mut self) -> Result<(), SignalError> {
        let due = self.key_work.publish && self.key_work.not_before.is_none_or(|at| at <= Instant::now());
        if !due
            || self.session.is_none()
            || self.device.enlisted.is_none()
            || self.requests.has(|then| matches!(then, Then::Publish(_)))
        {
            return Ok(());
        }
        let keys = self.store.unpublished_prekeys().await?;
        if keys.is_empty() {
            self.key_work.publish = false;
            return Ok(());
        }
        let (publish, published) = signal::publication(&self.device, &keys)?;
        self.ask(RequestBody::KeysPublish(publish), Then::Publish(published));
        Ok(())
    }

    pub(super) fn published(&mut self, published: Published, answer: &Result<ResponseBody, ClientError>) {
        match answer {
            Ok(ResponseBody::KeyCounts(_) | ResponseBody::Done) => {
                self.turn.changes.push(Change::PublishedPrekeys(published));
                let at_ms = self.now_ms();
                self.turn.changes.push(Change::ReplacedPrekeys { at_ms });
            }
            Err(ClientError::Refused { code, retry_after, .. }) => {
                if *code == ErrorCode::BadKeys {
                    tracing::error!("the server does not accept this device's prekeys");
                }
                let pause = retry_after.filter(|pause| !pause.is_zero()).unwrap_or(REFUSED_PAUSE);
                self.key_work.not_before = Some(Instant::now() + pause);
            }
            Ok(_) | Err(_) => self.key_work.not_before = Some(Instant::now() + RETRY_PAUSE),
        }
    }

    /// Asks for the user's devices.
    pub(super) fn refresh_own_devices(&mut self) {
        if self.device.enlisted.is_some() && !self.requests.has(|then| matches!(then, Then::OwnDevices)) {
            self.ask(RequestBody::DevicesList, Then::OwnDevices);
        }
    }

    /// The user's devices as the server has them. One that was not there before is told of: the user's own provider could
    /// have added it, and it gets a copy of everything that is sent.
    pub(super) async fn own_devices(&mut self, devices: &[Device]) -> Result<(), SignalError> {
        let Some(own) = self.device.enlisted else { return Ok(()) };
        let others = devices.iter().filter(|device| device.id != own.device);
        let others = others.map(|device| PeerDevice { id: device.id, registration_id: device.registration.get() });
        let others: Vec<PeerDevice> = others.collect();
        let address = self.config.address.clone();
        let known = self.peer(&address).await?.filter(|peer| peer.account == own.account);
        if let Some(before) = known.and_then(|peer| peer.devices) {
            let before: Vec<DeviceId> = before.iter().map(|device| device.id).collect();
            let now: Vec<DeviceId> = others.iter().map(|device| device.id).collect();
            self.report_new_devices(&address, &before, &now);
        }
        self.put_own_devices(others);
        Ok(())
    }

    fn put_own_devices(&mut self, devices: Vec<PeerDevice>) {
        if let Some(own) = self.device.enlisted {
            let address = self.config.address.clone();
            self.put_peer(Peer { address, account: own.account, devices: Some(devices) });
        }
    }
}
