//! Records for tests, and a directory that serves them by the real protocol.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use causeway_proto::directory::v1::followed_message::Change as Followed;
use causeway_proto::directory::v1::records_server::{Records, RecordsServer};
use causeway_proto::directory::v1::{
    FollowedMessage, FollowerMessage, GetRecord, GetWebhook, Lease, ProviderChanged, ProviderStatus, Record,
    RecordChange, RecordChanged, RecordDevice, RecordResponse, Webhook, WebhookResponse,
};
use causeway_proto::wire::v1::{ConsentSettings, InboxSetting, ProviderKind, ProviderRule, Reach};
use causeway_runtime::grpc::Channel;
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// An open account: `home.example` is home, everything else a third party; device n has registration 100 + n.
pub(crate) fn record(address: &str, account: u8, devices: &[u32]) -> Record {
    let domain = address.rsplit('@').next().unwrap();
    let kind = if domain == "home.example" { ProviderKind::Home } else { ProviderKind::ThirdParty };
    let devices = devices.iter().map(|&id| RecordDevice { id, registration_id: 100 + id, push_token: Bytes::new() });
    Record {
        account_id: Bytes::copy_from_slice(&[account; 16]),
        address: address.to_owned(),
        provider_domain: domain.to_owned(),
        provider_kind: kind.into(),
        provider_status: ProviderStatus::Live.into(),
        devices: devices.collect(),
        consent: Some(ConsentSettings {
            interop: true,
            providers: Vec::new(),
            inbox: InboxSetting::Separate.into(),
            reach: Reach::Everyone.into(),
        }),
    }
}

/// A directory for tests.
#[derive(Clone)]
pub(crate) struct FakeDirectory(Arc<Inner>);

struct Inner {
    records: Mutex<HashMap<String, Record>>,
    webhook: Mutex<Option<Webhook>>,
    followers: Mutex<Vec<mpsc::Sender<Result<FollowedMessage, Status>>>>,
    numbers: watch::Sender<u64>,
    acked: watch::Sender<u64>,
    following: watch::Sender<bool>,
    gets: watch::Sender<u64>,
    refused: watch::Sender<u64>,
    /// While false, `Get` answers `UNAVAILABLE` and streams are refused.
    up: watch::Sender<bool>,
    lease_ms: u32,
}

impl FakeDirectory {
    pub(crate) fn new() -> Self {
        Self::with_lease(10_000)
    }

    pub(crate) fn with_lease(lease_ms: u32) -> Self {
        Self(Arc::new(Inner {
            records: Mutex::default(),
            webhook: Mutex::default(),
            followers: Mutex::default(),
            numbers: watch::Sender::new(0),
            acked: watch::Sender::new(0),
            following: watch::Sender::new(false),
            gets: watch::Sender::new(0),
            refused: watch::Sender::new(0),
            up: watch::Sender::new(true),
            lease_ms,
        }))
    }

    /// A channel to it.
    pub(crate) fn channel(&self, life: &causeway_runtime::lifecycle::Lifecycle) -> Channel {
        let router = causeway_runtime::grpc::server().add_service(RecordsServer::new(self.clone()));
        causeway_runtime::grpc::in_process(router, life)
    }

    /// Enters or replaces a record without telling anybody.
    pub(crate) fn enter(&self, record: Record) {
        self.0.records.lock().unwrap().insert(record.address.clone(), record);
    }

    /// Changes a record, tells followers, and returns when all have acknowledged.
    pub(crate) async fn change(&self, address: &str, what: RecordChange, edit: impl FnOnce(&mut Record)) {
        let number = self.change_unconfirmed(address, what, edit).await;
        self.confirmed(number).await;
    }

    /// Changes a record and tells followers.
    pub(crate) async fn change_unconfirmed(
        &self,
        address: &str,
        what: RecordChange,
        edit: impl FnOnce(&mut Record),
    ) -> u64 {
        let account_id = {
            let mut records = self.0.records.lock().unwrap();
            let record = records.get_mut(address).unwrap();
            edit(record);
            record.account_id.clone()
        };
        self.tell(address, account_id, what).await
    }

    /// Tells followers that something of a provider changed, and returns when all have acknowledged.
    pub(crate) async fn change_provider(&self, domain: &str) {
        let changed = ProviderChanged { domain: domain.to_owned() };
        let number = self.send(Followed::Provider(changed)).await;
        self.confirmed(number).await;
    }

    /// Removes a record and tells followers.
    pub(crate) async fn withdraw(&self, address: &str) {
        let removed = self.0.records.lock().unwrap().remove(address).unwrap();
        let number = self.tell(address, removed.account_id, RecordChange::Withdrawn).await;
        self.confirmed(number).await;
    }

    async fn tell(&self, address: &str, account_id: Bytes, what: RecordChange) -> u64 {
        let change =
            RecordChanged { address: address.to_owned(), account_id, what: what.into(), device_id: 1, ec: 3, kyber: 4 };
        self.send(Followed::Record(change)).await
    }

    async fn send(&self, change: Followed) -> u64 {
        let mut number = 0;
        self.0.numbers.send_modify(|last| {
            *last += 1;
            number = *last;
        });
        let followers = self.0.followers.lock().unwrap().clone();
        for follower in followers {
            let message = FollowedMessage { number, change: Some(change.clone()) };
            let _gone = follower.send(Ok(message)).await;
        }
        number
    }

    pub(crate) async fn confirmed(&self, number: u64) {
        self.0.acked.subscribe().wait_for(|acked| *acked >= number).await.unwrap();
    }

    /// Resolves when somebody follows and has a lease.
    pub(crate) async fn followed(&self) {
        self.0.following.subscribe().wait_for(|following| *following).await.unwrap();
    }

    /// How many records have been asked for.
    pub(crate) fn gets(&self) -> u64 {
        *self.0.gets.borrow()
    }

    /// How many calls it has refused.
    pub(crate) fn refused(&self) -> u64 {
        *self.0.refused.borrow()
    }

    /// Resolves when it has refused so many calls.
    pub(crate) async fn was_refused(&self, at_least: u64) {
        self.0.refused.subscribe().wait_for(|refused| *refused >= at_least).await.unwrap();
    }

    /// Resolves when a follower has lost its stream and tried again in vain: it trusts nothing then.
    pub(crate) async fn lost_by_follower(&self) {
        self.was_refused(self.refused() + 1).await;
    }

    /// Cuts all streams.
    pub(crate) fn cut_streams(&self) {
        self.0.followers.lock().unwrap().clear();
        self.0.following.send_replace(false);
    }

    /// Answers, or does not.
    pub(crate) fn set_up(&self, up: bool) {
        self.0.up.send_replace(up);
        if !up {
            self.cut_streams();
        }
    }

    pub(crate) fn set_webhook(&self, url: &str, secret: &str, hosts: &[&str]) {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        *self.0.webhook.lock().unwrap() = Some(Webhook { url: url.to_owned(), secret: secret.to_owned(), hosts });
    }

    fn check_up(&self) -> Result<(), Status> {
        if *self.0.up.borrow() {
            return Ok(());
        }
        self.0.refused.send_modify(|refused| *refused += 1);
        Err(Status::unavailable("for the test"))
    }
}

/// Closes `record` towards a provider.
pub(crate) fn deny(record: &mut Record, provider: &str) {
    let consent = record.consent.as_mut().unwrap();
    consent.providers.push(ProviderRule { provider: provider.to_owned(), allow: false });
}

#[tonic::async_trait]
impl Records for FakeDirectory {
    async fn get(&self, request: Request<GetRecord>) -> Result<Response<RecordResponse>, Status> {
        self.check_up()?;
        let record = self.0.records.lock().unwrap().get(&request.get_ref().address).cloned();
        self.0.gets.send_modify(|gets| *gets += 1);
        Ok(Response::new(RecordResponse { record }))
    }

    type FollowStream = Pin<Box<dyn Stream<Item = Result<FollowedMessage, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<FollowerMessage>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        self.check_up()?;
        let (messages, stream) = mpsc::channel(64);
        self.0.followers.lock().unwrap().push(messages.clone());
        // Not the map's clone: when that is cleared, the stream must end.
        let lease = messages.downgrade();
        drop(messages);
        let (this, mut acks) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(message)) = acks.next().await {
                this.0.acked.send_if_modified(|acked| {
                    let newer = message.acked > *acked;
                    *acked = (*acked).max(message.acked);
                    newer
                });
                let Some(stream) = lease.upgrade() else { return };
                let renewed = Lease { lease_ms: this.0.lease_ms, pong: message.ping };
                if message.ping > 0 {
                    let message = FollowedMessage { number: 0, change: Some(Followed::Lease(renewed)) };
                    let _gone = stream.send(Ok(message)).await;
                    this.0.following.send_replace(true);
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn webhook(&self, _: Request<GetWebhook>) -> Result<Response<WebhookResponse>, Status> {
        self.check_up()?;
        Ok(Response::new(WebhookResponse { webhook: self.0.webhook.lock().unwrap().clone() }))
    }
}

/// A wait that no working part needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
