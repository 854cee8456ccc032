//! A directory that serves in this process, spoken to by the generated clients only.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use causeway_fetch::FetchConfig;
use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::accounts_client::AccountsClient;
use causeway_proto::directory::v1::consent_client::ConsentClient;
use causeway_proto::directory::v1::followed_message::Change;
use causeway_proto::directory::v1::prekeys_client::PrekeysClient;
use causeway_proto::directory::v1::providers_client::ProvidersClient;
use causeway_proto::directory::v1::records_client::RecordsClient;
use causeway_proto::directory::v1::token_keys_client::TokenKeysClient;
use causeway_proto::wire::v1 as wire;
use causeway_runtime::clock::{ManualClock, SharedClock};
use causeway_runtime::grpc::Channel;
use causeway_runtime::grpc::{self, Endpoints};
use causeway_runtime::lifecycle::{Ended, Lifecycle};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};

use super::{Phone, TestProvider};
use crate::{DirectoryConfig, KeyDirectory};

const START_MS: u64 = 1_750_000_000_000;

pub(crate) fn config_in(folder: &Path) -> DirectoryConfig {
    DirectoryConfig {
        data_dir: folder.join("directory"),
        operator_token_file: folder.join("operator-token"),
        fetch: FetchConfig { allow_loopback_http: true, ..FetchConfig::default() },
        // Most tests are not about limits.
        claim_burst: 10_000,
        claim_provider_burst: 10_000,
        claim_target_burst: 10_000,
        publish_burst: 10_000,
        settings_burst: 10_000,
        enlist_burst: 10_000,
        ..DirectoryConfig::default()
    }
}

pub(crate) struct Deployment {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) config: DirectoryConfig,
    folder: TempDir,
    life: Lifecycle,
    internal: Channel,
    operator: Channel,
    token: String,
}

impl Deployment {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut DirectoryConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config_in(folder.path());
        change(&mut config);
        Self::open(folder, config, ManualClock::at_ms(START_MS)).await
    }

    async fn open(folder: TempDir, config: DirectoryConfig, clock: Arc<ManualClock>) -> Self {
        let life = Lifecycle::new();
        let directory =
            KeyDirectory::build(config.clone(), Arc::clone(&clock) as SharedClock).await.expect("the directory builds");
        let internal = grpc::in_process(directory.internal_router(), &life);
        let operator = grpc::in_process(directory.operator_router(Endpoints::fixed([])), &life);
        life.spawn_vital("directory", directory.serve(life.clone()));
        let token = std::fs::read_to_string(&config.operator_token_file).unwrap().trim().to_owned();
        Self { clock, config, folder, life, internal, operator, token }
    }

    /// Stops it, clients and all, and starts it anew on the same files.
    pub(crate) async fn restart(self) -> Self {
        let Self { clock, config, folder, life, internal, operator, .. } = self;
        drop((internal, operator));
        assert_eq!(life.finish(Duration::from_secs(10)).await, Ended::Clean);
        Self::open(folder, config, clock).await
    }

    /// Stops it while clients hold their channels.
    pub(crate) async fn stop(&self) -> Ended {
        self.stop_within(Duration::from_secs(10)).await
    }

    pub(crate) async fn stop_within(&self, grace: Duration) -> Ended {
        self.life.finish(grace).await
    }

    pub(crate) fn accounts(&self) -> AccountsClient<Channel> {
        AccountsClient::new(self.internal.clone())
    }

    pub(crate) fn prekeys(&self) -> PrekeysClient<Channel> {
        PrekeysClient::new(self.internal.clone())
    }

    pub(crate) fn consent(&self) -> ConsentClient<Channel> {
        ConsentClient::new(self.internal.clone())
    }

    pub(crate) fn records(&self) -> RecordsClient<Channel> {
        RecordsClient::new(self.internal.clone())
    }

    pub(crate) fn token_keys(&self) -> TokenKeysClient<Channel> {
        TokenKeysClient::new(self.internal.clone())
    }

    pub(crate) fn providers(&self) -> ProvidersClient<Channel> {
        ProvidersClient::new(self.operator.clone())
    }

    pub(crate) fn operator_channel(&self) -> Channel {
        self.operator.clone()
    }

    /// A request with the operator token.
    pub(crate) fn as_operator<T>(&self, message: T) -> Request<T> {
        let mut request = grpc::call(message);
        let header: MetadataValue<_> = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        request
    }

    pub(crate) async fn register(
        &self,
        provider: &TestProvider,
        kind: wire::ProviderKind,
    ) -> Result<pb::Provider, Status> {
        let settings = Some(provider.settings(kind));
        let answer = self.providers().register(self.as_operator(pb::RegisterProvider { settings })).await;
        answer.map(tonic::Response::into_inner)
    }

    pub(crate) async fn set_status(&self, domain: &str, status: pb::ProviderStatus) -> Result<pb::Provider, Status> {
        let message = pb::SetProviderStatus { domain: domain.to_owned(), status: status.into() };
        self.providers().set_status(self.as_operator(message)).await.map(tonic::Response::into_inner)
    }

    /// A registered home provider and a registered third party, on one server each.
    pub(crate) async fn two_providers(&self) -> (pb::Provider, pb::Provider) {
        let home = TestProvider::start("home.example").await;
        let birdy = TestProvider::start("birdy.example").await;
        (
            self.register(&home, wire::ProviderKind::Home).await.unwrap(),
            self.register(&birdy, wire::ProviderKind::ThirdParty).await.unwrap(),
        )
    }

    pub(crate) async fn enlist(
        &self,
        provider: &pb::Provider,
        local: &str,
        phone: &Phone,
        keys: wire::Enlist,
    ) -> Result<wire::Enlisted, pb::Refusal> {
        let request = pb::EnlistRequest {
            address: format!("{local}@{}", provider.settings.as_ref().unwrap().domain),
            provider_id: provider.id.clone(),
            noise_key: phone.noise_key.clone(),
            enlist: Some(keys),
        };
        let answer = self.accounts().enlist(grpc::call(request)).await.expect("the call is answered").into_inner();
        match answer.outcome.unwrap() {
            pb::enlist_response::Outcome::Enlisted(enlisted) => Ok(enlisted),
            pb::enlist_response::Outcome::Refused(refusal) => Err(refusal),
        }
    }

    /// Enlists a phone with this many one-time keys and turns interop on.
    pub(crate) async fn join(
        &self,
        provider: &pb::Provider,
        local: &str,
        ec: u32,
        kyber: u32,
    ) -> (wire::Enlisted, Phone) {
        let phone = Phone::new();
        let enlisted = self.enlist(provider, local, &phone, phone.enlist(ec, kyber)).await.expect("is enlisted");
        self.set_consent(&enlisted, |_| {}).await.expect("consent is set");
        (enlisted, phone)
    }

    /// Interop on, everything else default but for `change`.
    pub(crate) async fn set_consent(
        &self,
        by: &wire::Enlisted,
        change: impl FnOnce(&mut wire::ConsentSettings),
    ) -> Result<wire::ConsentSettings, pb::Refusal> {
        let mut settings = wire::ConsentSettings {
            interop: true,
            providers: Vec::new(),
            inbox: wire::InboxSetting::Separate.into(),
            reach: wire::Reach::Everyone.into(),
        };
        change(&mut settings);
        let request = pb::SetConsentRequest {
            account_id: by.account_id.clone(),
            settings: Some(settings),
            from_device_id: by.device_id,
        };
        let answer = self.consent().set(grpc::call(request)).await.expect("the call is answered").into_inner();
        match answer.outcome.unwrap() {
            pb::consent_response::Outcome::Settings(settings) => Ok(settings),
            pb::consent_response::Outcome::Refused(refusal) => Err(refusal),
        }
    }

    pub(crate) async fn discover(&self, from: &wire::Enlisted, address: &str) -> Option<pb::Refusal> {
        let request = pb::DiscoverRequest {
            from_account_id: from.account_id.clone(),
            address: address.to_owned(),
            from_device_id: from.device_id,
        };
        refusal(self.accounts().discover(grpc::call(request)).await.expect("the call is answered").into_inner())
    }

    pub(crate) async fn claim(&self, from: &wire::Enlisted, address: &str) -> Result<wire::KeyBundles, pb::Refusal> {
        self.claim_devices(from, address, &[]).await
    }

    pub(crate) async fn claim_devices(
        &self,
        from: &wire::Enlisted,
        address: &str,
        devices: &[u32],
    ) -> Result<wire::KeyBundles, pb::Refusal> {
        let request = pb::ClaimRequest {
            from_account_id: from.account_id.clone(),
            from_device_id: from.device_id,
            address: address.to_owned(),
            devices: devices.to_vec(),
        };
        let answer = self.prekeys().claim(grpc::call(request)).await.expect("the call is answered").into_inner();
        match answer.outcome.unwrap() {
            pb::claim_response::Outcome::Bundles(bundles) => Ok(bundles),
            pb::claim_response::Outcome::Refused(refusal) => Err(refusal),
        }
    }

    pub(crate) async fn publish(
        &self,
        of: &wire::Enlisted,
        keys: wire::KeysPublish,
    ) -> Result<(u32, u32), pb::Refusal> {
        let request =
            pb::PublishRequest { account_id: of.account_id.clone(), device_id: of.device_id, keys: Some(keys) };
        counts(self.prekeys().publish(grpc::call(request)).await.expect("the call is answered").into_inner())
    }

    pub(crate) async fn count(&self, of: &wire::Enlisted) -> Result<(u32, u32), pb::Refusal> {
        let request = pb::DeviceRef { account_id: of.account_id.clone(), device_id: of.device_id };
        counts(self.prekeys().count(grpc::call(request)).await.expect("the call is answered").into_inner())
    }

    pub(crate) async fn record(&self, address: &str) -> Option<pb::Record> {
        let request = pb::GetRecord { address: address.to_owned() };
        self.records().get(grpc::call(request)).await.expect("the call is answered").into_inner().record
    }

    /// A follower that has a lease, which needs a ping among several directories.
    pub(crate) async fn follow_with_pings(&self) -> Follower {
        let mut follower = self.follow().await;
        follower.say(0, 1).await;
        loop {
            match follower.next().await.expect("the stream goes on").change.unwrap() {
                Change::Lease(lease) if lease.lease_ms > 0 && lease.pong == 1 => return follower,
                Change::Lease(_) => {}
                other => panic!("expected a lease, got {other:?}"),
            }
        }
    }

    pub(crate) async fn follow(&self) -> Follower {
        let (speak, messages) = mpsc::channel(64);
        let heard = self.records().follow(ReceiverStream::new(messages)).await.expect("follows").into_inner();
        let mut follower = Follower { speak: Some(speak), heard };
        assert!(matches!(follower.next().await.unwrap().change, Some(Change::Lease(_))), "a lease comes first");
        follower
    }
}

/// A routing's end of the Follow stream.
pub(crate) struct Follower {
    speak: Option<mpsc::Sender<pb::FollowerMessage>>,
    heard: Streaming<pb::FollowedMessage>,
}

impl Follower {
    pub(crate) async fn next(&mut self) -> Result<pb::FollowedMessage, Status> {
        self.heard.message().await?.ok_or_else(|| Status::aborted("the stream has ended"))
    }

    /// The next message that is no lease.
    pub(crate) async fn next_change(&mut self) -> (u64, Change) {
        loop {
            let message = self.next().await.expect("the stream goes on");
            match message.change.unwrap() {
                Change::Lease(_) => {}
                change => return (message.number, change),
            }
        }
    }

    pub(crate) async fn next_record(&mut self) -> (u64, pb::RecordChanged) {
        match self.next_change().await {
            (number, Change::Record(record)) => (number, record),
            other => panic!("expected a record, got {other:?}"),
        }
    }

    pub(crate) async fn say(&self, acked: u64, ping: u64) {
        let message = pb::FollowerMessage { acked, ping };
        self.speak.as_ref().expect("still speaks").send(message).await.expect("the stream lives");
    }

    /// Acknowledges everything as it comes, from now on, until the stream ends.
    pub(crate) fn keep_up(mut self) {
        tokio::spawn(async move {
            while let Ok(message) = self.next().await {
                if message.number > 0 {
                    self.say(message.number, 0).await;
                }
            }
        });
    }
}

fn counts(response: pb::KeyCountsResponse) -> Result<(u32, u32), pb::Refusal> {
    match response.outcome.unwrap() {
        pb::key_counts_response::Outcome::Counts(counts) => Ok((counts.ec, counts.kyber)),
        pb::key_counts_response::Outcome::Refused(refusal) => Err(refusal),
    }
}

pub(crate) fn refusal(response: pb::DoneResponse) -> Option<pb::Refusal> {
    match response.outcome.unwrap() {
        pb::done_response::Outcome::Done(_) => None,
        pb::done_response::Outcome::Refused(refusal) => Some(refusal),
    }
}

pub(crate) fn error_of<T: std::fmt::Debug>(outcome: Result<T, pb::Refusal>) -> wire::ErrorCode {
    outcome.expect_err("must be refused").code()
}
